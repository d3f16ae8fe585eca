"""Numbers for the reader: only the digits that their error supports, rounded so that they stay true."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, Decimal, localcontext

__all__ = ["BRIEF", "brief", "figure", "value_and_error", "with_error"]

#: Significant digits shown of an error.
ERROR_DIGITS = 2
#: Decimal digits that every float64 holds.
FLOAT_DIGITS = 15
#: Errors below this share of a value are shown as large as that in tables.
BRIEF = 1e-6
#: Magnitudes (decimal exponents) written without an exponent.
PLAIN = range(-4, 7)


def value_and_error(value: float, error: float) -> tuple[str, str]:
    """``value`` and ``error`` (a bound, ≥ 0) as text.

    The error gets two digits and the value is cut at the same place. The error is rounded up, and by what
    cutting the value moved it, so the interval that is shown contains ``value ± error``. An unknown (NaN)
    error leaves three digits of the value and ``"?"``.
    """
    if not math.isfinite(value):
        return str(value), "?"
    if not math.isfinite(error):
        return figure(value, 3), "?"
    with localcontext(prec=60, rounding=ROUND_CEILING):
        exact, bound = Decimal(repr(float(value))), Decimal(repr(float(error)))
        if not bound:
            return figure(value, FLOAT_DIGITS), "0"
        place = bound.adjusted() - ERROR_DIGITS + 1
        if exact:
            place = max(place, exact.adjusted() - FLOAT_DIGITS + 1)
        quantum = Decimal(1).scaleb(place)
        shown = exact.quantize(quantum, "ROUND_HALF_EVEN")
        half = (bound + abs(exact - shown)).quantize(quantum)
        magnitude = max(abs(shown), half).adjusted()
        if magnitude in PLAIN and place <= 0:
            return f"{shown:f}", f"{half:f}"
        return _scientific(shown, place), _scientific(half, place)


def _scientific(number: Decimal, place: int) -> str:
    """``number``, a multiple of 10**place, as a mantissa with every digit down to that place."""
    if not number:
        return "0"
    exponent = number.adjusted()
    mantissa = number.scaleb(-exponent)
    return f"{mantissa:.{exponent - place}f}e{exponent:+03d}"


def with_error(value: float, error: float) -> str:
    """``value ± error`` in one piece, such as ``12.3456 ± 0.0021`` or ``1.200e-06 ± 3.0e-08``."""
    return " ± ".join(value_and_error(value, error))


def brief(value: float, error: float | None) -> str:
    """:func:`with_error` for tables, in seven digits or fewer; what is shown still holds the value.

    Without an error, or with one of zero, the value to six digits.
    """
    return with_error(value, max(error, BRIEF * abs(value))) if error else figure(value, 6)


def figure(value: float | None, digits: int = 3) -> str:
    """A number without an error of its own, to a few significant digits."""
    if value is None:
        return "not computed"
    if not math.isfinite(value):
        return str(value)
    return f"{value:.{digits}g}"
