"""Horizontal bars with intervals, one row for each layer of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from landscape.files import printable
from landscape.plots.panels import plain, text_width
from landscape.plots.style import BLACK, BLUE, GREY, VERMILLION

__all__ = ["MOST", "Rows", "bars", "finite_or_nan", "height", "layers_shown", "left", "short_names"]

#: More layers than this cannot be read; the largest are shown then.
MOST = 40
_LONGEST = 32
#: Height of a row, with one bar and with more (inches).
_ROW, _ROW_OF_SEVERAL = 0.2, 0.3

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


def finite_or_nan(values: np.ndarray) -> Floats:
    """What can be drawn of ``values``, NaN for the rest."""
    numbers = np.asarray(values, dtype=np.float64)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def height(rows: Rows) -> float:
    """Inches that a panel with these rows takes, with its axis and legend."""
    row = _ROW if rows.values.shape[1] < 2 else _ROW_OF_SEVERAL
    return 1.0 + row * max(len(rows.names), 3)


def layers_shown(sizes: Floats, most: int = MOST) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    """Which layers are drawn and which are not, both in the model's order, by their sizes (L,)."""
    order = np.argsort(-np.nan_to_num(np.abs(sizes), nan=-1.0), kind="stable")
    kept = order[:most]
    return np.sort(kept), np.sort(order[len(kept) :])


def bars(ax: Axes, rows: Rows) -> None:
    """Draw ``rows`` from zero, the first at the top."""
    count, per_row = rows.values.shape
    thick = 0.75 / per_row
    places = np.arange(count)[:, None] + (np.arange(per_row) - (per_row - 1) / 2) * thick
    for kind in _kinds(rows):
        if kind.chosen.any():
            ax.barh(
                places[kind.chosen], rows.values[kind.chosen], 0.9 * thick, linewidth=0.9,
                label=kind.label, edgecolor=kind.colour, color=kind.colour if kind.filled else "none",
            )  # fmt: skip
    _errors(ax, places, rows, thick)
    _notes(ax, places, rows)
    ax.axvline(0.0, color=GREY, linewidth=0.6, zorder=0)
    ax.set_ylim(count - 0.4, -0.6)
    ax.set_yticks(np.arange(count), short_names(rows.names), fontsize=_font(rows))
    ax.tick_params(axis="y", length=0)
    ax.set_ylabel("Layer")
    ax.xaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 2.5, 5, 10]))
    ax.xaxis.set_major_formatter(FuncFormatter(plain))
    _make_room(ax, rows)


def left(rows: Rows) -> float:
    """Inches that the names take to the left of the panel, about."""
    return max(text_width(name, _font(rows)) for name in short_names(rows.names))


def _font(rows: Rows) -> float:
    return 7.5 if len(rows.names) <= 25 else 7.0


def _make_room(ax: Axes, rows: Rows) -> None:
    """Widen the axis until the notes at the ends of the bars fit in, as far as text can be foreseen."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    wide = max(ax.bbox.width / figure.dpi - max(left(rows) - 0.6, 0.0), 1.0)
    low, high = (float(end) for end in ax.get_xlim())
    for _ in range(20):
        span = high - low
        for i, j in zip(*np.nonzero(np.isfinite(rows.values)), strict=True):
            value, text = float(rows.values[i, j]), rows.notes[i][j]
            end = _end(value, rows.intervals[i, j])
            need = min(0.15 + text_width(text, _font(rows)), 0.35 * wide) * span / wide
            low, high = (min(low, end - need), high) if value < 0 else (low, max(high, end + need))
    ax.set_xlim(low, high)


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


def _errors(ax: Axes, places: Floats, rows: Rows, thick: float) -> None:
    known = np.isfinite(rows.values) & np.isfinite(rows.intervals).all(axis=-1)
    if known.any():
        x, bounds = rows.values[known], rows.intervals[known]
        reach = np.clip([x - bounds[:, 0], bounds[:, 1] - x], 0.0, None)
        ax.errorbar(
            x, places[known], xerr=reach, fmt="none", ecolor=BLACK, elinewidth=0.9, capsize=3.5 * thick,
            zorder=3, label=rows.interval,
        )  # fmt: skip


def _end(value: float, bounds: Floats) -> float:
    """Where all that is drawn of a bar ends, away from zero."""
    ends = np.array([value, 0.0, *bounds[np.isfinite(bounds)]])
    return float(ends.min() if value < 0 else ends.max())


def _notes(ax: Axes, places: Floats, rows: Rows) -> None:
    """A text at the end of each bar, beyond its interval; a row without any bar says so."""
    for i, j in np.ndindex(rows.values.shape):
        value, text = float(rows.values[i, j]), rows.notes[i][j]
        if not np.isfinite(value):
            if j or np.isfinite(rows.values[i]).any():
                continue
            value, text = 0.0, "not known"
        side, end = (-1 if value < 0 else 1), _end(value, rows.intervals[i, j])
        ax.annotate(
            text, (end, float(places[i, j])), (4 * side, 0), textcoords="offset points", va="center",
            ha="left" if side > 0 else "right", fontsize=_font(rows),
        )  # fmt: skip


def short_names(names: Sequence[str]) -> list[str]:
    """Names of modules, safe to show; where any is long, without what all begin with and in the middle."""
    shown_names = [printable(name).replace("$", r"\$") for name in names]
    if max(map(len, shown_names), default=0) <= _LONGEST:
        return shown_names
    parts = [name.split(".") for name in names if not name.startswith("…")]
    same = 0
    while len(parts) > 1 and all(len(p) > same + 1 and p[same] == parts[0][same] for p in parts):
        same += 1
    prefix = len(".".join(parts[0][:same])) + 1 if same else 0
    short = [
        _shortened(printable(full if full.startswith("…") or not prefix else "…" + full[prefix:]))
        for full in names
    ]
    return short if len(set(short)) == len(set(names)) else shown_names


def _shortened(name: str) -> str:
    half = _LONGEST // 2 - 1
    cut = name if len(name) <= _LONGEST else f"{name[:half]}…{name[-half:]}"
    return cut.replace("$", r"\$")
