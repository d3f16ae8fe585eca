"""Second differences: their errors hold for functions of known curvature, and kinks are told from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from landscape.slices.differences import Difference, disagrees, second_difference

#: Losses and their second derivatives at 0, with a free size a.
FUNCTIONS: dict[str, tuple[Callable[[np.ndarray, float], np.ndarray], float]] = {
    "quartic": (lambda t, a: 1 + 0.3 * t + a * (t**2 / 2 + 0.7 * t**3 + t**4), 1.0),
    "parabola": (lambda t, a: 1 + a * t**2 / 2, 1.0),
    "maximum": (lambda t, a: 5 + 4 * a - a * t**2 / 2 + t**4, -1.0),
    "cos": (lambda t, a: 1 + 2 * a - a * np.cos(t), 1.0),
    "fast cos": (lambda t, a: 0.01 * a * (2 - np.cos(30 * t) / 9), 1.0),
    "exp": (lambda t, a: a * np.exp(t), 1.0),
    "logistic": (lambda t, a: 4 * a * np.logaddexp(0, t), 1.0),
    "bounded": (lambda t, a: 1 + a * np.tanh(3 * t) ** 2 / 18, 1.0),
}


def _found(name: str, noise: float, seed: int) -> tuple[Difference, float, int]:
    """With losses off by up to ``noise``, the guess by up to 2, the first step by orders of magnitude."""
    function, sign = FUNCTIONS[name]
    generator = np.random.default_rng([seed, *map(ord, name)])
    a, guess, step = (
        10 ** generator.uniform(-1, 2),
        2 ** generator.uniform(-1, 1),
        10 ** generator.uniform(-2, 0),
    )
    calls = []

    def losses(steps: Sequence[float]) -> np.ndarray:
        calls.extend(steps)
        exact = function(np.asarray(steps, dtype=float), a)
        return exact * (1 + noise * generator.uniform(-1, 1, exact.shape))

    centre = float(losses([0.0])[0])
    return second_difference(losses, centre, sign * a * guess, step, max(noise, 4e-16)), sign * a, len(calls)


@pytest.mark.parametrize("noise", [0.0, 6e-8, 1e-6])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_errors_hold(name: str, noise: float) -> None:
    found = [_found(name, noise, seed) for seed in range(100)]
    assert np.mean([abs(d.value - true) <= d.error for d, true, _ in found]) >= 0.97
    assert not any(disagrees(true, 0.0, d) for d, true, _ in found)
    assert max(calls for *_, calls in found) <= 15 + 4 * 5
    # And they are of use: most are small.
    small = 1e-4 if noise == 0 else 0.1
    assert np.median([d.error / abs(true) for d, true, _ in found]) <= small


def test_the_difference_is_that_of_its_formula() -> None:
    found = second_difference(lambda t: 1 + np.asarray(t) ** 4, 1.0, 0.0, 0.5, 1e-12)
    h = found.value**0.5 / 2**0.5
    assert any(h == pytest.approx(step, rel=1e-3) for step in found.steps)
    assert found.value <= found.error


@pytest.mark.parametrize("rounding", [4e-16, 1e-7])
@pytest.mark.parametrize("step", [0.01, 0.1])
@pytest.mark.parametrize("height", [0.3, 3.0])
def test_a_kink_disagrees(height: float, step: float, rounding: float) -> None:
    """The curvature beside it, as an exact derivative gives it, says nothing of the kink."""
    found = second_difference(lambda t: 1 + height * np.abs(t) + np.square(t) / 2, 1.0, 1.0, step, rounding)
    assert disagrees(1.0, 0.01, found)
    one_sided = second_difference(
        lambda t: 1 + height * np.maximum(t, 0) + np.square(t) / 2, 1.0, 1.0, step, rounding
    )
    assert disagrees(1.0, 0.01, one_sided)


@pytest.mark.parametrize("factor", [0.5, 1.2, -1.0])
def test_a_wrong_curvature_disagrees(factor: float) -> None:
    for name in ("quartic", "exp", "logistic"):
        found, true, _ = _found(name, 0.0, 3)
        assert disagrees(factor * true, 0.01 * abs(true), found)
        assert not disagrees(factor * true, abs(true) * 2, found)


def test_agreement_within_both_errors_never_disagrees() -> None:
    assert not disagrees(1.0, 0.3, Difference(2.0, 0.7))
    assert not disagrees(1.0, 0.0, Difference(2.0, 1.0))
    assert disagrees(1.0, 0.0, Difference(2.0, 0.1))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_known_disagrees_with_nothing(bad: float) -> None:
    found = second_difference(lambda t: np.full(len(t), bad), 1.0, 1.0, 1.0, 1e-15)
    assert math.isnan(found.value)
    assert found.error == math.inf
    assert not disagrees(1.0, 0.0, found)
    assert not disagrees(math.nan, 0.0, Difference(1.0, 0.1))


def test_steps_at_which_the_loss_overflows_are_left_out() -> None:
    found = second_difference(
        lambda t: np.where(np.abs(t) > 1e-3, math.inf, 1 + 2 * np.square(t)), 1.0, 4.0, 1.0, 4e-16
    )
    assert abs(found.value - 4) <= found.error <= 1e-2


@pytest.mark.parametrize("guess", [0.0, math.nan, 1e-30, 1e6])
def test_without_a_usable_guess(guess: float) -> None:
    found = second_difference(np.cosh, 1.0, guess, 0.01, 4e-16)
    assert abs(found.value - 1) <= found.error <= 0.1


def test_a_loss_far_below_its_logits() -> None:
    """A cross entropy of 1e-5 is off by the rounding of its logits, not by its own."""

    def loss(steps: Sequence[float]) -> np.ndarray:
        t = np.asarray(steps)[:, None] + np.linspace(0.0, 1.0, 50) * 1e-3
        return np.asarray((np.log(np.exp(12.0 + t) + 1.0 + t**2) - (12.0 + t)).mean(1))

    exact = 1 / (math.exp(12.0) + 1.0)
    for start in (1.0, 0.3, 0.07):
        curvature = 3 * exact  # of (1 + t²) e^(−12 − t), but for its square
        found = second_difference(loss, float(loss([0.0])[0]), curvature, start, 4 * 2.0**-52)
        assert found.error < 1e-2 * curvature
        assert found.value == pytest.approx(curvature, rel=1e-2)
