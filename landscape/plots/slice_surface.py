"""A plane through the weights as a surface in three dimensions, in the colours of the contours."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LightSource
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from landscape.plots.panels import sentence
from landscape.plots.slice_fields import Field, axis_label, field, title
from landscape.plots.slice_levels import Scale, scale, written
from landscape.plots.slice_plane import COLOURS, colour_bar, parameter_aspect
from landscape.plots.style import GREY, new_figure, style
from landscape.results import SliceResult

__all__ = ["surface"]

#: What is higher than this quantile is cut off where it would press the rest flat,
_QUANTILE = 0.95
#: that is, where the highest lies so many times as far above the lowest.
_FLAT = 2.0
#: Facets along an axis: so many at least by interpolation, and at most.
_LEAST, _MOST = 80, 160
#: How much darker a slope in the shadow is: so little that the colours are still those of the bar.
_SHADOW = 0.25

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
    of = field(result, data, metric)
    found = scale(of, levels)
    with style():
        drawn: Any = _new() if ax is None else ax
        if found is not None:
            cut = _draw(drawn, result, of, found)
            _axes(drawn, result, of, found, cut)
            words = sentence(found.words)
            colour_bar(drawn, of, found, place=(1.2, 0.12, 0.035, 0.72), inches=2.8, label=words)
        drawn.set_title(title(result, data or "train"), loc="left")
    axes: Axes = drawn
    return axes


def _new() -> Any:
    """Axes at a place of their own: what a layout engine makes of three dimensions runs off the paper."""
    figure = new_figure(6.6, 4.9)
    figure.set_layout_engine("none")
    return figure.add_axes((0.03, 0.08, 0.61, 0.82), projection="3d")


def _draw(ax: Any, result: SliceResult, of: Field, levels: Scale) -> float | None:
    """The surface; the value at which it was cut off."""
    height, cut = _heights(of, levels)
    height, bands = (_refined(values) for values in (height, levels.bands(of.values)))
    # Indexed by "ij", so that the height at x[i], y[j] is that of the grid's point (i, j).
    x, y = np.meshgrid(*(_finer(np.asarray(c, np.float64)) for c in result.coordinates), indexing="ij")
    every = [max(1, -(-count // _MOST)) for count in height.shape]
    ax.plot_surface(
        x, y, height, facecolors=_colours(bands, height, len(levels.levels) - 1), rstride=every[0],
        cstride=every[1], linewidth=0, antialiased=False, shade=False, rasterized=True,
    )  # fmt: skip
    low, high = float(np.nanmin(height)), float(np.nanmax(height))
    room = 0.03 * (high - low) or 0.05 * abs(high) or 0.05
    ax.set_zlim(low - room, high + room)
    return cut


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


def _finer(x: Floats) -> Floats:
    """Coordinates with so many between two that the borders of colours are smooth; the given ones stay."""
    parts = max(1, -(-_LEAST // max(len(x) - 1, 1)))
    places = np.arange(parts * (len(x) - 1) + 1) / parts
    return np.interp(places, np.arange(len(x)), x)


def _refined(values: Floats) -> Floats:
    """Values (x, y) interpolated linearly at the finer coordinates, NaN beside NaN."""
    for _ in range(2):
        parts = max(1, -(-_LEAST // max(len(values) - 1, 1)))
        places = np.arange(parts * (len(values) - 1) + 1) / parts
        before = np.minimum(places.astype(int), max(len(values) - 2, 0))
        share = (places - before)[:, None]
        after = values[np.minimum(before + 1, len(values) - 1)]
        # Zero times NaN is NaN: a known point stays known beside one that is not.
        values = np.where(share < 1, (1 - share) * values[before], 0) + np.where(share > 0, share * after, 0)
        values = values.T
    return values


def _colours(bands: Floats, height: Floats, count: int) -> Floats:
    """(x, y, 4), by the band and a little by the light."""
    place = (np.clip(np.floor(np.nan_to_num(bands)), 0, count - 1) + 0.5) / count
    colours = np.asarray(matplotlib.colormaps[COLOURS].resampled(count)(place), dtype=np.float64)
    span = float(np.nanmax(height) - np.nanmin(height)) or 1.0
    known = np.where(np.isfinite(height), height, np.nanmin(height))
    light = LightSource(azdeg=200, altdeg=50).hillshade(known, vert_exag=0.6 * max(height.shape) / span)
    colours[..., :3] *= (1 - _SHADOW + _SHADOW * np.nan_to_num(light, nan=1.0))[..., None]
    return colours


def _axes(ax: Any, result: SliceResult, of: Field, levels: Scale, cut: float | None) -> None:
    ax.set_xlabel(axis_label(result, 0), labelpad=11)
    ax.set_ylabel(axis_label(result, 1), labelpad=11)
    note = "\n(logarithmic)" if levels.kind == "log" else ""
    if cut is not None:
        note = f"\n(cut off at {written(cut, 3)}: {100 * (1 - _QUANTILE):.0f} % lie above)"
    ax.zaxis.set_rotate_label(False)
    ax.set_zlabel(f"{of.name}{note}", labelpad=12, rotation=90)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(5))
    _ticks(ax, of, levels)
    ax.tick_params(labelsize=7.5)
    for axis in (ax.xaxis, ax.yaxis, ax.zaxis):
        axis.set_pane_color((1.0, 1.0, 1.0, 0.0))
        axis._axinfo["grid"].update(color=GREY, linewidth=0.3)
    width, depth = (float(c[-1] - c[0]) or 1.0 for c in result.coordinates)
    shape = min(max((parameter_aspect(result) or 1.0) * depth / width, 0.4), 2.5)
    longest = max(1.0, shape)
    ax.set_box_aspect((1 / longest, shape / longest, 0.62), zoom=0.95)
    ax.view_init(elev=34, azim=-58)


def _ticks(ax: Any, of: Field, levels: Scale) -> None:
    """Heights: round numbers, or some of the levels where heights are logarithms."""
    if levels.kind in ("linear", "quantile"):
        ax.zaxis.set_major_locator(MaxNLocator(6))
        ax.zaxis.set_major_formatter(lambda value, _: written(value, 4))
        return
    values = of.values[of.finite]
    chosen = levels.levels[(levels.levels >= values.min()) & (levels.levels <= values.max())]
    if levels.kind == "constant" or not len(chosen):
        chosen = values[:1]
    chosen = chosen[:: -(-len(chosen) // 7)]
    heights = np.log10(chosen) if levels.kind == "log" else chosen
    ax.set_zticks(heights, [written(float(value), 4) for value in chosen])
