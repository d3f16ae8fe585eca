"""A plane through the weights as filled contours: what was measured, what was not, and what lies on it."""

from __future__ import annotations

import math
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path
from numpy.typing import NDArray

from landscape.plots.panels import legend_below, shown, text_width, with_error
from landscape.plots.slice_fields import Bools, Field, axis_label, edges, field, fitted, runs, title
from landscape.plots.slice_levels import Scale, scale, written
from landscape.plots.slice_points import OUTLINE, draw_points
from landscape.plots.style import BLACK, new_figure, style
from landscape.results import SliceResult

__all__ = [
    "below_label",
    "COLOURS",
    "axes_size",
    "colour_bar",
    "draw_plane",
    "legend_room",
    "parameter_aspect",
    "plane",
    "text_room",
]

#: Even in brightness, so that it reads in grey; the lowest loss is dark.
COLOURS = "viridis"
#: What was not reached.
_UNKNOWN = "#D9D9D9"
#: A picture this much longer than wide, or wider than long, is stretched: equal aspect would leave a line.
_LONGEST = 3.0
#: Inches of the longer side of the plane; what is around it, beside and above; and the least of a figure.
_SIDE, _BESIDE, _AROUND, _WIDTH = 4.1, 1.9, 1.9, 5.2
#: Inches of the shortest line of a label.
_SHORTEST = 1.4
#: Inches of the colour bar and of the gap before it, and between its labels.
_BAR, _GAP, _TICK = 0.18, 0.12, 0.14

Floats = NDArray[np.float64]


def plane(
    result: SliceResult,
    ax: Axes | None = None,
    *,
    levels: str | None = None,
    data: str | None = None,
    metric: str | None = None,
) -> Axes:
    """Draw a plane as filled contours, into ``ax`` or a new figure.

    Both axes have the scale of the weights. The centre and the lowest grid point are marked, evaluated points
    are dotted if others were interpolated, points that are not finite hatched, and what was not reached grey.

    Args:
        levels: ``quantile``, ``log`` or ``linear``; what shows most without.
        data: ``train`` or ``test``.
        metric: what to draw instead of the loss.

    Raises:
        InputError: the run does not have that, or it is not positive and levels are logarithmic.
    """
    shown_field = field(result, data, metric)
    with style():
        if ax is None:
            width, height = axes_size(result)
            ax = new_figure(
                max(width + _BESIDE, _WIDTH), height + _AROUND + legend_room(result)
            ).add_subplot()
        draw_plane(ax, result, shown_field, scale(shown_field, levels), data or "train")
        ax.set_title(title(result, data or "train", inches=text_room(ax)), loc="left")
        legend_below(ax, inches=below_label(ax))
    return ax


def draw_plane(
    ax: Axes, result: SliceResult, of: Field, levels: Scale | None, data: str, *, variance: bool = False
) -> None:
    """The plane without its title and its legend."""
    x, y = (np.asarray(c, dtype=np.float64) for c in result.coordinates)
    ax.set_facecolor(_UNKNOWN)
    ax.set_xlim(*edges(x)[[0, -1]])
    ax.set_ylim(*edges(y)[[0, -1]])
    if levels is not None:
        _contours(ax, x, y, of, levels)
        width, height = axes_size(result)
        place = (1 + _GAP / width, 0.0, _BAR / width, 1.0)
        colour_bar(ax, of, levels, place=place, inches=height)
    _not_finite(ax, x, y, of)
    if not of.reached.all():
        ax.add_patch(_key(facecolor=_UNKNOWN, label="not reached"))
    if of.refined:
        i, j = np.nonzero(of.evaluated)
        ax.plot(
            x[i], y[j], ".", color=BLACK, markersize=2.6, markeredgewidth=0, zorder=4,
            label=f"evaluated ({len(i):,} of {of.reached.sum():,})",
        )  # fmt: skip
    _marks(ax, result, x, y, data)
    draw_points(ax, result)
    for axis, described in zip((ax.xaxis, ax.yaxis), (0, 1), strict=True):
        axis.set_label_text(axis_label(result, described, variance=variance))
    _aspect(ax, result)
    ax.set_ylabel(fitted(ax.get_ylabel(), max(axes_size(result)[1], _SHORTEST)))
    for spine in ax.spines.values():
        spine.set_visible(True)


