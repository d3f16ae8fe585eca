"""The numbers that a result is summed up in: by name, with their errors, the same for every figure and table.

A result has many quantities; a study over checkpoints follows a few of them. Each kind of result lists its
measures here, and tables, time series, comparisons and reports read them from this one list.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from landscape.results.base import Result
from landscape.results.eigen import EigenResult
from landscape.results.matrix import CURVATURE
from landscape.results.ratios import CLASSES, RatiosResult
from landscape.results.trace import TraceResult

__all__ = ["MEASURES", "Measure", "Reading", "measures_of", "readings"]


@dataclass(frozen=True)
class Reading:
    """What one result says of one measure.

    Attributes:
        value: the figure; NaN where it could not be computed.
        error: half-width of what the figure may be off by for these data: a bound, or a 95 % interval; None
            where there is none.
        meaning: what ``error`` is, in a few words.
        standard_error: of the figure over the sampling of the data (or of mini-batches); None where it was
            not computed.
    """

    value: float
    error: float | None = None
    meaning: str = ""
    standard_error: float | None = None


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


def _finite(value: Any) -> float | None:
    """A number, or None for what is masked, missing or not finite."""
    if value is None or np.ma.is_masked(value) or not math.isfinite(float(value)):
        return None
    return float(value)


# -- eigen ---------------------------------------------------------------------------------------------------

_BOUND = "residual and noise floor"


def _extreme(value: str, residual: str) -> Callable[[EigenResult], Reading | None]:
    """λmax or λmin as far as it was seen, with the standard error of the pair that has it, if one has."""

    def read(result: EigenResult) -> Reading | None:
        theta = _finite(getattr(result, value))
        if theta is None:
            return None
        own = np.flatnonzero(np.asarray(result.eigenvalues) == theta)
        error = _finite(result.standard_errors[own[0]]) if len(own) else None
        return Reading(theta, getattr(result, residual) + result.noise_floor, _BOUND, error)

    return read


def _norm(result: EigenResult) -> Reading | None:
    """The end of the history of a running average."""
    found = None if result.history is None or not len(result.history) else result.history[-1]
    return None if found is None else Reading(float(found))


_EIGEN = (
    Measure(
        "lambda_max", "λmax", "Largest eigenvalue.", CURVATURE, _extreme("lambda_max", "lambda_max_residual"),
        main=True,
    ),
    Measure(
        "lambda_min", "λmin (seen)", "Smallest Ritz value seen: λmin is at most this.", CURVATURE,
        _extreme("lambda_min", "lambda_min_residual"),
    ),
    Measure("running_average", "‖v‖", "Norm of the running average.", CURVATURE, _norm),
)  # fmt: skip


# -- trace ---------------------------------------------------------------------------------------------------


def _trace(result: TraceResult) -> Reading:
    return Reading(result.trace, _finite(result.half_width), f"{100 * result.confidence:g} % interval")


def _between(value: str, interval: str) -> Callable[[Any], Reading | None]:
    """A figure in the middle of an interval, or not: the error is the larger of its two sides."""

    def read(result: Any) -> Reading | None:
        found, ends = _finite(getattr(result, value)), getattr(result, interval)
        if found is None:
            return None
        sides = None if ends is None else _finite(np.abs(np.asarray(ends) - found).max())
        return Reading(found, sides, "95 % interval")

    return read


_TRACE = (
    Measure("trace", "Tr", "Sum of the eigenvalues.", CURVATURE, _trace, main=True),
    Measure(
        "frobenius", "‖·‖F", "Frobenius norm, √Σλ².", CURVATURE, _between("frobenius", "frobenius_interval")
    ),
    Measure(
        "effective_dimension", "(Σλ)²/Σλ²", "As many equal eigenvalues would give the same two sums.", "",
        _between("effective_dimension", "effective_dimension_interval"),
    ),
)  # fmt: skip


# -- ratios --------------------------------------------------------------------------------------------------


def _fraction(name: str) -> Callable[[RatiosResult], Reading | None]:
    """The share of a class: its error is what rounding may have moved, or a standard error over batches."""

    def read(result: RatiosResult) -> Reading | None:
        where = np.flatnonzero(np.asarray(result.classes) == name)
        if not len(where):
            return None
        error = _finite(result.uncertain[where[0]])
        deviation = _finite(result.fraction_errors[where[0]])
        return Reading(float(result.fractions[where[0]]), error, "what rounding may have moved", deviation)

    return read


def _with_deviation(value: str, error: str) -> Callable[[RatiosResult], Reading | None]:
    """A figure whose error is one of rounding for all data at once, and a standard error over batches."""

    def read(result: RatiosResult) -> Reading | None:
        found, own = _finite(getattr(result, value)), _finite(getattr(result, error))
        if found is None:
            return None
        if result.minibatch is None:
            return Reading(found, own, "rounding")
        return Reading(found, standard_error=own)

    return read


_RATIOS = (
    *(
        Measure(name, name, f"Share of the parameters with {rule}.", "", _fraction(name), main=i < 4)
        for i, (name, rule) in enumerate(CLASSES.items())
    ),
    Measure(
        "gradient_norm_ratio", "‖g'‖/‖g‖", "Length of the perturbed gradient by that of the gradient.", "",
        _with_deviation("gradient_norm_ratio", "gradient_norm_ratio_error"),
    ),
    Measure(
        "cosine", "cos(g, g')", "Cosine of the angle between both gradients.", "",
        _with_deviation("cosine", "cosine_error"),
    ),
)  # fmt: skip


#: Measures of every result that has them.
_COMMON = (
    Measure("loss", "loss", "Mean loss over the data.", "loss", lambda r: _plain(r, "loss")),
    Measure("accuracy", "accuracy", "Share predicted right.", "", lambda r: _plain(r, "accuracy")),
    Measure(
        "gradient_norm", "‖g‖", "Length of the gradient.", "loss / weight",
        lambda r: _plain(r, "gradient_norm"),
    ),
)  # fmt: skip


def _plain(result: Result, name: str) -> Reading | None:
    found = _finite(getattr(result, name, None))
    return None if found is None else Reading(found)


#: Kind → its own measures; the first is the one that a time series begins with.
MEASURES: Mapping[str, Sequence[Measure]] = {"eigen": _EIGEN, "trace": _TRACE, "ratios": _RATIOS}


def measures_of(kind: str) -> tuple[Measure, ...]:
    """The measures of a kind of result, its own first."""
    return (*MEASURES.get(kind, ()), *_COMMON)


def readings(result: Result) -> dict[str, Reading]:
    """What a result says of each of its kind's measures, by name; without those that it does not have."""
    found = ((measure.name, measure.read(result)) for measure in measures_of(result.kind))
    return {name: reading for name, reading in found if reading is not None}
