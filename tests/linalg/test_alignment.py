"""Cosines of matrices, traces of products and correlations of diagonals, against dense matrices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import pytest
import torch
from scipy.special import bdtr
from torch import Tensor

from landscape.linalg.alignment import JointTraces, joint_basis, narrow
from landscape.linalg.operator import MatrixOperator
from landscape.linalg.probes import gaussian
from tests.support.spectra import digits_like, rotated

N = 60
RISK = 0.05
FLOAT64 = torch.float64
#: Below this probability a true coverage of 95 % is rejected; a few hundred intervals are counted here.
REJECTED = 1e-5


def cosine(a: Tensor, b: Tensor) -> float:
    return float((a * b).sum() / a.norm() / b.norm())


def top(matrix: Tensor, k: int) -> Tensor:
    """The k eigenvectors of largest size, (k, n)."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors.T[torch.argsort(-values.abs())[:k]]


def made(
    matrices: Sequence[Tensor],
    k: int = 0,
    most: int = 16,
    seed: int = 1,
    block: int = 4,
    dtype: torch.dtype = FLOAT64,
) -> JointTraces:
    """Joint traces that have not begun, with the k top eigenvectors of each matrix in the basis."""
    n = len(matrices[0])
    basis = joint_basis([top(m, k) for m in matrices], dtype)
    operators = [MatrixOperator(m, dtype) for m in matrices]
    return JointTraces(operators, basis, partial(gaussian, n, seed), most, block)


def carried_out(joint: JointTraces) -> JointTraces:
    for _ in joint.run():
        pass
    return joint


def pair(name: str, n: int) -> tuple[Tensor, Tensor]:
    """Two matrices of a kind of spectrum, aligned (of one eigenbasis) or not."""
    spectrum, how = name.split(", ")
    values = {
        "flat": np.linspace(0.9, 1.0, n),
        "power law": np.arange(1.0, n + 1) ** -1.5,
        "steep": np.arange(1.0, n + 1) ** -3.0,
        "outliers": digits_like(n, 1) + 0.01,
        "indefinite": np.random.default_rng(3).standard_normal(n),
    }[spectrum]
    other = values + 1.0 if spectrum == "indefinite" else values**2
    return rotated(other, 3), rotated(values, 3 if how == "aligned" else 4)


PAIRS = [
    f"{spectrum}, {how}"
    for spectrum in ("flat", "power law", "steep", "outliers", "indefinite")
    for how in ("aligned", "not")
]


# --- the basis -------------------------------------------------------------------------------------------


def test_the_basis_is_orthonormal_and_spans_its_blocks() -> None:
    first, second = top(rotated(np.arange(1.0, N + 1), 1), 5), top(rotated(np.arange(1.0, N + 1), 2), 5)
    basis = joint_basis([first, second, first @ torch.eye(N, dtype=FLOAT64)], FLOAT64)
    assert len(basis) == 10
    assert torch.allclose(basis @ basis.T, torch.eye(10, dtype=FLOAT64), atol=1e-14)
    assert torch.allclose(basis[:5], first, atol=1e-14)
    assert torch.allclose(second @ basis.T @ basis, second, atol=1e-13)


def test_a_basis_of_nothing_is_empty() -> None:
    assert joint_basis([torch.empty((0, 7), dtype=FLOAT64)], FLOAT64).shape == (0, 7)


def test_a_basis_never_outgrows_the_space() -> None:
    rows = torch.linalg.qr(torch.randn(9, 6, generator=torch.Generator().manual_seed(1), dtype=FLOAT64))[0]
    basis = joint_basis([rows / rows.norm(dim=1, keepdim=True), torch.eye(6, dtype=FLOAT64)], FLOAT64)
    assert torch.allclose(basis @ basis.T, torch.eye(6, dtype=FLOAT64), atol=1e-12)