def _contours(ax: Axes, x: Floats, y: Floats, of: Field, levels: Scale) -> None:
    """Bands of colour between the levels, over cells of one colour where there is no room for contours.

    The grid's first index is along x, a picture's rows are along y: hence the transpose.
    """
    bands = np.ma.masked_invalid(levels.bands(of.values).T)
    count = len(levels.levels) - 1
    colours, norm = _colours(count), Normalize(0, count)
    whole = np.ma.floor(np.ma.minimum(bands, count - 0.5)) + 0.5
    ax.pcolormesh(
        edges(x), edges(y), whole, cmap=colours, norm=norm, edgecolors="none", rasterized=True, zorder=1
    )
    if min(len(x), len(y)) < 2 or levels.kind == "constant" or not _quads(of.finite).any():
        return
    # A value on the lowest or highest level belongs to the picture, too.
    ends = np.arange(count + 1.0)
    ends[0], ends[-1] = -1e-6, count + 1e-6
    ax.contourf(x, y, bands, levels=ends, cmap=colours, norm=norm, zorder=2)
    ax.contour(x, y, bands, levels=ends[1:-1], colors="white", linewidths=0.35, alpha=0.55, zorder=2.5)


def _quads(finite: Bools) -> Bools:
    """Whether all four corners are known, of each quad of the grid."""
    corners: Bools = finite[1:, 1:] & finite[:-1, 1:] & finite[1:, :-1] & finite[:-1, :-1]
    return corners


def _colours(count: int) -> Colormap:
    return matplotlib.colormaps[COLOURS].resampled(max(count, 1))


def text_room(ax: Axes) -> float:
    """Inches of a title's line: the figure without what is at its left."""
    figure = ax.get_figure(root=True)
    return 5.0 if figure is None else figure.get_figwidth() - 1.15


def colour_bar(
    ax: Axes,
    of: Field,
    levels: Scale,
    *,
    place: tuple[float, float, float, float],
    inches: float,
    label: str | None = None,
) -> None:
    """The bands beside the plane, with the level at each border and how the levels were chosen.

    Args:
        place: of the bar, in units of ``ax``.
        inches: its height, which no more labels are written on than it has room for.
        label: instead of the quantity and how the levels were chosen.
    """
    count = len(levels.levels) - 1
    figure = ax.get_figure()
    assert figure is not None
    bar = ax.inset_axes(place)
    colours = matplotlib.cm.ScalarMappable(Normalize(0, count), _colours(count))
    ticks, labels = levels.ticks()
    every = max(1, math.ceil(_TICK * len(ticks) / inches))
    words = label or f"{of.name} ({levels.words})"
    if text_width(words, 9.0) > inches:
        words = f"{of.name}\n({levels.words})"
    drawn = figure.colorbar(colours, cax=bar, ticks=ticks[::every], label=words)
    drawn.ax.set_yticks(ticks[::every], labels[::every], fontsize=7.5)
    drawn.ax.minorticks_off()


def _not_finite(ax: Axes, x: Floats, y: Floats, of: Field) -> None:
    """The cells of the points that came out as NaN or infinite, hatched: one outline for each run along y."""
    if not of.not_finite.any():
        return
    over_x, over_y = edges(x), edges(y)
    boxes = [
        Path([(over_x[i], over_y[first]), (over_x[i + 1], over_y[first]), (over_x[i + 1], over_y[last]),
              (over_x[i], over_y[last]), (over_x[i], over_y[first])], closed=True)
        for i, column in enumerate(of.not_finite)
        for first, last in runs(column)
    ]  # fmt: skip
    ax.add_patch(
        PathPatch(
            Path.make_compound_path(*boxes), facecolor="white", edgecolor=BLACK, hatch="////", linewidth=0,
            zorder=3, gid="not finite",
        )
    )  # fmt: skip
    text = f"not finite ({of.not_finite.sum():,} of {of.reached.sum():,} points)"
    ax.add_patch(_key(facecolor="white", edgecolor=BLACK, hatch="////", linewidth=0, label=text))


