"""A plane through the weights as a surface in three dimensions, in the colours of the contours."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from landscape.plots.panels import plain
from landscape.plots.slice_fields import Field, axis_label, field, title
from landscape.plots.slice_levels import Scale, scale, written
from landscape.plots.slice_plane import COLOURS, colour_bar, parameter_aspect
from landscape.plots.style import BLACK, GREY, new_figure, style
from landscape.results import SliceResult

__all__ = ["surface"]

#: What is higher than this quantile is cut off where it would press the rest flat,
_QUANTILE = 0.95
#: that is, where the highest lies so many times as far above the lowest.
_FLAT = 2.0
#: Facets along an axis.
_MOST = 120

Floats = NDArray[np.float64]


def surface(
    result: SliceResult,
    ax: Axes | None = None,
    *,
    levels: str | None = None,
    data: str | None = None,
    metric: str | None = None,
) -> Axes:
    """Draw a plane as a surface, into ``ax`` (of three dimensions) or a new figure.

    The height is the loss, or its logarithm where the levels of its colours are logarithmic. What lies far
    above the rest is cut off, which is said; what is not finite or was not reached is left out.

    Args: as of :func:`~landscape.plots.slice_plane.plane`.
    """
    shown_field = field(result, data, metric)
    found = scale(shown_field, levels)
    with style():
        drawn: Any = new_figure(6.4, 5.2).add_subplot(projection="3d") if ax is None else ax
        if found is not None:
            _draw(drawn, result, shown_field, found)
        drawn.set_title(title(result, data or "train"), loc="left")
    return drawn  # type: ignore[no-any-return]


def _draw(ax: Any, result: SliceResult, of: Field, levels: Scale) -> None:
    x, y = (np.asarray(c, dtype=np.float64) for c in result.coordinates)
    height, cut = _heights(of, levels)
    count = len(levels.levels) - 1
    bands = np.minimum(np.floor(np.nan_to_num(levels.bands(of.values))), count - 1)
    colours = matplotlib.colormaps[COLOURS].resampled(count)((bands + 0.5) / count)
    every = [max(1, -(-len(c) // _MOST)) for c in (x, y)]
    # Indexed by "ij", so that the height at x[i], y[j] is that of the grid's point (i, j).
    ax.plot_surface(
        *np.meshgrid(x, y, indexing="ij"), height, facecolors=colours, rstride=every[0], cstride=every[1],
        linewidth=0, antialiased=False, shade=True, rasterized=True,
    )  # fmt: skip
    low, high = float(np.nanmin(height)), float(np.nanmax(height))
    room = 0.03 * (high - low) or 0.5
    ax.set_zlim(low - room, high + room)
    _axes(ax, result, of, levels, cut)
    colour_bar(ax, of, levels, place=(1.0, 0.15, 0.03, 0.6))


def _heights(of: Field, levels: Scale) -> tuple[Floats, float | None]:
    """The heights, NaN for holes, and where they were cut off, as the quantity itself."""
    values = np.where(of.finite, of.values, np.nan)
    if levels.kind == "log":
        return np.log10(values), None
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    cut = float(np.nanquantile(values, _QUANTILE))
    if not high - low > _FLAT * (cut - low) > 0:
        return values, None
    return np.minimum(values, cut), cut


def _axes(ax: Any, result: SliceResult, of: Field, levels: Scale, cut: float | None) -> None:
    ax.set_xlabel(axis_label(result, 0), labelpad=8)
    ax.set_ylabel(axis_label(result, 1), labelpad=8)
    words = [of.name, "(logarithmic)" if levels.kind == "log" else ""]
    if cut is not None:
        words.append(f"\ncut off at {written(cut, 3)}: {100 * (1 - _QUANTILE):g} % lie above")
    ax.set_zlabel(" ".join(word for word in words if word).replace(" \n", "\n"), labelpad=8)
    if levels.kind == "log":
        ax.zaxis.set_major_locator(matplotlib.ticker.MaxNLocator(6, integer=_decades(of) >= 3))
        ax.zaxis.set_major_formatter(lambda value, _: written(float(10.0**value), 2))
    else:
        ax.zaxis.set_major_locator(matplotlib.ticker.MaxNLocator(6))
        ax.zaxis.set_major_formatter(plain if _small(levels) else lambda value, _: written(value, 3))
    ax.tick_params(labelsize=7.5)
    for axis in (ax.xaxis, ax.yaxis, ax.zaxis):
        axis.set_pane_color((1.0, 1.0, 1.0, 0.0))
        axis._axinfo["grid"].update(color=GREY, linewidth=0.3)
    aspect = parameter_aspect(result) or 1.0
    width, depth = (float(c[-1] - c[0]) or 1.0 for c in result.coordinates)
    shape = min(max(aspect * depth / width, 0.4), 2.5)
    longest = max(1.0, shape)
    ax.set_box_aspect((1 / longest, shape / longest, 0.62), zoom=0.95)
    ax.view_init(elev=34, azim=-58)
    ax.plot([], [], [], color=BLACK)


def _decades(of: Field) -> float:
    values = of.values[of.finite]
    return float(np.log10(values.max() / values.min()))


def _small(levels: Scale) -> bool:
    return bool(np.abs(levels.levels).max() < 1e5)
