"""Power iteration with deflation: against known spectra, a naive twin, its own rates; resumption."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from landscape.linalg.operator import MatrixOperator
from landscape.linalg.power import Power, power_iteration
from landscape.linalg.probes import gaussian
from tests.support.spectra import FAMILIES, AsymmetricOperator, NoisyOperator, digits_like, family, rotated


def _search(  # type: ignore[no-untyped-def]
    operator, k, which="largest", tol=1e-6, limit=3000, floor=0.0, seed=0, state=None
):
    """States after each product."""

    def fresh(i: int) -> Tensor:
        return gaussian(operator.size, seed, "power", i)

    begun = Power.start(operator, fresh) if state is None else state
    for state, done in power_iteration(
        operator, begun, k=k, which=which, tol=tol, floor=lambda _: floor, fresh=fresh
    ):
        yield state, done
        if state.products >= limit:
            return


def _last(operator, *args, **changes) -> tuple[Power, bool]:  # type: ignore[no-untyped-def]
    *_, last = _search(operator, *args, **changes)
    return last


def _operator(eigenvalues: ArrayLike, dtype: torch.dtype = torch.float64, seed: int = 1) -> MatrixOperator:
    return MatrixOperator(rotated(np.asarray(eigenvalues, dtype=float), seed), dtype)


def _checked(operator: MatrixOperator, state: Power, eigenvalues: ArrayLike, tol: float) -> None:
    """Values as expected, residuals true to the matrix and below tol, vectors orthonormal."""
    pairs, expected = state.pairs(), np.asarray(eigenvalues, dtype=float)
    vectors = pairs.vectors.double()
    true = torch.linalg.vector_norm(
        vectors @ operator.matrix - torch.from_numpy(pairs.values)[:, None] * vectors, dim=1
    ).numpy()
    unit = torch.finfo(operator.dtype).eps * float(torch.linalg.matrix_norm(operator.matrix, 2))
    np.testing.assert_allclose(pairs.residuals, true, rtol=0, atol=4 * unit)
    assert (pairs.residuals <= tol * np.abs(pairs.values) + 1e-300).all()
    np.testing.assert_allclose(pairs.values, expected, rtol=tol, atol=1e-300)
    gram = vectors @ vectors.T - torch.eye(len(expected), dtype=torch.float64)
    assert gram.abs().max() <= 8 * torch.finfo(operator.dtype).eps


#: name: (eigenvalues, {which: those wanted}), none of them zero.
SPECTRA: dict[str, tuple[np.ndarray, dict[str, list[float]]]] = {
    "digits": (digits_like(100, 0), {"largest": [2.9, 2.5, 2.2], "magnitude": [2.9, 2.5, 2.2]}),
    "repeated": (
        np.r_[np.ones(2), np.full(3, 0.5), -1.0, -1.0, np.zeros(12)],
        {"largest": [1.0, 1.0, 0.5, 0.5], "smallest": [-1.0, -1.0]},
    ),
    "negative": (
        np.r_[-1.0, -2.0, -3.0, -4.0],
        {"largest": [-1.0, -2.0], "smallest": [-3.0, -4.0], "magnitude": [-3.0, -4.0]},
    ),
    "indefinite": (
        np.r_[5.0, 3.0, 1.0, np.zeros(10), -2.0, -6.0, -9.0],
        {"largest": [5.0, 3.0], "smallest": [-6.0, -9.0], "magnitude": [5.0, -6.0, -9.0]},
    ),
    "identity": (np.ones(12), {"largest": [1.0] * 3, "smallest": [1.0] * 3, "magnitude": [1.0] * 3}),
    "tiny": (
        1e-6 * np.r_[3.0, 2.0, 1.0, 0.1, np.zeros(20), -0.5, -1.5],
        {"largest": [3e-6, 2e-6, 1e-6], "smallest": [-5e-7, -1.5e-6], "magnitude": [3e-6, 2e-6, -1.5e-6]},
    ),
    "huge": (
        1e9 * np.r_[3.0, 2.0, 1.0, 0.1, np.zeros(20), -2.5],
        {"largest": [3e9, 2e9, 1e9], "smallest": [-2.5e9], "magnitude": [3e9, 2e9, -2.5e9]},
    ),
    "one row": (np.array([-2.0]), {"largest": [-2.0], "smallest": [-2.0], "magnitude": [-2.0]}),
}
CASES = [(name, which) for name, (_, wanted) in SPECTRA.items() for which in wanted]


@pytest.mark.parametrize(("name", "which"), CASES)
def test_the_wanted_pairs_of_known_spectra(name: str, which: str) -> None:
    values, wanted = SPECTRA[name]
    operator = _operator(values)
    state, done = _last(operator, len(wanted[which]), which, tol=1e-6)
    assert done
    assert state.image is None
    _checked(operator, state, wanted[which], 1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_single_precision(seed: int) -> None:
    """Deflation leaves no more error than the arithmetic: the tolerance is met by all ten pairs."""
    operator = _operator(digits_like(200, 0), torch.float32, seed)
    state, done = _last(operator, 10, tol=1e-4, seed=seed)
    assert done
    _checked(operator, state, digits_like(200, 0)[:10], 1e-4)


def test_later_pairs_are_not_held_back_by_the_error_of_earlier_ones() -> None:
    """The residual of the first, 1e-2·|θ₁|, is larger than the whole second eigenvalue's tolerance."""
    operator = _operator(np.r_[100.0, 1.0, 0.5, np.zeros(20)])
    state, done = _last(operator, 2, tol=1e-2)
    assert done
    assert state.products < 40
    assert (state.pairs().residuals <= 1e-2 * state.pairs().values).all()


