"""Numbers for the screen: only the digits that their error supports, rounded so that they stay true."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext

from landscape.results.numbers import brief, figure, value_and_error, with_error

__all__ = [
    "at_least",
    "at_most",
    "brief",
    "duration",
    "figure",
    "quotient_interval",
    "size",
    "value_and_error",
    "with_error",
]


def at_least(value: float, digits: int = 4) -> str:
    """A lower bound to a few significant digits, rounded down so that it stays one."""
    return _directed(value, digits, ROUND_FLOOR)


def at_most(value: float, digits: int = 4) -> str:
    """An upper bound to a few significant digits, rounded up so that it stays one."""
    return _directed(value, digits, ROUND_CEILING)


def _directed(value: float, digits: int, rounding: str) -> str:
    if not math.isfinite(value) or not value:
        return figure(value)
    with localcontext(prec=digits, rounding=rounding):
        rounded = +Decimal(repr(float(value)))
    return f"{float(rounded):.{digits}g}"


def quotient_interval(upper: tuple[float, float], lower: tuple[float, float]) -> tuple[float, float] | None:
    """What upper/lower can be when each lies in its interval; None where the lower one holds zero."""
    if lower[0] <= 0 <= lower[1]:
        return None
    corners = [u / low for u in upper for low in lower]
    return min(corners), max(corners)


def duration(seconds: float) -> str:
    """Seconds in the units people say: ``0.42 s``, ``3 min 12 s``, ``2 h 05 min``."""
    if not math.isfinite(seconds):
        return "unknown"
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def size(number: float) -> str:
    """A number of bytes, in decimal units: ``512 B``, ``1.2 GB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"
