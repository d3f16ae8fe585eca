"""Balls, ascent, the expansion and the mean over directions against closed forms and naive twins."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from landscape.linalg.looks import Goal, stages
from landscape.problem import Problem
from landscape.sam.average import average, looks_of, variance_of_forms, variance_of_trace
from landscape.sam.losses import losses_of
from landscape.sam.sharpness import Ball, groups_of, slope_error
from tests.curvature.naive import case
from tests.sam.surfaces import around, flat, plane, quadratic
from tests.support.closed_form import FLOAT64, classification, generator
from tests.support.models import mlp
from tests.support.spectra import rotated

NORMS = (1.0, 1.5, 2.0, 4.0, math.inf)
SPECTRA: dict[str, np.ndarray] = {
    "indefinite": np.array([5.0, 2.0, 0.3, 0.0, -0.2, -1.0, -3.0]),
    "rank-deficient": np.array([4.0, 1.0, 0.0, 0.0, 0.0, 0.0]),
    "identity": np.ones(5),
    "repeated": np.array([2.0, 2.0, 2.0, -1.0, -1.0]),
    "negative": np.array([-0.5, -1.0, -2.0, -3.0]),
    "tiny": 1e-6 * np.array([5.0, 1.0, -2.0, 0.1]),
}


def slope_of(n: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(n, generator=generator(11), dtype=FLOAT64)


def dual(vector: Tensor, p: float) -> float:
    q = math.inf if p == 1 else 1.0 if math.isinf(p) else p / (p - 1)
    return float(torch.linalg.vector_norm(vector, q))


# --- the expansion ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", NORMS)
@pytest.mark.parametrize("name", SPECTRA)
def test_on_a_quadratic_every_term_is_exact(name: str, p: float) -> None:
    matrix = rotated(SPECTRA[name], 2)
    slope = slope_of(len(matrix), float(np.abs(SPECTRA[name]).max()))
    found, step = around(quadratic(matrix, slope), p=p).measure(0.7, 0, True)
    e = flat(step)
    assert float(torch.linalg.vector_norm(e, p)) == pytest.approx(0.7, rel=1e-12)
    assert found.first == pytest.approx(0.7 * dual(slope, p), rel=1e-12)
    assert found.second == pytest.approx(float(e @ matrix @ e) / 2, rel=1e-10, abs=1e-15)
    assert found.length == pytest.approx(float(e.norm()), rel=1e-12)
    # The loss is about 1, so its differences are known to a few units of 2e-16.
    assert found.increase == pytest.approx(found.first + found.second, rel=1e-12, abs=2e-15)


@pytest.mark.parametrize("p", NORMS)
def test_on_a_plane_the_rise_is_the_dual_norm_and_no_ascent_beats_it(p: float) -> None:
    slope = slope_of(9)
    here = around(plane(slope), p=p)
    assert here.slope == pytest.approx(dual(slope, p), rel=1e-13)
    for steps in (0, 5):
        found, step = here.measure(0.3, steps, True)
        assert found.increase == pytest.approx(0.3 * dual(slope, p), rel=1e-12)
        assert found.second == 0
        assert float(torch.linalg.vector_norm(flat(step), p)) <= 0.3 * (1 + 1e-12)


@pytest.mark.parametrize("p", NORMS)
def test_asam_scales_weights_and_leaves_biases(p: float) -> None:
    slope = slope_of(9)
    problem = plane(slope, biases=3)
    here = around(problem, "asam", p, eta=0.5)
    scale = problem.selection.flat().abs() + 0.5
    scale[6:] = 1
    found, step = here.measure(0.2, 0, False)
    assert found.increase == pytest.approx(0.2 * dual(scale * slope, p), rel=1e-12)
    assert float(torch.linalg.vector_norm(flat(step) / scale, p)) == pytest.approx(0.2, rel=1e-12)
    assert math.isnan(found.second)


def test_keskar_is_a_box_with_one_added_to_every_parameter() -> None:
    slope = slope_of(9)
    problem = plane(slope, biases=3)
    sizes = problem.selection.flat().abs() + 1
    found, step = around(problem, "keskar").measure(0.01, 4, True)
    assert found.increase == pytest.approx(0.01 * float((sizes * slope.abs()).sum()), rel=1e-11)
    np.testing.assert_allclose(flat(step).abs(), 0.01 * sizes, rtol=1e-12)


# --- the ascent ------------------------------------------------------------------------------------------


def trust_region_maximum(matrix: Tensor, slope: Tensor, radius: float) -> float:
    """max bᵀε + ½εᵀAε over ‖ε‖₂ ≤ ρ by the secular equation (Moré & Sorensen 1983), no hard case."""
    values, vectors = torch.linalg.eigh(matrix)
    b = vectors.T @ slope

    def step(mu: float) -> Tensor:
        return b / (mu - values)

    def value(e: Tensor) -> float:
        return float(b @ e + 0.5 * (values * e * e).sum())

    top = float(values.max())
    if top < 0 and float(step(0.0).norm()) <= radius:
        return value(step(0.0))
    low, high = max(top, 0.0), max(top, 0.0) + float(b.norm()) / radius
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if float(step(middle).norm()) > radius else (low, middle)
    return value(step(high))


@pytest.mark.parametrize("radius", [0.05, 0.5, 5.0])
@pytest.mark.parametrize("name", SPECTRA)
def test_the_ascent_reaches_the_maximum_over_the_sphere(name: str, radius: float) -> None:
    matrix = rotated(SPECTRA[name], 4)
    scale = float(np.abs(SPECTRA[name]).max())
    slope = slope_of(len(matrix), 0.3 * scale)
    here = around(quadratic(matrix, slope))
    exact = trust_region_maximum(matrix, slope, radius)
    one, _ = here.measure(radius, 0, False)
    many, step = here.measure(radius, 300, False)
    assert many.increase == pytest.approx(exact, rel=1e-7, abs=1e-9 * scale)
    assert many.increase >= one.increase - 1e-15
    assert many.length <= radius * (1 + 1e-12)
    assert here.increase(step) == many.increase


def test_the_maximum_lies_inside_where_the_loss_is_concave() -> None:
    matrix, slope = rotated(SPECTRA["negative"], 4), 0.3 * slope_of(4)
    found, _ = around(quadratic(matrix, slope)).measure(5.0, 300, False)
    exact = torch.linalg.solve(-matrix, slope)
    assert found.length == pytest.approx(float(exact.norm()), rel=1e-3)
    assert found.length < 4.0


@pytest.mark.parametrize("p", [1.0, 1.5, 4.0, math.inf])
def test_other_balls_are_climbed_too_and_never_left(p: float) -> None:
    """On a convex quadratic the maximum over the cube or the cross-polytope is at a corner: all are tried."""
    matrix, slope = rotated(np.array([3.0, 1.0, 0.5, 0.1, 0.0, 0.0]), 5), slope_of(6)
    here = around(quadratic(matrix, slope), p=p)
    one, _ = here.measure(1.0, 0, False)
    many, step = here.measure(1.0, 60, False)
    assert float(torch.linalg.vector_norm(flat(step), p)) <= 1 + 1e-12
    assert many.increase >= one.increase - 1e-14
    if p in (1.0, math.inf):
        if p == 1:
            corners = torch.cat([torch.eye(6, dtype=FLOAT64), -torch.eye(6, dtype=FLOAT64)])
        else:
            corners = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=6)), dtype=FLOAT64)
        rises = corners @ slope + 0.5 * ((corners @ matrix) * corners).sum(1)
        assert many.increase <= float(rises.max()) + 1e-12
        assert many.increase >= 0.9 * float(rises.max())


def test_from_a_critical_point_the_ascent_starts_at_random_and_finds_the_top_curvature() -> None:
    matrix = rotated(SPECTRA["indefinite"], 6)
    here = around(quadratic(matrix, torch.zeros(7, dtype=FLOAT64)))
    assert here.flat
    found, _ = here.measure(0.1, 200, True)
    assert found.increase == pytest.approx(0.5 * 0.1**2 * 5.0, rel=1e-6)
    assert found.first == 0
    still, step = here.measure(0.1, 0, True)
    assert (still.increase, still.first, still.second, float(flat(step).norm())) == (0, 0, 0, 0)


@pytest.mark.parametrize("p", NORMS)
def test_points_are_put_back_into_the_ball(p: float) -> None:
    w = [torch.randn(4, 3, generator=generator(1), dtype=FLOAT64), torch.zeros(2, dtype=FLOAT64)]
    ball = Ball(w, [0.0, None], p)  # T = |w| on the first, 1 on the second
    far = [
        3 * part.abs() * part.sign().where(part != 0, 1.0) for part in [w[0], torch.ones(2, dtype=FLOAT64)]
    ]
    found = ball.inside(far, 0.5)
    coordinates = torch.cat([(found[0] / w[0].abs()).reshape(-1), found[1]])
    assert float(torch.linalg.vector_norm(coordinates, p)) == pytest.approx(0.5, rel=1e-12)
    near = [1e-3 * part for part in far]
    assert all(torch.equal(a, b) for a, b in zip(ball.inside(near, 0.5), near, strict=True))
    start = flat(ball.random(0.5, 7))
    assert torch.equal(start, flat(ball.random(0.5, 7)))
    assert not torch.equal(start, flat(ball.random(0.5, 8)))


def test_a_weight_of_zero_stays_where_its_scale_is_zero() -> None:
    ball = Ball([torch.zeros(3, dtype=FLOAT64)], [0.0], 2.0)
    found = ball.inside([torch.zeros(3, dtype=FLOAT64)], 0.5)
    assert flat(found).tolist() == [0.0, 0.0, 0.0]


# --- arithmetic ------------------------------------------------------------------------------------------


def net(dtype: torch.dtype = torch.float32, size: int = 40) -> Problem:
    x, y = classification(size, 6, 3, 2)
    return Problem(mlp(6, 8, 3).to(dtype), "cross_entropy", (x.to(dtype), y))


def test_a_rise_that_float32_cannot_resolve_is_measured_in_float64() -> None:
    here, exact = around(net()), around(net(FLOAT64))
    # The same float32 weights: those of the float64 net are rounded to them.
    with torch.no_grad():
        for w, rounded in zip(exact.problem.selection.tensors, here.problem.selection.tensors, strict=True):
            w.copy_(rounded)
    exact = around(exact.problem)
    found, step = here.measure(1e-7, 0, True)
    truth, _ = exact.measure(1e-7, 0, True)
    assert found.increase == pytest.approx(truth.increase, rel=1e-5)
    assert here.noise(step, found.increase) < 1e-6 * found.increase
    assert here.losses.problem.dtype == FLOAT64
    assert slope_error(here.problem, step) >= abs(found.first - truth.first)


class SingleOnly(nn.Module):
    """A model that refuses float64."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp(6, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype != torch.float32:
            raise RuntimeError("single precision only")
        out: Tensor = self.net(x)
        return out