def test_naive_twin() -> None:
    """The first pair, product by product: values and residuals of x ← Hx/‖Hx‖."""
    values = np.r_[3.0, 2.0, 1.0, -0.5, np.zeros(6)]
    operator = _operator(values)
    matrix, x = operator.matrix.numpy(), gaussian(10, 0, "power", 0).numpy()
    x /= np.linalg.norm(x)
    for state, _ in _search(operator, 1, limit=20, tol=0.0):
        pairs = state.pairs()
        y = matrix @ x
        theta = x @ y
        assert pairs.values[0] == pytest.approx(theta, rel=1e-12)
        assert pairs.residuals[0] == pytest.approx(np.linalg.norm(y - theta * x), rel=1e-9)
        x = y / np.linalg.norm(y)
    assert state.shift == 0.0


def test_the_residual_falls_at_the_rate_of_the_method() -> None:
    """λ₂/λ₁ without a shift, (λ₂ + σ)/(λ₁ + σ) with it."""
    for values in ([1.0, 0.7, 0.1, -0.2], [1.0, 0.7, 0.1, -0.2, -1.5]):
        states = [state for state, _ in _search(_operator(values), 1, tol=1e-9)]
        shift = states[-1].shift
        assert (shift > 0) == (len(values) == 5)
        residuals = [float(s.pairs().residuals[0]) for s in states[-21:]]
        rate = (residuals[-1] / residuals[0]) ** (1 / 20)
        assert rate == pytest.approx((0.7 + shift) / (1.0 + shift), abs=2e-3)


@pytest.mark.parametrize("ratio", [0.95, 0.999, 1.0, 1.001, 1.05, 3.0, 100.0])
def test_the_other_end_is_shifted_away(ratio: float) -> None:
    """As far out as the wanted one, or further: never by more than its size, and told."""
    values = np.r_[1.0, 0.2, np.zeros(8), -ratio / 2, -ratio]
    operator = _operator(values)
    state, done = _last(operator, 1, tol=1e-6)
    assert done
    assert 0.6 * ratio < state.shift <= ratio * (1 + 1e-12)
    _checked(operator, state, [1.0], 1e-6)
    mirrored, done = _last(MatrixOperator(-operator.matrix), 1, "smallest", tol=1e-6)
    assert done
    assert mirrored.shift == pytest.approx(state.shift, rel=1e-9)
    assert mirrored.products == state.products


