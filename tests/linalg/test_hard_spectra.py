"""Spectra on which eigenvalue solvers go wrong, as rotated matrices: what is claimed of them holds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from landscape.linalg.eigenpairs import Which, select, wanted_count
from landscape.linalg.operator import MatrixOperator
from tests.support.search import check_claims, find
from tests.support.spectra import AsymmetricOperator, NoisyOperator, rotated

_BULK = np.linspace(0.5, -0.3, 37)

SPECTRA: dict[str, np.ndarray] = {
    "identity": np.ones(40),
    "zero": np.zeros(40),
    "minus identity": -np.ones(40),
    "rank deficient": np.concatenate([[3.0, 2.0, 1.0, -1.0], np.zeros(36)]),
    "rank one": np.concatenate([[2.0], np.zeros(39)]),
    "plus and minus": np.concatenate([np.linspace(2.0, 0.1, 20), -np.linspace(0.1, 2.0, 20)]),
    "repeated top": np.concatenate([[2.0, 2.0, 2.0], _BULK]),
    "gap 1e-3": np.concatenate([[2.0, 2.0 - 1e-3, 2.0 - 2e-3], _BULK]),
    "gap 1e-6": np.concatenate([[2.0, 2.0 - 1e-6, 2.0 - 2e-6], _BULK]),
    "gap 1e-10": np.concatenate([[2.0, 2.0 - 1e-10, 2.0 - 2e-10], _BULK]),
    "all negative": -np.geomspace(0.1, 5.0, 40),
    "tiny": np.concatenate([[3e-6, 2e-6, -2.5e-6], 1e-6 * _BULK]),
    "large": np.concatenate([[3e6, 2e6, -2.5e6], 1e6 * _BULK]),
    "n = 1": np.array([-0.7]),
    "n = 2": np.array([0.7, -0.7]),
    "n < k": np.array([2.0, 1.0, -3.0]),
    "n = k": np.array([2.0, 1.0, 1.0, -3.0]),
}
WHICH: tuple[Which, ...] = ("largest", "smallest", "both", "magnitude")
OPERATORS: dict[str, Callable[[torch.Tensor, torch.dtype], MatrixOperator]] = {
    "exact": MatrixOperator,
    "noisy": lambda matrix, dtype: NoisyOperator(matrix, 0.01, 3, dtype),
    "asymmetric": lambda matrix, dtype: AsymmetricOperator(matrix, 0.01, 3, dtype),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("arithmetic", OPERATORS)
@pytest.mark.parametrize("name", SPECTRA)
def test_what_is_claimed_holds(name: str, arithmetic: str, dtype: torch.dtype) -> None:
    eigenvalues, k = np.sort(SPECTRA[name])[::-1], 4
    matrix = rotated(eigenvalues, seed=5)
    for which in WHICH:
        wanted = wanted_count(k, which, len(eigenvalues))
        for capacity in (min(len(eigenvalues), wanted + 2), len(eigenvalues)):
            for check in (0, 6):
                operator = OPERATORS[arithmetic](matrix, dtype)
                found = find(operator, k, which, tol=1e-4, capacity=capacity, check=check, at_most=250)
                check_claims(found, matrix, eigenvalues, 1e-4, f"{which}, capacity {capacity}, check {check}")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("which", WHICH)
@pytest.mark.parametrize("name", SPECTRA)
def test_verification_finds_multiplicities(name: str, which: Which, dtype: torch.dtype) -> None:
    """All wanted eigenvalues, each as often as it is there, from a search whose basis is restarted."""
    eigenvalues, k = np.sort(SPECTRA[name])[::-1], 4
    matrix = rotated(eigenvalues, seed=6)
    capacity = min(len(eigenvalues), wanted_count(k, which, len(eigenvalues)) + 8)
    found = find(MatrixOperator(matrix, dtype), k, which, tol=1e-5, capacity=capacity, check=25)
    assert found.over
    assert found.converged.all()
    check_claims(found, matrix, eigenvalues, 1e-5)
    expected = eigenvalues[select(eigenvalues, k, which)]
    if which == "magnitude":  # ±λ are equally large: either may be chosen
        expected, values = np.sort(np.abs(expected)), np.sort(np.abs(found.values))
    else:
        values = found.values
    allowed = (found.residuals + found.floor).max() + 1e-15 * np.abs(eigenvalues).max()
    np.testing.assert_allclose(values, expected, rtol=0, atol=allowed)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize(
    ("eigenvalues", "k"),
    [
        pytest.param([5.0] * 6 + list(_BULK), 3, id="more often than k"),
        pytest.param([5.0, 4.0, 4.0, 4.0, 3.0, 2.0, *_BULK], 5, id="three times in the middle"),
        pytest.param([5.0, 5.0, 4.0, 4.0, 3.0, 3.0, *_BULK], 6, id="pairs"),
        pytest.param([5.0, 4.0, 3.0, 3.0, 3.0, 3.0, *_BULK], 4, id="cut by k"),
    ],
)
def test_multiplicity(eigenvalues: list[float], k: int, dtype: torch.dtype) -> None:
    matrix = rotated(np.array(eigenvalues), seed=2)
    found = find(MatrixOperator(matrix, dtype), k, tol=1e-4, check=10)
    assert found.over
    check_claims(found, matrix, np.array(eigenvalues), 1e-4)
    np.testing.assert_allclose(found.values, eigenvalues[:k], rtol=1e-6)


@pytest.mark.parametrize("capacity", [7, 40])
def test_no_ghosts(capacity: int) -> None:
    """Run on to the last digit, nothing appears twice that is there once."""
    eigenvalues = np.array([5.0, 3.0, 2.0, *_BULK])
    found = find(MatrixOperator(rotated(eigenvalues, 1)), 5, tol=0.0, capacity=capacity)
    assert found.converged.all()
    np.testing.assert_allclose(found.values, eigenvalues[:5], rtol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_extreme_scales(scale: float, dtype: torch.dtype) -> None:
    eigenvalues = scale * np.array([3.0, 3.0, 2.0, 1.0, *_BULK])
    matrix = rotated(eigenvalues, 4)
    found = find(MatrixOperator(matrix, dtype), 3, tol=1e-5, capacity=9, check=10)
    assert found.converged.all()
    check_claims(found, matrix, eigenvalues, 1e-5)
    np.testing.assert_allclose(found.values, eigenvalues[:3], rtol=1e-6)


def test_a_floor_is_not_undercut() -> None:
    """With 1 % noise nothing below the noise is claimed: the recurrence alone would say 1e-15."""
    eigenvalues = np.array([3.0, 2.0, 1.0, *_BULK])
    matrix = rotated(eigenvalues, 4)
    found = find(NoisyOperator(matrix, 0.01, 1), 2, tol=1e-12, check=10)
    assert (found.residuals + found.floor > 0.01).all()
    assert found.floor < 0.2
