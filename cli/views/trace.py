"""A trace in words."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from landscape.results import TraceResult

from ..console import Console
from ..numbers import figure, value_and_error, with_error
from .common import cost, counted, floor_line, matrix_lines, percent

__all__ = ["print_trace"]


def print_trace(console: Console, result: TraceResult) -> None:
    """The trace with its interval, the layers, and what was obtained on the way."""
    if math.isnan(result.trace):
        console.out("no estimate yet: a limit stopped the run before its first random vector")
        return
    if result.layers is not None:
        console.table(*_layers(result))
        console.out()
    console.pairs(_summary(result))


def _layers(result: TraceResult) -> tuple[list[str], list[list[str]]]:
    assert result.layers is not None
    assert result.layer_parameters is not None
    assert result.layer_traces is not None
    assert result.layer_intervals is not None
    rows = []
    for name, count, trace, (low, high) in zip(
        result.layers, result.layer_parameters, result.layer_traces, result.layer_intervals, strict=True
    ):
        shown, error = value_and_error(float(trace), float(high - low) / 2)
        rows.append([str(name), str(count), shown, error, figure(float(trace) / int(count))])
    return ["layer", "parameters", "trace", "± (95 %)", "per parameter"], rows


def _summary(result: TraceResult) -> Iterator[tuple[str, str]]:
    yield from matrix_lines(result)
    if result.interval_reason:
        yield "trace", f"{figure(result.trace)}, without an interval: {result.interval_reason}"
    else:
        share = "" if not result.trace else f", ± {percent(result.half_width / abs(result.trace))} %"
        yield "trace", f"{with_error(result.trace, result.half_width)} (95 % interval{share})"
    yield "mean", f"{figure(result.trace / result.parameters)} per parameter: the mean eigenvalue"
    if math.isfinite(result.frobenius):
        level = (
            " (95 %)" if np.isfinite(result.frobenius_interval).all() else ", too few vectors for an interval"
        )
        yield "Frobenius", f"{_between(result.frobenius, result.frobenius_interval)}, √Σλ²{level}"
    if math.isfinite(result.effective_dimension):
        dimension = _between(result.effective_dimension, result.effective_dimension_interval)
        yield "dimension", f"{dimension}, (Σλ)²/Σλ²: as many equal eigenvalues would give the same two sums"
    yield "method", f"{result.method}: {_method(result)}"
    if result.layers is None and result.method == "xtrace":
        yield "layers", "not available: xtrace gives the whole trace only"
    if result.diagonal_file is not None:
        averaged = ", averaged over convolution kernels" if result.spatial_average else ""
        yield "diagonal", f"in {result.diagonal_file} with its standard errors{averaged}"
    yield floor_line(result)
    yield cost(result)


def _method(result: TraceResult) -> str:
    """What is exact, and what is estimated."""
    vectors = counted(result.probes, "random vector")
    if result.exact_dimensions == result.parameters:
        return f"exact, on all {counted(result.parameters, 'dimension')}{_taken(result)}"
    if result.method == "xtrace":
        return f"{vectors}, each on what the others leave"
    if not result.exact_dimensions:
        return vectors
    exact = counted(result.exact_dimensions, "dimension")
    return f"exact on {exact}{_taken(result)}, {vectors} for the rest"


def _taken(result: TraceResult) -> str:
    return f" ({result.taken_over} of them from a stored run)" if result.taken_over else ""


def _between(value: float, interval: np.ndarray) -> str:
    """A value with the larger of its two distances to the ends of its interval, if there is one."""
    if not np.isfinite(interval).all():
        return figure(value)
    return with_error(value, float(max(value - interval[0], interval[1] - value)))
