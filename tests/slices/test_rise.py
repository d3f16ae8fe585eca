"""Automatic ranges: functions that cross at known places, on each side; flat, falling and jumping ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from landscape.errors import ConfigurationError
from landscape.slices.rise import find_range

#: An end is at most 5 % beyond the crossing, then rounded to 2 digits, which adds at most a tenth.
FURTHEST = 1.05 * 1.1


class Counted:
    """A function of arrays that keeps its batches."""

    def __init__(self, function: Callable[[np.ndarray], np.ndarray]) -> None:
        self.function, self.batches = function, list[list[float]]()

    def __call__(self, steps: Sequence[float]) -> np.ndarray:
        self.batches.append(list(steps))
        return self.function(np.asarray(steps, dtype=float))


def _two_digits(end: float) -> bool:
    return float(f"{end:.1e}") == end


@pytest.mark.parametrize("unit", [1e-6, 0.01, 0.3, 1.0, 1e6])
@pytest.mark.parametrize("curvature", [1e-8, 0.5, 3.0, 1e9])
def test_a_parabola_ends_where_it_crosses(curvature: float, unit: float) -> None:
    f = Counted(lambda t: 2 + curvature * t * t / 2)
    low, high, evaluations = find_range(f, 2.0, 4.0, unit)
    crossing = (12 / curvature) ** 0.5
    assert low == -high
    assert crossing <= high <= FURTHEST * crossing
    assert _two_digits(high)
    assert evaluations == sum(map(len, f.batches))
    assert evaluations <= 120


@pytest.mark.parametrize("seed", range(20))
def test_each_side_on_its_own(seed: int) -> None:
    """With slopes, and so a side that falls first; the crossings are the roots of a parabola."""
    generator = np.random.default_rng(seed)
    slope, curvature, rise = (
        generator.normal() * 10,
        10 ** generator.uniform(-3, 3),
        generator.uniform(1.1, 20),
    )
    f = Counted(lambda t: 1 + slope * t + curvature * t * t / 2)
    low, high, _ = find_range(f, 1.0, rise, 10 ** generator.uniform(-4, 1))
    root = (slope**2 + 2 * curvature * (rise - 1)) ** 0.5
    # Of two roots of opposite sign the smaller one by cancellation is had from their product.
    large = (abs(slope) + root) / curvature
    small = 2 * (rise - 1) / curvature / large
    left, right = (large, small) if slope > 0 else (small, large)
    assert left <= -low <= FURTHEST * left
    assert right <= high <= FURTHEST * right


def test_each_batch_is_on_one_side_and_ascends() -> None:
    f = Counted(lambda t: 1 + t * t)
    find_range(f, 1.0, 4.0, 0.01)
    for batch in f.batches:
        assert len({t > 0 for t in batch}) == 1
        assert np.all(np.diff(np.abs(batch)) > 0)
    assert len(f.batches) <= 12


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_losses_have_risen(bad: float) -> None:
    low, high, _ = find_range(
        lambda t: np.where(np.asarray(t) > 3, bad, 1 + np.square(t) / 100), 1.0, 2.0, 0.1
    )
    assert 3 <= high <= 3 * FURTHEST
    assert 10 <= -low <= 10 * FURTHEST


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_side_that_never_rises_ends_where_the_other_one_does(sign: int) -> None:
    low, high, evaluations = find_range(lambda t: np.logaddexp(0, sign * np.asarray(t)), np.log(2), 4.0, 0.01)
    crossing = np.log(2**4 - 1)
    assert low == -high
    assert crossing <= high <= FURTHEST * crossing
    assert evaluations >= 41


def test_a_round_end_stays_round() -> None:
    """Of steps 0.1, 0.2, … 0.3 is risen; that 3·0.1 is above 0.3 in binary does not make it 0.31."""
    assert (
        find_range(lambda t: np.where(np.abs(t) >= 3 * 0.1 * (1 - 1e-12), 9.0, 1.0), 1.0, 4.0, 3 * 0.1)[1]
        == 0.3
    )


@pytest.mark.parametrize("losses", [lambda t: 1 + 0 * np.square(t), lambda t: 1 + np.tanh(np.square(t))])
def test_flat_and_bounded_losses(losses: Callable[[Sequence[float]], np.ndarray]) -> None:
    with pytest.raises(ConfigurationError, match="flat or bounded") as error:
        find_range(losses, 1.0, 4.0, 0.01)
    assert "--range" in str(error.value)
    assert f"{float(losses([1e9])[0]):g}, 1 at" in str(error.value).replace(
        " within ±1.1e+10 of the direction", ""
    )


@pytest.mark.parametrize("centre", [0.0, -1.0, np.nan, np.inf])
def test_a_multiple_of_nothing(centre: float) -> None:
    f = Counted(np.square)
    with pytest.raises(ConfigurationError, match="must be positive"):
        find_range(f, centre, 4.0, 0.01)
    assert not f.batches


@pytest.mark.parametrize("unit", [0.0, -1.0, np.nan, np.inf])
def test_a_step_of_nothing(unit: float) -> None:
    with pytest.raises(ConfigurationError, match="first step"):
        find_range(np.square, 1.0, 4.0, unit)


def test_a_jump_at_the_centre() -> None:
    with pytest.raises(ConfigurationError, match="jumps at the centre"):
        find_range(lambda t: 9 + 0 * np.square(t), 1.0, 4.0, 0.01)
