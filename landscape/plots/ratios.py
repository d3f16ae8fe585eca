"""Gradient ratios: how they are distributed, in which layers, and how that depends on ρ."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray

from landscape.errors import InputError
from landscape.plots.bars import layers_shown, short_names
from landscape.plots.panels import legend_below, shown, text_width
from landscape.plots.ratio_classes import (
    BY_RATIO,
    COLOURS,
    MARKERS,
    at,
    label,
    percent_axis,
    present,
    said,
    shares,
    words,
)
from landscape.plots.ratios_training import training, training_by_layer
from landscape.plots.style import BLACK, GREY, caption, new_figure, style
from landscape.plots.view import View, has
from landscape.results import CLASSES, RatiosResult

__all__ = ["SERIES", "VIEWS", "histogram", "layer_shares", "sweep_of_rho"]

#: The bins beyond the last octave drawn, at either end, hold no more than this.
_TAIL = 0.002
_FEWEST_OCTAVES = 3
#: Labels between zero and infinity, at most.
_TICKS = 7
#: Characters of a line of the title.
_LINE = 90
#: Of more layers than this the largest are drawn, and the others together.
_LAYERS = 60
#: A part of a bar that is smaller than this cannot be seen, and has no entry in the legend.
_VISIBLE = 0.001
#: Classes of one ratio alone: they stand as sticks.
_STICKS = {"opposite": -1.0, "killed": 0.0, "equal": 1.0}
_WITHOUT_RATIO = ("dead", "born", "nonfinite")
_SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")

Floats = NDArray[np.float64]


def histogram(result: RatiosResult, ax: Axes | None = None) -> Axes:
    """Draw how the ratios r = g'/g are distributed, into ``ax`` or a new figure.

    The axis is logarithmic to either side of zero, a bar for each octave of |r|; the zones of the four
    classes have their colours. The bar at zero and the outermost one hold all that is beyond. What has
    exactly r = 1, 0 or −1 stands as a stick on its line; what has no ratio is said.
    """
    counts, scale = _octaves(result)
    with style():
        ax = new_figure(6.4, 4.5).add_subplot() if ax is None else ax
        sizes = counts / max(result.parameters, 1)
        tops = [*_bars(ax, result, sizes, scale), *_sticks(ax, result, scale)]
        if not tops:
            ax.text(
                0.5, 0.5, "no parameter has a ratio", transform=ax.transAxes, ha="center", color=BLACK,
                bbox={"facecolor": "white", "edgecolor": "none"},
            )  # fmt: skip
        percent_axis(ax, tops, top=1.2)
        _ratio_axis(ax, scale)
        ax.set_ylabel(f"Share of the {result.parameters:,} parameters (%)")
        ax.set_title("\n".join([caption(result), words(result), *_unbinned(result)]), loc="left")
        legend_below(ax)
        legend, found = ax.get_legend(), shares(result)
        if legend is not None and (found.errors > 0).any():
            legend.set_title(found.meaning, FontProperties(size=8))
    return ax


@dataclass(frozen=True)
class _Scale:
    """Octaves from 2^−inner to 2^outer, one unit each; one unit to zero, and one for all beyond.

    >>> _Scale(3, 2)(np.array([-1.0, 0.0, 0.125, 1.0, 4.0, np.inf])).tolist()
    [-4.0, 0.0, 1.0, 4.0, 6.0, 7.0]
    """

    inner: int
    outer: int

    @property
    def end(self) -> int:
        return self.inner + self.outer + 2

    def __call__(self, ratios: Floats) -> Floats:
        least = 2.0**-self.inner
        size = np.abs(ratios)
        places = np.log2(np.maximum(size, least) / least) + np.minimum(size / least, 1.0)
        found: Floats = np.sign(ratios) * np.minimum(places, self.end)
        return found


def _octaves(result: RatiosResult) -> tuple[Floats, _Scale]:
    """Counts (2, octave) of the negative and the positive ratios by |r|, the tails in one bin each.

    What lies exactly on r = ±1 is not among them.
    """
    low, high = (np.asarray(v, dtype=np.float64) for v in (result.bin_low, result.bin_high))
    counts = np.asarray(result.histogram, dtype=np.float64)
    positive = high > 0
    with np.errstate(divide="ignore"):
        octave = np.log2(np.where(positive, low, -high).clip(0.0))
    numbers = dict(zip(CLASSES, at(result, result.counts), strict=True))
    for sign, name in ((True, "equal"), (False, "opposite")):
        one = (positive == sign) & (octave == 0)
        counts = np.where(one, (counts - np.nan_to_num(numbers[name])).clip(0.0), counts)
    scale = _drawn(octave, counts)
    index = np.clip(octave, -scale.inner - 1, scale.outer).astype(int) + scale.inner + 1
    table = np.zeros((2, scale.end))
    np.add.at(table, (positive.astype(int), index), counts)
    return table, scale


def _drawn(octave: Floats, counts: Floats) -> _Scale:
    """The octaves beyond which, at either end, next to nothing lies."""
    bound = _TAIL * counts.sum()
    known = octave[np.isfinite(octave)]
    inner = outer = _FEWEST_OCTAVES
    while -inner > known.min(initial=0) and counts[octave < -inner].sum() > bound:
        inner += 1
    while outer < known.max(initial=0) and counts[octave >= outer].sum() > bound:
        outer += 1
    return _Scale(inner, outer)


def _bars(ax: Axes, result: RatiosResult, sizes: Floats, scale: _Scale) -> list[float]:
    """The bins in the colours of their zones; returns their heights."""
    one = scale.inner + 1
    zones = {
        "ckpt1": (sizes[1, one:], np.arange(one, scale.end), 1),
        "ckpt2": (sizes[1, :one], np.arange(one), 1),
        "ckpt3": (sizes[0, one:], -np.arange(one, scale.end), -1),
        "ckpt4": (sizes[0, :one], -np.arange(one), -1),
    }
    for name, (heights, places, side) in zones.items():
        text = f"{label(name)}   {said(result, name)}"
        ends = sorted((float(places[0]), float(places[-1] + side)))
        ax.axvspan(*ends, color=COLOURS[name], alpha=0.08, linewidth=0, zorder=0)
        ax.text(
            sum(ends) / 2, 0.985, name, transform=ax.get_xaxis_transform(), ha="center", va="top",
            fontsize=8, color=BLACK,
        )  # fmt: skip
        ax.bar(
            places, heights, width=float(side), align="edge", color=COLOURS[name], edgecolor="white",
            linewidth=0.5, label=text, zorder=2,
        )  # fmt: skip
    return [float(size) for size in sizes[sizes > 0]]


def _sticks(ax: Axes, result: RatiosResult, scale: _Scale) -> list[float]:
    """The classes of one ratio alone, on the line of that ratio; returns their heights."""
    values = dict(zip(CLASSES, shares(result).values, strict=True))
    drawn = {name: ratio for name, ratio in _STICKS.items() if values[name] > 0}
    for ratio in (-1.0, 0.0, 1.0):
        ax.axvline(float(scale(np.array(ratio))), color=GREY, linestyle="--", linewidth=0.9, zorder=1)
    for name, ratio in drawn.items():
        text = f"{label(name)}   {said(result, name)}"
        stick = ax.stem([float(scale(np.array(ratio)))], [values[name]], basefmt=" ", label=text)
        stick.stemlines.set(color=COLOURS[name], linewidth=2.0, zorder=3)
        stick.markerline.set(
            color=COLOURS[name], marker=MARKERS[name], markersize=5, markeredgecolor=BLACK,
            markeredgewidth=0.5, zorder=4,
        )  # fmt: skip
    return [float(values[name]) for name in drawn]


def _unbinned(result: RatiosResult) -> list[str]:
    """What has no ratio, in words."""
    values = dict(zip(CLASSES, shares(result).values, strict=True))
    there = [name for name in _WITHOUT_RATIO if values[name] > 0]
    texts = [f"{name} ({CLASSES[name]}) {said(result, name)}" for name in there]
    return textwrap.wrap(f"not drawn: {'; '.join(texts)}", _LINE) if texts else []


def _ratio_axis(ax: Axes, scale: _Scale) -> None:
    """Powers of two at the ends of octaves, as many as can be read."""
    exponents = range(-scale.inner, scale.outer + 1)
    apart = scale.end / _TICKS  # what a label takes
    step = next(s for s in range(1, len(exponents) + 1) if s >= apart)
    ticks = {0.0: "0", float(scale.end): "∞", -float(scale.end): "−∞"}
    for k in exponents:
        place = float(k + scale.inner + 1)
        if k % step == 0 and apart <= place <= scale.end - apart:
            text = "1" if k == 0 else f"2{str(k).translate(_SUPERSCRIPTS)}"
            ticks |= {place: text, -place: f"−{text}"}
    ax.set_xlim(-scale.end, scale.end)
    ax.set_xticks(list(ticks), list(ticks.values()))
    ax.set_xlabel("Ratio r = g'/g of the gradient after and before the perturbation (a bar an octave)")


def layer_shares(result: RatiosResult, ax: Axes | None = None) -> Axes:
    """Draw the shares of the classes in each layer as stacked bars, into ``ax`` or a new figure.

    Classes follow one another as their ratios do, from r < −1 to r > 1. Thin bars are standard errors over
    mini-batches of the part to their left. Of more than 60 layers the 60 largest are drawn, and the others
    added up.

    Raises:
        InputError: a result without layers.
    """
    rows = _layer_rows(result)
    count = len(rows.names)
    size = 7.5 if count <= 25 else 6.5
    with style():
        height = max(count, 3) * (0.2 if count <= 25 else 0.15)
        ax = new_figure(6.4, 1.9 + height).add_subplot() if ax is None else ax
        _stacked(ax, rows)
        for i, number in enumerate(rows.parameters):
            ax.text(1.01, i, f"{number:,}", va="center", fontsize=size, transform=ax.get_yaxis_transform())
        ax.set_yticks(np.arange(count), short_names(rows.names), fontsize=size)
        ax.set_ylim(count - 0.4, -0.6)
        ax.tick_params(axis="y", length=0)
        ax.set_xlim(0.0, 1.0)
        ax.set_xticks(np.linspace(0, 1, 6), [f"{p}" for p in range(0, 101, 20)])
        ax.set_xlabel("Share of the layer's parameters (%); at the right, their number")
        ax.set_ylabel("Layer")
        ax.set_title(f"{caption(result)}\n{words(result)}", loc="left")
        legend_below(ax, left=max(text_width(name, size) for name in short_names(rows.names)))
    return ax


@dataclass(frozen=True)
class _Layers:
    """Rows from top to bottom: names, numbers of parameters, shares and errors (row, class of CLASSES)."""

    names: list[str]
    parameters: list[int]
    values: Floats
    errors: Floats


def _layer_rows(result: RatiosResult) -> _Layers:
    if result.layers is None or result.layer_fractions is None or not len(result.layers):
        raise InputError("this run has no layers to draw", do="choose another picture with --view")
    values = np.nan_to_num(at(result, result.layer_fractions))
    errors = np.full(values.shape, np.nan)
    if result.layer_fraction_errors is not None:
        errors = at(result, result.layer_fraction_errors)
    sizes = np.ones(len(values), dtype=np.int64)
    if result.layer_parameters is not None:
        sizes = np.asarray(result.layer_parameters, dtype=np.int64)
    kept, others = layers_shown(sizes.astype(np.float64), _LAYERS)
    names, numbers = [str(result.layers[i]) for i in kept], sizes[kept].tolist()
    drawn, ends = values[kept], errors[kept]
    if len(others):  # errors of layers are not independent of one another, so that of their sum is not known
        names.append(f"… {len(others)} others, together")
        numbers.append(int(sizes[others].sum()))
        drawn = np.vstack([drawn, np.average(values[others], axis=0, weights=sizes[others])])
        ends = np.vstack([ends, np.full(len(CLASSES), np.nan)])
    return _Layers(names, numbers, drawn, ends)


def _stacked(ax: Axes, rows: _Layers) -> None:
    place, begin = np.arange(len(rows.names)), np.zeros(len(rows.names))
    for name in BY_RATIO:
        i = list(CLASSES).index(name)
        share, error = rows.values[:, i], rows.errors[:, i]
        if not share.any():
            continue
        text = label(name) if share.max() > _VISIBLE else None
        ax.barh(place, share, 0.78, left=begin, color=COLOURS[name], label=text, linewidth=0)
        begin = begin + share
        known = np.isfinite(error) & (share > 0)
        if known.any():
            ax.errorbar(
                begin[known], place[known], xerr=error[known], fmt="none", ecolor=BLACK, elinewidth=0.8,
                capsize=1.5, zorder=3, label="± standard error of the part to the left",
            )  # fmt: skip


def sweep_of_rho(result: RatiosResult, ax: Axes | None = None) -> Axes:
    """Draw the shares of the classes over the length of the perturbation, into ``ax`` or a new figure.

    Bands are standard errors over mini-batches; the dashed line is the run's own length, where it is known.
    Lengths of zero have no place on the axis and are said.

    Raises:
        InputError: a result without a sweep.
    """
    if result.rho_sweep is None or result.sweep_fractions is None or not len(result.rho_sweep):
        raise InputError("there is no sweep of ρ to draw", do="make one with landscape ratios --rho-sweep")
    order = np.argsort(result.rho_sweep, kind="stable")
    rho = np.asarray(result.rho_sweep, dtype=np.float64)[order]
    values = at(result, result.sweep_fractions)[order]
    errors = np.full(values.shape, np.nan)
    if result.sweep_errors is not None:
        errors = at(result, result.sweep_errors)[order]
    drawn = rho > 0
    with style():
        ax = new_figure(6.4, 4.3).add_subplot() if ax is None else ax
        ax.set_xscale("log")
        _swept(ax, rho[drawn], values[drawn], errors[drawn])
        own = _own_length(result)
        if own is not None and own > 0:
            text = f"ρ = {shown(result.rho)}{' ‖g‖' * result.relative}, of this run"
            ax.axvline(own, color=GREY, linestyle="--", linewidth=1.1, label=text, zorder=1)
        percent_axis(ax, values[drawn] + np.nan_to_num(errors[drawn]), top=1.05)
        ax.set_xlabel(f"Length ρ of the perturbation ({_unit(result)})")
        ax.xaxis.set_major_locator(LogLocator(numticks=12))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set_ylabel("Share of the parameters (%)")
        zero = [] if drawn.all() else ["not drawn: lengths of zero, where g' = g"]
        ax.set_title("\n".join([caption(result), words(result), *zero]), loc="left")
        legend_below(ax)
    return ax


def _swept(ax: Axes, rho: Floats, values: Floats, errors: Floats) -> None:
    for name in present(values):
        i = list(CLASSES).index(name)
        share, error = values[:, i], errors[:, i]
        ax.plot(
            rho, share, "-", marker=MARKERS[name], markersize=4, color=COLOURS[name], linewidth=1.3,
            label=label(name), zorder=3,
        )  # fmt: skip
        if np.isfinite(error).any():
            ax.fill_between(
                rho, share - error, share + error, color=COLOURS[name], alpha=0.25, linewidth=0, zorder=2
            )
    if np.isfinite(errors).any():
        ax.fill_between([], [], color=GREY, alpha=0.3, label="± standard error over mini-batches")


def _own_length(result: RatiosResult) -> float | None:
    """The length of the run itself in the units of the sweep; None where it is not known."""
    if not result.relative:
        return result.rho
    if result.minibatch is None:
        return result.rho * result.gradient_norm
    # A mean over mini-batches, of Euclidean lengths: of other norms it is not recorded.
    return result.length if result.p == 2 and result.perturb != "adaptive" else None


def _unit(result: RatiosResult) -> str:
    """What lengths are counted in; the adaptive one scales each weight by its own size (Kwon et al. 2021)."""
    return "in units of |w| + η" if result.perturb == "adaptive" else "weight"


VIEWS: Mapping[str, View] = {
    "histogram": View(histogram, lambda result: result.batches > 0),
    "layers": View(layer_shares, has("layers")),
    "sweep": View(sweep_of_rho, has("rho_sweep")),
}


def _training(results: list[RatiosResult], *, per_layer: bool = False) -> Axes:
    return training_by_layer(results) if per_layer else training(results)


#: The pictures of several results.
SERIES: Mapping[str, View] = {"training": View(_training, bool)}