# --- against the definition ------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [0, 4])
def test_estimates_are_what_the_formula_says(k: int) -> None:
    """A naive twin with the dense projector."""
    a, b = pair("outliers, not", N)
    joint = carried_out(made([a, b], k, most=9))
    q = joint.basis
    p = torch.eye(N, dtype=FLOAT64) - q.T @ q
    z = torch.stack([p @ gaussian(N, 1, "probe", i) for i in range(9)])
    z *= (N - len(q)) ** 0.5 / z.norm(dim=1, keepdim=True)
    inside = float(torch.trace(q @ a @ b @ q.T))
    assert np.isclose(joint.mean((0, 1)), inside + float(((z @ a) * (z @ b)).sum(1).mean()), rtol=1e-12)
    own = float(torch.trace(q @ b @ q.T))
    assert np.isclose(joint.mean((1,)), own + float(((z @ b) * z).sum(1).mean()), rtol=1e-12)


def test_the_mean_over_many_vectors_is_the_trace() -> None:
    a, b = pair("power law, not", N)
    found = carried_out(made([a, b], 3, most=400, block=100))
    for moment, exact in (((0, 1), (a * b).sum()), ((1, 1), (b * b).sum()), ((0,), a.trace())):
        estimate = found.monomial(moment, {}, 1e-4)
        assert abs(estimate.value - float(exact)) <= estimate.half_width < 0.2 * abs(float(exact))


@pytest.mark.parametrize("spectrum", ["indefinite", "low rank", "identity"])
def test_a_basis_of_the_whole_space_makes_all_exact(spectrum: str) -> None:
    values = {
        "indefinite": np.random.default_rng(1).standard_normal(12),
        "low rank": np.r_[3.0, -2.0, np.zeros(10)],
        "identity": np.ones(12),
    }[spectrum]
    a, b = rotated(values, 1), rotated(np.arange(12.0), 2)
    joint = carried_out(made([a, b], 12))
    assert joint.exact_everywhere
    assert joint.probes == 0
    found = joint.cosine(0, 1, RISK)
    assert np.isclose(found.value, cosine(a, b), rtol=1e-12)
    assert found.half_width <= 1e-15
    diagonal, reliability = joint.diagonal_correlation(1, a.diagonal(), RISK)
    assert reliability == 1.0
    expected = np.corrcoef(a.diagonal(), b.diagonal())[0, 1] if spectrum != "identity" else np.nan
    assert np.isclose(diagonal.value, expected, rtol=1e-9, equal_nan=True) or spectrum == "identity"


# --- closed forms ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [2.0, 1e-6, 1e9])
def test_a_multiple_has_the_cosine_one(scale: float) -> None:
    b = rotated(np.arange(1.0, N + 1) ** -1.5, 3)
    found = carried_out(made([scale * b, b], most=8)).cosine(0, 1, RISK)
    assert np.isclose(found.value, 1.0, atol=1e-13)
    assert found.half_width < 1e-7
    ratio = carried_out(made([scale * b, b], most=8)).size_ratio(0, 1, RISK)
    assert np.isclose(ratio.value, scale, rtol=1e-12)


def test_the_negative_has_the_cosine_minus_one() -> None:
    b = rotated(digits_like(N, 1), 3)
    found = carried_out(made([-b, b], most=8)).cosine(0, 1, RISK)
    assert np.isclose(found.value, -1.0, atol=1e-13)
    assert found.low >= -1.0


