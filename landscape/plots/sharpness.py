"""Sharpness: the rise of the loss over ρ beside what is predicted, and the expansion's terms."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray

from landscape.errors import InputError
from landscape.plots.bars import Rows, bars, left
from landscape.plots.panels import legend_below, panel_below, shown, with_error
from landscape.plots.style import BLACK, BLUE, GREEN, GREY, VERMILLION, caption, new_figure, style
from landscape.plots.view import View, has
from landscape.results import SharpnessResult

__all__ = ["VIEWS", "sweep", "terms"]

#: Decades below the smallest value drawn in which the line of rounding is still shown.
_IN_VIEW = 1.5
#: Errors below this part of a value are not written beside its bar.
_FINE = 1e-5
#: Points of a predicted curve.
_POINTS = 200

Floats = NDArray[np.float64]


def sweep(result: SharpnessResult, ax: Axes | None = None) -> Axes:
    """Draw the rise measured at each ρ beside its expansion, log–log, into ``ax`` or a new figure.

    A rise below zero is drawn by its size and hollow; one that is not finite is a cross at the upper edge.
    What rounding can do is a line, or a sentence in the legend where it lies far below.

    Raises:
        InputError: a result without a sweep.
    """
    if result.rho_sweep is None or result.sweep_increases is None:
        raise InputError("there is no sweep over ρ to draw", do="make one with --rho-sweep")
    radii, rises = (np.asarray(v, dtype=np.float64) for v in (result.rho_sweep, result.sweep_increases))
    with style():
        ax = new_figure(6.0, 4.4).add_subplot() if ax is None else ax
        ax.set_xscale("log")
        ax.set_yscale("log")
        _predicted(ax, result, radii)
        _measured(ax, result, radii, rises)
        _rounding(ax, result)
        ax.set_title(_title(result, result.at("ρ as below")), loc="left")
        unit = "in the units of the weights"
        ax.set_xlabel(f"Length ρ of the perturbation ({unit})")
        what = "Mean rise" if result.measure == "average" else "Rise"
        ax.set_ylabel(f"{what} of the loss, L(w + ε) − L(w)")
        ax.xaxis.set_major_locator(LogLocator(numticks=12))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.yaxis.set_minor_formatter(NullFormatter())
        legend_below(ax)
    return ax


def _title(result: SharpnessResult, where: str) -> str:
    return f"{caption(result)}\n{result.measure}: {where}"


def _predicted(ax: Axes, result: SharpnessResult, radii: Floats) -> None:
    """The expansion; of the mean over random directions, with the interval of the trace."""
    fine = np.geomspace(radii[0], radii[-1], _POINTS)
    first, second = (
        _power(radii, values, fine, power)
        for power, values in ((1, result.sweep_first), (2, result.sweep_second))
    )
    if result.measure != "average":
        _line(ax, fine, first, GREY, "--", "first order, εᵀg")
        if result.sweep_second is not None:
            _line(ax, fine, first + second, VERMILLION, "-", "with ½εᵀHε")
        return
    if result.sweep_second is None:
        return
    _line(ax, fine, second, VERMILLION, "-", "ρ²Tr(H)/(2n)")
    if result.predicted_interval is not None and (np.asarray(result.predicted_interval) > 0).all():
        low, high = np.asarray(result.predicted_interval)[:, None] * (fine / result.radius) ** 2
        ax.fill_between(
            fine, low, high, color=VERMILLION, alpha=0.15, linewidth=0,
            label=f"its {100 * result.confidence:g} % interval", zorder=1,
        )  # fmt: skip


def _power(radii: Floats, values: Floats | None, fine: Floats, power: int) -> Floats:
    """A term that goes with this power of ρ, at the lengths ``fine``."""
    if values is None:
        return np.zeros(len(fine))
    found: Floats = np.asarray(values, dtype=np.float64)[0] * (fine / radii[0]) ** power
    return found


def _line(ax: Axes, x: Floats, y: Floats, colour: str, look: str, label: str) -> None:
    """A curve where it is positive."""
    drawn = np.isfinite(y) & (y > 0)
    if drawn.any():
        ax.plot(x, np.where(drawn, y, np.nan), look, color=colour, linewidth=1.3, label=label, zorder=2)


def _measured(ax: Axes, result: SharpnessResult, radii: Floats, rises: Floats) -> None:
    errors = np.full(len(radii), np.nan)
    if result.sweep_errors is not None:
        errors = np.asarray(np.ma.filled(result.sweep_errors, np.nan), dtype=np.float64)
    finite = np.isfinite(rises)
    for chosen, face, words in (
        (finite & (rises > 0), BLUE, "measured"),
        (finite & (rises < 0), "none", "measured, negative: its size"),
    ):
        if not chosen.any():
            continue
        size = np.abs(rises[chosen])
        ax.plot(
            radii[chosen], size, "o", color=BLUE, markerfacecolor=face, markersize=4.5, label=words, zorder=4
        )
        reach = errors[chosen]
        known = np.isfinite(reach) & (reach > 0)
        if known.any():
            low = np.minimum(reach, 0.999 * size)[known]  # a logarithmic axis ends above zero
            ax.errorbar(
                radii[chosen][known], size[known], yerr=np.stack([low, reach[known]]), fmt="none",
                ecolor=BLACK, elinewidth=0.9, capsize=2.5, zorder=3, label=_error_words(result),
            )  # fmt: skip
    _keep_range(ax, np.abs(rises[finite & (rises != 0)]))
    for chosen, place, marker, words in (
        (~finite, 0.97, "x", "not finite"),
        (rises == 0, 0.03, "v", "no rise at all"),
    ):
        if chosen.any():
            ax.plot(
                radii[chosen], np.full(chosen.sum(), place), marker, color=VERMILLION, markersize=5,
                transform=ax.get_xaxis_transform(), label=words, zorder=4,
            )  # fmt: skip


def _keep_range(ax: Axes, sizes: Floats) -> None:
    """Error bars that reach to zero do not stretch the axis."""
    if len(sizes):
        low, high = ax.get_ylim()
        ax.set_ylim(max(low, sizes.min() / 30), min(high, sizes.max() * 30))


def _error_words(result: SharpnessResult) -> str:
    if result.measure == "average":
        return f"{100 * result.confidence:g} % interval over directions"
    return "standard error over groups" if result.m is not None else "standard error over the data, ε fixed"


def _rounding(ax: Axes, result: SharpnessResult) -> None:
    """The size of a difference of losses that is nothing but rounding."""
    if not result.noise > 0:
        return
    low, _ = ax.get_ylim()
    text = f"rounding: {shown(result.noise, 2)} ({result.arithmetic})"
    if math.log10(low) - math.log10(result.noise) > _IN_VIEW:
        ax.plot([], [], ":", color=GREEN, linewidth=1.2, label=f"{text}, below the picture")
        return
    ax.axhline(result.noise, color=GREEN, linestyle=":", linewidth=1.2, label=text, zorder=2)


def terms(result: SharpnessResult, ax: Axes | None = None) -> Axes:
    """Draw the rise and the terms of its expansion as bars, into ``ax`` or a new figure; the first axes.

    Below, at a scale of their own, the mean rise over random directions and ρ²Tr(H)/(2n).

    Raises:
        InputError: nothing was measured yet.
    """
    groups = [rows for rows in (_expansion(result), _random(result)) if rows is not None]
    if not groups:
        raise InputError("there is nothing to draw yet", do="run it again with more time")
    heights = [0.9 + 0.27 * len(rows.names) for rows in groups]
    with style():
        ax = new_figure(6.4, sum(heights) + 0.9).add_subplot() if ax is None else ax
        axes = [ax]
        if len(groups) > 1:
            axes.append(panel_below(ax, (heights[0], heights[1])))
        for panel, rows in zip(axes, groups, strict=True):
            bars(panel, rows)
            panel.set_ylabel("")
            panel.set_xlabel("Loss")
            legend_below(panel, left=left(rows))
        ax.set_title(_title(result, result.where), loc="left")
        if len(axes) > 1:
            axes[1].set_title(f"Random directions, ‖ε‖₂ = {shown(result.random_length or 0.0)}", loc="left")
    return ax


def _expansion(result: SharpnessResult) -> Rows | None:
    if result.first_order is None:
        return None
    known: list[tuple[str, float | None, float | None]] = [
        ("rise L(w + ε) − L(w)", result.increase, result.increase_error),
        ("slope εᵀg", result.first_order, result.first_order_error),
        ("curvature ½εᵀHε", result.second_order, result.second_order_error),
        ("remainder", result.remainder, result.remainder_error),
    ]
    words = "standard error over groups"
    if result.m is None:
        words = "rise: standard error over the data; else rounding"
    return _rows([(n, v, None if v is None or e is None else (v - e, v + e)) for n, v, e in known], words)


def _random(result: SharpnessResult) -> Rows | None:
    if result.random_mean is None:
        return None
    rows = [
        ("mean rise", result.random_mean, result.random_interval),
        ("‖ε‖²Tr(H)/(2n)", result.predicted_mean, result.predicted_interval),
        ("difference", result.random_difference, result.random_difference_interval),
    ]
    ends = [(n, v, None if i is None else (float(i[0]), float(i[1]))) for n, v, i in rows]
    return _rows(ends, f"{100 * result.confidence:g} % interval over directions")


def _rows(known: list[tuple[str, float | None, tuple[float, float] | None]], words: str) -> Rows:
    kept = [(n, v, (math.nan, math.nan) if i is None else i) for n, v, i in known if v is not None]
    values = np.array([[v] for _, v, _ in kept])
    intervals = np.array([[i] for _, _, i in kept])
    notes = [[_note(v, (i[1] - i[0]) / 2)] for _, v, i in kept]
    certain = np.ones(values.shape, dtype=bool)
    return Rows([n for n, _, _ in kept], values, intervals, certain, notes, words, "")


def _note(value: float, error: float) -> str:
    """A value with its error; where that is far below what a bar can show, without it."""
    return shown(value, 6) if error <= _FINE * abs(value) else with_error(value, error)


def _drawable(result: SharpnessResult) -> bool:
    return math.isfinite(result.increase)


#: The pictures by name; the first that a result has is drawn unless told otherwise.
VIEWS: Mapping[str, View] = {
    "sweep": View(sweep, lambda result: has("rho_sweep")(result) and _drawable(result)),
    "terms": View(terms, _drawable),
}
