"""The noise of gradients: its alignment with the curvature, and the gradient's norm by batch size."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator
from numpy.typing import NDArray

from landscape.plots.bars import Rows, bars, finite_or_nan
from landscape.plots.panels import legend_below, panel_below, sentence, with_error
from landscape.plots.style import BLACK, BLUE, GREEN, GREY, VERMILLION, caption, new_figure, style
from landscape.plots.view import View, has
from landscape.results import NoiseResult

__all__ = ["VIEWS", "alignment", "batches", "overview"]

#: Sizes of mini-batches for which the prediction is drawn.
_POINTS = 200
#: Within this factor, an axis has labels between the powers of ten.
_DECADES = 1e3

Floats = NDArray[np.float64]


def overview(result: NoiseResult, ax: Axes | None = None) -> Axes:
    """Draw both panels, into ``ax`` or a new figure, alignment above batch sizes. Returns the upper."""
    with style():
        ax = new_figure(6.4, 6.6).add_subplot() if ax is None else ax
        lower = panel_below(ax, (2.6, 3.6))
        _alignment(ax, result)
        _batches(lower, result)
        ax.set_title(caption(result), loc="left")
        legend_below(lower)
    return ax


def alignment(result: NoiseResult, ax: Axes | None = None) -> Axes:
    """Draw what the noise has in common with each matrix, into ``ax`` or a new figure.

    Bars for the cosine, for the share of the noise in the top eigenspace with a line at chance, and for the
    correlation of the diagonals, each with its interval.
    """
    with style():
        ax = new_figure(6.4, 3.2).add_subplot() if ax is None else ax
        _alignment(ax, result)
        ax.set_title(caption(result), loc="left")
    return ax


def batches(result: NoiseResult, ax: Axes | None = None) -> Axes:
    """Draw the gradient's norm by batch size, measured and predicted, into ``ax`` or a new figure."""
    with style():
        ax = new_figure(6.2, 4.4).add_subplot() if ax is None else ax
        _batches(ax, result)
        ax.set_title(caption(result), loc="left")
        legend_below(ax)
    return ax


def _alignment(ax: Axes, result: NoiseResult) -> None:
    """A row for each figure of each matrix, the figures together."""
    rows = _rows(result)
    bars(ax, rows)
    chance = result.chance_share
    for i, name in enumerate(rows.names):
        if name.startswith("share"):
            ax.plot([chance, chance], [i - 0.45, i + 0.45], color=VERMILLION, linewidth=1.2, zorder=4)
    ax.set_ylabel("")
    ax.set_xlabel(
        f"Noise against curvature (bars: {100 * result.confidence:.3g} % intervals; orange: chance, "
        f"{100 * chance:.2g} %)"
    )
    low = min(0.0, float(np.nanmin(rows.intervals, initial=0.0)), float(np.nanmin(rows.values, initial=0.0)))
    ax.set_xlim(1.25 * low, 1.32)
    ax.set_xticks([x for x in (-1.0, -0.5, 0.0, 0.25, 0.5, 0.75, 1.0) if x >= 1.25 * low])


def _rows(result: NoiseResult) -> Rows:
    told = result.share_space_errors < 1
    reach = 1.96 * result.share_errors + result.share_space_errors
    shares = np.where(told, result.shares, math.nan)
    kinds = {
        "cosine": (result.cosines, result.cosine_intervals),
        f"share in top {result.k}": (
            shares,
            np.clip(np.stack([shares - reach, shares + reach], axis=1), 0.0, 1.0),
        ),
        "diagonals": (result.diagonal_correlations, result.diagonal_intervals),
    }
    names, values, intervals = [], [], []
    for kind, (found, ends) in kinds.items():
        for name, value, bounds in zip(result.matrices, found, ends, strict=True):
            names.append(f"{kind}, {sentence(str(name))}")
            values.append(value)
            intervals.append(bounds)
    drawn, bounds = finite_or_nan(np.array(values)), finite_or_nan(np.array(intervals))
    errors = np.max(np.abs(bounds - drawn[:, None]), axis=1)
    notes = [[with_error(v, e)] for v, e in zip(drawn, errors, strict=True)]
    certain = np.isfinite(bounds).all(axis=1, keepdims=True)
    return Rows(names, drawn[:, None], bounds[:, None], np.asarray(certain), notes, "interval", "no interval")


def _batches(ax: Axes, result: NoiseResult) -> None:
    """Log–log: measured with error bars, predicted, and the norm of the full gradient."""
    sizes = np.asarray(result.batch_sizes, dtype=np.float64)
    measured = np.ma.filled(result.gradient_squares, math.nan)
    errors = np.ma.filled(result.gradient_square_errors, math.nan)
    _predicted(ax, result)
    drawn = np.isfinite(measured) & (measured > 0)
    if drawn.any():
        roots = np.sqrt(measured[drawn])
        # The ends of the interval of the square; a lower end below zero stops at the axis.
        low = np.sqrt(np.maximum(measured[drawn] - 2 * errors[drawn], (0.05 * roots) ** 2))
        high = np.sqrt(measured[drawn] + 2 * errors[drawn])
        ax.errorbar(
            sizes[drawn], roots, yerr=[roots - low, high - roots], fmt="none", ecolor=BLACK, elinewidth=0.9,
            capsize=2.5, zorder=3, label="± 2 standard errors",
        )  # fmt: skip
        ax.plot(sizes[drawn], roots, "o", color=BLUE, markersize=5, zorder=4, label="measured mini-batches")
    if result.noise_scale is not None and 1 <= result.noise_scale <= result.counted_examples:
        ax.axvline(result.noise_scale, color=GREY, linestyle=":", linewidth=1.0, zorder=1)
        ax.annotate(
            f"noise scale {result.noise_scale:,.3g}", (result.noise_scale, 1.0), (-3, -2),
            xycoords=("data", "axes fraction"), textcoords="offset points", ha="right", va="top",
            fontsize=8.0,
        )  # fmt: skip
    _axes(ax, result, sizes)


def _predicted(ax: Axes, result: NoiseResult) -> None:
    """√(‖g‖² + (N − B)/(N − 1)·Tr(C)/B) over B, and ‖g‖."""
    count, squared = result.counted_examples, result.gradient_norm**2
    if count >= 2 and math.isfinite(result.noise_trace):
        at = np.geomspace(1.0, count, _POINTS)
        curve = np.sqrt(squared + (count - at) / (count - 1) * result.noise_trace / at)
        if (curve > 0).all():
            ax.plot(at, curve, color=VERMILLION, linewidth=1.2, zorder=2, label="predicted from Tr C")
    if squared > 0:
        ax.axhline(
            math.sqrt(squared), color=GREEN, linestyle="--", linewidth=1.0, zorder=1, label="full gradient"
        )


def _axes(ax: Axes, result: NoiseResult, sizes: Floats) -> None:
    ax.set_xlabel("Examples in a mini-batch")
    ax.set_ylabel("Root mean square norm\nof the gradient (loss / weight)")
    if not ax.lines:
        text = "all gradients are zero" if math.isfinite(result.noise_trace) else "not measured yet"
        ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=BLACK)
        return
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.xaxis.set_minor_locator(NullLocator())
    low, high = ax.get_ylim()
    if high / low < _DECADES:
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
    if len(sizes):
        ax.set_xlim(0.8, 1.25 * max(2, result.counted_examples))


VIEWS = {
    "overview": View(overview, has("batch_sizes")),
    "alignment": View(alignment, lambda result: bool(np.isfinite(result.cosines).any())),
    "batches": View(batches, has("batch_sizes")),
}
