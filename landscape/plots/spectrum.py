"""The spectrum: eigenvalues with what each may be wrong by."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, SymmetricalLogLocator
from numpy.typing import NDArray

from landscape.errors import InputError
from landscape.plots.panels import CURVATURES, sentence, unit
from landscape.plots.style import BLACK, BLUE, GREEN, GREY, VERMILLION, caption, new_figure, style
from landscape.results import EigenResult

__all__ = ["spectrum"]

#: Values further apart than this factor are drawn on a symmetric logarithmic axis.
_WIDE = 100.0
#: At most this many decades on either side of zero; smaller values lie in the linear part around it.
_DECADES = 6

_LEFT_OUT = "eigenvalues between both ends, left out"
_INTERVALS, _ERRORS = "residual interval", "± standard error over the data"

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Series:
    """One kind of pair: its share of the points and how it is drawn."""

    label: str
    chosen: NDArray[np.bool_]
    colour: str
    marker: str
    filled: bool


def spectrum(result: EigenResult, ax: Axes | None = None, *, learning_rate: float | None = None) -> Axes:
    """Draw the eigenvalues of ``result`` by index, into ``ax`` or a new figure.

    Thin bars are the residual intervals, wide light ones ± the standard error over the data (where it was
    computed); negative values have a colour and marker of their own, pairs that have not converged are
    hollow, and the noise floor is a band around zero. With a ``learning_rate`` η a line at 2/η says whether
    gradient descent is stable on the local quadratic.

    Raises:
        InputError: a learning rate that is not positive and finite.
    """
    if learning_rate is not None and not (learning_rate > 0 and math.isfinite(learning_rate)):
        raise InputError("the learning rate must be positive and finite", found=repr(learning_rate))
    if learning_rate is not None and result.operator not in CURVATURES:
        raise InputError(
            "2/η says something about the Hessian alone",
            found=result.operator,
            do="leave --learning-rate out",
        )
    with style():
        ax = new_figure().add_subplot() if ax is None else ax
        ax.margins(y=0.08)
        _draw(ax, result, None if learning_rate is None else 2 / learning_rate)
    return ax


def _draw(ax: Axes, result: EigenResult, limit: float | None) -> None:
    values = np.asarray(result.eigenvalues, dtype=np.float64)
    finite = np.isfinite(values)
    _scale(ax, result, values[finite], limit)
    ax.axhline(0.0, color=GREY, linewidth=0.6, zorder=0)
    index = np.arange(1, len(values) + 1)
    size = 6.0 if len(values) <= 30 else 3.0
    for series in _series(values, np.asarray(result.converged, dtype=bool), finite):
        _points(ax, index, values, result, series, size)
    _floor(ax, result.noise_floor)
    if limit is not None:
        ax.axhline(limit, color=GREEN, linestyle="--", linewidth=1.2, label=_verdict(result, limit), zorder=1)
    if not finite.all() or not len(values):
        text = f"not finite: {(~finite).sum()} of {len(values)} values" if len(values) else "no eigenvalues"
        ax.text(0.98, 0.9, text, transform=ax.transAxes, ha="right", va="top", color=BLACK)
    _words(ax, result, len(values))


def _split(result: EigenResult) -> int:
    """How many of the pairs are from the upper end where there are others between both ends; else 0."""
    count = len(result.eigenvalues)
    return (count + 1) // 2 if result.which == "both" and 1 < count < result.parameters else 0


def _series(values: Floats, converged: NDArray[np.bool_], finite: NDArray[np.bool_]) -> list[_Series]:
    negative = values < 0
    plus = "positive or zero" if (values == 0).any() else "positive"
    kinds = [
        _Series(plus, ~negative & converged, BLUE, "o", True),
        _Series(f"{plus}, not converged", ~negative & ~converged, BLUE, "o", False),
        _Series("negative", negative & converged, VERMILLION, "D", True),
        _Series("negative, not converged", negative & ~converged, VERMILLION, "D", False),
    ]
    shown = [_Series(s.label, s.chosen & finite, s.colour, s.marker, s.filled) for s in kinds]
    return [s for s in shown if s.chosen.any()]


def _points(
    ax: Axes, index: NDArray[np.int_], values: Floats, result: EigenResult, series: _Series, size: float
) -> None:
    chosen = series.chosen
    x, y = index[chosen], values[chosen]
    errors = np.ma.filled(np.ma.asarray(result.standard_errors, dtype=np.float64), np.nan)[chosen]
    known = np.isfinite(errors)
    if known.any():
        ax.errorbar(
            x[known], y[known], yerr=errors[known], fmt="none", ecolor=series.colour, alpha=0.3,
            elinewidth=size, zorder=2, label=_ERRORS,
        )  # fmt: skip
    bounds = np.asarray(result.intervals, dtype=np.float64)[chosen]
    reach = np.clip(np.nan_to_num([y - bounds[:, 0], bounds[:, 1] - y]), 0.0, None)
    ax.errorbar(
        x,
        y,
        yerr=reach,
        fmt="none",
        ecolor=BLACK,
        elinewidth=0.8,
        capsize=size / 3,
        zorder=3,
        label=_INTERVALS,
    )
    ax.plot(
        x, y, series.marker, color=series.colour, markersize=size * (0.8 if series.marker == "D" else 1.0),
        markerfacecolor=series.colour if series.filled else "white", label=series.label, zorder=4,
    )  # fmt: skip


def _scale(ax: Axes, result: EigenResult, values: Floats, limit: float | None) -> None:
    """Choose the axis before drawing: linear from zero, or symmetric logarithmic for a wide range."""
    sizes = np.abs(np.append(values, [] if limit is None else [limit]))
    largest = float(sizes.max(initial=0.0))
    floor = result.noise_floor if math.isfinite(result.noise_floor) else 0.0
    smallest = float(sizes[sizes > floor].min(initial=largest))
    if largest == 0.0:
        ax.set_ylim(-5 * floor or -1.0, 5 * floor or 1.0)
    elif largest > _WIDE * smallest:
        threshold = 10.0 ** math.floor(math.log10(max(smallest, largest * 10.0**-_DECADES)))
        decades = math.log10(largest / threshold) * (1 + (values.min(initial=0) < 0 < values.max(initial=0)))
        ax.set_yscale("symlog", linthresh=threshold, linscale=max(0.5, decades / 8))
        locator = SymmetricalLogLocator(base=10, linthresh=threshold)
        locator.set_params(numticks=9)
        ax.yaxis.set_major_locator(locator)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−")))


def _floor(ax: Axes, floor: float) -> None:
    """The band ± floor, where it is high enough to be seen (a hundredth of the picture)."""
    ax.autoscale_view()
    low, high = (ax.transData.transform((0.0, y))[1] for y in (-floor, floor))
    if math.isfinite(floor) and high - low > 0.01 * ax.bbox.height:
        label = f"noise floor ± {floor:.2g}"
        ax.axhspan(-floor, floor, color=GREY, alpha=0.2, linewidth=0, label=label, zorder=0)


def _verdict(result: EigenResult, limit: float) -> str:
    """What the largest eigenvalue seen says of the step 2/limit, as far as its residual tells."""
    text = f"2/η = {limit:.6g} (η = {2 / limit:.6g})"
    if not len(result.eigenvalues) or not math.isfinite(result.lambda_max):
        return text
    if result.lambda_max - result.lambda_max_residual > limit:
        return f"{text}: unstable,\nlargest λ found is above"
    if result.lambda_max + result.lambda_max_residual < limit:
        return f"{text}: stable,\nlargest λ found is below"
    return f"{text}:\nlargest λ found is at it, within its error"


def _indices(count: int) -> list[int]:
    """Round numbers from 1 to ``count``, at most about ten."""
    if count <= 12:
        return list(range(1, count + 1))
    rounded = [int(tick) for tick in MaxNLocator(nbins=8, integer=True).tick_values(1, count)]
    return [1, *(tick for tick in rounded if 2 < tick <= count)]


def _both_ends(ax: Axes, count: int, split: int) -> None:
    """The indices of either end, the last ones counted from n, the number of parameters; a line between."""
    upper = [k for k in _indices(split) if split <= 6 or k < split - 1]
    back = [k - 1 for k in _indices(count - split)] if count - split <= 4 else _from_end(count - split)
    ticks = {k: str(k) for k in upper} | {count - k: f"n−{k}" if k else "n" for k in back}
    ax.set_xticks(list(ticks), list(ticks.values()))
    ax.axvline(split + 0.5, color=GREY, linestyle=":", linewidth=1.2, label=_LEFT_OUT, zorder=0)


def _from_end(count: int) -> list[int]:
    """Round numbers from 0, at most about four, so far below ``count`` that labels do not touch."""
    ticks = MaxNLocator(nbins=4, integer=True).tick_values(0, count - 1)
    return [int(tick) for tick in ticks if 0 <= tick <= 0.8 * count]


def _words(ax: Axes, result: EigenResult, count: int) -> None:
    ax.set_ylabel(f"{sentence(result.operator)} eigenvalue λ ({unit(result.operator)})")
    ax.set_xlabel("Index, largest eigenvalue first")
    split = _split(result)
    ax.set_xlim(0.5 - 0.02 * count, max(count, 1) + 0.5 + 0.02 * count)
    if split:
        _both_ends(ax, count, split)
    else:
        ax.set_xticks(_indices(count))
    ax.set_title(caption(result), loc="left")
    entries: dict[str, Artist] = {}
    for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
        entries.setdefault(label, handle)
    if entries:
        order = sorted(entries, key=lambda label: label in (_INTERVALS, _ERRORS, _LEFT_OUT))
        handles = [entries[label] for label in order]
        ax.legend(handles, order, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
