"""A line through the weights: the loss and the accuracy along it, and the barrier between two checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter
from matplotlib.transforms import ScaledTranslation
from numpy.typing import NDArray

from landscape.errors import InputError
from landscape.plots.panels import legend_below, panel_below, text_width, with_error
from landscape.plots.slice_fields import (
    Field,
    axis_label,
    checkpoint_name,
    edges,
    field,
    has_field,
    name_of,
    runs,
    title,
)
from landscape.plots.slice_points import label_point
from landscape.plots.style import BLACK, BLUE, GREEN, GREY, VERMILLION, new_figure, style
from landscape.results import SliceResult

__all__ = ["barrier", "draw_line", "finish", "frame", "line"]

_LOOKS = {"train": (BLUE, "-", "train"), "test": (VERMILLION, "--", "test")}
#: So few points are marked; more would run into a thick line.
_FEW = 61
#: A loss that ranges over a larger factor is drawn on a logarithmic axis.
_FACTOR = 1e3
#: Parts of a curve's height that its band, and what is beyond both ends of an interpolation, may add.
_BAND, _BEYOND = 0.3, 0.5
#: Points of a computed curve.
_POINTS = 401
#: Inches of the name of the axis, above the legend; and of a text, for two to stand side by side.
_BELOW, _COLUMN = 0.62, 2.75

Floats = NDArray[np.float64]


def line(result: SliceResult, ax: Axes | None = None, *, metric: str | None = None) -> Axes:
    """Draw the loss along a line, into ``ax`` or a new figure, and the accuracy below; the upper axes.

    Bands are ± one standard error of the loss minus that at the centre. Along an eigenvector, the dashed
    parabola is what slope and eigenvalue at the centre predict; it ends where the picture does.

    Args:
        metric: what to draw instead of the loss, alone.

    Raises:
        InputError: the run does not have that metric.
    """
    with style():
        upper, lower = _panels(result, ax, metric)
        sets = draw_line(upper, result, metric)
        if metric in (None, "loss"):
            _parabola(upper, result)
            _centre(upper, result)
        finish(upper, lower, result, sets)
    return upper


def barrier(result: SliceResult, ax: Axes | None = None) -> Axes:
    """Draw the loss between two checkpoints and the barrier, into ``ax`` or a new figure; the upper axes.

    The barrier is an arrow from the straight line between both ends up to the loss, with its standard error.
    With the running statistics of BatchNorm interpolated instead, the loss is a second curve.

    Raises:
        InputError: a line that is not between two checkpoints, or does not reach the other one.
    """
    if result.barrier is None or result.y is not None:
        raise InputError(
            "there is no barrier to draw", do="slice along to:CHECKPOINT over a range that holds 0 and 1"
        )
    with style():
        upper, lower = _panels(result, ax, None)
        sets = draw_line(upper, result, None)
        _near(upper, result, sets)
        _raw(upper, result)
        _rise(upper, result)
        finish(upper, lower, result, sets)
    return upper


def _panels(result: SliceResult, ax: Axes | None, metric: str | None) -> tuple[Axes, Axes | None]:
    """The panel of the loss, and that of the accuracy if there is any."""
    two = metric is None and has_field(result, "train", "accuracy")
    ax = new_figure(6.2, 5.6 if two else 4.2).add_subplot() if ax is None else ax
    if not two:
        return ax, None
    lower = panel_below(ax, (2.4, 1.0), shared=True)
    for data in ("train", "test"):
        if has_field(result, data, "accuracy"):
            _curve(lower, result, field(result, data, "accuracy"), data)
    lower.set_ylabel("Accuracy")
    return ax, lower


def draw_line(ax: Axes, result: SliceResult, metric: str | None) -> tuple[str, ...]:
    """The quantity on the data that have it, with limits that hold all of it; which data."""
    sets = tuple(data for data in _LOOKS if has_field(result, data, metric or "loss")) or ("train",)
    fields = [field(result, data, metric) for data in sets]
    for data, of in zip(sets, fields, strict=True):
        _curve(ax, result, of, data)
    _scale(ax, fields if metric is not None else [*fields, *_saved(result)])
    ax.set_ylabel(fields[0].name)
    return sets


def _saved(result: SliceResult) -> list[Field]:
    there = has_field(result, "train", "saved_loss") and result.barrier is not None
    return [field(result, metric="saved_loss")] if there else []


def _curve(ax: Axes, result: SliceResult, of: Field, data: str) -> None:
    """The quantity, its band, its marks, and where it is not finite."""
    x = np.asarray(result.x, dtype=np.float64)
    colour, look, label = _LOOKS[data]
    drawn = np.where(of.finite, of.values, np.nan)
    ax.plot(x, drawn, look, color=colour, linewidth=1.4, label=label, zorder=4)
    marked = of.evaluated if of.refined or of.finite.sum() <= _FEW else _alone(of)
    if marked.any():
        words = f"evaluated ({of.evaluated.sum():,} of {of.reached.sum():,})" if of.refined else None
        ax.plot(x[marked], drawn[marked], ".", color=colour, markersize=4.5, zorder=4, label=words)
    if of.errors is not None and (np.nan_to_num(of.errors) > 0).any():
        low, high = drawn - of.errors, drawn + of.errors
        ax.fill_between(
            x, low, high, color=colour, alpha=0.2, linewidth=0, zorder=2,
            label=f"± standard error of {'the rise above the centre' if of.rises else of.name.lower()}",
        )  # fmt: skip
    if of.not_finite.any():
        at = x[of.not_finite]
        ax.plot(
            at, np.full(len(at), 0.97 if data == "train" else 0.92), "x", color=colour, markersize=5,
            label=f"{label}: not finite", transform=ax.get_xaxis_transform(), zorder=5,
        )  # fmt: skip


def _alone(of: Field) -> np.ndarray:
    """Points without a neighbour, of which no line is seen."""
    known = np.concatenate([[False], of.finite, [False]])
    found: np.ndarray = of.finite & ~known[:-2] & ~known[2:]
    return found


def _scale(ax: Axes, fields: list[Field]) -> None:
    """Limits by what was measured, which what is predicted or unsure does not stretch."""
    values = np.concatenate([of.values[of.finite] for of in fields])
    if not len(values):
        ax.set_ylim(0, 1)
        ax.set_yticks([])
        return
    low, high = float(values.min()), float(values.max())
    if low > 0 and high / low >= _FACTOR:
        ax.set_yscale("log")
        room = (high / low) ** 0.06
        ax.set_ylim(low / room, high * room)
        ax.yaxis.set_minor_formatter(NullFormatter())
        return
    ends = [of.values + sign * np.nan_to_num(_errors(of)) for of in fields for sign in (-1, 1)]
    wide = np.concatenate([end[np.isfinite(end)] for end in ends])
    reach = max(_BAND * (high - low), float(np.max([np.nan_to_num(_errors(of)).max() for of in fields])) / 4)
    low, high = max(low - reach, float(wide.min())), min(high + reach, float(wide.max()))
    room = 0.08 * (high - low)
    if not room > 1e-9 * max(abs(low), abs(high)):
        room = 0.05 * abs(high) or 0.05
    ax.set_ylim(low - room, high + room)


def _errors(of: Field) -> Floats:
    return np.zeros_like(of.values) if of.errors is None else of.errors


def _near(ax: Axes, result: SliceResult, sets: tuple[str, ...]) -> None:
    """Limits by the segment between both ends: far beyond them the loss may leave the picture."""
    fields = [*(field(result, data) for data in sets), *_saved(result)]
    x = np.asarray(result.x, dtype=np.float64)
    segment = (x >= 0) & (x <= 1)
    values = np.concatenate([of.values[of.finite & segment] for of in fields])
    if not len(values) or ax.get_yscale() != "linear":
        return
    low, high = ax.get_ylim()
    room = (np.ptp(values) or 0.05 * abs(float(values[0])) or 0.05) * _BEYOND
    ax.set_ylim(max(low, float(values.min()) - room / 3), min(high, float(values.max()) + room))


def _parabola(ax: Axes, result: SliceResult) -> None:
    """c + st + ½λt², with the interval of λ, where λ is known."""
    if result.curvatures is None or not math.isfinite(float(np.ma.filled(result.curvatures, np.nan)[0])):
        return
    if result.batchnorm == "recalibrated":  # slope and eigenvalue hold the running statistics as they are
        return
    curvature, slope = float(result.curvatures[0]), float(result.slopes[0])
    straight = slope if math.isfinite(slope) else 0.0
    t = np.linspace(result.x[0], result.x[-1], _POINTS)
    base, bend = result.centre_loss + straight * t, t**2 / 2
    errors = result.curvature_errors
    error = 0.0 if errors is None else float(np.ma.filled(errors, np.nan)[0])
    label = f"centre + slope·t + ½λt², λ = {with_error(curvature, error)}"
    ax.plot(
        t, base + curvature * bend, "--", color=BLACK, linewidth=1.1, label=label, zorder=3, gid="parabola"
    )
    if math.isfinite(error) and error > 0:
        low, high = (base + (curvature + sign * error) * bend for sign in (-1, 1))
        ax.fill_between(t, low, high, color=BLACK, alpha=0.12, linewidth=0, zorder=1, label="interval of λ")


def _centre(ax: Axes, result: SliceResult) -> None:
    """Marked where the measured curve goes through it."""
    if not result.x[0] <= 0 <= result.x[-1] or not math.isfinite(result.centre_loss):
        return
    ax.plot(
        0, result.centre_loss, "+", color=BLACK, markersize=10, markeredgewidth=1.4, zorder=6,
        label=f"centre {with_error(result.centre_loss, result.centre_error)}", linestyle="none", gid="centre",
    )  # fmt: skip


def _raw(ax: Axes, result: SliceResult) -> None:
    """The loss with both checkpoints' running statistics interpolated instead."""
    for of in _saved(result):
        drawn = np.where(of.finite, of.values, np.nan)
        height = result.saved_barrier
        known = height is not None and math.isfinite(height)
        note = (
            "" if not known else f" (barrier {with_error(height or 0.0, 0.0)})" if height else " (no barrier)"
        )
        ax.plot(
            np.asarray(result.x, dtype=np.float64), drawn, "-.", color=GREEN, linewidth=1.3, zorder=3,
            label=f"running statistics interpolated{note}",
        )  # fmt: skip


