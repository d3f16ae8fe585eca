"""How many Krylov rows a trace takes: the formula, what it must not depend on, and how far off it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from landscape.linalg.lanczos import Krylov, tridiagonalise
from landscape.linalg.operator import MatrixOperator
from landscape.linalg.share import row_pays
from landscape.linalg.subspace import KrylovSpace
from landscape.linalg.trace import Draw, Goal, draws, krylov_trace
from tests.support.spectra import digits_like, rotated

N = 200
SPECTRA = {
    "flat": np.linspace(0.9, 1.0, N),
    "around zero": np.random.default_rng(1).standard_normal(N),
    "power law": np.arange(1.0, N + 1) ** -1.5,
    "outliers": digits_like(N, 1),
}


def rows(matrix: Tensor, goal: Goal, seed: int = 0, draw: Draw | None = None) -> list[int]:
    """Rows at each look."""
    estimator = krylov_trace(MatrixOperator(matrix), draw or draws(len(matrix), seed), goal)
    return [look.rows for look in estimator.run() if look is not None]


def variances(matrix: Tensor, seed: int, steps: int) -> np.ndarray:
    """Σ(λ − mean)² over the spectrum of PHP on the complement of 0 … ``steps`` Krylov rows, P written out."""
    n, draw = len(matrix), draws(len(matrix), seed)
    krylov = Krylov.start(MatrixOperator(matrix), draw("start", 0), steps)
    for _ in tridiagonalise(MatrixOperator(matrix), krylov, lambda i: draw("fresh", i)):
        if krylov.steps == steps:
            break
    found = []
    for m in range(steps + 1):
        project = torch.eye(n, dtype=torch.float64) - krylov.basis[:m].T @ krylov.basis[:m]
        rest = project @ matrix @ project
        found.append(float((rest**2).sum() - rest.trace() ** 2 / (n - m)))
    return np.array(found)


@pytest.mark.parametrize("name", SPECTRA)
def test_errors_are_close_to_those_of_the_best_number_of_rows(name: str) -> None:
    """The oracle knows the matrix, and takes the number of rows that is best on average.

    At most half of the products make rows, which costs up to a quarter where more of them would pay.
    """
    matrix, budget, seeds = rotated(SPECTRA[name], 2), 60, range(4)
    counts = np.arange(budget - 3)
    errors = np.array([variances(matrix, seed, budget - 4) / (budget - counts) for seed in seeds])
    chosen = [errors[seed, rows(matrix, Goal(budget), seed)[0]] for seed in seeds]
    assert (np.mean(chosen) / errors.mean(axis=0).min()) ** 0.5 < (1.25 if name == "power law" else 1.15)


def test_a_flat_spectrum_gets_next_to_no_rows() -> None:
    matrix = rotated(SPECTRA["flat"], 1)
    assert rows(matrix, Goal(12)) == [2]
    assert rows(matrix, Goal(30)) == [2]


def test_a_space_that_is_invariant_gets_no_more_rows() -> None:
    assert rows(rotated(np.ones(N), 1), Goal(60)) == [2]
    assert rows(rotated(np.concatenate([[3.0, 1.0, -1.0], np.zeros(N - 3)]), 1), Goal(60))[0] <= 8


@pytest.mark.parametrize("name", ["around zero", "outliers"])
def test_neither_scale_nor_sign_nor_a_multiple_of_the_identity_matters(name: str) -> None:
    matrix, goal = rotated(SPECTRA[name], 3), Goal(100, tol=1e-30)
    identity = torch.eye(N, dtype=torch.float64)
    for other in (1e-6 * matrix, -matrix, matrix + 2 * identity):
        assert rows(other, goal) == rows(matrix, goal)


def test_the_random_vectors_have_no_say() -> None:
    """Else the subspace would depend on them, and the intervals would be biased."""
    first, second = draws(N, 1), draws(N, 2)

    def mixed(name: str, i: int) -> Tensor:
        return (second if name == "probe" else first)(name, i)

    for spectrum in SPECTRA.values():
        matrix, goal = rotated(spectrum, 1), Goal(150, tol=1e-30)
        assert rows(matrix, goal, draw=first) == rows(matrix, goal, draw=mixed)


def test_what_a_row_adds_to_the_known_squares() -> None:
    """‖QHQᵀ‖² + 2‖PHQᵀ‖² grows by α² + 2β², and with it falls ‖PHP‖²."""
    matrix, draw = rotated(digits_like(100, 1), 1), draws(100, 0)
    krylov = Krylov.start(MatrixOperator(matrix), draw("start", 0), 20)
    space, before = KrylovSpace(krylov, draw), 0.0
    for _ in range(20):
        space.extend(matrix @ space.next_vector())
        last = krylov.relation[:, -1]
        known = float((space.projected**2).sum()) + 2 * space.leak
        assert known - before == pytest.approx(last[-2] ** 2 + 2 * last[-1] ** 2, rel=1e-9)
        project = torch.eye(100, dtype=torch.float64) - space.basis.T @ space.basis
        rest = float(((project @ matrix @ project) ** 2).sum())
        assert known + rest == pytest.approx(float((matrix**2).sum()), rel=1e-12)
        before = known


def test_by_hand() -> None:
    """H̄ with nodes ±1 of weight ½ and residuals ½, 2 apart: V = 20·½·¼·2², δ = max(1 + 2·1, 1 + 2·½)."""
    relation = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 0.5**0.5]])
    assert [row_pays(relation, 20, probes) for probes in (1, 3, 4, 100)] == [False, False, True, True]
