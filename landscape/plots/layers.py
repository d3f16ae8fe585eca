"""Figures of the layers side by side: horizontal bars with intervals, in the model's order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from landscape.errors import InputError
from landscape.files import printable
from landscape.plots.panels import INCHES_PER_ROW, legend_below, matrix_name, panel_below, plain, shown
from landscape.plots.spectrum import spectrum
from landscape.plots.style import BLACK, BLUE, GREY, VERMILLION, caption, new_figure, style
from landscape.results import EigenResult

__all__ = ["Rows", "bars", "height", "layers", "layers_shown", "spectrum_and_layers"]

#: More layers than this cannot be read; the largest are shown then.
MOST = 40
_LONGEST = 32

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Rows:
    """Bars from top to bottom: a name for each of r rows, m bars in each.

    Attributes:
        names: (r,) of the rows.
        values: (r, m), NaN for no bar.
        intervals: (r, m, 2), NaN for no interval.
        certain: (r, m), False for hollow bars.
        notes: (r, m) texts at the ends of the bars.
        interval: what the error bars are, in words.
        uncertain: what hollow bars are, in words.
    """

    names: Sequence[str]
    values: Floats
    intervals: Floats
    certain: NDArray[np.bool_]
    notes: Sequence[Sequence[str]]
    interval: str
    uncertain: str


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
        ax.set_title(caption(result), loc="left")
        _words(ax, result)
        legend_below(ax)
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
        bars(lower, rows)
        _words(lower, result)
        legend_below(lower)
    return ax


def height(rows: Rows) -> float:
    """Inches that a panel with these rows takes, with its axis and legend."""
    wide = 1.0 if rows.values.shape[1] < 2 else 1.6
    return 0.9 + wide * INCHES_PER_ROW * max(len(rows.names), 3)


def layers_shown(sizes: Floats) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    """Which layers are drawn and which are not, both in the model's order, by their sizes (L,)."""
    order = np.argsort(-np.nan_to_num(np.abs(sizes), nan=-1.0), kind="stable")
    kept = order if len(order) <= MOST else order[:MOST]
    return np.sort(kept), np.sort(order[len(kept) :])


def bars(ax: Axes, rows: Rows) -> None:
    """Draw ``rows`` from zero, the first at the top."""
    count, per_row = rows.values.shape
    thick = 0.75 / per_row
    for j in range(per_row):
        places = np.arange(count) + (j - (per_row - 1) / 2) * thick
        for kind in _kinds(rows):
            chosen = kind.chosen[:, j]
            if chosen.any():
                ax.barh(
                    places[chosen], rows.values[chosen, j], 0.9 * thick, linewidth=0.9, label=kind.label,
                    edgecolor=kind.colour, color=kind.colour if kind.filled else "none",
                )  # fmt: skip
        _errors(ax, places, rows.values[:, j], rows.intervals[:, j], rows.interval, thick)
        _notes(ax, places, rows, j)
    ax.axvline(0.0, color=GREY, linewidth=0.6, zorder=0)
    ax.set_ylim(count - 0.4, -0.6)
    names = [shortened(printable(name)).replace("$", r"\$") for name in rows.names]
    ax.set_yticks(np.arange(count), names, fontsize=8 if count <= 25 else 7)
    ax.tick_params(axis="y", length=0)
    ax.set_ylabel("Layer")
    ax.xaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 2.5, 5, 10]))
    ax.xaxis.set_major_formatter(FuncFormatter(plain))
    low, high = ax.get_xlim()
    room = 0.16 * (high - low)
    ax.set_xlim(low - (room if np.nanmin(rows.values, initial=0.0) < 0 else 0.0), high + room)


@dataclass(frozen=True)
class _Kind:
    """Bars of one look."""

    label: str | None
    chosen: NDArray[np.bool_]
    colour: str
    filled: bool


def _kinds(rows: Rows) -> list[_Kind]:
    """Bars by sign and certainty; where all are alike there is nothing to tell apart by a label."""
    negative, drawn, sure = rows.values < 0, np.isfinite(rows.values), rows.certain
    plus = "positive or zero" if (rows.values == 0).any() else "positive"
    alike = not negative.any() and bool(sure[drawn].all())
    return [
        _Kind(None if alike else plus, drawn & ~negative & sure, BLUE, True),
        _Kind(f"{plus}, {rows.uncertain}", drawn & ~negative & ~sure, BLUE, False),
        _Kind("negative", drawn & negative & sure, VERMILLION, True),
        _Kind(f"negative, {rows.uncertain}", drawn & negative & ~sure, VERMILLION, False),
    ]


def _errors(ax: Axes, places: Floats, values: Floats, bounds: Floats, label: str, thick: float) -> None:
    known = np.isfinite(values) & np.isfinite(bounds).all(axis=1)
    if known.any():
        x = values[known]
        reach = np.clip([x - bounds[known, 0], bounds[known, 1] - x], 0.0, None)
        ax.errorbar(
            x, places[known], xerr=reach, fmt="none", ecolor=BLACK, elinewidth=0.9, capsize=3.5 * thick,
            zorder=3, label=label,
        )  # fmt: skip


def _notes(ax: Axes, places: Floats, rows: Rows, j: int) -> None:
    """A text at the end of each of the ``j``-th bars, beyond its interval."""
    for row, place in enumerate(places):
        value = rows.values[row, j]
        if np.isfinite(value):
            ends, side = [value, 0.0, *rows.intervals[row, j]], -1 if value < 0 else 1
            ax.annotate(
                rows.notes[row][j], (float(side * np.nanmax(side * np.array(ends))), float(place)),
                (4 * side, 0), textcoords="offset points", va="center", ha="left" if side > 0 else "right",
                fontsize=7 if len(rows.values) > 25 else 7.5,
            )  # fmt: skip
        elif j == 0:
            ax.annotate(
                "not finite",
                (0.0, float(place)),
                (4, 0),
                textcoords="offset points",
                va="center",
                fontsize=7.5,
            )


def shortened(name: str, limit: int = _LONGEST) -> str:
    """A module's name with its beginning left out, up to a dot: its end tells layers apart."""
    if len(name) <= limit:
        return name
    tail = name[-(limit - 1) :]
    dot = tail.find(".")
    return "…" + (tail[dot:] if 0 <= dot < limit // 2 else tail)


def _eigen_rows(result: EigenResult) -> Rows:
    if result.layers is None or result.layer_eigenvalues is None or not len(result.layers):
        raise InputError("there are no layers to draw", do="measure them with --per-layer")
    values = np.asarray(result.layer_eigenvalues, dtype=np.float64)
    bounds = np.full((*values.shape, 2), np.nan)
    if result.layer_intervals is not None:
        bounds = np.asarray(result.layer_intervals, dtype=np.float64)
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
    notes = [[shown(value) for value in row] for row in values[rows]]
    return Rows(names, values[rows], bounds[rows], sure[rows], notes, "residual interval", "not converged")


def _words(ax: Axes, result: EigenResult) -> None:
    unit = next(q.unit for q in result.quantities() if q.name == "layer_eigenvalues")
    which = {
        "both": "Extreme eigenvalues",
        "smallest": "Smallest eigenvalue",
        "largest": "Largest eigenvalue",
    }
    what = which.get(result.which, "Eigenvalue of largest size")
    ax.set_xlabel(f"{what} of each layer's own block of the {matrix_name(result.operator)} ({unit})")