def _rise(ax: Axes, result: SliceResult) -> None:
    """Both ends with their names, the straight line between them, and how far the loss is above it."""
    loss = field(result)
    x = np.asarray(result.x, dtype=np.float64)
    if not loss.finite.any():
        return
    ends = [float(v) for v in np.interp([0.0, 1.0], x[loss.finite], loss.values[loss.finite])]
    ax.plot([0, 1], ends, "--", color=GREY, linewidth=1.1, zorder=3, label="straight line between both ends")
    ax.plot([0, 1], ends, "D", color="white", markeredgecolor=BLACK, markersize=5.5, zorder=7)
    names = [checkpoint_name(result), _other(result)]
    label_point(ax, (0.0, ends[0]), names[0], below=True)
    label_point(ax, (1.0, ends[1]), names[1], align="right", below=True)
    height, at = result.barrier, result.barrier_at
    if height is None or at is None or not math.isfinite(height):
        return
    text = f"barrier {with_error(height, result.barrier_error or 0.0)}"
    foot = (1 - at) * ends[0] + at * ends[1]
    if not height > 0:
        ax.annotate("no barrier", (0.5, 0.94), xycoords="axes fraction", ha="center", va="top", fontsize=8.0)
        return
    ax.annotate(
        "", (at, foot + height), (at, foot), zorder=8,
        arrowprops={"arrowstyle": "<->", "color": BLACK, "linewidth": 1.1, "shrinkA": 0, "shrinkB": 0},
    )  # fmt: skip
    label_point(ax, (at, foot + height), text, align="center")


