"""The numbers that a result is summed up in: by name, with their errors, the same for every figure and table.

A result has many quantities; a study over checkpoints follows a few of them. Each kind of result lists its
measures here, and tables, time series, comparisons and reports read them from this one list.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from landscape.results.base import Result
from landscape.results.measures_matrix import DENSITY, EIGEN, TRACE
from landscape.results.measures_sam import NOISE, RATIOS, REWEIGHT, SHARPNESS
from landscape.results.reading import Measure, Reading, finite, sampled
from landscape.results.slice import SliceResult

__all__ = ["COMMON", "MEASURES", "Measure", "Reading", "measures_of", "readings"]

# -- slice ---------------------------------------------------------------------------------------------------


def _gap(result: SliceResult) -> Reading | None:
    """Test loss − loss; the two are of different examples, so their sampling errors are independent."""
    test, train = finite(result.test_centre_loss), finite(result.centre_loss)
    if test is None or train is None:
        return None
    first, second = finite(result.test_centre_error), finite(result.centre_error)
    deviation = None if first is None or second is None else math.hypot(first, second)
    return Reading(test - train, standard_error=deviation)


_SLICE = (
    Measure("barrier", "barrier", "Height of the loss above the straight line between both ends.", "loss",
            sampled("barrier", "barrier_error"), main=True),
    Measure("gap", "generalisation gap", "Test loss − training loss at the weights.", "loss", _gap,
            main=True),
    Measure("test_loss", "test loss", "Mean loss over the test data at the weights.", "loss",
            sampled("test_centre_loss", "test_centre_error")),
    Measure("test_accuracy", "test accuracy", "Share of the test data predicted right.", "",
            lambda r: _accuracy(r.test_accuracy, r.test_examples, r.terms == r.examples)),
    Measure("weights_norm", "‖w‖", "Length of the measured weights.", "weight",
            lambda r: _plain(r, "weights_norm")),
)  # fmt: skip


# -- all -----------------------------------------------------------------------------------------------------


def _plain(result: Result, name: str) -> Reading | None:
    found = finite(getattr(result, name, None))
    return None if found is None else Reading(found)


def _loss(result: Result) -> Reading | None:
    if isinstance(result, SliceResult):
        return sampled("centre_loss", "centre_error")(result)
    return _plain(result, "loss")


def _accuracy(share: Any, count: Any, labels: bool) -> Reading | None:
    """A share of ``count`` examples, each with one label.

    Its standard error is that of Agresti & Coull (1998), which is not zero where all were predicted right.
    """
    found = finite(share)
    if found is None or not labels or not count:
        return None if found is None else Reading(found)
    middle = (found * count + 2) / (count + 4)
    return Reading(found, standard_error=math.sqrt(middle * (1 - middle) / (count + 4)))


def _own_accuracy(result: Result) -> Reading | None:
    count, terms = getattr(result, "examples", None), getattr(result, "terms", None)
    return _accuracy(getattr(result, "accuracy", None), count, count == terms)


#: Measures of every result that has them.
_COMMON = (
    Measure("loss", "loss", "Mean loss over the data.", "loss", _loss),
    Measure("accuracy", "accuracy", "Share predicted right.", "", _own_accuracy),
    Measure(
        "gradient_norm", "‖g‖", "Length of the gradient.", "loss / weight",
        lambda r: _plain(r, "gradient_norm"),
    ),
)  # fmt: skip


#: The names of those: they are of the problem, whatever was asked about it.
COMMON = tuple(measure.name for measure in _COMMON)
#: Kind → its own measures; the first is the one that a time series begins with.
MEASURES: Mapping[str, Sequence[Measure]] = {
    "eigen": EIGEN,
    "trace": TRACE,
    "density": DENSITY,
    "ratios": RATIOS,
    "sharpness": SHARPNESS,
    "reweight": REWEIGHT,
    "noise": NOISE,
    "slice": _SLICE,
}


def measures_of(kind: str) -> tuple[Measure, ...]:
    """The measures of a kind of result, its own first."""
    return (*MEASURES.get(kind, ()), *_COMMON)


def readings(result: Result) -> dict[str, Reading]:
    """What a result says of each of its kind's measures, by name; without those that it does not have."""
    found = ((measure.name, measure.read(result)) for measure in measures_of(result.kind))
    return {name: reading for name, reading in found if reading is not None}
