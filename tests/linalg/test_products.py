"""How many products a search takes, side by side with ARPACK from the same start vectors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import LinearOperator, eigsh

from landscape.linalg.operator import MatrixOperator, as_linear_operator
from landscape.linalg.probes import gaussian
from tests.support.search import exact_residuals, find
from tests.support.spectra import digits_like, rotated

_N, _TOL, _STARTS = 400, 1e-3, 8


def _arpack(matrix: np.ndarray, k: int, ncv: int, tol: float, start: np.ndarray) -> tuple[int, bool]:
    """(products, whether every true residual is within the tolerance)."""
    products = 0

    def multiply(vector: np.ndarray) -> np.ndarray:
        nonlocal products
        products += 1
        return matrix @ vector

    operator = LinearOperator(matrix.shape, matvec=multiply, dtype=np.float64)
    values, vectors = eigsh(operator, k, which="LA", ncv=ncv, tol=tol, v0=start)
    residuals = np.linalg.norm(matrix @ vectors - vectors * values, axis=0)
    return products, bool((residuals <= _TOL * np.abs(values)).all())


@pytest.mark.parametrize(("k", "about"), [(1, 9), (5, 14), (10, 21)])
def test_no_more_products_than_arpack_at_its_best(k: int, about: int) -> None:
    """ARPACK's basis and tolerance are chosen with hindsight, the cheapest that reach the same residual."""
    matrix = rotated(digits_like(_N, 0), 0)
    ours, starts = [], [gaussian(_N, seed, "start") for seed in range(_STARTS)]
    for start in starts:
        found = find(MatrixOperator(matrix), k, tol=_TOL, start=start)
        assert (exact_residuals(found, matrix) <= _TOL * found.values + 1e-12).all()
        ours.append(found.products)
    best = np.inf
    for ncv in range(k + 2, 3 * k + 12):
        for tol in (1e-1, 3e-2, 1e-2, 1e-3):
            runs = [_arpack(matrix.numpy(), k, ncv, tol, start.numpy()) for start in starts]
            if all(reached for _, reached in runs):
                best = min(best, float(np.mean([products for products, _ in runs])))
    assert np.mean(ours) <= best
    assert np.mean(ours) <= 1.5 * about


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_the_values_are_those_of_arpack(dtype: torch.dtype) -> None:
    matrix = rotated(digits_like(120, 3), 3)
    operator = MatrixOperator(matrix, dtype)
    values = eigsh(as_linear_operator(operator), 6, which="LA", return_eigenvectors=False, v0=np.ones(120))
    found = find(operator, 6, tol=0.0, capacity=24)
    np.testing.assert_allclose(found.values, np.sort(values)[::-1], rtol=0, atol=20 * torch.finfo(dtype).eps)


def test_a_linear_operator_takes_columns_and_blocks() -> None:
    matrix = rotated(digits_like(30, 0), 0)
    linear = as_linear_operator(MatrixOperator(matrix))
    block = np.random.default_rng(0).standard_normal((30, 4))
    np.testing.assert_allclose(linear @ block, matrix.numpy() @ block, atol=1e-13)
    np.testing.assert_allclose(linear @ block[:, 0], matrix.numpy() @ block[:, 0], atol=1e-13)
    np.testing.assert_allclose(linear @ block[:, :1], matrix.numpy() @ block[:, :1], atol=1e-13)
    np.testing.assert_allclose(linear.H @ block, matrix.numpy() @ block, atol=1e-13)