def test_no_shift_where_none_is_needed() -> None:
    for seed in range(10):
        state, _ = _last(_operator(np.r_[1.0, 0.5, 0.2, np.zeros(8), -0.01, -0.1], seed=seed), 1, seed=seed)
        assert state.shift == 0.0


def test_plain_iteration_stands_still_at_a_tie_and_says_so() -> None:
    state, done = _last(_operator([1.0, 0.3, -1.0]), 1, "magnitude", limit=200)
    assert not done
    assert state.products == 200
    pairs = state.pairs()
    assert pairs.residuals[0] > 1e-3
    assert abs(pairs.values[0]) < 1


def test_what_the_start_had_too_little_of_is_found_later() -> None:
    """From an exact eigenvector of λ₂ that is found first; the larger comes second, before it in order."""
    operator = _operator([4.0, 3.0, 1.0, 0.5, 0.0])
    vectors = torch.linalg.eigh(operator.matrix).eigenvectors.T

    def fresh(i: int) -> Tensor:
        return vectors[3].clone() if i == 0 else gaussian(5, 0, i)

    start = Power.start(operator, fresh)
    *_, (state, done) = power_iteration(
        operator, start, k=2, which="largest", tol=1e-6, floor=lambda _: 0.0, fresh=fresh
    )
    assert done
    _checked(operator, state, [4.0, 3.0], 1e-6)


def test_nothing_to_find() -> None:
    """A zero matrix: each product is zero, each residual too, and no vector is lost."""
    state, done = _last(_operator(np.zeros(6)), 4)
    assert done
    assert state.products == 4
    assert (state.pairs().values == 0).all()
    assert (state.pairs().residuals == 0).all()
    assert torch.linalg.matrix_rank(state.pairs().vectors) == 4


def test_rank_deficient_with_a_floor() -> None:
    """More pairs than rank: the rest are zeros, within the floor."""
    operator = _operator(np.r_[2.0, 1.0, np.zeros(10)])
    state, done = _last(operator, 5, floor=1e-12)
    assert done
    np.testing.assert_allclose(state.pairs().values, [2, 1, 0, 0, 0], atol=1e-11)


def test_more_pairs_than_rows() -> None:
    operator = _operator([2.0, 1.0, 0.5])
    state, done = _last(operator, 7)
    assert done
    _checked(operator, state, [2.0, 1.0, 0.5], 1e-6)


def test_the_limit_leaves_what_was_reached() -> None:
    """The found pairs and the one under way, with the residual it has."""
    operator = _operator(digits_like(100, 0))
    state, done = _last(operator, 5, tol=1e-6, limit=100)
    assert not done
    pairs = state.pairs()
    assert len(pairs.values) == len(state.found.values) + 1 <= 5
    true = torch.linalg.vector_norm(
        pairs.vectors @ operator.matrix - torch.from_numpy(pairs.values)[:, None] * pairs.vectors, dim=1
    ).numpy()
    np.testing.assert_allclose(pairs.residuals, true, atol=1e-13)


@pytest.mark.parametrize("share", [1e-6, 1e-2])
def test_noise_is_seen_in_the_residuals(share: float) -> None:
    """With a floor from the noise it ends; the residual against the exact matrix is within it."""
    exact = rotated(np.r_[2.0, 1.0, 0.3, np.zeros(27)], 0)
    for operator in (NoisyOperator(exact, share, 0), AsymmetricOperator(exact, share, 0)):
        state, done = _last(operator, 2, tol=1e-9, floor=8 * share * 2)
        assert done
        vectors, values = state.pairs().vectors, torch.from_numpy(state.pairs().values)
        true = torch.linalg.vector_norm(vectors @ exact - values[:, None] * vectors, dim=1)
        assert (true <= 2 * 8 * share * 2).all()
        without, done = _last(operator, 2, tol=share * 1e-3, limit=60)
        assert not done
        assert without.pairs().residuals.max() > share * 1e-3


