"""The floor: what a product can be wrong by, held against products whose errors are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from landscape.linalg.lanczos import Krylov
from landscape.linalg.noise import noise_floor, repeated_error, rounding_floor
from landscape.linalg.operator import MatrixOperator, norm
from landscape.linalg.probes import derived_seed, gaussian
from tests.support.search import check_claims, find
from tests.support.spectra import NoisyOperator, digits_like, rotated


@pytest.mark.parametrize("n", [1, 2, 10, 300])
def test_errors_of_repeated_products_are_covered(n: int) -> None:
    """Fresh errors stay below the estimate, which is not much too large either."""
    matrix = rotated(np.linspace(1.0, 2.0, n), 0)
    vector = gaussian(n, 0)
    vector /= norm(vector)
    above = ratio = 0.0
    for seed in range(40):
        operator = NoisyOperator(matrix, 0.0, seed, absolute=1e-2)
        estimate = repeated_error(operator, vector)
        errors = [norm(operator.apply(vector[None])[0] - vector @ matrix) for _ in range(25)]
        above += sum(error > estimate for error in errors)
        ratio = max(ratio, estimate / 1e-2)
    assert above <= 3  # 1e-4 of 1000
    assert ratio < (8 if n < 10 else 4)


def test_a_product_that_repeats_has_no_such_error() -> None:
    vector = gaussian(9, 0)
    assert repeated_error(MatrixOperator(rotated(np.ones(9), 0)), vector / norm(vector)) == 0.0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_a_matrix_knows_its_rounding(dtype: torch.dtype) -> None:
    """Against the same product in exact rational arithmetic (float64 by compensated sums)."""
    import math

    matrix = rotated(digits_like(60, 0), 0)
    operator = MatrixOperator(matrix, dtype)
    for seed in range(5):
        vector = gaussian(60, seed)
        vector = (vector / norm(vector)).to(dtype)
        exact = [
            math.sumprod(row, vector.tolist())
            if hasattr(math, "sumprod")
            else math.fsum(a * b for a, b in zip(row, vector.tolist(), strict=True))
            for row in matrix.tolist()
        ]
        error = norm(operator.apply(vector[None])[0] - torch.tensor(exact, dtype=torch.float64))
        estimate = operator.error(vector)
        assert error <= estimate <= 1e4 * torch.finfo(dtype).eps


def test_errors_grow_with_their_products() -> None:
    """Measured on a short product, the error is carried over to the longest; without it claims would fail."""
    eigenvalues = np.concatenate([[1.0], np.random.default_rng(0).normal(0, 0.05, 1999)])
    matrix = torch.from_numpy(np.diag(eigenvalues))
    found = find(NoisyOperator(matrix, 0.01, 1), 1, tol=1e-9, at_most=60)
    check_claims(found, matrix, eigenvalues, 1e-9)
    krylov = found.krylov
    second = float(np.linalg.norm(krylov.relation[:, 1]))
    assert second < krylov.scale / 1.5
    assert found.floor > 0.01 * krylov.scale


def test_the_parts_of_the_floor() -> None:
    operator = MatrixOperator(torch.eye(10, dtype=torch.float64))
    krylov = Krylov.start(operator, gaussian(10, 0), 10)
    krylov.scale, krylov.steps = 4.0, 3
    rounding = rounding_floor(torch.float64, 4.0, 3)
    assert 1e-16 < rounding < 1e-13
    assert noise_floor(krylov, 0.1, 0.0) == pytest.approx(0.1 + rounding, rel=1e-15)
    assert noise_floor(krylov, 0.1, 2.0) == pytest.approx(0.2 + rounding, rel=1e-15)
    assert noise_floor(krylov, 0.1, 8.0) == pytest.approx(0.1 + rounding, rel=1e-15)
    krylov.lost[1], krylov.lost[5] = 0.5, 9.0
    assert noise_floor(krylov, 0.1, 2.0) == pytest.approx(0.7 + rounding, rel=1e-15)
    assert rounding_floor(torch.float32, 1.0, 3) > 1e8 * rounding_floor(torch.float64, 1.0, 3) / 10


def test_seeds_have_streams_of_their_own() -> None:
    assert torch.equal(gaussian(5, 1, "start"), gaussian(5, 1, "start"))
    keys = [(0,), (1,), (0, "a"), (0, "b"), (0, "a", 1), (0, "a1"), (0, 1, "a")]
    assert len({derived_seed(*key) for key in keys}) == len(keys)
    assert all(0 <= derived_seed(*key) < 2**63 for key in keys)
    values = gaussian(20_000, 0)
    assert abs(float(values.mean())) < 0.03
    assert abs(float(values.var()) - 1) < 0.05
