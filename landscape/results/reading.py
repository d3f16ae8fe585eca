"""One figure of a result with its errors, and the ways in which results hold theirs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from landscape.results.base import Result
from landscape.results.matrix import CURVATURE

__all__ = [
    "BOUND",
    "INTERVAL",
    "NORMAL",
    "SQUARE",
    "Measure",
    "Reading",
    "between",
    "finite",
    "rounding_or_spread",
    "sampled",
    "within",
]

#: Quantile of the normal distribution that 95 % intervals reach to.
NORMAL = 1.959963984540054
INTERVAL = "95 % interval"
#: What an eigenvalue may be off by.
BOUND = "residual and noise floor"
#: Matrices of second moments of gradients, whose unit is that of the gradient squared.
_SQUARED = ("fisher", "empirical-fisher", "noise")
SQUARE = "loss² / weight²"


@dataclass(frozen=True)
class Reading:
    """What one result says of one measure.

    Two errors are kept apart: what the figure may be off by for the very data it was measured on, and how
    much it would vary with other data from the same source.

    Attributes:
        value: the figure; NaN where it could not be computed.
        error: half-width of what the figure may be off by for these data: a bound, or a 95 % interval; None
            where there is none.
        meaning: what ``error`` is, in a few words.
        standard_error: of the figure over the sampling of the data (or of mini-batches); None where it was
            not computed.
        random: whether ``error`` is an interval over random draws, which of two figures are independent, and
            not a bound.
        sampling: what ``standard_error`` is over, in a few words.
        interval: the ends that ``error`` is the longer side of, where the sides differ.
    """

    value: float
    error: float | None = None
    meaning: str = ""
    standard_error: float | None = None
    random: bool = False
    sampling: str = "over the data"
    interval: tuple[float, float] | None = None

    @property
    def sides(self) -> tuple[float, float] | None:
        """How far the figure may be off downwards and upwards, for these data; None where it is not known."""
        if self.interval is not None:
            return self.value - self.interval[0], self.interval[1] - self.value
        return None if self.error is None else (self.error, self.error)


@dataclass(frozen=True)
class Measure:
    """One figure that results of a kind are followed by.

    Attributes:
        name: as written in tables and options: ``lambda_max``.
        label: as written on an axis: ``λmax``.
        text: what it is, in a sentence.
        unit: of the value and its errors; empty if it has none.
        read: the reading of a result; None if this result does not have it.
        main: whether it belongs into a short table.
    """

    name: str
    label: str
    text: str
    unit: str
    read: Callable[[Any], Reading | None]
    main: bool = False

    def unit_of(self, result: Result) -> str:
        """The unit in this result: second moments of gradients are squares where curvatures are not."""
        squared = self.unit == CURVATURE and getattr(result, "operator", "") in _SQUARED
        return SQUARE if squared else self.unit


def finite(value: Any) -> float | None:
    """A number, or None for what is masked, missing or not finite."""
    if value is None or np.ma.is_masked(value) or not math.isfinite(float(value)):
        return None
    return float(value)


def between(
    value: str, interval: str, meaning: str = INTERVAL, *, random: bool = True
) -> Callable[[Any], Reading | None]:
    """A figure in an interval."""

    def read(result: Any) -> Reading | None:
        found = finite(getattr(result, value))
        if found is None:
            return None
        return within(found, getattr(result, interval), meaning, random=random)

    return read


def within(value: float, ends: Any, meaning: str = INTERVAL, *, random: bool = True) -> Reading:
    """A figure and the interval (2,) around it, if there is one; the error is the longer of its sides."""
    low, high = (None, None) if ends is None else (finite(ends[0]), finite(ends[1]))
    if low is None or high is None:
        return Reading(value, meaning=meaning, random=random)
    error = max(value - low, high - value)
    return Reading(value, error, meaning, random=random, interval=(low, high))


def rounding_or_spread(result: Result, value: str, error: str, whole: bool, sampling: str) -> Reading | None:
    """A figure whose error is what rounding does if it is of the ``whole`` data, else a standard error."""
    found, own = finite(getattr(result, value)), finite(getattr(result, error))
    if found is None:
        return None
    return Reading(found, own, "rounding") if whole else Reading(found, standard_error=own, sampling=sampling)


def sampled(value: str, error: str) -> Callable[[Any], Reading | None]:
    """A figure that is exact for its data, with a standard error over their sampling."""

    def read(result: Any) -> Reading | None:
        found = finite(getattr(result, value))
        return None if found is None else Reading(found, standard_error=finite(getattr(result, error)))

    return read