def _other(result: SliceResult) -> str:
    """The checkpoint at 1."""
    if result.point_names is not None and result.point_roles is not None:
        for name, role in zip(result.point_names, result.point_roles, strict=True):
            if role == "end":
                return name_of(name)
    return name_of(str(result.axes[0]).removeprefix("to:"))


def frame(ax: Axes, result: SliceResult) -> None:
    """The width of the range, what was not reached, the centre, and a second axis in units of ‖w‖."""
    borders = edges(result.x)
    ax.set_xlim(borders[0], borders[-1])
    for i, (first, last) in enumerate(runs(~field(result).reached)):
        ax.axvspan(
            borders[first], borders[last], color="#D9D9D9", linewidth=0, zorder=0,
            label="not reached" if i == 0 else None,
        )  # fmt: skip
    if borders[0] < 0 < borders[-1]:
        ax.axvline(0, color=GREY, linestyle=":", linewidth=0.9, zorder=1)


def _times(factor: float) -> Callable[[Any], Any]:
    return lambda value: np.asarray(value) * factor


def _lengths(ax: Axes, result: SliceResult) -> None:
    """The same axis in units of ‖w‖, on top."""
    unit = float(result.relative_norms[0])
    if math.isfinite(unit) and unit > 0:
        top = ax.secondary_xaxis("top", functions=(_times(unit), _times(1 / unit)))
        top.set_xlabel("in units of ‖w‖", fontsize=8.0)
        top.tick_params(labelsize=8.0)
        top.spines["top"].set_visible(True)


def finish(upper: Axes, lower: Axes | None, result: SliceResult, sets: tuple[str, ...]) -> None:
    """Axes, title and legend."""
    for ax in (upper, lower):
        if ax is not None:
            frame(ax, result)
    _lengths(upper, result)
    lowest = upper if lower is None else lower
    lowest.set_xlabel(axis_label(result, 0))
    upper.set_title(title(result, *sets), loc="left")
    _legend(upper, lowest)


def _legend(upper: Axes, lowest: Axes) -> None:
    """One legend for both panels, below the lower one; each text once."""
    if upper is lowest:
        legend_below(upper, inches=_BELOW)
        return
    entries: dict[str, Any] = {}
    for ax in (upper, lowest):
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    figure = lowest.get_figure(root=True)
    assert figure is not None
    place = lowest.transAxes + ScaledTranslation(0.0, -_BELOW, figure.dpi_scale_trans)
    wide = max((text_width(label, 8.0) for label in entries), default=0.0) > _COLUMN
    lowest.legend(
        list(entries.values()), list(entries), loc="upper center", bbox_to_anchor=(0.5, 0.0),
        bbox_transform=place, ncols=1 if wide else 2, borderaxespad=0.0,
    )  # fmt: skip