def test_both_ends_at_once_are_refused() -> None:
    with pytest.raises(ValueError, match="one end at a time"):
        next(_search(_operator([1.0, 0.0]), 1, "both"))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_resumed_after_any_product_it_gives_the_same_bits(dtype: torch.dtype) -> None:
    operator = _operator(np.r_[2.0, 2.0, 1.0, 0.9, 0.5, np.zeros(20), -1.9], dtype)
    states = [state for state, _ in _search(operator, 3, tol=1e-3)]
    assert states[-1].shift > 0
    for i, state in enumerate(states[:-1]):
        if i % 20 > 1 and len(state.found.values) == len(states[i + 1].found.values):
            continue
        saved = {name: array.copy() for name, array in state.arrays().items()}
        again, _ = _last(operator, 3, tol=1e-3, state=Power.restore(saved, state.counters()))
        assert again.counters() == states[-1].counters()
        for name, array in states[-1].arrays().items():
            assert np.array_equal(array, again.arrays()[name]), name


def test_nothing_of_the_callers_is_changed() -> None:
    matrix = rotated(digits_like(60, 0), 0)
    kept = [gaussian(60, 1, i) for i in range(20)]
    before = [t.clone() for t in (matrix, *kept)]

    class Aliasing(MatrixOperator):
        def apply(self, vectors: Tensor) -> Tensor:
            return vectors.double()  # the identity, without a copy

    for operator in (MatrixOperator(matrix), Aliasing(matrix)):
        start = Power.start(operator, kept.__getitem__)
        first = start.vector.clone()
        search = power_iteration(
            operator, start, k=3, which="largest", tol=1e-6, floor=lambda _: 0.0, fresh=kept.__getitem__
        )
        for state, _ in search:
            assert math.isclose(float(torch.linalg.vector_norm(state.vector)), 1.0, rel_tol=1e-12)
        assert torch.equal(start.vector, first)
    for tensor, copied in zip((matrix, *kept), before, strict=True):
        assert torch.equal(tensor, copied)


def _random_case(seed: int) -> None:
    draw = np.random.default_rng(seed)
    name = list(FAMILIES)[seed % len(FAMILIES)]
    n = int(draw.integers(2, 40))
    values = family(name, n, draw)
    scale = np.abs(values).max()
    operator = _operator(values, seed=seed)
    k, which = int(draw.integers(1, 4)), str(draw.choice(["largest", "smallest", "magnitude"]))
    state, done = _last(operator, k, which, tol=1e-4, limit=500, floor=1e-13 * scale, seed=seed)
    pairs = state.pairs()
    vectors = pairs.vectors
    true = torch.linalg.vector_norm(
        vectors @ operator.matrix - torch.from_numpy(pairs.values)[:, None] * vectors, dim=1
    ).numpy()
    np.testing.assert_allclose(pairs.residuals, true, rtol=0, atol=1e-13 * scale)
    for value, residual in zip(pairs.values, pairs.residuals, strict=True):
        assert np.abs(values - value).min() <= residual + 1e-12 * scale
    if done:
        assert len(pairs.values) == min(k, n)
        assert (pairs.residuals <= np.maximum(1e-4 * np.abs(pairs.values), 1e-13 * scale)).all()
    assert 0 <= state.shift <= np.abs(values).max() * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(21))
def test_random_problems(seed: int) -> None:
    """Whatever the spectrum: residuals are true, an eigenvalue lies within each, and done means converged."""
    _random_case(seed)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(21, 500))
def test_many_random_problems(seed: int) -> None:
    _random_case(seed)