def test_a_model_without_float64_says_how_much_its_differences_are_off() -> None:
    x, y = classification(40, 6, 3, 2)
    single = Problem(SingleOnly(), "cross_entropy", (x.float(), y))
    here = around(single)
    assert here.losses.problem.dtype == torch.float32
    truth, _ = around(net()).measure(1e-7, 0, False)
    found, step = here.measure(1e-7, 0, False)
    noise = here.noise(step, found.increase)
    assert abs(found.increase - truth.increase) <= noise
    assert noise > abs(truth.increase)  # so small a rise is not resolved, and this says so
    assert slope_error(single, step) > 0


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_weight_decay_is_part_of_the_rise_and_of_every_term(decay: float) -> None:
    x, y = classification(40, 6, 3, 2)
    problem = Problem(mlp(6, 8, 3).double(), "cross_entropy", (x, y), weight_decay=decay)
    found, step = around(problem).measure(1e-3, 0, True)
    w, e = problem.selection.flat(), flat(step)
    plain = around(Problem(mlp(6, 8, 3).double(), "cross_entropy", (x, y)))
    expected = plain.increase(step) + decay / 2 * float((w + e) @ (w + e) - w @ w)
    assert found.increase == pytest.approx(expected, rel=1e-9)
    assert found.increase == pytest.approx(found.first + found.second, rel=1e-6)


