"""The levels of filled contours: even, logarithmic or at quantiles, chosen by what is to be seen."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from landscape.errors import InputError
from landscape.plots.panels import shown
from landscape.plots.slice_fields import Field

__all__ = ["KINDS", "Scale", "scale", "written"]

KINDS = ("quantile", "log", "linear")
#: Bands of colour that the eye can tell apart.
_BANDS = 12
_MOST = 15
#: Losses within this factor need no logarithm.
_FACTOR = 10.0
#: A picture in which one band holds more of the points than this shows little.
_FULL = 0.4
#: What differs by less, relatively, is the same loss but for rounding.
_ROUNDING = 1e-12
#: Mantissas of logarithmic levels, finest first; then every so many powers of ten.
_MANTISSAS = ((1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8), (1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,))
_WORDS = {
    "quantile": "levels at quantiles",
    "log": "logarithmic levels",
    "linear": "even levels",
    "constant": "the same everywhere",
}
_RAISED = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scale:
    """Ascending levels (k,), two at least, that hold all finite values, and how they were chosen."""

    kind: str
    levels: Floats

    @property
    def words(self) -> str:
        return _WORDS[self.kind]

    def bands(self, values: Floats) -> Floats:
        """Each value's place among the levels: 0 at the first, 1 at the second; NaN for what is not finite.

        Contours of this at whole numbers are those of the values at the levels, also where values range over
        so many orders of magnitude that floats between them would be lost.
        """
        at, known = (self._forward(v) for v in (values, self.levels))
        return np.where(np.isfinite(values), np.interp(at, known, np.arange(len(known))), np.nan)

    def ticks(self) -> tuple[list[float], list[str]]:
        """Where the levels are among the bands, and how they are written: no two the same."""
        if self.kind == "constant":
            return [0.5], [written(float(self.levels.mean()), 6)]
        for digits in range(3, 17):
            found = [written(level, digits) for level in self.levels]
            if len(set(found)) == len(found):
                break
        return [float(i) for i in range(len(found))], found

    def _forward(self, values: Floats) -> Floats:
        if self.kind != "log":
            return np.asarray(values, dtype=np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.log(values)


def scale(field: Field, kind: str | None = None) -> Scale | None:
    """Levels of that kind, or of the one that shows most; None where nothing is finite.

    Quantiles are those of what was evaluated. Unless told otherwise, levels are logarithmic if the values are
    positive and range over a factor of ten, else even; but at quantiles where either would leave too much of
    the picture in one colour.

    Raises:
        InputError: an unknown kind, or logarithms of what is not positive.
    """
    if kind is not None and kind not in KINDS:
        raise InputError(
            "levels of that kind are not known", found=repr(kind), do=f"choose one of {', '.join(KINDS)}"
        )
    values = field.values[field.finite]
    if not len(values):
        return None
    low, high = float(values.min()), float(values.max())
    if kind == "log" and low <= 0:
        raise InputError(
            "logarithmic levels are for what is positive",
            found=f"{field.name} down to {shown(low)}",
            do="take quantile or linear levels",
        )
    if high - low <= _ROUNDING * max(abs(low), abs(high)):
        room = 1e-3 * abs(low) or 1e-3
        return Scale("constant", np.array([low - room, low + room]))
    if kind is not None:
        return _scale(kind, field, values)
    first = _scale("log" if low > 0 and high / low >= _FACTOR else "linear", field, values)
    return first if _fullest(first, values) <= _FULL else _scale("quantile", field, values)


def _scale(kind: str, field: Field, values: Floats) -> Scale:
    low, high = float(values.min()), float(values.max())
    if kind == "log":
        return Scale(kind, _logarithmic(low, high))
    if kind == "linear":
        return Scale(
            kind, np.unique(_holding(np.asarray(MaxNLocator(_BANDS + 1).tick_values(low, high)), low, high))
        )
    measured = field.values[field.finite & field.evaluated]
    inner = np.quantile(measured if len(measured) else values, np.linspace(0, 1, _BANDS + 1))[1:-1]
    return Scale(kind, _apart(np.unique(np.clip(inner, low, high)), low, high))


def _fullest(of: Scale, values: Floats) -> float:
    """The share of the values in the fullest band."""
    counts, _ = np.histogram(of.bands(values), bins=np.arange(len(of.levels)))
    return float(counts.max()) / len(values)


def _holding(ticks: Floats, low: float, high: float) -> Floats:
    """The ticks from the last one below to the first one above, or the ends themselves."""
    inside = ticks[(ticks > low) & (ticks < high)]
    below, above = ticks[ticks <= low], ticks[ticks >= high]
    return np.concatenate([below[-1:] if len(below) else [low], inside, above[:1] if len(above) else [high]])


def _logarithmic(low: float, high: float) -> Floats:
    """Round levels from below ``low`` to above ``high``, as fine as the number of bands allows."""
    powers = np.arange(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    for mantissas in _MANTISSAS:
        # Written and read as decimals: 1.2e-07 is not 1.2 times 1e-07 in floats.
        ticks = np.array([float(f"{m}e{p}") for p in powers for m in mantissas])
        found = _holding(ticks[ticks > 0], low, high)
        if len(found) <= _MOST:
            return found
    step = -(-len(powers) // _MOST)
    ticks = np.array([float(f"1e{p}") for p in range(int(powers[0]) - step, int(powers[-1]) + step, step)])
    return _holding(ticks[(ticks > 0) & np.isfinite(ticks)], low, high)


def _apart(inner: Floats, low: float, high: float) -> Floats:
    """Levels from ``low`` to ``high`` without those so close to the one before that they seem one."""
    kept = [low]
    for level in inner:
        gap = level - kept[-1]
        if gap > 1e-6 * (high - low) or gap > 1e-3 * abs(level):
            kept.append(float(level))
    if len(kept) > 1 and high <= kept[-1]:
        kept.pop()
    return np.array([*kept, high])


def written(value: float, digits: int) -> str:
    """A number in so many digits, powers of ten as people write them.

    >>> written(2e-5, 3), written(1180.4, 3), written(1e12, 3)
    ('2×10⁻⁵', '1180', '10¹²')
    """
    if 1e-4 <= abs(value) < 1e4:
        return shown(float(f"{value:.{digits}g}"), max(digits, 6))
    text = shown(value, digits)
    mantissa, _, power = text.partition("e")
    if not power:
        return text
    raised = str(int(power.replace("−", "-"))).translate(_RAISED)
    return f"{mantissa}×10{raised}" if mantissa != "1" else f"10{raised}"
