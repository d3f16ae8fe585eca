"""Automatic ranges: how far to go along a direction until the loss has risen by a factor."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import ROUND_CEILING, Decimal

import numpy as np

from landscape.errors import ConfigurationError

__all__ = ["find_range"]

#: A side that does not rise within 2⁴⁰ first steps is flat, or the loss is bounded there.
_DOUBLINGS = 40
#: Doublings tried at once: most sides have risen after one or two such batches.
_AT_ONCE = 4
#: A factor is divided by so many points at once, equally in log t, …
_BETWEEN = 3
#: … until the end is at most this much further than where the loss crosses, before it is rounded.
_CLOSE = 1.05
#: Decimal digits of an end.
_DIGITS = 2

_DO = "give the --range as LOW:HIGH:COUNT"


def find_range(
    f: Callable[[Sequence[float]], np.ndarray], centre_loss: float, rise: float, unit: float
) -> tuple[float, float, int]:
    """Where the loss along a direction has risen to ``rise`` times that at the centre, on either side.

    Each side grows on its own by factors of 2 from the first step until the loss has risen; non-finite ones
    have. The last factor is then divided until the loss at its further end has risen and at its nearer end
    has not. So a loss that falls first is followed down and up again. A side that never rises ends where the
    other one does.

    Args:
        f: losses at a batch of coordinates, which are all on one side.
        centre_loss: the loss at 0.
        rise: the loss at the ends, in units of the centre's; above 1.
        unit: the first step, positive.

    Returns:
        (low, high, evaluations): low < 0 < high, each at most 5 % beyond where the loss crosses, then rounded
        outward to 2 significant digits; and how many losses were evaluated.

    Raises:
        ConfigurationError: the centre's loss is not positive, neither side rises, or the loss jumps there.

    >>> find_range(lambda t: 1 + np.square(t), 1.0, 5.0, 0.1)
    (-2.1, 2.1, 28)
    """
    if not (centre_loss > 0 and math.isfinite(centre_loss)):
        raise ConfigurationError(
            "an automatic range ends where the loss is a multiple of the centre's, which must be positive",
            found=f"a loss of {centre_loss:g} at the centre",
            do=_DO,
        )
    if not (unit > 0 and math.isfinite(unit)):
        raise ConfigurationError(
            "an automatic range needs a first step that is positive and finite", found=f"{unit:g}", do=_DO
        )
    sides = [_Side(f, sign, rise * centre_loss) for sign in (-1.0, 1.0)]
    ends = [side.end(unit) for side in sides]
    reached = [end for end in ends if end is not None]
    if not reached:
        raise ConfigurationError(
            f"the loss does not rise to {rise:g} times the centre's on either side: it is flat or bounded",
            found=f"at most {max(side.highest for side in sides):.6g} within ±{unit * 2.0**_DOUBLINGS:.3g} "
            f"of the direction, {centre_loss:.6g} at the centre",
            do=f"{_DO}, or a smaller --rise",
        )
    low, high = (_outward(reached[0] if end is None else end) for end in ends)
    return -low, high, sum(side.evaluations for side in sides)


class _Side:
    """One side of a line: where the loss reaches ``level``."""

    def __init__(self, f: Callable[[Sequence[float]], np.ndarray], sign: float, level: float) -> None:
        self._f, self._sign, self._level = f, sign, level
        self.evaluations, self.highest = 0, -math.inf

    def end(self, unit: float) -> float | None:
        """The distance from the centre, at most 5 % too far; None if it is not reached."""
        bracket = self._bracket(unit)
        if bracket is None:
            return None
        low, high = bracket
        while high / low > _CLOSE:
            between = [low * (high / low) ** (i / (_BETWEEN + 1)) for i in range(1, _BETWEEN + 1)]
            risen = self._first_risen(between)
            low, high = [low, *between, high][risen : risen + 2]
        return high

    def _bracket(self, unit: float) -> tuple[float, float] | None:
        """Neighbouring powers of 2 times ``unit``: not risen, risen."""
        for start in range(0, _DOUBLINGS + 1, _AT_ONCE):
            steps = [unit * 2.0**k for k in range(start, min(start + _AT_ONCE, _DOUBLINGS + 1))]
            risen = self._first_risen(steps)
            if risen == start == 0:
                return self._nearer(unit)
            if risen < len(steps):
                return steps[risen] / 2, steps[risen]
        return None

    def _nearer(self, unit: float) -> tuple[float, float]:
        """The same where the first step is too long already."""
        for start in range(0, _DOUBLINGS, _AT_ONCE):
            steps = [unit * 2.0**-k for k in range(start + _AT_ONCE, start, -1)]
            risen = self._first_risen(steps)
            if risen > 0:
                return steps[risen - 1], 2 * steps[risen - 1]
        raise ConfigurationError(
            "the loss jumps at the centre: it has risen at the smallest step already",
            found=f"{self.highest:.6g} within {unit * 2.0**-_DOUBLINGS:.3g} of the direction",
            do=_DO,
        )

    def _first_risen(self, steps: Sequence[float]) -> int:
        """The first of ascending ``steps`` at which the loss has risen; their number if at none."""
        losses = np.asarray(self._f([self._sign * t for t in steps]), dtype=np.float64)
        self.evaluations += len(steps)
        finite = losses[np.isfinite(losses)]
        self.highest = max(self.highest, float(finite.max(initial=-math.inf)))
        risen = np.flatnonzero(~np.isfinite(losses) | (losses >= self._level))
        return int(risen[0]) if len(risen) else len(steps)


def _outward(end: float) -> float:
    """Rounded up to 2 significant digits."""
    # What is a round number but for rounding in binary stays one.
    exact = Decimal(f"{end:.12g}")
    return float(exact.quantize(Decimal(1).scaleb(exact.adjusted() - _DIGITS + 1), rounding=ROUND_CEILING))