def test_matrices_on_different_directions_have_the_cosine_zero() -> None:
    half = np.r_[np.ones(N // 2), np.zeros(N // 2)]
    found = carried_out(made([rotated(half, 3), rotated(1.0 - half, 3)], most=8)).cosine(0, 1, RISK)
    assert abs(found.value) < 1e-13
    assert found.low <= 0.0 <= found.high


def test_a_zero_matrix_has_no_cosine() -> None:
    zero = torch.zeros((N, N), dtype=FLOAT64)
    joint = carried_out(made([zero, rotated(np.ones(N), 1)], most=8))
    assert np.isnan(joint.cosine(0, 1, RISK).value)
    assert joint.frobenius(0, RISK).value == 0.0
    correlation, _ = joint.diagonal_correlation(0, torch.arange(N, dtype=FLOAT64), RISK)
    assert np.isnan(correlation.value)


def test_a_trace_near_zero_divides_nothing() -> None:
    values = np.random.default_rng(2).standard_normal(N)
    b = rotated(values - values.mean(), 3)
    assert np.isnan(carried_out(made([b, b], most=8)).monomial((0, 1), {(1,): -1.0}, RISK).value)


def test_one_vector_gives_no_interval() -> None:
    a, b = pair("outliers, not", N)
    found = carried_out(made([a, b], most=1)).cosine(0, 1, RISK)
    assert np.isfinite(found.value)
    assert np.isnan(found.half_width)
    assert not narrow([found], 1.0)


def test_float32_agrees_and_floors_widen() -> None:
    a, b = pair("outliers, not", N)
    double, single = (carried_out(made([a, b], 3, dtype=d)) for d in (FLOAT64, torch.float32))
    assert np.isclose(single.cosine(0, 1, RISK).value, double.cosine(0, 1, RISK).value, atol=1e-6)
    before = double.cosine(0, 1, RISK).half_width
    double.floors = [1e-3, 1e-3]
    assert double.cosine(0, 1, RISK).half_width > before + 1e-4


# --- saving ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [FLOAT64, torch.float32])
def test_it_goes_on_bit_for_bit_after_any_block(dtype: torch.dtype) -> None:
    matrices = [*pair("outliers, not", N), rotated(np.arange(1.0, N + 1), 5)]

    def states() -> Iterator[tuple[JointTraces, dict[str, np.ndarray], dict[str, object]]]:
        joint = made(matrices, 2, most=10, dtype=dtype)
        for _ in joint.run():
            yield joint, {n: a.copy() for n, a in joint.arrays().items()}, dict(joint.counters())

    every = list(states())
    whole = every[-1][0]
    for _, arrays, counters in every:
        again = JointTraces.restored(whole.operators, whole.draw, arrays, counters)
        carried_out(again)
        for name, array in whole.arrays().items():
            assert array.tobytes() == again.arrays()[name].tobytes(), name
        assert again.counters() == whole.counters()


# --- diagonals -------------------------------------------------------------------------------------------


def test_the_diagonals_are_what_the_definition_says() -> None:
    """A naive twin: the mean of z ⊙ PAz and the known part, the correction by all pairs of vectors."""
    a, b = pair("outliers, aligned", N)
    joint = carried_out(made([a, b], 3, most=7))
    q = joint.basis
    p = torch.eye(N, dtype=FLOAT64) - q.T @ q
    z = joint._vectors[:7]
    known = (b - p @ b @ p).diagonal()
    each = [known + zi * (p @ b @ zi) for zi in z]

    def of(chosen: Sequence[int]) -> tuple[float, float]:
        pairs = [np.cov(each[i], each[j])[0, 1] for i in chosen for j in chosen if i != j]
        mean = torch.stack([each[i] for i in chosen]).mean(0)
        shared = float(np.cov(a.diagonal(), mean)[0, 1])
        return shared / np.sqrt(float(a.diagonal().var()) * np.mean(pairs)), np.mean(pairs) / float(
            mean.var()
        )

    value, expected = of(range(7))
    left_out = np.mean([of([j for j in range(7) if j != i])[0] for i in range(7)])
    found, reliability = joint.diagonal_correlation(1, a.diagonal(), RISK)
    assert np.isclose(found.value, np.clip(7 * value - 6 * left_out, -1, 1), rtol=1e-9)
    assert np.isclose(reliability, expected, rtol=1e-9)


def diagonal_pair(n: int) -> tuple[Tensor, Tensor]:
    """Matrices whose diagonals differ between coordinates and are correlated."""
    draw = np.random.default_rng(11)
    scales = np.exp(draw.normal(0.0, 0.7, n))
    b = rotated(np.arange(1.0, n + 1) ** -0.7, 3) * torch.from_numpy(np.outer(scales, scales))
    a = rotated(np.arange(1.0, n + 1) ** -0.7, 5) * torch.from_numpy(np.outer(scales**0.5, scales**0.5))
    return a, b


def diagonal_coverage(n: int, most: int, k: int, repetitions: int) -> tuple[int, float]:
    a, b = diagonal_pair(n)
    truth, hits, mean = np.corrcoef(a.diagonal(), b.diagonal())[0, 1], 0, 0.0
    for seed in range(repetitions):
        joint = carried_out(made([a, b], k, most=most, seed=seed, block=most))
        found, _ = joint.diagonal_correlation(1, a.diagonal(), RISK)
        hits += found.low <= truth <= found.high
        mean += (found.value - truth) / repetitions
    return hits, mean


def test_a_sample_of_the_diagonals_coverage() -> None:
    hits, bias = diagonal_coverage(120, 16, 3, 50)
    assert bdtr(hits, 50, 0.95) > REJECTED
    assert abs(bias) < 0.02


@pytest.mark.long
@pytest.mark.parametrize("most", [8, 32])
@pytest.mark.parametrize("k", [0, 4])
def test_the_diagonals_coverage(most: int, k: int) -> None:
    hits, bias = diagonal_coverage(150, most, k, 300)
    assert bdtr(hits, 300, 0.93) > REJECTED
    assert abs(bias) < 0.2 / most


# --- coverage as the command stops -----------------------------------------------------------------------


def as_it_stops(joint: JointTraces, tol: float) -> tuple[float, float, float]:
    """(ends of the interval, and its half-width) at the look that ends the search."""
    for stage in joint.plan(tol, 1 - RISK):
        while not joint.due(stage):
            vectors = joint.next_vectors()
            joint.take(vectors, [operator.apply(vectors) for operator in joint.operators])
        found = joint.cosines(stage.risk)
        if narrow(found, tol):
            break
    return found[0].low, found[0].high, found[0].half_width


def coverage(name: str, n: int, k: int, tol: float, repetitions: int, most: int = 128) -> tuple[int, float]:
    """(intervals that hold the cosine, mean half-width)."""
    a, b = pair(name, n)
    truth = cosine(a, b)
    ends = [as_it_stops(made([a, b], k, most, seed, block=8), tol) for seed in range(repetitions)]
    hits = sum(low - 1e-12 <= truth <= high + 1e-12 for low, high, _ in ends)
    return hits, float(np.mean([width for _, _, width in ends]))


@pytest.mark.parametrize(("name", "k", "tol"), [("outliers, aligned", 0, 0.02), ("power law, not", 3, 0.002)])
def test_a_sample_of_the_coverage(name: str, k: int, tol: float) -> None:
    hits, _ = coverage(name, 100, k, tol, 40)
    assert bdtr(hits, 40, 0.95) > REJECTED


@pytest.mark.long
@pytest.mark.parametrize("tol", [0.05, 0.01, 0.0])
@pytest.mark.parametrize("k", [0, 3])
@pytest.mark.parametrize("name", PAIRS)
def test_the_coverage(name: str, k: int, tol: float) -> None:
    hits, _ = coverage(name, 120, k, tol, 200, most=8 if not tol else 128)
    assert bdtr(hits, 200, 0.95) > REJECTED


def test_a_rejection_is_possible() -> None:
    """An interval that holds two thirds of the time would be found out by the samples."""
    assert bdtr(round(40 * 2 / 3), 40, 0.95) < REJECTED


def test_deflation_narrows_the_interval() -> None:
    """At the same number of random vectors, top eigenvectors in the basis pay many times over."""
    a, b = pair("outliers, aligned", 100)
    plain, deflated = (carried_out(made([a, b], k, most=8)).cosine(0, 1, RISK).half_width for k in (0, 10))
    assert deflated < plain / 3
