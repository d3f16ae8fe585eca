"""A spectral density in words."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from landscape.results import DensityResult

from ..console import Console
from ..numbers import at_least, at_most, figure, value_and_error, with_error
from .common import cost, counted, floor_line, matrix_lines, percent

__all__ = ["print_density"]

#: At most so many single eigenvalues are listed.
_LISTED = 10


def print_density(console: Console, result: DensityResult) -> None:
    """The eigenvalues that stand alone, then what the whole distribution says."""
    if math.isnan(result.trace):
        console.out("no density yet: a limit stopped the run before its first product")
        return
    if len(result.outliers):
        console.table(*_outliers(result))
        console.out()
    if result.layer_traces is not None:
        console.table(*_layers(result))
        console.out()
    console.pairs(_summary(result))


def _layers(result: DensityResult) -> tuple[list[str], list[list[str]]]:
    """What the density of each layer's own block says."""
    assert result.layers is not None
    assert result.layer_parameters is not None
    assert result.layer_traces is not None
    assert result.layer_trace_errors is not None
    assert result.layer_ends is not None
    assert result.layer_end_errors is not None
    rows = []
    for i, layer in enumerate(result.layers):
        trace, half = value_and_error(float(result.layer_traces[i]), 2 * float(result.layer_trace_errors[i]))
        ends = zip(result.layer_ends[i], result.layer_end_errors[i], strict=True)
        highest, lowest = (with_error(float(value), float(error)) for value, error in ends)
        rows.append([str(layer), str(result.layer_parameters[i]), trace, half, highest, lowest])
    return ["layer", "parameters", "trace of its block", "± (95 %)", "λmax", "λmin"], rows


def _outliers(result: DensityResult) -> tuple[list[str], list[list[str]]]:
    """The largest in magnitude, in descending order."""
    order = np.sort(np.argsort(-np.abs(result.outliers), kind="stable")[:_LISTED])
    rows = []
    for i in order:
        error = float(result.outlier_residuals[i]) + result.noise_floor
        shown, half = value_and_error(float(result.outliers[i]), error)
        rows.append([shown, half, figure(float(result.outlier_weights[i]))])
    more = len(result.outliers) - len(order)
    if more:
        rows.append([f"and {more} more", "", ""])
    return ["single eigenvalue", "±", "share of all"], rows


def _summary(result: DensityResult) -> Iterator[tuple[str, str]]:
    yield from matrix_lines(result)
    half = float(np.diff(result.trace_interval)[0]) / 2
    yield (
        "trace",
        f"{with_error(result.trace, half)} (95 %){_own(result.trace_run, result.trace_run_interval)}",
    )
    top = result.lambda_max_residual + result.noise_floor
    yield (
        "λmax",
        f"{with_error(result.lambda_max, top)}{_own(result.lambda_max_run, result.lambda_max_run_interval)}",
    )
    bottom = result.lambda_min_residual + result.noise_floor
    yield "λmin", with_error(result.lambda_min, bottom)
    low, high = result.negative_share_bounds
    yield "negative", f"{percent(result.negative_share)} % of the eigenvalues; {_bounds(low, high)}"
    moments = zip(result.moments, result.moment_errors, strict=True)
    yield (
        "moments",
        ", ".join(with_error(float(m), 2 * float(e)) for m, e in moments)
        + " (1 to 4, about zero; ± two standard errors)",
    )
    if result.effective_dimension is not None:
        assert result.effective_dimension_error is not None
        value = with_error(result.effective_dimension, 2 * result.effective_dimension_error)
        yield (
            "dimension",
            f"{value}, Σ λ/(λ + z) with z = {figure(result.effective_dimension_z)} (± likewise)",
        )
    bound = float(np.mean(result.wasserstein_bound))
    yield (
        "W1 bound",
        (
            f"{at_most(bound, 2)} (each row of nodes against the spectrum as its own random vector sees it; "
            f"between vectors: the errors above)"
        ),
    )
    if result.layers is not None:
        yield "layers", f"{', '.join(map(str, result.layers))}: landscape plot draws them"
    rows, depth = result.nodes.shape[0], result.steps
    yield "method", f"stochastic Lanczos quadrature, {rows} × {counted(depth, 'step')}"
    yield floor_line(result)
    yield cost(result)


def _bounds(low: float, high: float) -> str:
    """Bounds on a share, rounded outwards."""
    top = at_most(100 * high, 2) if high < 0.99 else "100"
    return f"between {at_least(100 * low, 2)} and {top} %"


def _own(value: float | None, interval: np.ndarray | None) -> str:
    """The same figure by a run of its own."""
    if value is None or interval is None:
        return ""
    return f"; by its own run {with_error(value, float(np.diff(interval)[0]) / 2)}"
