"""The Lanczos process: its algebraic identity through restarts, a naive twin, resumption, nothing mutated."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from landscape.linalg.eigenpairs import eigenpairs, restart, ritz_pairs
from landscape.linalg.lanczos import Krylov, combine, inner, orthogonalise, tridiagonalise
from landscape.linalg.operator import MatrixOperator
from landscape.linalg.probes import gaussian
from tests.support.spectra import AsymmetricOperator, digits_like, rotated

DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])


def _fresh(size: int, seed: int = 0):  # type: ignore[no-untyped-def]
    return lambda i: gaussian(size, seed, "fresh", i)


def _krylov(
    operator: MatrixOperator, capacity: int, products: int, k: int = 3, which: str = "largest"
) -> Krylov:
    krylov = Krylov.start(operator, gaussian(operator.size, 1), capacity)
    search = eigenpairs(
        operator, krylov, k=k, which=which, tol=0.0, floor=lambda _: 0.0, fresh=_fresh(operator.size)
    )
    for _, (state, _, _) in zip(range(products), search, strict=False):
        krylov = state
    return krylov


def _defect(krylov: Krylov, matrix: Tensor) -> float:
    """‖H Q_m − Q_{m+1} H̄‖, largest column."""
    basis = krylov.basis[: krylov.steps + 1].double()
    left = matrix @ basis[: krylov.steps].T
    right = basis.T @ torch.from_numpy(krylov.relation)
    return float(torch.linalg.vector_norm(left - right, dim=0).max())


@DTYPES
@pytest.mark.parametrize("which", ["largest", "smallest", "both", "magnitude"])
@pytest.mark.parametrize("noise", [0.0, 1e-2])
def test_the_relation_survives_restarts(noise: float, which: str, dtype: torch.dtype) -> None:
    """Also for unsymmetric products, with respect to them as computed; and the basis stays orthonormal."""
    matrix = rotated(digits_like(150, 0), 0)
    operator = AsymmetricOperator(matrix, noise, 1, dtype)
    computed = operator.wrong.to(dtype).double()
    krylov = _krylov(operator, capacity=14, products=400, which=which)
    unit = torch.finfo(dtype).eps
    restarts = 400 / 7
    assert _defect(krylov, computed) <= 10 * restarts**0.5 * unit * krylov.scale
    assert _defect(krylov, computed) <= 2 * (krylov.drift + krylov.scale * 4 * unit)
    basis = krylov.basis[: krylov.steps + 1].double()
    off = (basis @ basis.T - torch.eye(len(basis), dtype=torch.float64)).abs().max()
    assert off <= (1e-12 if dtype == torch.float64 else 1e-6)


@DTYPES
def test_residuals_are_those_of_the_products_as_computed(dtype: torch.dtype) -> None:
    """‖H̄s − θs‖ sees the asymmetry of noisy products, to which the recurrence is blind."""
    operator = AsymmetricOperator(rotated(digits_like(150, 0), 0), 1e-2, 1, dtype)
    krylov = _krylov(operator, capacity=20, products=80)
    pairs = ritz_pairs(krylov)
    vectors = pairs.vectors(krylov.basis)
    computed = vectors @ operator.wrong.to(dtype).double().T
    residuals = torch.linalg.vector_norm(computed - torch.from_numpy(pairs.values)[:, None] * vectors, dim=1)
    accuracy = 40 * torch.finfo(dtype).eps * krylov.scale
    np.testing.assert_allclose(pairs.residuals, residuals, rtol=1e-6, atol=accuracy)
    recurrence = np.abs(krylov.relation[-1] @ pairs.coordinates)
    assert recurrence[0] < 1e-3 < pairs.residuals[0]


def test_the_relation_of_one_restart_is_exact_with_complex_ritz_values() -> None:
    """Noise larger than the matrix makes Ritz values complex; pairs of them stay or go together."""
    operator = AsymmetricOperator(torch.eye(30, dtype=torch.float64) * 1e-3, 1.0, 2)
    krylov = Krylov.start(operator, gaussian(30, 0), 12)
    for _ in zip(range(12), tridiagonalise(operator, krylov, _fresh(30)), strict=False):
        pass
    assert np.iscomplex(np.linalg.eigvals(krylov.projected)).any()
    for k in range(1, 11):
        truncated = copy.deepcopy(krylov)
        restart(truncated, k, "largest")
        assert k <= truncated.steps < 12
        assert _defect(truncated, operator.wrong) <= 1e-14 * krylov.scale * 12


@DTYPES
@pytest.mark.parametrize("matrix", ["identity", "zero", "rank two"])
def test_invariant_subspaces_are_left_by_fresh_vectors(matrix: str, dtype: torch.dtype) -> None:
    spectrum = {"identity": np.ones(20), "zero": np.zeros(20), "rank two": np.r_[2.0, 1.0, np.zeros(18)]}[
        matrix
    ]
    operator = MatrixOperator(rotated(spectrum, 3), dtype)
    krylov = Krylov.start(operator, gaussian(20, 0), 20)
    steps = list(tridiagonalise(operator, krylov, _fresh(20)))
    assert len(steps) == 20
    assert krylov.exhausted
    np.testing.assert_allclose(ritz_pairs(krylov).values, spectrum, atol=20 * torch.finfo(dtype).eps)
    if dtype == torch.float64:
        assert krylov.breakdowns > 0


def test_naive_twin() -> None:
    """The same H̄ and Ritz values as Lanczos from the book: three-term recurrence, then Gram–Schmidt."""
    matrix = rotated(digits_like(80, 1), 1)
    start = gaussian(80, 4)
    krylov = Krylov.start(MatrixOperator(matrix), start, 30)
    for _ in zip(range(20), tridiagonalise(MatrixOperator(matrix), krylov, _fresh(80)), strict=False):
        pass
    dense, basis = matrix.numpy(), [start.numpy() / np.linalg.norm(start.numpy())]
    alphas, betas = [], []
    for j in range(20):
        w = dense @ basis[j] - (betas[-1] * basis[j - 1] if j else 0.0)
        alphas.append(basis[j] @ w)
        w -= alphas[-1] * basis[j]
        for _ in range(2):
            for q in basis:
                w -= (q @ w) * q
        betas.append(np.linalg.norm(w))
        basis.append(w / betas[-1])
    twin = np.zeros((21, 20))
    for j in range(20):
        twin[j, j], twin[j + 1, j] = alphas[j], betas[j]
        if j:
            twin[j - 1, j] = betas[j - 1]
    np.testing.assert_allclose(krylov.relation, twin, rtol=0, atol=1e-11)
    pairs = ritz_pairs(krylov)
    np.testing.assert_allclose(pairs.values, np.linalg.eigvalsh(twin[:20])[::-1], rtol=0, atol=1e-12)
    bottom = np.abs(betas[-1] * pairs.coordinates[-1])  # the recurrence's estimate (Parlett 1998, §13.2)
    np.testing.assert_allclose(pairs.residuals, bottom, rtol=0, atol=1e-12)


@DTYPES
def test_a_search_resumed_anywhere_gives_the_same_bits(dtype: torch.dtype) -> None:
    """From a copy taken after any product: also when the basis is full, and after fresh vectors."""
    spectrum = np.r_[2.0, 2.0, 1.0, 0.5, np.linspace(0.2, -0.2, 20), np.zeros(16)]
    operator = MatrixOperator(rotated(spectrum, 2), dtype)

    def search(krylov: Krylov):  # type: ignore[no-untyped-def]
        return eigenpairs(
            operator, krylov, k=3, which="largest", tol=0.0, floor=lambda _: 0.0, fresh=_fresh(40)
        )

    copies, values = [], []
    for i, (state, pairs, _) in enumerate(search(Krylov.start(operator, gaussian(40, 0), 9))):
        copies.append(copy.deepcopy(state))
        values.append((pairs.values, pairs.residuals))
        if i == 29:
            break
    assert {c.steps for c in copies} >= {9}
    for i, saved in enumerate(copies[:-1]):
        state = saved
        for j, (state, pairs, _) in zip(range(i + 1, 30), search(copy.deepcopy(saved)), strict=False):  # noqa: B007
            assert np.array_equal(pairs.values, values[j][0])
            assert np.array_equal(pairs.residuals, values[j][1])
        assert torch.equal(state.basis[: state.steps + 1], copies[-1].basis[: state.steps + 1])
        assert np.array_equal(state.coefficients, copies[-1].coefficients)
        assert np.array_equal(state.lost, copies[-1].lost)


@DTYPES
@pytest.mark.parametrize("width", [1, 5, (1 << 17) // 3, (1 << 17) // 3 + 1, 100_003])
def test_chunks_of_the_basis_leave_no_seam(width: int, dtype: torch.dtype) -> None:
    """Orthogonalising and combining, against plain float64, at lengths around the edges of a chunk."""
    count = min(3, width)
    rows = (
        torch.linalg.qr(torch.stack([gaussian(width, i) for i in range(count)]).T).Q.T.to(dtype).contiguous()
    )
    vector, exact = 7 * gaussian(width, 9), rows.double()
    expected = vector - exact.T @ torch.linalg.solve(exact @ exact.T, exact @ vector)
    rest = vector.clone()
    coefficients = orthogonalise(rest, rows)
    tight = 1e-12 * width**0.5
    assert torch.allclose(rest, expected, rtol=0, atol=tight)
    assert torch.allclose(rest + coefficients @ exact, vector, rtol=0, atol=tight)
    assert float((exact @ rest).abs().max()) <= tight
    weights = torch.stack([gaussian(count, 5), gaussian(count, 6)])
    assert torch.allclose(combine(weights, rows), weights @ exact, rtol=0, atol=1e-13)
    several = torch.stack([vector, expected])
    assert torch.allclose(inner(several, rows), several @ exact.T, rtol=0, atol=tight)


class _Aliasing(MatrixOperator):
    """An operator that hands out the vectors it was given: the identity, without a copy."""

    def apply(self, vectors: Tensor) -> Tensor:
        return vectors.double()


def test_nothing_of_the_callers_is_changed() -> None:
    matrix, start = rotated(digits_like(60, 0), 0), gaussian(60, 0)
    kept = [gaussian(60, 1, i) for i in range(60)]
    before = [t.clone() for t in (matrix, start, *kept)]
    for operator in (MatrixOperator(matrix), _Aliasing(matrix)):
        krylov = Krylov.start(operator, start, 20)
        search = eigenpairs(
            operator, krylov, k=2, which="both", tol=1e-6, floor=lambda _: 0.0, fresh=lambda i: kept[i]
        )
        for _ in zip(range(30), search, strict=False):
            pass
        basis = krylov.basis[: krylov.steps + 1]
        assert torch.allclose(basis @ basis.T, torch.eye(len(basis), dtype=torch.float64), atol=1e-12)
    for tensor, copied in zip((matrix, start, *kept), before, strict=True):
        assert torch.equal(tensor, copied)


def test_global_generators_are_not_touched() -> None:
    torch.manual_seed(0)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    operator = MatrixOperator(torch.eye(12, dtype=torch.float64))
    _krylov(operator, 6, 10, k=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


def test_a_basis_that_is_too_short_is_refused() -> None:
    operator = MatrixOperator(torch.eye(30, dtype=torch.float64))
    krylov = Krylov.start(operator, gaussian(30, 0), 5)
    with pytest.raises(ValueError, match="too short for 4 pairs"):
        next(eigenpairs(operator, krylov, k=4, which="largest", tol=0, floor=lambda _: 0.0, fresh=_fresh(30)))


def test_a_full_basis_must_be_restarted() -> None:
    operator = MatrixOperator(rotated(digits_like(30, 0), 0))
    krylov = Krylov.start(operator, gaussian(30, 0), 5)
    with pytest.raises(ValueError, match="full"):
        list(tridiagonalise(operator, krylov, _fresh(30)))
