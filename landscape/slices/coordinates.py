"""Ranges, ``LOW:HIGH[:COUNT]`` or ``auto[:COUNT]``, and the coordinates of them. Free of torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from landscape.errors import ConfigurationError

__all__ = ["LARGEST_COUNT", "Range", "coordinates", "parse_range"]

#: More coordinates on one axis than this are a slip of the finger.
LARGEST_COUNT = 100_000
#: A coordinate this close to a mark, in steps, is the mark, rounded.
_IS_MARK = 1e-9

_FORMS = "write LOW:HIGH:COUNT such as --range=-1:1:41, or auto, or auto:COUNT"


@dataclass(frozen=True)
class Range:
    """From ``low`` to ``high``, or to be found (both None), in ``count`` coordinates (None: the default)."""

    low: float | None
    high: float | None
    count: int | None

    @property
    def automatic(self) -> bool:
        return self.low is None


def parse_range(text: str) -> Range:
    """A range as written on the command line.

    >>> parse_range("-1:1:41")
    Range(low=-1.0, high=1.0, count=41)
    >>> parse_range("auto").automatic
    True

    Raises:
        ConfigurationError: not such a range, an empty one, or fewer than two coordinates.
    """
    words = text.strip().split(":")
    if words[0] == "auto" and len(words) <= 2:
        return Range(None, None, _count(words[1], text) if len(words) == 2 else None)
    if len(words) not in (2, 3):
        raise ConfigurationError("this is no --range", found=repr(text), do=_FORMS)
    try:
        low, high = float(words[0]), float(words[1])
    except ValueError:
        raise ConfigurationError("the ends of a --range are numbers", found=repr(text), do=_FORMS) from None
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ConfigurationError("the ends of a --range are finite", found=repr(text))
    if not low < high:
        raise ConfigurationError(
            "the --range is empty: it goes from the lower end to the higher one",
            found=repr(text),
            do=f"write {':'.join([words[1], words[0], *words[2:]])}" if high < low else _FORMS,
        )
    count = _count(words[2], text) if len(words) == 3 else None
    if not math.isfinite(high - low):
        raise ConfigurationError("the --range is too wide for a number", found=repr(text))
    if (high - low) / (count or 2) <= 2 * math.ulp(max(abs(low), abs(high))):
        raise ConfigurationError(
            "the --range is too narrow: its coordinates would be the same numbers", found=repr(text)
        )
    return Range(low, high, count)


def _count(word: str, text: str) -> int:
    try:
        count = int(word)
    except ValueError:
        raise ConfigurationError(
            "the COUNT of a --range is a whole number", found=repr(text), do=_FORMS
        ) from None
    if not 2 <= count <= LARGEST_COUNT:
        raise ConfigurationError(f"a --range has 2 to {LARGEST_COUNT} coordinates", found=repr(text))
    return count


def coordinates(low: float, high: float, count: int, marks: Sequence[float] = (0.0,)) -> np.ndarray:
    """``count`` evenly spaced coordinates (float64) from ``low`` to ``high``, both ends exact.

    Zero, and whatever else is in ``marks``, is among them, exactly, wherever the range holds it: a coordinate
    that is one of them but for rounding is set to it, and where one lies between two coordinates, it is one
    coordinate more.

    >>> coordinates(-1.0, 1.0, 5).tolist()
    [-1.0, -0.5, 0.0, 0.5, 1.0]
    >>> coordinates(-1.0, 2.0, 3).tolist()
    [-1.0, 0.0, 0.5, 2.0]
    """
    found = np.linspace(low, high, count)
    step = (high - low) / (count - 1)
    for mark in marks:
        if not low < mark < high:
            continue
        found[np.abs(found - mark) < _IS_MARK * step] = mark
        if not (found == mark).any():
            found = np.insert(found, int(np.searchsorted(found, mark)), mark)
    return found
