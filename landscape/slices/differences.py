"""Second differences of the loss along a line: a cross-check of curvature that was measured otherwise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Difference", "disagrees", "second_difference"]

#: Steps on either side of the one that is expected to be best, each twice the one before.
_AROUND = 3
#: So many steps are added at an end of the ladder while the best one is there; and so often at most.
_MORE, _OFTEN = 2, 5
#: An error below this share of the value is close enough for a cross-check.
_CLOSE = 1e-3
#: Values that differ by more than this times both errors disagree. Exact ones never do; at a kink a
#: difference is 2 of its errors from the curvature beside it.
_MARGIN = 1.5
#: And by more than this share: an eigenvalue found in float32 is a little off that of the loss in float64.
_SAME = 1e-4
#: Losses whose differences of this order show their rounding, so many, and how close they lie, in units of
#: the step that is expected to be best: nothing smooth is left of them.
_ORDER, _LOSSES, _DENSE = 4, 13, 2.0**-10
#: A loss is taken to be off by so many standard deviations of its rounding.
_WIDE = 2.0


@dataclass(frozen=True)
class Difference:
    """(L(h) + L(−h) − 2L(0))/h².

    Attributes:
        value: at the step of the least error; NaN where no loss was finite.
        error: what it may be off by: the change from the step 2h, which is three times the truncation of
            O(h²) at h, or half the change from h/2 where that is larger; and rounding. Infinite if not known.
        steps: all steps h, ascending.
    """

    value: float
    error: float
    steps: tuple[float, ...] = ()


def second_difference(
    f: Callable[[Sequence[float]], np.ndarray],
    centre_loss: float,
    guess: float,
    first_step: float,
    rounding: float,
) -> Difference:
    """The second derivative of the loss at 0, with its error, from a ladder of steps h, 2h, 4h, …

    The truncation h²L⁗/12 grows as the rounding 4δ|L|/h² shrinks (Press et al. 2007, §5.7). Both are equal at
    h = (48 δ|L|/L⁗)^¼; there the ladder begins, with L⁗ taken as ``guess`` over the square of ``first_step``,
    and it grows to where the error is least. Where the rounding that is seen is larger, it is in the place of
    δ|L|: a cross entropy far below its logits is off by their rounding.

    Args:
        f: losses at a batch of coordinates.
        centre_loss: the loss at 0.
        guess: the second derivative as far as it is known; 0 if it is not.
        first_step: a length over which the curvature may change, positive.
        rounding: δ, by what one loss is off at least, relative to it.

    >>> found = second_difference(np.cosh, 1.0, 1.0, 1.0, 1e-15)
    >>> abs(found.value - 1) < found.error < 1e-5
    True
    """
    off = rounding * abs(centre_loss)
    off = max(off, _WIDE * _rounding(f, _DENSE * _start(off, guess, first_step)))
    ladder = _Ladder(f, centre_loss, rounding, off)
    start = _start(off, guess, first_step)
    ladder.add([start * 2.0**k for k in range(-_AROUND, _AROUND + 1)])
    for _ in range(_OFTEN):
        best, value, error = ladder.best()
        steps = ladder.steps
        # At both ends a step is lacking that would tell whether it is still better there.
        if best <= 1 or not ladder.begins_in_noise:
            ladder.add([steps[0] / 2**k for k in range(1, _MORE + 1)])
        elif best >= len(steps) - 2 and error > _CLOSE * abs(value):
            ladder.add([steps[-1] * 2**k for k in range(1, _MORE + 1)])
        else:
            break
    _, value, error = ladder.best()
    return Difference(value, error, tuple(ladder.steps))


def disagrees(curvature: float, error: float, difference: Difference) -> bool:
    """Whether a second derivative and a difference differ by more than their errors, with a margin.

    What is not known (NaN, or an infinite error) disagrees with nothing.
    """
    apart = abs(curvature - difference.value)
    return bool(apart > _MARGIN * (error + difference.error) + _SAME * abs(curvature))


def _start(off: float, guess: float, first_step: float) -> float:
    """The step where rounding and truncation are expected to be equal, at most the first step."""
    if not (guess and math.isfinite(guess) and off):
        return first_step
    fourth = abs(guess) / first_step**2
    return min(first_step, float((48 * off / fourth) ** 0.25))


def _rounding(f: Callable[[Sequence[float]], np.ndarray], spacing: float) -> float:
    """Standard deviation of the rounding of a loss, from differences of losses that lie close together.

    Of independent roundings of variance σ², k-th differences have σ² (2k)!/(k!)² (Moré and Wild 2011, §2).
    0 where it cannot be told.
    """
    losses = np.asarray(f([spacing * (i - _LOSSES // 2) for i in range(_LOSSES)]), dtype=np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        square = float(np.mean(np.diff(losses, _ORDER) ** 2)) / math.comb(2 * _ORDER, _ORDER)
    return math.sqrt(square) if math.isfinite(square) else 0.0


class _Ladder:
    """Differences at steps that double, ascending."""

    def __init__(
        self, f: Callable[[Sequence[float]], np.ndarray], centre_loss: float, rounding: float, off: float
    ) -> None:
        self._f, self._centre, self._rounding, self._off = f, centre_loss, rounding, off
        self._found: dict[float, tuple[float, float]] = {}

    @property
    def steps(self) -> list[float]:
        return sorted(self._found)

    def add(self, steps: Sequence[float]) -> None:
        """Evaluate both sides of each step in one batch."""
        losses = np.asarray(self._f([*steps, *(-h for h in steps)]), dtype=np.float64)
        for h, right, left in zip(steps, *losses.reshape(2, -1).tolist(), strict=True):
            value = ((right - self._centre) + (left - self._centre)) / h**2
            largest = max(abs(right), abs(left), abs(self._centre))
            self._found[h] = value, 4 * max(self._off, self._rounding * largest) / h**2

    @property
    def begins_in_noise(self) -> bool:
        """Whether rounding explains the change between the first two steps."""
        (first, noise), (second, less) = (self._found[h] for h in self.steps[:2])
        return not abs(second - first) > noise + less

    def best(self) -> tuple[int, float, float]:
        """(which step, its difference, its error), of the first least error; infinite if no two are finite.

        Going up, errors fall with the rounding until the truncation takes over. Beyond, they may fall again,
        where the loss oscillates or is bounded and differences of all kinds vanish: that is not looked at.
        """
        values, noise = np.array([self._found[h] for h in self.steps]).T
        errors = np.full(len(values), math.inf)
        with np.errstate(invalid="ignore"):
            change = np.abs(np.diff(values))
            beyond = (change - noise[1:] - noise[:-1]) / 2
            errors[:-1] = change + noise[:-1]
            errors[1:-1] = np.maximum(errors[1:-1], beyond[:-1] + noise[1:-1])
        errors = np.where(np.isfinite(errors), errors, math.inf)
        at = int(np.isfinite(errors).argmax())
        while at + 1 < len(errors) and errors[at + 1] <= errors[at]:
            at += 1
        known = math.isfinite(errors[at])
        return at, float(values[at]) if known else math.nan, float(errors[at])