def _key(**look: Any) -> Patch:
    """What stands for an area in the legend, and is nowhere in the picture."""
    nothing: Patch = PathPatch(Path(np.zeros((1, 2))), **look)
    return nothing


def _marks(ax: Axes, result: SliceResult, x: Floats, y: Floats, data: str) -> None:
    """The centre, and the grid point with the lowest loss of the data that are drawn."""
    loss = field(result, data)
    lowest = loss.lowest
    centre, error = result.centre_loss, result.centre_error
    if data == "test":
        centre, error = result.test_centre_loss or math.nan, result.test_centre_error or math.nan
    if lowest is not None and np.ptp(loss.values[loss.finite]) > 0:
        ax.plot(
            x[lowest[0]], y[lowest[1]], "o", markerfacecolor="none", markeredgecolor=BLACK, markersize=7.5,
            markeredgewidth=1.3, path_effects=OUTLINE, zorder=8, label=_lowest(loss, lowest, centre),
            linestyle="none", clip_on=False, gid="lowest",
        )  # fmt: skip
    if x[0] <= 0 <= x[-1] and y[0] <= 0 <= y[-1]:
        ax.plot(
            0, 0, "+", color=BLACK, markersize=10, markeredgewidth=1.5, path_effects=OUTLINE, zorder=8,
            label=f"centre {with_error(centre, error)}" if math.isfinite(centre) else "centre",
            linestyle="none", gid="centre",
        )  # fmt: skip


def _lowest(loss: Field, at: tuple[int, ...], centre: float) -> str:
    """The lowest loss, and how far it is below the centre, with the error of that."""
    value = float(loss.values[at])
    error = math.nan if loss.errors is None else float(loss.errors[at])
    text = f"lowest loss {written(value, 4)}"
    if not (math.isfinite(error) and error > 0 and math.isfinite(centre)):
        return text
    return f"{text} (rise {with_error(value - centre, error)})"


def parameter_aspect(result: SliceResult) -> float | None:
    """Length of one unit of y in units of x: in the picture as in parameter space; None if not known."""
    first, second = (float(norm) for norm in result.direction_norms)
    usable = math.isfinite(first) and math.isfinite(second) and first > 0 and second > 0
    return second / first if usable else None


def _shape(result: SliceResult) -> float | None:
    """Height over width of the plane in parameter space; None if not known."""
    aspect = parameter_aspect(result)
    (left, right), (low, high) = (edges(c)[[0, -1]] for c in result.coordinates)
    return None if aspect is None else aspect * (high - low) / (right - left)


def axes_size(result: SliceResult) -> tuple[float, float]:
    """Inches of the plane, width and height."""
    shape = min(max(_shape(result) or 1.0, 1 / _LONGEST), _LONGEST)
    return (_SIDE, _SIDE * shape) if shape <= 1 else (max(_SIDE / shape, 1.6), _SIDE)


def below_label(ax: Axes) -> float:
    """Inches from the axes to below the label of x, which has a line more where a plane is stretched."""
    return 0.28 + 0.17 * (ax.get_xlabel().count("\n") + 1)


def legend_room(result: SliceResult) -> float:
    """Inches more that the legend may take where other checkpoints are in it."""
    return 0.0 if result.point_roles is None or not len(result.point_roles) else 0.6


def _aspect(ax: Axes, result: SliceResult) -> None:
    """One scale for both axes; a plane so long that nothing could be seen is stretched, which is said."""
    aspect, shape = parameter_aspect(result), _shape(result)
    if aspect is None or shape is None:
        return
    if 1 / _LONGEST <= shape <= _LONGEST:
        ax.set_aspect(aspect, adjustable="box", anchor="W")
        return
    drawn = 1 / _LONGEST if shape < 1 else _LONGEST
    ax.set_aspect(aspect * drawn / shape, adjustable="box", anchor="W")
    axis, factor = (ax.yaxis, drawn / shape) if shape < 1 else (ax.xaxis, shape / drawn)
    text = axis.get_label_text()
    axis.set_label_text(f"{text}\nstretched {shown(factor)} times")
