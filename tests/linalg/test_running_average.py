"""The running average in both readings, on quadratics: where it goes, how fast, and when it says so."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from landscape.linalg.operator import MatrixOperator, norm
from landscape.linalg.probes import gaussian
from landscape.linalg.running_average import (
    RunningAverage,
    cycle_norm,
    running_average,
    safe_weight,
    smoothed,
)
from tests.support.spectra import digits_like, rotated

WEIGHTS = (0.05, 0.1, 0.3, 0.5, 0.8, 1.0)


def _matrix(eigenvalues: ArrayLike, seed: int = 1) -> Tensor:
    return rotated(np.asarray(eigenvalues, dtype=float), seed)


def _start(size: int, seed: int = 0) -> RunningAverage:
    vector = gaussian(size, seed, "start")
    return RunningAverage.start(vector / norm(vector))


def _iterate(  # type: ignore[no-untyped-def]
    matrix, new_weight, tol=1e-6, limit=5000, average=None, seed=0, **changes
):
    """States of ``iterate`` on a full batch, each product its own evaluation."""

    def product(_: int, direction: Tensor | None) -> tuple[Tensor, Tensor]:
        assert direction is not None
        return matrix @ direction, direction

    keywords = {"product": product, "evaluate": None, "full_batch": True} | changes
    average = _start(len(matrix), seed) if average is None else average
    for state in running_average(average, perturb="iterate", new_weight=new_weight, tol=tol, **keywords):
        yield state
        if state.iterations >= limit:
            return


def _gradient(matrix, direction, new_weight, tol=1e-6, limit=5000, average=None):  # type: ignore[no-untyped-def]
    """States of ``gradient`` on a full batch: the direction is always the same."""
    average = RunningAverage.start(torch.zeros_like(direction)) if average is None else average
    for state in running_average(
        average,
        perturb="gradient",
        new_weight=new_weight,
        product=lambda _, none: (
            (matrix @ direction, direction) if none is None else pytest.fail("a direction")
        ),
        evaluate=lambda _, unit: matrix @ unit,
        full_batch=True,
        tol=tol,
    ):
        yield state
        if state.iterations >= limit:
            return


def _last(states):  # type: ignore[no-untyped-def]
    *_, last = states
    return last


BULKS = {
    "plain": np.r_[0.5, 0.1, np.zeros(8)],
    "clustered": np.r_[0.9, 0.9, 0.85, 0.1, 0.0],
    "repeated top": np.r_[1.0, 1.0, 0.2, 0.0],
    "alone": np.zeros(0),
}


def _scaled_start(size: int, scale: float, seed: int = 0) -> RunningAverage:
    return RunningAverage.start(_start(size, seed).vector * scale)


@pytest.mark.parametrize("bulk", BULKS)
@pytest.mark.parametrize("new_weight", WEIGHTS)
@pytest.mark.parametrize("share", [0.0, 0.5, 0.9, 0.98, 1.02, 1.1, 2.0, 10.0])
def test_the_top_is_reached_exactly_below_the_border(share: float, new_weight: float, bulk: str) -> None:
    """|λmin| = share · λmax (2/β − 1), other negative eigenvalues beside it; ‖v₀‖ of the size of λmax."""
    smallest, scale = -share * (2 / new_weight - 1), 1e-3
    matrix = scale * _matrix(np.r_[1.0, BULKS[bulk], smallest / 3, smallest / 1.5, smallest])
    average = _last(_iterate(matrix, new_weight, average=_scaled_start(len(matrix), scale), limit=30_000))
    assert average.over
    if share < 1:
        assert average.status == "converged"
        assert average.norms[-1] == pytest.approx(scale, rel=1e-6)
        assert average.rayleigh[-1] == pytest.approx(scale, rel=1e-6)
        assert average.residuals[-1] <= 1e-6 * scale
    else:
        assert average.status == "oscillating"
        assert average.norms[-1] == pytest.approx(scale * cycle_norm(smallest, new_weight), rel=2e-6)
        assert average.rayleigh[-1] == pytest.approx(scale * smallest, rel=1e-6)
    assert (share < 1) == (new_weight < safe_weight(1.0, smallest))
    assert np.isfinite(average.norms).all()


@pytest.mark.parametrize("new_weight", [0.05, 0.1, 0.5, 0.8])
@pytest.mark.parametrize("scale", [1e-4, 1e4])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_the_top_from_a_start_of_another_size(share: float, scale: float, new_weight: float) -> None:
    """Below the border a start that flips at first is not taken for a cycle, even at a loose tolerance."""
    matrix = scale * _matrix([1.0, 0.5, 0.1, 0.0, -share * (2 / new_weight - 1)])
    for tol in (3e-2, 1e-6):
        average = _last(_iterate(matrix, new_weight, tol=tol, limit=30_000))
        assert (average.status, average.over) == ("converged", True)
        assert average.norms[-1] == pytest.approx(scale, rel=2 * tol)


@pytest.mark.parametrize("new_weight", [0.05, 0.1, 0.5, 0.8])
@pytest.mark.parametrize("scale", [1e-4, 1e4])
@pytest.mark.parametrize("share", [1.02, 1.5, 4.0])
def test_beyond_the_border_from_a_start_of_another_size(
    share: float, scale: float, new_weight: float
) -> None:
    """A large ‖v₀‖ first wipes out the negative eigenvectors: λmax, if it is met on the way, is λmax."""
    smallest = -share * (2 / new_weight - 1)
    matrix = scale * _matrix([1.0, 0.5, 0.1, 0.0, smallest])
    average = _last(_iterate(matrix, new_weight, tol=1e-6, limit=30_000))
    assert average.over
    reached = scale if average.status == "converged" else scale * cycle_norm(smallest, new_weight)
    assert average.norms[-1] == pytest.approx(reached, rel=2e-6)
    assert average.status == "oscillating" or (scale < 1 and new_weight < 1)


@pytest.mark.long
@pytest.mark.parametrize("new_weight", WEIGHTS[1:])
@pytest.mark.parametrize("share", [0.995, 0.999, 1.001, 1.005])
def test_close_to_the_border(share: float, new_weight: float) -> None:
    """One component gains on the other by about β |1 − share| per iteration: 10⁵ of them may be needed."""
    smallest = -share * (2 / new_weight - 1)
    average = _last(_iterate(_matrix([1.0, 0.3, 0.0, smallest]), new_weight, limit=300_000))
    assert average.over
    assert average.status == ("converged" if share < 1 else "oscillating")


@pytest.mark.parametrize("new_weight", WEIGHTS)
@pytest.mark.parametrize("seed", range(3))
def test_a_tie_oscillates(new_weight: float, seed: int) -> None:
    """On the border both eigenvectors stay: ‖v‖ is that of the cycle, which is λmax; v settles nowhere."""
    smallest = -(2 / new_weight - 1)
    average = _last(_iterate(_matrix([1.0, 0.4, 0.0, 0.5 * smallest, smallest]), new_weight, seed=seed))
    assert (average.status, average.over) == ("oscillating", True)
    assert average.norms[-1] == pytest.approx(1.0, abs=1e-6)
    assert average.iterations < 2000


@pytest.mark.parametrize("new_weight", WEIGHTS)
def test_nothing_positive_to_reach(new_weight: float) -> None:
    """All eigenvalues negative: the cycle, at |λmin| and not at the largest, however large the start is."""
    matrix = 1e-4 * _matrix([-1.0, -2.0, -3.0])
    average = _last(_iterate(matrix, new_weight))
    assert (average.status, average.over) == ("oscillating", True)
    assert average.norms[-1] == pytest.approx(cycle_norm(-3e-4, new_weight), rel=1e-5)
    assert safe_weight(-1.0, -3.0) == 0.0


@pytest.mark.parametrize("new_weight", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("smallest", [0.0, -0.5, -0.9])
def test_rate(new_weight: float, smallest: float) -> None:
    """The residual falls by max(1 − β(1 − λ₂/λ₁), |1 − β(1 + |λmin|/λ₁)|) per iteration."""
    matrix = _matrix([1.0, 0.6, 0.0, smallest * 0.9, smallest])
    average = _last(_iterate(matrix, new_weight, tol=1e-12))
    residuals = np.array(average.residuals)
    late = (residuals < 1e-6) & (residuals > 1e-10)
    rate = math.exp(np.polyfit(np.flatnonzero(late), np.log(residuals[late]), 1)[0])
    expected = max(1 - new_weight * 0.4, abs(1 - new_weight * (1 - smallest)))
    assert rate == pytest.approx(expected, abs=2e-3)


def test_naive_twin() -> None:
    """‖v‖, Rayleigh quotient, residual and cosine, iteration by iteration."""
    matrix, new_weight = _matrix(digits_like(40, 0)), 0.3
    average = _start(40)
    v = average.vector.numpy().copy()
    dense, previous = matrix.numpy(), None
    for k, state in enumerate(_iterate(matrix, new_weight, average=average, limit=50, tol=0.0)):
        unit = v / np.linalg.norm(v)
        image = dense @ unit
        theta = unit @ image
        assert state.norms[k] == pytest.approx(np.linalg.norm(v), rel=1e-12)
        assert state.rayleigh[k] == pytest.approx(theta, rel=1e-12)
        assert state.curvatures[k + 1] == pytest.approx(theta, rel=1e-12)
        assert state.lengths[k + 1] == pytest.approx(np.linalg.norm(image), rel=1e-12)
        assert state.residuals[k] == pytest.approx(np.linalg.norm(image - theta * unit), rel=1e-10)
        if previous is not None:
            assert state.cosines[k] == pytest.approx(unit @ previous, rel=1e-12)
        v, previous = (1 - new_weight) * v + new_weight * image, unit
        assert np.allclose(state.vector.numpy(), v, rtol=1e-12, atol=1e-15)
    assert state.iterations == state.products == 50


def test_evaluations_of_their_own_say_the_same() -> None:
    """Evaluating by a product of its own costs twice and changes no figure."""
    matrix = _matrix(digits_like(40, 0))
    one = _last(_iterate(matrix, 0.3))
    two = _last(_iterate(matrix, 0.3, evaluate=lambda _, unit: matrix @ unit))
    assert (one.status, two.status) == ("converged", "converged")
    assert one.norms == two.norms
    assert one.rayleigh[1:] == two.rayleigh[1:]
    assert two.products == 2 * two.iterations
    assert one.products == one.iterations + 1


def test_evaluations_on_a_schedule() -> None:
    """Only then can it be over, converged or not; between them the steps say that it flips."""
    for smallest, status in ((-0.5, "converged"), (-40.0, "oscillating")):
        matrix = _matrix([1.0, 0.3, 0.0, smallest])
        states = _iterate(
            matrix, 0.1, evaluate=lambda k, unit, m=matrix: m @ unit if k % 50 == 0 else None, limit=1000
        )
        before, seen = "not_converged", []
        for state in states:
            measured = state.iterations % 50 == 0
            assert math.isnan(state.rayleigh[-1]) != measured
            assert not (state.over and not measured)
            seen.append((before, state.status))
            before = state.status
        assert state.over
        assert state.status == status
        assert seen[-2][1] == ("oscillating" if smallest < -1 else "not_converged")


@pytest.mark.parametrize("new_weight", WEIGHTS)
def test_gradient_closed_form(new_weight: float) -> None:
    """v_k = (1 − β)^k v₀ + (1 − (1 − β)^k) d, to the last iteration, where ‖v‖ = ‖Hu‖ to the tolerance."""
    matrix = _matrix(digits_like(40, 0))
    direction = gaussian(40, 3) / norm(gaussian(40, 3))
    d, average = matrix @ direction, RunningAverage.start(10 * gaussian(40, 4))
    first = average.vector.clone()
    for state in _gradient(matrix, direction, new_weight, average=average):
        left = (1 - new_weight) ** state.iterations
        assert torch.allclose(state.vector, left * first + (1 - left) * d, rtol=1e-9, atol=1e-12)
    assert (state.status, state.over) == ("converged", True)
    assert norm(state.vector - d) <= 1e-6 * norm(d) * (1 + 1e-6)
    assert state.norms[-1] == pytest.approx(norm(d), rel=1e-6)
    assert state.curvatures[-1] == pytest.approx(float(direction @ matrix @ direction), rel=1e-9)
    assert abs(state.curvatures[-1]) <= state.norms[-1] * (1 + 1e-9) <= 2.9 * (1 + 2e-6)
    assert state.norms[-1] < 2.0  # and not λmax, 2.9
    steps = math.log(1e-6 * norm(d) / norm(first - d)) / math.log1p(-new_weight) if new_weight < 1 else 1
    assert state.iterations == pytest.approx(steps, abs=1.001)


def test_gradient_in_the_top_eigenspace_gives_the_top() -> None:
    """And along the eigenvector of a negative eigenvalue its size, the sign being in the curvature alone."""
    matrix = _matrix([2.0, 1.0, 0.5, -3.0])
    vectors = torch.linalg.eigh(matrix).eigenvectors.T
    for vector, value in ((vectors[3], 2.0), (vectors[0], -3.0)):
        state = _last(_gradient(matrix, vector, 0.2))
        assert state.norms[-1] == pytest.approx(abs(value), rel=1e-5)
        assert state.curvatures[-1] == pytest.approx(value, rel=1e-9)
        assert state.rayleigh[-1] == pytest.approx(value, rel=1e-9)


def test_a_steady_norm_of_a_turning_vector_is_not_convergence() -> None:
    """‖v‖ momentarily stands still where d − v is across v: on a full batch v itself must be at rest."""
    matrix = torch.diag(torch.tensor([1.0, 1.0], dtype=torch.float64))
    angle, new_weight = math.pi / 3, 0.01
    direction = torch.tensor([1.0, 0.0], dtype=torch.float64)
    start = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64) / math.cos(angle) * 0.25
    average = RunningAverage.start(start)  # d·v = ‖v‖² soon after
    states = _gradient(matrix, direction, new_weight, tol=1e-2, average=average)
    still = None
    for state in states:
        change = abs(state.norms[-1] - state.norms[-2]) / new_weight
        if still is None and change <= 1e-2 * state.norms[-1]:
            still = state.iterations
            assert state.status == "not_converged"
    assert still is not None
    assert state.status == "converged"
    assert norm(state.vector - direction) <= 1.01e-2


def _batches(values: ArrayLike, count: int, spread: float, seed: int) -> list[Tensor]:
    """Symmetric matrices around the one with these eigenvalues, which is their mean."""
    mean, draw = _matrix(values), np.random.default_rng([seed, 5])
    errors = [torch.from_numpy(draw.standard_normal(mean.shape)) for _ in range(count)]
    errors = [(e + e.T) / 2 for e in errors]
    middle = sum(errors) / count
    return [mean + spread * (e - middle) for e in errors]


def _stochastic(batches, new_weight, seed, limit, tol=1e-4, perturb="iterate"):  # type: ignore[no-untyped-def]
    mean = sum(batches) / len(batches)
    size, draw = len(mean), np.random.default_rng([seed, 9])
    order = draw.integers(0, len(batches), limit + 1)

    def product(k: int, direction: Tensor | None) -> tuple[Tensor, Tensor]:
        u = direction if direction is not None else gaussian(size, seed, k) / norm(gaussian(size, seed, k))
        return batches[order[k]] @ u, u

    states = running_average(
        _start(size, seed),
        perturb=perturb,
        new_weight=new_weight,
        product=product,
        evaluate=lambda k, unit: mean @ unit if k % 10 == 0 else None,
        full_batch=False,
        tol=tol,
    )
    return list(itertools.islice(states, limit))


@pytest.mark.parametrize("new_weight", [0.01, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_no_false_verdict_on_mini_batches(new_weight: float, seed: int) -> None:
    """Noise as large as the spectrum, negative eigenvalues: never oscillating, never converged by luck."""
    batches = _batches(np.r_[1.0, 0.5, np.zeros(10), -0.7], 30, 0.3, seed)
    average = _stochastic(batches, new_weight, seed, 600)[-1]
    assert (average.status, average.over) == ("not_converged", False)
    gradient = _stochastic(batches, new_weight, seed, 600, tol=1e-3, perturb="gradient")[-1]
    assert (gradient.status, gradient.over) == ("not_converged", False)
    assert len(gradient.norms) == 601


@pytest.mark.parametrize("new_weight", [0.3, 1.0])
def test_a_cycle_on_mini_batches_is_seen(new_weight: float) -> None:
    """All batches have the same strongly negative direction; it is said, and the run goes on."""
    smallest = -3 * (2 / new_weight - 1)
    average = _stochastic(_batches(np.r_[1.0, np.zeros(6), smallest], 20, 0.02, 0), new_weight, 0, 200)[-1]
    assert (average.status, average.over) == ("oscillating", False)
    assert average.norms[-1] == pytest.approx(cycle_norm(smallest, new_weight), rel=0.1)
    assert average.rayleigh[-1] == pytest.approx(smallest, rel=0.1)


def test_mini_batches_that_agree_converge() -> None:
    batches = _batches(np.r_[1.0, 0.2, np.zeros(8)], 10, 1e-7, 0)
    average = _stochastic(batches, 0.3, 0, 400, tol=1e-4)[-1]
    assert (average.status, average.over) == ("converged", True)
    assert average.iterations % 10 == 0
    assert average.rayleigh[-1] == pytest.approx(1.0, rel=1e-5)
    direction = [torch.eye(10, dtype=torch.float64)] * 3
    gradient = _stochastic(direction, 1.0, 0, 50, tol=1e-4, perturb="gradient")[-1]
    assert (gradient.status, gradient.iterations) == ("converged", 10)


def test_a_cycle_that_sets_in_late() -> None:
    """The start has almost nothing of λmin: first it looks as if λmax were reached, then the cycle comes."""
    matrix = _matrix([1.0, 0.5, 0.0, -1.5])
    vectors = torch.linalg.eigh(matrix).eigenvectors.T
    start = RunningAverage.start(vectors[3] + 1e-9 * vectors[0] + 1e-1 * vectors[2])
    states, late = [], 0
    for state in _iterate(matrix, 1.0, average=start, tol=1e-10):
        states.append(state.rayleigh[-2] if state.iterations and not state.over else state.rayleigh[-1])
        late = state.iterations
    assert max(states) > 0.999
    assert state.status == "oscillating"
    assert late > 50


def test_zero_is_no_direction_and_no_nan() -> None:
    zero = torch.zeros((6, 6), dtype=torch.float64)
    for new_weight in (0.2, 1.0):
        average = _last(_iterate(zero, new_weight, tol=1e-4))
        assert (average.status, average.over) == ("converged", True)
        assert average.norms[-1] <= 1e-4
        assert np.isfinite(average.norms).all()
        assert not np.isnan(average.cosines[1:]).any()
        assert average.rayleigh[-1] == 0.0
        gradient = _last(_gradient(zero, gaussian(6, 0), new_weight, average=_start(6)))
        assert gradient.status == "converged"
        assert gradient.norms[-1] <= 1e-6
        assert not np.isnan(gradient.rayleigh[1:]).any()
    null = _last(_gradient(zero, gaussian(6, 0), 0.5))
    assert (null.status, null.iterations, null.norms) == ("converged", 1, [0.0, 0.0])


def test_v_that_vanishes_on_the_way_keeps_its_direction() -> None:
    """From ½·y with λ = −½ and β = ½ the average is exactly zero after one iteration; then the cycle."""
    matrix = torch.diag(torch.tensor([-0.5, -0.25], dtype=torch.float64))
    average = RunningAverage.start(torch.tensor([0.5, 0.0], dtype=torch.float64))
    average = _last(_iterate(matrix, 0.5, average=average, tol=1e-6))
    assert average.norms[1] == 0.0
    assert average.status == "oscillating"
    assert average.norms[-1] == pytest.approx(cycle_norm(-0.5, 0.5), rel=1e-6)


def test_start_at_zero() -> None:
    matrix, direction = _matrix([2.0, 1.0, 0.0]), gaussian(3, 0)
    with pytest.raises(ValueError, match="no direction"):
        _last(_iterate(matrix, 0.5, average=RunningAverage.start(torch.zeros(3, dtype=torch.float64))))
    begun = RunningAverage.start(torch.zeros(3, dtype=torch.float64), direction)
    average = _last(_iterate(matrix, 0.5, average=begun))
    assert average.norms[0] == 0.0
    assert average.norms[-1] == pytest.approx(2.0, rel=1e-6)


@pytest.mark.parametrize("new_weight", [0.0, -0.1, 1.0000001, math.nan, math.inf])
def test_weights_out_of_range(new_weight: float) -> None:
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        next(_iterate(_matrix([1.0, 0.0]), new_weight))


def test_evaluations_that_cannot_be_left_out() -> None:
    for perturb, full_batch in (("gradient", True), ("iterate", False)):
        with pytest.raises(ValueError, match="full batch"):
            next(
                running_average(
                    _start(3),
                    perturb=perturb,
                    new_weight=0.5,
                    product=lambda _, u: (u, u),
                    evaluate=None,
                    full_batch=full_batch,
                    tol=1e-4,
                )
            )


@pytest.mark.parametrize("smallest", [-0.5, -3.0, -0.1])
def test_resumed_after_any_iteration_it_gives_the_same_bits(smallest: float) -> None:
    matrix = _matrix(np.r_[1.0, 0.8, np.zeros(20), smallest])
    saved = [(s.arrays(), s.counters()) for s in _iterate(matrix, 0.6, tol=1e-5)]
    assert saved[-1][1]["average_over"]
    for arrays, counters in saved[::7]:
        copied = {name: array.copy() for name, array in arrays.items()}
        again = _last(_iterate(matrix, 0.6, tol=1e-5, average=RunningAverage.restore(copied, counters)))
        assert again.counters() == saved[-1][1]
        for name, array in saved[-1][0].items():
            assert np.array_equal(array, again.arrays()[name], equal_nan=True), name
    over = RunningAverage.restore(*saved[-1])
    assert list(_iterate(matrix, 0.6, tol=1e-5, average=over)) == []


def test_single_precision_products() -> None:
    """Stops at a tolerance above the arithmetic; the figures are as good as the products."""
    operator = MatrixOperator(_matrix(digits_like(60, 0)), torch.float32)

    def product(_: int, direction: Tensor | None) -> tuple[Tensor, Tensor]:
        assert direction is not None
        return operator.apply(direction[None])[0], direction

    average = _last(_iterate(operator.matrix, 0.5, tol=1e-5, product=product))
    assert average.status == "converged"
    assert average.norms[-1] == pytest.approx(2.9, rel=1e-5)


def test_nothing_of_the_callers_is_changed() -> None:
    """Neither the start nor what a product hands out, be it the very vector it was given."""
    vector, image = gaussian(8, 0), gaussian(8, 1)
    before = vector.clone(), image.clone()
    for product in (lambda _, u: (u, u), lambda _, u: (image, u)):
        average = RunningAverage.start(vector)
        first = average.vector
        kept = first.clone()
        states = running_average(
            average, perturb="iterate", new_weight=0.3, product=product,
            evaluate=None, full_batch=True, tol=1e-9,
        )  # fmt: skip
        list(itertools.islice(states, 10))
        assert torch.equal(first, kept)
    assert torch.equal(vector, before[0])
    assert torch.equal(image, before[1])


@pytest.mark.parametrize("new_weight", [1e-3, 0.1, 0.5, 1.0])
def test_smoothed_is_adams_corrected_mean(new_weight: float) -> None:
    xs = [gaussian(5, 0, t) for t in range(1, 40)]
    corrected = plain = moment = torch.zeros(5, dtype=torch.float64)
    for t, x in enumerate(xs, start=1):
        corrected = smoothed(corrected, x, new_weight=new_weight, step=t, as_written=False)
        plain = smoothed(plain, x, new_weight=new_weight, step=t, as_written=True)
        moment = (1 - new_weight) * moment + new_weight * x
        assert torch.allclose(plain, moment, rtol=1e-12, atol=0)
        assert torch.allclose(corrected, moment / (1 - (1 - new_weight) ** t), rtol=1e-10, atol=1e-13)
    assert torch.equal(
        smoothed(torch.zeros(5, dtype=torch.float64), xs[0], new_weight=new_weight, step=1, as_written=False),
        xs[0],
    )


def test_the_first_step_as_written_is_too_long() -> None:
    """1/‖h_1‖ is 1/β times 1/‖x_1‖ as written; of a constant x the corrected one is x at every step."""
    x, h = gaussian(5, 0), torch.zeros(5, dtype=torch.float64)
    written = smoothed(h, x, new_weight=0.1, step=1, as_written=True)
    assert 1 / norm(written) == pytest.approx(10 / norm(x))
    for t in range(1, 5):
        h = smoothed(h, x, new_weight=0.1, step=t, as_written=False)
        assert torch.allclose(h, x, rtol=1e-14)
