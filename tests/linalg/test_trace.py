"""Trace estimators against known matrices: values, bookkeeping, edges, resumption, stopping."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from landscape.linalg.lanczos import Krylov
from landscape.linalg.looks import stages
from landscape.linalg.operator import MatrixOperator
from landscape.linalg.trace import (
    METHODS,
    Goal,
    Look,
    TraceEstimator,
    draws,
    hutchinson,
    hutchpp,
    krylov_trace,
    room,
    xtrace,
)
from tests.support.spectra import FAMILIES, NoisyOperator, digits_like, family, rotated

MAKE: dict[str, Callable[..., TraceEstimator]] = {
    "krylov": krylov_trace,
    "hutchinson": hutchinson,
    "hutch++": hutchpp,
    "xtrace": xtrace,
}
WITH_BLOCKS = ("krylov", "hutchinson", "hutch++")
BLOCKS = (slice(0, 10), slice(10, 60), slice(80, 120))


def make(method: str, matrix: Tensor, goal: Goal, seed: int = 0, **options: Any) -> TraceEstimator:
    n = len(matrix)
    return MAKE[method](MatrixOperator(matrix), draws(n, seed, method), goal, **options)


def finished(estimator: TraceEstimator) -> Look:
    for _ in estimator.run():
        pass
    return estimator.looks[-1]


def test_every_method_is_tested() -> None:
    assert tuple(MAKE) == METHODS


# --- values ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["krylov", "hutch++", "xtrace"])
def test_a_basis_of_the_whole_space_gives_the_exact_trace(method: str) -> None:
    matrix = rotated(np.linspace(-1.0, 3.0, 12), 1)
    look = finished(make(method, matrix, Goal(40)))
    assert look.trace == pytest.approx(12.0, rel=1e-12)
    assert look.half_width < 1e-12
    assert look.reason == ""


def test_an_exhausted_krylov_space_gives_everything_exactly() -> None:
    matrix = rotated(digits_like(120, 2), 2)
    estimator = krylov_trace(MatrixOperator(matrix), draws(120, 0), Goal(500), blocks=BLOCKS)
    look = finished(estimator)
    diagonal = matrix.diagonal().numpy()
    assert look.products == 120
    np.testing.assert_allclose(look.layers, [diagonal[b].sum() for b in BLOCKS], rtol=1e-10)
    assert look.frobenius == pytest.approx(float(torch.linalg.matrix_norm(matrix)), rel=1e-12)
    values, errors = estimator.diagonal()
    np.testing.assert_allclose(values, diagonal, atol=1e-12)
    assert not errors.any()


@pytest.mark.parametrize("method", WITH_BLOCKS)
def test_estimates_are_those_of_the_projected_matrix_written_out(method: str) -> None:
    """The naive twin: P as a dense matrix, products recomputed with the projected, rescaled vectors."""
    n = 120
    matrix = rotated(digits_like(n, 3), 3)
    estimator: Any = make(method, matrix, Goal(60, tol=1e-9), blocks=BLOCKS)
    look = finished(estimator)
    basis = estimator.space.basis
    project = torch.eye(n, dtype=torch.float64) - basis.T @ basis
    probes = estimator._probes[: look.probes] @ project
    probes *= ((n - look.rows) / (probes**2).sum(dim=1, keepdim=True)).sqrt()
    images = probes @ matrix @ project
    known = matrix - project @ matrix @ project
    each = (probes * images).numpy()
    diagonal = known.diagonal().numpy() + each.mean(axis=0)
    frobenius = float((known**2).sum() + (images**2).sum(dim=1).mean())
    assert look.trace == pytest.approx(diagonal.sum(), rel=1e-11)
    np.testing.assert_allclose(look.layers, [diagonal[b].sum() for b in BLOCKS], rtol=1e-9)
    assert look.frobenius**2 == pytest.approx(frobenius, rel=1e-11)
    assert look.participation == pytest.approx(look.trace**2 / frobenius, rel=1e-10)
    values, errors = estimator.diagonal()
    np.testing.assert_allclose(values, diagonal, atol=1e-11)
    np.testing.assert_allclose(errors, each.std(axis=0, ddof=1) / look.probes**0.5, atol=1e-9)


def test_xtrace_is_the_mean_over_bases_that_leave_one_out() -> None:
    """The naive twin, from the paper: k orthonormal bases and k products of their own."""
    n, k = 60, 9
    matrix = rotated(np.arange(1.0, n + 1) ** -1.0 * np.where(np.arange(n) % 4 == 3, -1, 1), 4)
    draw = draws(n, 7, "xtrace")
    vectors = torch.stack([draw("sketch", i) for i in range(k)])
    values = []
    for i in range(k):
        others = vectors[[j for j in range(k) if j != i]] @ matrix
        basis = torch.linalg.qr(others.T).Q.T
        probe = vectors[i] - basis.T @ (basis @ vectors[i])
        probe *= (n - k + 1) ** 0.5 / probe.norm()
        values.append(float(torch.trace(basis @ matrix @ basis.T) + probe @ matrix @ probe))
    look = finished(make("xtrace", matrix, Goal(2 * k), seed=7))
    assert look.trace == pytest.approx(np.mean(values), rel=1e-10)


def test_the_known_part_of_a_block_and_the_rest_add_up_with_the_cross_term_only() -> None:
    """What random vectors estimate on average is the rest; without the cross term every block is biased."""
    matrix = rotated(digits_like(120, 5), 5)
    estimator = krylov_trace(MatrixOperator(matrix), draws(120, 0), Goal(40), blocks=BLOCKS)
    finished(estimator)
    basis = estimator.space.basis
    project = torch.eye(120, dtype=torch.float64) - basis.T @ basis
    rest = (project @ matrix @ project).diagonal().numpy()
    whole = matrix.diagonal().numpy()
    expected = [whole[b].sum() - rest[b].sum() for b in BLOCKS]
    np.testing.assert_allclose(estimator._held().known, expected, atol=1e-12)
    cross = (basis * (estimator.space.weights @ estimator.space.outside(slice(0, 120)))).sum(dim=0)
    missing = [float(cross[b].sum()) for b in BLOCKS]
    own = (basis * (estimator.space.projected @ basis)).sum(dim=0) + cross
    np.testing.assert_allclose([float(own[b].sum()) for b in BLOCKS], np.subtract(expected, missing))
    assert (abs(np.array(missing)) > 1e-4).all()


@pytest.mark.parametrize("method", METHODS)
def test_estimates_are_unbiased(method: str) -> None:
    matrix = rotated(digits_like(80, 6), 6)
    errors = [finished(make(method, matrix, Goal(16), seed)).trace for seed in range(200)]
    bias = np.mean(errors) - float(matrix.trace())
    assert abs(bias) < 4 * np.std(errors, ddof=1) / 200**0.5


# --- a decomposition taken over --------------------------------------------------------------------------


def test_a_given_krylov_decomposition_is_used_and_extended() -> None:
    n = 200
    matrix = rotated(digits_like(n, 1), 1)
    operator, draw = MatrixOperator(matrix), draws(n, 0)
    given = Krylov.start(operator, draw("start", 0), 60)
    for _ in range(20):
        given.extend(operator.apply(given.next_vector()[None])[0], lambda i: draw("fresh", i))
    estimator = krylov_trace(operator, draw, Goal(40), krylov=given)
    look = finished(estimator)
    assert (look.products, look.rows, look.probes) == (40, 30, 30)
    alone = finished(krylov_trace(operator, draw, Goal(60)))
    assert look.trace == pytest.approx(alone.trace, rel=1e-10)


# --- looks and stopping ----------------------------------------------------------------------------------


def test_looks_are_at_doubling_probe_counts_and_share_the_risk() -> None:
    estimator = make("hutchinson", rotated(np.ones(300), 1), Goal(100, tol=1e-30))
    assert [(s.probes, s.rows) for s in estimator.stages] == [(8, 0), (16, 0), (32, 0), (64, 0), (100, 0)]
    assert sum(s.risk for s in estimator.stages) == pytest.approx(0.05)


def test_without_a_tolerance_there_is_one_look_with_all_the_risk() -> None:
    estimator = make("krylov", rotated(digits_like(300, 1), 1), Goal(100))
    assert finished(estimator).confidence == pytest.approx(0.95)
    assert len(estimator.looks) == 1


def test_two_thirds_of_12_products_at_most_go_into_krylov_and_half_of_30() -> None:
    matrix = rotated(digits_like(300, 1), 1)
    for budget, most in ((12, 8), (30, 15), (120, 60)):
        look = finished(make("krylov", matrix, Goal(budget)))
        assert (look.products, look.rows + look.probes) == (budget, budget)
        assert most // 2 < look.rows <= most


@pytest.mark.parametrize("method", METHODS)
def test_it_stops_at_the_first_look_that_is_narrow_enough(method: str) -> None:
    matrix = rotated(digits_like(300, 1) + 0.1, 1)
    estimator = make(method, matrix, Goal(250, tol=0.1))
    look = finished(estimator)
    assert estimator.met
    assert look.half_width <= 0.1 * abs(look.trace)
    assert all(earlier.half_width > 0.1 * abs(earlier.trace) for earlier in estimator.looks[:-1])
    assert look.products < 250


def test_an_absolute_tolerance_stops_where_the_trace_is_zero() -> None:
    values = np.linspace(-1.0, 1.0, 300)
    estimator = make("krylov", rotated(values, 1), Goal(290, tol=0.01, atol=8.0))
    assert finished(estimator).half_width <= 8.0
    assert estimator.met


@pytest.mark.parametrize("budget", [1, 2, 3, 5, 7, 12])
@pytest.mark.parametrize("method", METHODS)
def test_small_budgets(method: str, budget: int) -> None:
    look = finished(make(method, rotated(digits_like(100, 1), 1), Goal(budget)))
    assert look.products <= budget
    assert np.isfinite(look.half_width) == (look.probes >= 2)
    assert (look.reason == "") == (look.probes >= 2)
    if method != "xtrace":
        assert look.products == budget
        assert look.probes >= min(budget, 2)


def test_a_whole_space_within_reach_ends_the_plan() -> None:
    plan = stages(Goal(1000, tol=0.01), lambda total: (total // 2, total - total // 2), (100, 100))
    assert [(s.rows, s.probes) for s in plan] == [(7, 8), (15, 16), (100, 16)]


@pytest.mark.parametrize(
    "arguments", [{"budget": 0}, {"budget": 9, "tol": -1}, {"budget": 9, "confidence": 1}]
)
def test_goals_without_sense(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"needed|negative|confidence"):
        Goal(**arguments)  # type: ignore[arg-type]


def test_blocks_must_be_disjoint_and_inside() -> None:
    matrix = rotated(np.ones(20), 1)
    for blocks in ((slice(0, 10), slice(5, 15)), (slice(0, 21),), (slice(0, 10, 2),)):
        with pytest.raises(ValueError, match="ascending"):
            make("krylov", matrix, Goal(9), blocks=blocks)


def test_xtrace_refuses_blocks() -> None:
    with pytest.raises(ValueError, match="layers"):
        make("xtrace", rotated(np.ones(20), 1), Goal(9), blocks=(slice(0, 10),))


# --- saving, memory --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("method", METHODS)
def test_it_goes_on_bit_for_bit_after_any_product(method: str, dtype: torch.dtype) -> None:
    matrix = rotated(digits_like(150, 1), 1)
    options: dict[str, Any] = {} if method == "xtrace" else {"blocks": BLOCKS}
    if method == "krylov":
        options |= {"stored": 12, "diagonal": True}

    def fresh() -> TraceEstimator:
        operator = MatrixOperator(matrix, dtype)
        return MAKE[method](operator, draws(150, 3, method), Goal(48, tol=1e-9), **options)

    straight = fresh()
    whole = finished(straight)
    estimator = fresh()
    while not estimator.done:
        estimator.step()
        arrays = {name: np.array(array) for name, array in estimator.arrays().items()}
        counters = dict(estimator.counters())
        estimator = fresh()
        estimator.restore(arrays, counters)
    assert len(estimator.looks) == len(straight.looks)
    for name, array in straight.arrays().items():
        np.testing.assert_array_equal(estimator.arrays()[name], array, err_msg=name)
    assert estimator.looks[-1].trace == whole.trace


def test_vectors_that_are_not_stored_count_as_much() -> None:
    """With a subspace that does not grow anyway, storing fewer vectors changes no estimate."""
    matrix = rotated(digits_like(150, 1), 1)
    every, few = (
        make("hutchinson", matrix, Goal(64), blocks=BLOCKS, stored=stored, diagonal=True)
        for stored in (None, 10)
    )
    whole, less = finished(every), finished(few)
    assert less.trace == pytest.approx(whole.trace, rel=1e-12)
    assert less.half_width == pytest.approx(whole.half_width, rel=1e-12)
    assert less.frobenius == pytest.approx(whole.frobenius, rel=1e-12)
    np.testing.assert_allclose(less.layers, whole.layers, rtol=1e-12)
    np.testing.assert_allclose(few.diagonal(), every.diagonal(), rtol=1e-9, atol=1e-12)  # type: ignore[attr-defined]
    assert few.arrays()["probes"].shape == (10, 150)


def test_a_subspace_stays_as_it_is_once_vectors_are_not_stored() -> None:
    matrix = rotated(digits_like(300, 1), 1)
    estimator = make("krylov", matrix, Goal(120, tol=1e-9), stored=20)
    look = finished(estimator)
    assert (look.products, look.rows + look.probes) == (120, 120)
    assert look.rows <= 32
    assert abs(look.trace - float(matrix.trace())) < 2 * look.half_width


def test_room_is_shared_between_basis_and_random_vectors() -> None:
    assert room(3 * 50 * 800 + 800, 100, 8, 1000) == (50, 50)
    assert room(0, 100, 8, 1000) == (8, 8)
    assert room(1 << 40, 100, 8, 1000) == (100, 1000)


# --- hard matrices ---------------------------------------------------------------------------------------

HARD = {
    "identity": np.ones(60),
    "zero": np.zeros(60),
    "rank one": np.concatenate([[2.0], np.zeros(59)]),
    "rank three": np.concatenate([[3.0, 1.0, -1.0], np.zeros(57)]),
    "tiny": 1e-9 * np.linspace(-1.0, 2.0, 60),
    "n = 1": np.array([-0.7]),
    "n = 2": np.array([0.7, -0.2]),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize("method", METHODS)
def test_hard_matrices_lie_within_the_interval(method: str, name: str, dtype: torch.dtype) -> None:
    values = HARD[name]
    n, matrix = len(values), rotated(values, 1)
    operator = MatrixOperator(matrix, dtype)
    floor = operator.error(torch.full((n,), n**-0.5, dtype=torch.float64))
    floor += float(torch.finfo(dtype).eps * abs(values).max())
    for budget in (12, 31):
        estimator = MAKE[method](operator, draws(n, 1, method), Goal(budget), floor=floor)
        look = finished(estimator)
        assert abs(look.trace - values.sum()) <= look.half_width


@pytest.mark.parametrize("name", sorted(FAMILIES))
@pytest.mark.parametrize("method", METHODS)
def test_random_matrices_of_all_kinds_and_scales(method: str, name: str) -> None:
    held = []
    for seed in range(12):
        draw = np.random.default_rng([seed, 3])
        values = family(name, int(draw.integers(20, 90)), draw)
        operator = MatrixOperator(rotated(values, seed))
        floor = 1e-14 * float(abs(values).max())
        look = finished(MAKE[method](operator, draws(len(values), seed, method), Goal(16), floor=floor))
        held.append(abs(look.trace - values.sum()) <= look.half_width)
    assert sum(held) >= 9


def test_noise_within_the_floor_stays_within_the_interval() -> None:
    values = np.concatenate([[3.0, 1.0], np.zeros(98)])
    for seed in range(20):
        operator = NoisyOperator(rotated(values, seed), 0.0, seed, absolute=1e-3)
        look = finished(krylov_trace(operator, draws(100, seed), Goal(30), floor=2e-3))
        assert abs(look.trace - 4.0) <= look.half_width
