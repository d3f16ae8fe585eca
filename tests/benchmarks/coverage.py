"""How often the intervals of the trace estimators hold, and what they cost.

    python -m tests.benchmarks.coverage [MATRIX ...] [--methods krylov xtrace] [--digits FILE]

Each repetition is a run of the command to its end. The repetitions of a command go in step, so that a product
of all of them is one matrix product. ``digits`` wants a file with the dense float64 Hessian (n, n) of
examples/digits/mlp-sgd.pt. Commands that are not done after ``--simulated`` products in every repetition are
left out.

*Cover*: share of repetitions whose interval holds the truth; *layers*: the lowest share among the blocks.
*Rms* and *width*: root mean square error and mean half-width, relative to the trace (``near zero``: to
‖H‖_F). *Products*: mean number at the stop. A cell fails if a one-sided binomial test at 5 %, Bonferroni over
all cells and blocks, rejects that it covers 95 % (93 % at 12 products).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from scipy.special import bdtr
from torch import Tensor

from landscape.linalg.looks import Look, TraceEstimator
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
#: What a command may spend that stops by its tolerance.
LIMIT = 1000
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
    """The commands."""
    named = {f"{budget} products": Goal(budget) for budget in BUDGETS}
    for tol in TOLERANCES:
        goal = Goal(LIMIT, atol=tol * case.scale) if case.absolute else Goal(LIMIT, tol=tol)
        named[f"to {tol:.0%}"] = goal
    return named


def in_step(matrix: Tensor, estimators: Sequence[TraceEstimator], simulated: int) -> None:
    """Run them all to their ends, one matrix product for each step of all."""
    while due := [one for one in estimators if not one.done and one.products < simulated]:
        products = torch.stack([one.next_vector() for one in due]) @ matrix
        for one, product in zip(due, products, strict=True):
            one.extend(product)


def runs(
    case: Case, method: str, goal: Goal, repetitions: int, simulated: int, together: int = 100
) -> list[tuple[list[Look], bool]]:
    """The looks of each repetition, and whether it came to its end."""
    n, operator = len(case.matrix), MatrixOperator(case.matrix)
    options: dict[str, Any] = {} if method == "xtrace" else {"blocks": case.blocks}
    found = []
    for first in range(0, repetitions, together):
        batch = [
            MAKE[method](operator, draws(n, seed, method), goal, **options)
            for seed in range(first, min(first + together, repetitions))
        ]
        in_step(case.matrix, batch, simulated)
        found += [(one.looks, one.done) for one in batch]
    return found


def commands(case: Case, method: str, repetitions: int, simulated: int) -> Iterator[tuple[str, list[Look]]]:
    """What each command reports in each repetition."""
    for text, goal in goals(case).items():
        every = runs(case, method, goal, repetitions, max(simulated, goal.budget if not goal.can_stop else 0))
        if all(done for _, done in every):
            yield text, [looks[-1] for looks, _ in every]


def table(name: str, case: Case, method: str, repetitions: int, simulated: int = LIMIT) -> Iterator[Row]:
    """All commands with one method on one matrix."""
    truth = case.traces
    for text, found in commands(case, method, repetitions, simulated):
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
    parser.add_argument("--simulated", type=int, default=LIMIT)
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
            for row in table(name, cases[name], method, options.repetitions, options.simulated):
                layers = "–" if method == "xtrace" else f"{row.layers:.1%}"
                verdict = "" if row.passes(cells) else "fails"
                figures = f"{row.rms:.2%} | {row.width:.2%} | {row.products:.0f} | {row.repetitions}"
                cover = f"{row.matrix} | {row.method} | {row.command} | {row.cover:.1%} | {layers}"
                print(f"| {cover} | {figures} | {verdict} |", flush=True)


if __name__ == "__main__":
    main()