# --- errors over the data --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["cross-entropy, ragged", "masked tokens, tied", "squared error", "class weights"]
)
def test_the_error_over_the_data_is_that_of_the_paired_examples(name: str) -> None:
    found = case(name)
    here = around(found.problem)
    _, step = here.measure(0.1, 0, False)
    moved = found.weights + flat(step)
    sums = [
        torch.stack([found.summed(found.outputs(x)(at), y).detach() for x, y in found.counted])
        for at in (found.weights, moved)
    ]
    d, c = sums[1] - sums[0], found.counts
    mean, count = d.sum() / c.sum(), len(c)
    spread = ((d - mean * c) ** 2).sum() * count / (count - 1)
    known = here.losses.data_error(step, here.base)
    assert known.value == pytest.approx(float(spread.sqrt() / c.sum()), rel=1e-9)
    assert "own differences" in known.method
    assert float(mean) == pytest.approx(here.increase(step), rel=1e-9)


@pytest.mark.parametrize(
    ("name", "words"), [("callable", "no losses of single examples"), ("one example", "a single example")]
)
def test_where_there_is_no_error_over_the_data_it_says_why(name: str, words: str) -> None:
    here = around(case(name).problem)
    _, step = here.measure(0.1, 0, False)
    known = here.losses.data_error(step, here.base)
    assert math.isnan(known.value)
    assert "not computed" in known.method
    assert words in known.method


