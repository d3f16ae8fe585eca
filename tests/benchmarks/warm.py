"""Warm starts: products of ``landscape.eigen`` from random vectors and from a neighbour's eigenvectors.

    python -m tests.benchmarks.warm [RUN ...] [-k 1 5 10] [--seeds 3] [--missed] [--json FILE]

For neighbouring checkpoints of a training run: the earlier one is searched from a random start, the later one
from a random start and from the earlier one's eigenvectors, to the same residual, which is recomputed in
float64. The *cosine* is the least between the spaces of the wanted eigenvectors: how far they have turned.
*Agree*: all eigenvalues of both searches are within their intervals of each other.

``--missed``: known spectra with an eigenvector that all the known ones are orthogonal to. How often is it
missed, and what does finding it cost, if the start has so many times the tolerance of it?
"""

from __future__ import annotations

import argparse
import copy
import json
import runpy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import landscape
from landscape.linalg.eigenpairs import eigenpairs
from landscape.linalg.lanczos import Krylov
from landscape.linalg.operator import MatrixOperator, norm
from landscape.linalg.probes import gaussian
from landscape.linalg.warm import weights
from landscape.results import EigenResult
from tests.benchmarks.peers import descending, true_residuals
from tests.benchmarks.workloads import DIGITS, Batch, MeanCrossEntropy, measured
from tests.support.models import images, resnet20, tokens, transformer
from tests.support.spectra import digits_like

__all__ = ["Figures", "compare", "missed"]

RESIDUAL = 1e-3
#: (step, the checkpoint's model, its data)
Checkpoint = tuple[int, nn.Module, list[Batch]]


def digits(kind: str) -> Iterator[Checkpoint]:
    """The stored checkpoints of the digits example, epochs about doubling."""
    batch = runpy.run_path(str(DIGITS / "problem.py"))["data"]()
    for path in sorted((DIGITS / "runs").glob(f"mlp-{kind}-epoch*.pt")):
        model = landscape.load_problem(DIGITS / "landscape.toml", checkpoint=path).model
        yield int(path.stem[-3:]), model, [batch]


def training(build: Callable[[], nn.Module], batch: Batch, at: Sequence[int]) -> Iterator[Checkpoint]:
    """Adam on one batch: copies in eval mode after so many steps, with the batch's BatchNorm statistics."""
    model, (x, y), loss_fn = build().train(), batch, MeanCrossEntropy()
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step in range(max(at) + 1):
        if step in at:
            yield step, _settled(model, x), [batch]
        adam.zero_grad()
        torch.autograd.backward(loss_fn(model(x), y))
        adam.step()


def _settled(model: nn.Module, x: Tensor) -> nn.Module:
    settled = copy.deepcopy(model)
    for module in settled.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    with torch.no_grad():
        settled(x)
    return settled.eval()


def _drawn() -> torch.Generator:
    return torch.Generator().manual_seed(1)


#: The last three pairs are 1, 5 and 20 steps apart.
STEPS = (30, 31, 36, 56)
RUNS: dict[str, Callable[[], Iterator[Checkpoint]]] = {
    "digits-sgd": lambda: digits("sgd"),
    "digits-sam": lambda: digits("sam"),
    "resnet": lambda: training(resnet20, images(32, _drawn()), STEPS),
    "transformer": lambda: training(transformer, tokens(16, 64, _drawn()), STEPS),
}


@dataclass
class Figures:
    """Two neighbouring checkpoints: products for each seed, and the worst true residual of all."""

    run: str
    steps: tuple[int, int]
    k: int
    cold: list[int]
    warm: list[int]
    cold_residual: float
    warm_residual: float
    cosine: float
    agree: bool

    @property
    def ratio(self) -> float:
        return float(np.mean(self.warm) / np.mean(self.cold))

    def line(self) -> str:
        cold, warm = float(np.mean(self.cold)), float(np.mean(self.warm))
        return (
            f"{self.run:12} {self.steps[0]:>4} → {self.steps[1]:<4} {self.k:3} {cold:7.1f} {warm:7.1f} "
            f"{self.ratio:6.2f} {self.cold_residual:9.1e} {self.warm_residual:9.1e} {self.cosine:7.3f} "
            f"{'yes' if self.agree else 'NO':>6}"
        )


def search(
    model: nn.Module, data: list[Batch], k: int, seed: int, start: EigenResult | None = None
) -> tuple[EigenResult, float]:
    """(the result, its worst true residual relative to the eigenvalue)."""
    problem = landscape.Problem(model, "cross_entropy", list(data), memory=8 << 30)
    found = landscape.eigen(
        problem, k=k, tol=RESIDUAL, seed=seed, standard_errors=False, eigenvectors=True, start=start
    )
    assert found.eigenvectors is not None
    pairs = descending(found.eigenvalues, found.eigenvectors.T, found.products)
    norms = true_residuals(model, MeanCrossEntropy(), data, pairs)
    return found, float(np.max(norms / np.abs(found.eigenvalues)))


