"""How often the intervals of the trace estimators hold, and what they cost.

    python -m tests.benchmarks.coverage [MATRIX ...] [--methods krylov xtrace] [--digits FILE]

Each repetition is one run per method that looks wherever one of the commands below would have looked; what a
command would have reported follows from its own looks alone, with the risk it would have spent on each. The
repetitions of a method go in step, so that a product of all of them is one matrix product. ``digits`` wants a
file with the dense float64 Hessian (n, n) of examples/digits/mlp-sgd.pt.

*Cover*: share of repetitions whose interval holds the truth; *layers*: the lowest share among the blocks.
*Rms* and *width*: root mean square error and mean half-width, relative to the trace (``near zero``: to
‖H‖_F). *Products*: mean number at the stop. A cell fails if a one-sided binomial test at 5 %, Bonferroni over
all cells and blocks, rejects that it covers 95 % (93 % at 12 products).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from scipy.special import bdtr
from torch import Tensor

from landscape.linalg.looks import Look, Stage, TraceEstimator, quantile
from landscape.linalg.operator import MatrixOperator
from landscape.linalg.trace import METHODS, Goal, draws, hutchinson, hutchpp, krylov_trace, xtrace
from tests.support.spectra import digits_like, rotated

MAKE: dict[str, Callable[..., TraceEstimator]] = {
    "krylov": krylov_trace,
    "hutchinson": hutchinson,
    "hutch++": hutchpp,
    "xtrace": xtrace,
}
BUDGETS = (12, 30, 60, 120)
TOLERANCES = (0.1, 0.03, 0.01)
#: What a command may spend that stops by its tolerance, and what is simulated of it.
LIMIT, SIMULATED = 1000, 128
#: Disjoint blocks of the synthetic matrices; part of the coordinates belongs to none.
BLOCKS = (slice(0, 20), slice(20, 120), slice(120, 400), slice(420, 500))
DIGITS = (4096, 64, 2048, 32, 320, 10)


@dataclass(frozen=True)
class Case:
    """A matrix with its blocks, and what tolerances refer to."""

    matrix: Tensor
    blocks: tuple[slice, ...]
    scale: float
    absolute: bool = False

    @property
    def traces(self) -> np.ndarray:
        """Of the matrix and of each block."""
        diagonal = self.matrix.diagonal().numpy()
        return np.array([diagonal.sum(), *(diagonal[block].sum() for block in self.blocks)])


@dataclass(frozen=True)
class Row:
    """One cell of the table."""

    matrix: str
    method: str
    command: str
    repetitions: int
    cover: float
    layers: float
    rms: float
    width: float
    products: float
    least: float = 0.95
    intervals: int = 1

    def passes(self, cells: int) -> bool:
        """Not rejected at 5 %/cells, the blocks being cells of their own."""
        worst = round(min(self.cover, self.layers) * self.repetitions)
        return bool(bdtr(worst, self.repetitions, self.least) > 0.05 / (cells * self.intervals))


def synthetic(n: int = 500) -> dict[str, Case]:
    """Rotated matrices; ``near zero`` is indefinite with a trace of a hundredth of its norm."""
    draw = np.random.default_rng(5)
    indefinite = np.sort(draw.standard_normal(n))
    indefinite += 0.01 * np.linalg.norm(indefinite) / n - indefinite.mean()
    spectra = {
        "flat": np.linspace(0.9, 1.0, n),
        "power law": np.arange(1.0, n + 1) ** -1.5,
        "outliers": digits_like(n, 1) + 0.01,
        "near zero": indefinite,
    }
    cases = {}
    for name, values in spectra.items():
        absolute = name == "near zero"
        scale = np.linalg.norm(values) if absolute else values.sum()
        cases[name] = Case(rotated(values, 3), BLOCKS, float(scale), absolute)
    return cases


def digits(path: str) -> Case:
    """The Hessian of the digits example, its blocks the layers."""
    matrix = torch.from_numpy(np.load(path))
    edges = np.cumsum([0, *DIGITS])
    blocks = tuple(slice(int(a), int(b)) for a, b in pairwise(edges))
    return Case(matrix, blocks, float(matrix.trace()))


def goals(case: Case) -> dict[str, Goal]:
    """The commands whose intervals are looked at."""
    named = {f"{budget} products": Goal(budget) for budget in BUDGETS}
    for tol in TOLERANCES:
        goal = Goal(LIMIT, atol=tol * case.scale) if case.absolute else Goal(LIMIT, tol=tol)
        named[f"to {tol:.0%}"] = goal
    return named


def in_step(matrix: Tensor, estimators: Sequence[TraceEstimator]) -> None:
    """Run them all to their ends, one matrix product for each step of all."""
    while due := [one for one in estimators if not one.done]:
        products = torch.stack([one.next_vector() for one in due]) @ matrix
        for one, product in zip(due, products, strict=True):
            one.extend(product)


def runs(
    case: Case, method: str, plans: Sequence[Sequence[Stage]], repetitions: int, together: int = 50
) -> Iterator[dict[tuple[int, int], Look]]:
    """Looks of each repetition by (rows, probes), at all stages of the ``plans`` that are simulated."""
    n, operator = len(case.matrix), MatrixOperator(case.matrix)
    options: dict[str, Any] = {} if method == "xtrace" else {"blocks": case.blocks}
    points = sorted({(stage.rows, stage.probes) for plan in plans for stage in plan})
    for first in range(0, repetitions, together):
        batch = [
            MAKE[method](operator, draws(n, seed, method), Goal(SIMULATED), **options)
            for seed in range(first, min(first + together, repetitions))
        ]
        last = batch[0].stages[-1]
        for one in batch:
            one.stages = [Stage(*p, 0.05) for p in points if p[0] <= last.rows and p[1] <= last.probes]
        in_step(case.matrix, batch)
        yield from ({(look.rows, look.probes): look for look in one.looks} for one in batch)


def reported(looks: dict[tuple[int, int], Look], plan: Sequence[Stage], goal: Goal) -> Look | None:
    """The look at which a command would have stopped; None if that is further than was simulated."""
    for stage in plan:
        look = looks.get((stage.rows, stage.probes))
        if look is None:
            return None
        wider = quantile(look.probes, stage.risk) / quantile(look.probes, 0.05)
        look = replace(
            look, half_width=look.half_width * wider, layer_half_widths=look.layer_half_widths * wider
        )
        if goal.reached(look) or stage is plan[-1]:
            return look
    return None


def table(name: str, case: Case, method: str, repetitions: int) -> Iterator[Row]:
    """All commands with one method on one matrix."""
    commands = goals(case)
    operator, draw = MatrixOperator(case.matrix), draws(len(case.matrix), 0, method)
    plans = {text: MAKE[method](operator, draw, goal).stages for text, goal in commands.items()}
    every = list(runs(case, method, list(plans.values()), repetitions))
    truth = case.traces
    for text, goal in commands.items():
        found = [look for looks in every if (look := reported(looks, plans[text], goal)) is not None]
        if len(found) < 0.5 * repetitions:
            continue
        values = np.array([[look.trace, *look.layers] for look in found])
        widths = np.array([[look.half_width, *look.layer_half_widths] for look in found])
        errors = values - truth[: values.shape[1]]
        hits = (abs(errors) <= widths + 1e-12 * abs(truth[: values.shape[1]])).mean(axis=0)
        yield Row(
            name,
            method,
            text,
            len(found),
            hits[0],
            hits[1:].min(initial=1.0),
            float(np.sqrt((errors[:, 0] ** 2).mean()) / case.scale),
            float(widths[:, 0].mean() / case.scale),
            float(np.mean([look.products for look in found])),
            0.93 if text.startswith("12 ") else 0.95,
            len(hits),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("matrices", nargs="*")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--repetitions", type=int, default=400)
    parser.add_argument("--digits", metavar="FILE")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cases = synthetic()
    if options.digits:
        cases["digits"] = digits(options.digits)
    cells = len(cases) * len(options.methods) * (len(BUDGETS) + len(TOLERANCES))
    print("| matrix | method | command | cover % | layers % | rms % | width % | products | runs | |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in options.matrices or cases:
        for method in options.methods:
            for row in table(name, cases[name], method, options.repetitions):
                layers = "–" if method == "xtrace" else f"{row.layers:.1%}"
                verdict = "" if row.passes(cells) else "fails"
                figures = f"{row.rms:.2%} | {row.width:.2%} | {row.products:.0f} | {row.repetitions}"
                cover = f"{row.matrix} | {row.method} | {row.command} | {row.cover:.1%} | {layers}"
                print(f"| {cover} | {figures} | {verdict} |", flush=True)


if __name__ == "__main__":
    main()