def test_in_train_mode_examples_are_not_independent() -> None:
    x, y = classification(20, 6, 3, 2)
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).double()
    losses = losses_of(Problem(model, "cross_entropy", (x, y), train_mode=True), 20)
    assert "train mode" in losses.data_error([torch.zeros_like(w) for w in losses.weights], 1.0).method


def test_groups_are_disjoint_cover_the_data_and_follow_the_seed() -> None:
    groups = groups_of(50, 8, 3)
    assert [len(rows) for rows in groups] == [8] * 6 + [2]
    assert sorted(torch.cat(groups).tolist()) == list(range(50))
    assert all(torch.equal(a, b) for a, b in zip(groups, groups_of(50, 8, 3), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(groups, groups_of(50, 8, 4), strict=True))


# --- the mean over directions ----------------------------------------------------------------------------


def sphere(count: int, size: int, seed: int) -> np.ndarray:
    draws = np.random.default_rng(seed).standard_normal((count, size))
    unit: np.ndarray = draws / np.linalg.norm(draws, axis=1, keepdims=True)
    return unit


@pytest.mark.parametrize("name", SPECTRA)
def test_the_variance_of_quadratic_forms_on_the_sphere(name: str) -> None:
    values = SPECTRA[name]
    matrix, n = rotated(values, 3).numpy(), len(values)
    exact = variance_of_trace(values.sum(), float((values**2).sum()), n)
    u = sphere(200_000, n, 1)
    forms = ((u @ matrix) * u).sum(1)
    scale = float(np.abs(values).max()) ** 2
    assert forms.var() == pytest.approx(exact, rel=0.03, abs=1e-10 * scale)
    squares = ((u @ matrix) ** 2).sum(1)
    assert variance_of_forms(forms, squares, n) == pytest.approx(exact, rel=0.03, abs=1e-10 * scale)


def test_the_interval_of_a_few_directions_covers_where_one_direction_has_all_the_curvature() -> None:
    """With the second estimate of the variance; Student's t alone covers 87 % here."""
    n, missed, plain = 60, 0, 0
    matrix = rotated(np.r_[1.0, np.zeros(n - 1)], 1).numpy()
    for seed in range(1000):
        u = sphere(16, n, seed)
        forms, squares = ((u @ matrix) * u).sum(1), ((u @ matrix) ** 2).sum(1)
        for second in (True, False):
            variance = variance_of_forms(forms, squares, n) if second else None
            found = average(forms, 0.05, variance)
            outside = abs(found.mean - 1 / n) > found.half_width
            missed, plain = missed + (outside and second), plain + (outside and not second)
    assert missed <= 70
    assert plain > 85


def test_looks_double_and_share_the_risk() -> None:
    points = looks_of(100, 0.1, 0.95)
    assert [count for count, _ in points] == [8, 16, 32, 64, 100]
    assert sum(risk for _, risk in points) == pytest.approx(0.05)
    assert looks_of(16, 0.0, 0.95) == [(16, pytest.approx(0.05))]
    # The same as for traces.
    assert points == [(s.probes, s.risk) for s in stages(Goal(100, tol=0.1), lambda total: (0, total))]


def test_too_few_values_have_no_interval() -> None:
    assert math.isnan(average([], 0.05).mean)
    one = average([2.0], 0.05)
    assert one.mean == 2.0
    assert math.isnan(one.half_width)
    # t(1 degree of freedom) at 97.5 % is 12.706.
    assert average([1.0, 3.0], 0.05).half_width == pytest.approx(12.7062, rel=1e-5)