def compare(run: str, earlier: Checkpoint, later: Checkpoint, k: int, seeds: Sequence[int]) -> Figures:
    """One pair of checkpoints: every seed from a random start and from the earlier one's eigenvectors."""
    before, _ = search(*earlier[1:], k, seeds[0])
    cold = [search(*later[1:], k, seed) for seed in seeds]
    warm = [search(*later[1:], k, seed, before) for seed in seeds]
    reference = cold[0][0]
    agree = all(
        np.all(np.abs(one.eigenvalues - reference.eigenvalues) <= _width(one) + _width(reference))
        for one, _ in warm
    )
    assert before.eigenvectors is not None
    assert reference.eigenvectors is not None
    cosines = np.linalg.svd(before.eigenvectors @ reference.eigenvectors.T, compute_uv=False)
    return Figures(
        run=run,
        steps=(earlier[0], later[0]),
        k=k,
        cold=[one.products for one, _ in cold],
        warm=[one.products for one, _ in warm],
        cold_residual=max(residual for _, residual in cold),
        warm_residual=max(residual for _, residual in warm),
        cosine=float(cosines.min()),
        agree=bool(agree),
    )


def _width(result: EigenResult) -> np.ndarray:
    half: np.ndarray = np.diff(result.intervals, axis=1).ravel() / 2
    return half


class Diagonal(MatrixOperator):
    """A matrix of which only the eigenvalues matter: the starts are random."""

    def __init__(self, eigenvalues: np.ndarray) -> None:
        self.values = torch.from_numpy(eigenvalues.copy())
        self.size, self.dtype, self.device = len(eigenvalues), torch.float32, torch.device("cpu")

    def apply(self, vectors: Tensor) -> Tensor:
        return vectors.double() * self.values


def missed(
    k: int, lacks: int | None, share: float, *, size: int = 20_000, trials: int = 20
) -> dict[str, Any]:
    """How often an eigenvector is missed of which the start has ``share``·tol of what it has of a known one.

    The known ones are the top eigenvectors but number ``lacks``, each turned by 0.1 in a random direction.
    """
    eigenvalues = digits_like(size, seed=0)
    operator, products, wrong = Diagonal(eigenvalues), [], 0
    for trial in range(trials):
        rows = torch.zeros(k, size, dtype=torch.float64)
        for row, i in enumerate([i for i in range(k + 1) if i != lacks][:k]):
            turn = gaussian(size, trial, "turn", row)
            if lacks is not None:
                turn[lacks] = 0.0
            rows[row] = 0.1 * turn / norm(turn)
            rows[row, i] += 1.0
        known = torch.from_numpy(weights(k, "largest")) @ rows
        random = gaussian(size, trial, "random")
        length = share * RESIDUAL * (size / k) ** 0.5 / norm(random)
        krylov = Krylov.start(operator, known / norm(known) + length * random, 100)
        *_, (state, pairs, _) = eigenpairs(
            operator, krylov, k=k, which="largest", tol=RESIDUAL, floor=lambda _: 1e-6, fresh=torch.empty
        )
        products.append(state.steps)
        wrong += bool(np.any(np.abs(pairs.values - eigenvalues[:k]) > 0.01 * eigenvalues[:k]))
    spent = float(np.mean(products))
    return {"k": k, "lacks": lacks, "share": share, "missed": wrong / trials, "products": spent}


def main() -> None:
    parser = argparse.ArgumentParser(description="Products from random starts and from warm ones.")
    parser.add_argument("runs", nargs="*", metavar="RUN", help=", ".join(RUNS))
    parser.add_argument("-k", type=int, nargs="+", default=[1, 5, 10])
    parser.add_argument("--seeds", type=int, default=3, help="number of start vectors")
    parser.add_argument(
        "--missed", action="store_true", help="only what is missed, by the share of the start"
    )
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    if args.missed:
        for k, lacks in [(1, None), (1, 0), (5, None), (5, 0), (5, 4), (10, None), (10, 9)]:
            for share in (0, 1, 3, 10, 30, 100, 1000):
                rows.append(missed(k, lacks, share))
                print({name: value if value is None else round(value, 2) for name, value in rows[-1].items()})
    else:
        print("run           steps          k    cold    warm  ratio  true residuals     cosine  agree")
        for name in args.runs or list(RUNS):
            with measured():
                for earlier, later in pairwise(RUNS[name]()):
                    for k in args.k:
                        found = compare(name, earlier, later, k, range(args.seeds))
                        print(found.line(), flush=True)
                        rows.append({**asdict(found), "ratio": found.ratio})
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
