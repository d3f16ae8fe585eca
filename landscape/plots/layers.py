"""The layers of a run side by side: of eigenvalues, below the spectrum or alone, and of densities."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from landscape.errors import InputError
from landscape.plots.bars import Rows, bars, finite_or_nan, height, layers_shown, left
from landscape.plots.panels import legend_below, matrix_name, panel_below, shown, unit, with_error
from landscape.plots.spectrum import spectrum
from landscape.plots.style import caption, new_figure, style
from landscape.results import DensityResult, EigenResult

__all__ = ["density_layers", "layers", "spectrum_and_layers"]


def layers(result: EigenResult, ax: Axes | None = None) -> Axes:
    """Draw the extreme eigenvalues of each layer's own block, into ``ax`` or a new figure.

    Thin bars are the residual intervals; bars of pairs that have not converged are hollow. Of more than 40
    layers the 40 with the largest eigenvalues are shown, and the largest of the others.

    Raises:
        InputError: a result without layers.
    """
    rows = _eigen_rows(result)
    with style():
        ax = new_figure(6.0, height(rows) + 0.9).add_subplot() if ax is None else ax
        bars(ax, rows)
        ax.set_title(f"{caption(result)}\n{_title(result)}", loc="left")
        _words(ax, result, rows)
    return ax


def spectrum_and_layers(
    result: EigenResult, ax: Axes | None = None, *, learning_rate: float | None = None
) -> Axes:
    """The spectrum, and below it the layers, if the result has any. Returns the upper axes.

    Raises:
        InputError: a learning rate that is not positive and finite.
    """
    if result.layers is None or not len(result.layers):
        return spectrum(result, ax, learning_rate=learning_rate)
    rows = _eigen_rows(result)
    heights = (3.6, height(rows))
    with style():
        ax = new_figure(6.0, sum(heights) + 0.5).add_subplot() if ax is None else ax
        lower = panel_below(ax, heights)
        spectrum(result, ax, learning_rate=learning_rate)
        legend_below(ax, left=left(rows))
        bars(lower, rows)
        lower.set_title(_title(result), loc="left")
        _words(lower, result, rows)
    return ax


def density_layers(result: DensityResult, ax: Axes | None = None) -> Axes:
    """Draw the trace of each layer's own block as its density gives it, with 95 % intervals.

    Of more than 40 layers the 40 with the largest traces are shown.

    Raises:
        InputError: a result without layers.
    """
    if result.layers is None or result.layer_traces is None or result.layer_trace_errors is None:
        raise InputError("this density has no layers", do="landscape density --per-layer measures them")
    traces, halves = finite_or_nan(result.layer_traces), 2 * finite_or_nan(result.layer_trace_errors)
    chosen, _ = layers_shown(np.abs(traces))
    names = [str(result.layers[i]) for i in chosen]
    values, half = traces[chosen], halves[chosen]
    rows = Rows(
        names,
        values[:, None],
        np.stack([values - half, values + half], axis=1)[:, None],
        np.isfinite(half)[:, None],
        [[with_error(float(v), float(h))] for v, h in zip(values, half, strict=True)],
        "95 % interval over probes",
        "no interval",
    )
    with style():
        ax = new_figure(6.0, height(rows) + 0.9).add_subplot() if ax is None else ax
        bars(ax, rows)
        ax.set_title(caption(result), loc="left")
        ax.set_xlabel(f"Trace of the block, from its density ({unit(result.operator)})")
        legend_below(ax, left=left(rows))
    return ax


def _eigen_rows(result: EigenResult) -> Rows:
    if result.layers is None or result.layer_eigenvalues is None or not len(result.layers):
        raise InputError("there are no layers to draw", do="measure them with --per-layer")
    values = finite_or_nan(result.layer_eigenvalues)
    bounds = np.full((*values.shape, 2), np.nan)
    if result.layer_intervals is not None:
        bounds = finite_or_nan(result.layer_intervals)
    sure = np.ones(values.shape, dtype=bool)
    if result.layer_converged is not None:
        sure = np.asarray(result.layer_converged, dtype=bool)
    sizes = np.abs(np.nan_to_num(values)).max(axis=1)
    kept, left = layers_shown(sizes)
    names = [str(result.layers[i]) for i in kept]
    rows = kept
    if len(left):  # the largest of the others says that nothing larger is missing
        rows = np.append(kept, left[np.argmax(sizes[left])])
        names.append(f"… {len(left)} others, the largest")
    half = (bounds[..., 1] - bounds[..., 0]) / 2
    notes = [[_figure(v, h) for v, h in zip(values[i], half[i], strict=True)] for i in rows]
    return Rows(names, values[rows], bounds[rows], sure[rows], notes, "residual interval", "not converged")


def _figure(value: float, half: float) -> str:
    """The value, or only how large it can be where that is all that is known."""
    return f"0 ± {shown(half, 2)}" if abs(value) < half else shown(value)


def _title(result: EigenResult) -> str:
    return f"Each layer's own block of the {matrix_name(result.operator)}"


def _words(ax: Axes, result: EigenResult, rows: Rows) -> None:
    which = {
        "both": "Extreme eigenvalues",
        "smallest": "Smallest eigenvalue",
        "largest": "Largest eigenvalue",
    }
    what = which.get(result.which, "Eigenvalue of largest size")
    ax.set_xlabel(f"{what} of the block ({unit(result.operator)})")
    legend_below(ax, left=left(rows))
