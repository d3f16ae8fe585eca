"""The trace: the estimate as it narrowed, and what the layers have of it."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from landscape.plots.bars import Rows, bars, finite_or_nan, height, layers_shown, left
from landscape.plots.panels import legend_below, matrix_name, panel_below, plain, unit, with_error
from landscape.plots.style import BLACK, BLUE, GREY, caption, new_figure, style
from landscape.results import TraceResult

__all__ = ["trace"]

#: Labels of the axis of products are at least this factor apart.
_APART = 1.3

Floats = NDArray[np.float64]


def trace(result: TraceResult, ax: Axes | None = None) -> Axes:
    """Draw the trace and its layers, into ``ax`` or a new figure. Returns the upper axes.

    Above, the estimate at each look with its interval, over the products spent until then; a look too early
    for an interval is hollow; the final interval is a band. Below, where the result has layers, the trace of
    each layer's block with its interval and its share of the whole, negative ones in a colour of their own;
    of more than 40 layers the 40 largest, and the others added up.
    """
    rows = _rows(result)
    heights = (2.9, height(rows) if rows else 0.0)
    with style():
        ax = new_figure(6.0, sum(heights) + 0.3).add_subplot() if ax is None else ax
        lower = panel_below(ax, (heights[0], heights[1])) if rows else None
        _looks(ax, result)
        ax.set_title(caption(result), loc="left")
        if rows and lower is not None:
            bars(lower, rows)
            lower.set_title(f"Each layer's block{_shares(result)}", loc="left")
            lower.set_xlabel(f"Trace of the block ({unit(result.operator)})")
            legend_below(lower, left=left(rows))
        legend_below(ax, left=left(rows) if rows else 0.0)
    return ax


def _looks(ax: Axes, result: TraceResult) -> None:
    """The running estimate over the products."""
    products = np.asarray(result.look_products, dtype=np.float64)
    values, widths = (np.asarray(v, dtype=np.float64) for v in (result.look_traces, result.look_half_widths))
    finite = np.isfinite(values)
    known = finite & np.isfinite(widths)
    low, high = np.asarray(result.interval, dtype=np.float64)
    percent = f"{100 * result.confidence:.3g} %"
    if math.isfinite(low) and math.isfinite(high):
        label = f"final: {with_error(result.trace, result.half_width)} ({percent})"
        ax.axhspan(low, high, color=BLUE, alpha=0.18, linewidth=0, label=label, zorder=1)
    ax.plot(products[finite], values[finite], color=BLUE, linewidth=1.0, alpha=0.6, zorder=2)
    if known.any():
        ax.plot(
            products[known],
            values[known],
            "o",
            color=BLUE,
            markersize=5,
            label="estimate at a look",
            zorder=4,
        )
        ax.errorbar(
            products[known], values[known], yerr=widths[known], fmt="none", ecolor=BLACK, elinewidth=0.9,
            capsize=2.5, zorder=3, label=f"{percent} interval",
        )  # fmt: skip
    if (finite & ~known).any():
        few = finite & ~known
        ax.plot(
            products[few], values[few], "o", color=BLUE, markerfacecolor="white", markersize=5, zorder=4,
            label="estimate, too few random vectors for an interval",
        )  # fmt: skip
    if not finite.any():
        text = "not finite" if len(values) else "no estimate yet"
        ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=BLACK)
    _axes(ax, result, products)


def _axes(ax: Axes, result: TraceResult, products: Floats) -> None:
    ax.set_xlabel(f"Products with the matrix (method: {result.method})")
    name = matrix_name(result.operator)
    gap = " " if len(name) <= 16 else "\n"
    ax.set_ylabel(f"Trace of the{gap}{name}\n({unit(result.operator)})")
    ax.margins(y=0.1)
    ax.yaxis.set_major_formatter(FuncFormatter(plain))
    ax.yaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 2.5, 5, 10]))
    low, high = ax.get_ylim()
    if low < 0 < high:
        ax.axhline(0.0, color=GREY, linewidth=0.6, zorder=0)
    if not len(products) or products.min() <= 0:
        return
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_locator(FixedLocator(_ticks(products)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.set_xlim(products.min() / 1.3, products.max() * 1.3)


def _ticks(products: Floats) -> list[float]:
    """The products at the looks, from the last one down, without those whose labels would touch."""
    ticks: list[float] = []
    for value in sorted(set(products.tolist()), reverse=True):
        if not ticks or ticks[-1] >= _APART * value:
            ticks.append(value)
    return ticks[::-1]


def _rows(result: TraceResult) -> Rows | None:
    """The layers as bars, the smallest of many in one."""
    if result.layers is None or result.layer_traces is None or not len(result.layers):
        return None
    values = finite_or_nan(result.layer_traces)
    bounds = np.full((len(values), 2), np.nan)
    if result.layer_intervals is not None:
        bounds = finite_or_nan(result.layer_intervals)
    kept, others = layers_shown(values)
    names = [str(result.layers[i]) for i in kept]
    drawn, ends = values[kept], bounds[kept]
    if len(others):
        # The ends of the sum: no standard error of a sum is larger than the sum of standard errors.
        names.append(f"… {len(others)} others, together")
        drawn, ends = np.append(drawn, values[others].sum()), np.vstack([ends, bounds[others].sum(axis=0)])
    has = np.isfinite(ends).all(axis=1)
    words = f"{100 * result.confidence:.3g} % interval of each"
    notes = [[note] for note in _notes(result, drawn, ends)]
    return Rows(names, drawn[:, None], ends[:, None], has[:, None], notes, words, "no interval")


def _has_shares(result: TraceResult) -> bool:
    """Whether the trace is away from zero, so that a share of it says something."""
    known = math.isfinite(result.half_width)
    return math.isfinite(result.trace) and abs(result.trace) > (result.half_width if known else 0.0)


def _notes(result: TraceResult, values: Floats, bounds: Floats) -> list[str]:
    """The layer's share of the whole in %, or its trace, with its own error."""
    errors = (bounds[:, 1] - bounds[:, 0]) / 2
    shares = _has_shares(result)
    scale = 100 / result.trace if shares else 1.0
    texts = [with_error(scale * v, abs(scale) * e) for v, e in zip(values, errors, strict=True)]
    return [f"{text} %" for text in texts] if shares else texts


def _shares(result: TraceResult) -> str:
    return ", and its share of the whole in %" if _has_shares(result) else ""
