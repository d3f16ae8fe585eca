"""Overlaps of a ratio class: the lift from step to step, and what is left with growing distance."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator
from numpy.typing import NDArray

from landscape.errors import InputError
from landscape.files import printable
from landscape.plots.panels import legend_below, panel_below, plain
from landscape.plots.style import BLACK, BLUE, VERMILLION, caption, new_figure, style
from landscape.plots.view import View, has
from landscape.results import CLASSES, OverlapResult

__all__ = ["VIEWS", "distance", "matrix"]

#: Up to so many steps each field of the matrix says its share, and up to so many the lift, too.
SHARES, LIFTS = 12, 8
#: Lifts are coloured from 1/x to x, x being the farthest from 1 there is, but within these: what is hardly
#: different from chance looks like it.
_LEAST, _MOST = 1.25, 10.0
#: Labels longer than this are cut at the front.
_LONGEST = 22
_COLOURS = LinearSegmentedColormap.from_list("lift", [BLUE, "#F7F7F7", VERMILLION])

Floats = NDArray[np.float64]


def matrix(result: OverlapResult, ax: Axes | None = None) -> Axes:
    """Draw the lift from step (row) to step (column) as a heat map, into ``ax`` or a new figure.

    White is chance, orange more, blue less, on a logarithmic scale. Fields are annotated with the share of
    the row's set that is found in the column's (up to 12 steps) and the lift (up to 8). Grey: not defined.

    Raises:
        InputError: a result without steps.
    """
    if not len(result.places):
        raise InputError("there are no steps to compare")
    lifts = np.ma.filled(np.ma.asarray(result.lifts, dtype=np.float64), np.nan)
    count = len(lifts)
    extent = _extent(lifts)
    norm = LogNorm(1 / extent, extent, clip=True)
    with style():
        size = min(max(3.2, 0.62 * count + 1.2), 9.0)
        ax = new_figure(size + 1.2, size).add_subplot() if ax is None else ax
        ax.set_facecolor("#D0D0D0")
        drawn = np.ma.masked_invalid(np.where(lifts == 0, 1 / extent, lifts))
        ax.imshow(drawn, cmap=_COLOURS, norm=norm, interpolation="nearest")
        _annotate(ax, result, lifts, norm)
        _steps(ax, result)
        _scale(ax, norm, extent)
        ax.set_title(_title(result), loc="left")
    return ax


def _extent(lifts: Floats) -> float:
    """How far from 1 colours reach, as a factor."""
    known = lifts[np.isfinite(lifts) & (lifts > 0)]
    largest = float(np.exp(np.abs(np.log(known)).max(initial=0.0)))
    return min(max(largest, _LEAST), _MOST) if not (lifts == 0).any() else _MOST


def _annotate(ax: Axes, result: OverlapResult, lifts: Floats, norm: LogNorm) -> None:
    count = len(lifts)
    if count > SHARES:
        return
    for i in range(count):
        for j in range(count):
            share, lift = result.shares[i, j], lifts[i, j]
            if i == j:
                continue
            text = "—" if np.ma.is_masked(share) else f"{100 * share:.0f} %"
            if count <= LIFTS and np.isfinite(lift):
                text += f"\n× {_few(lift)}"
            strong = np.isfinite(lift) and abs(float(norm(max(lift, 1e-300))) - 0.5) > 0.4
            ax.text(j, i, text, ha="center", va="center", fontsize=7, color="white" if strong else BLACK)


def _few(lift: float) -> str:
    """A lift to three digits, or to as many that it is not taken for 1."""
    if lift >= 100:
        return f"{lift:.0f}"
    return f"{lift:.4g}" if 0.95 < lift < 1.05 else f"{lift:.3g}"


def _steps(ax: Axes, result: OverlapResult) -> None:
    """Which saved model each row and column is."""
    labels = [_short(label) for label in result.labels()]
    places = np.arange(len(labels))
    if len(labels) > 20:
        places = places[:: -(-len(labels) // 20)]
    long = max(map(len, labels)) > 5
    ax.set_xticks(
        places, [labels[i] for i in places], rotation=45 if long else 0, ha="right" if long else "center"
    )
    ax.set_yticks(places, [labels[i] for i in places])
    unit = {"step": "training step", "epoch": "epoch"}[result.order] if result.numbered else "saved model"
    ax.set_xlabel(f"B: {result.with_class or result.ratio_class} at this {unit}")
    ax.set_ylabel(f"A: {result.ratio_class} at this {unit}")
    ax.tick_params(length=0)
    ax.spines[["left", "bottom"]].set_visible(False)


def _short(label: str) -> str:
    text = printable(label).replace("$", r"\$")
    return text if len(text) <= _LONGEST else f"…{text[-_LONGEST + 1 :]}"


def _scale(ax: Axes, norm: LogNorm, extent: float) -> None:
    """What the colours mean."""
    figure = ax.get_figure()
    assert isinstance(figure, Figure | SubFigure)
    bar: Colorbar = figure.colorbar(ScalarMappable(norm, _COLOURS), ax=ax, shrink=0.85, aspect=25)
    ends = extent ** np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
    bar.ax.yaxis.set_major_locator(FixedLocator(ends.tolist()))
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    bar.set_label("Lift: |A∩B| over what independent\nsets of these sizes have in common")


def distance(result: OverlapResult, ax: Axes | None = None) -> Axes:
    """Draw what is left of the first step's set over the distance in steps, into ``ax`` or a new figure.

    Above the share of A that is in B beside what chance gives, |B|/n ± 2 standard deviations; below the lifts
    of all pairs beside 1 ± 2 standard deviations. Returns the upper axes.

    Raises:
        InputError: a result without two steps, or without a parameter in the class at any step but the last.
    """
    pairs = _forward(result)
    if not len(pairs):
        raise InputError("there are no shares to draw", found=f"no parameter in {result.ratio_class}")
    with style():
        ax = new_figure(6.0, 5.0).add_subplot() if ax is None else ax
        lower = panel_below(ax, (3.0, 2.0), shared=True)
        _shares(ax, result, pairs)
        _lifts(lower, result, pairs)
        farthest = max(float(pairs[:, 1].max()), 1.0)
        ax.set_xlim(-0.02 * farthest, 1.04 * farthest)
        ax.set_title(_title(result), loc="left")
        legend_below(lower)
    return ax


def _forward(result: OverlapResult) -> Floats:
    """Rows (first step, distance, share, chance, its standard deviation) of pairs in training order."""
    rows = []
    count = len(result.places)
    for i in range(count):
        for j in range(i + 1, count):
            if result.sizes[i]:
                size, far = float(result.sizes[i]), float(result.places[j] - result.places[i])
                law = float(result.expected[i, j]), float(result.deviations[i, j])
                rows.append((i, far, float(result.shares[i, j]), law[0] / size, law[1] / size))
    return np.array(rows, dtype=np.float64).reshape(-1, 5)


def _shares(ax: Axes, result: OverlapResult, pairs: Floats) -> None:
    """From the first step whose set is not empty, beside chance."""
    rows = pairs[pairs[:, 0] == pairs[0, 0]]
    _, far, share, chance, deviation = rows[np.argsort(rows[:, 1], kind="stable")].T
    low, high = np.clip(chance - 2 * deviation, 0, 1), np.clip(chance + 2 * deviation, 0, 1)
    ax.fill_between(far, low, high, color=VERMILLION, alpha=0.25, linewidth=0, zorder=2)
    ax.errorbar(
        far, chance, yerr=[chance - low, high - chance], fmt="_--", color=VERMILLION, linewidth=1.2,
        elinewidth=0.9, capsize=2.0, markersize=6, zorder=3, label="by chance, ± 2 standard deviations",
    )  # fmt: skip
    ax.plot(far, share, "o-", color=BLUE, markersize=4.5, linewidth=1.4, zorder=4)
    later = f"still in {result.ratio_class}" if result.with_class is None else f"in {result.with_class}"
    ax.set_ylabel(f"Share of {result.ratio_class} {_start(result, pairs, 'at')}\n{later}")
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))
    ax.margins(y=0.12)


def _start(result: OverlapResult, pairs: Floats, preposition: str) -> str:
    """The first saved model whose set is not empty, in words."""
    label = _short(result.labels()[int(pairs[0, 0])])
    return f"{preposition} {result.order} {label}" if result.numbered else f"{preposition} {label}"


def _lifts(ax: Axes, result: OverlapResult, pairs: Floats) -> None:
    """From every step to every later one, where a lift is defined."""
    pairs = pairs[pairs[:, 3] > 0]
    own = pairs[:, 0] == pairs[:1, 0]
    far, lift, spread = pairs[:, 1], pairs[:, 2] / pairs[:, 3], 2 * pairs[:, 4] / pairs[:, 3]
    ax.axhline(1.0, color=VERMILLION, linestyle="--", linewidth=1.2, zorder=1)
    ax.errorbar(
        far, np.ones_like(far), yerr=[np.minimum(spread, 1.0), spread], fmt="none", ecolor=VERMILLION,
        elinewidth=0.9, capsize=2.0, alpha=0.6, zorder=2,
    )  # fmt: skip
    for chosen, filled, words in (
        (~own, "white", "from a later one"),
        (own, BLUE, _start(result, pairs, "from")),
    ):
        if chosen.any():
            ax.plot(
                far[chosen], lift[chosen], "o", color=BLUE, markerfacecolor=filled, markersize=4.5,
                markeredgewidth=0.8, label=words, zorder=3 + (filled == BLUE),
            )  # fmt: skip
    ax.errorbar(
        [], [], yerr=[], fmt="--", color=VERMILLION, linewidth=1.2, label="by chance, ± 2 standard deviations"
    )
    unit = {"step": "training steps", "epoch": "epochs"}.get(result.order, "saved models")
    ax.set_xlabel(f"Distance in {unit}")
    ax.set_ylabel("Lift")
    ax.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    ax.xaxis.set_major_formatter(FuncFormatter(plain))
    ax.yaxis.set_major_formatter(FuncFormatter(plain))
    ax.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
    ax.margins(y=0.12)


def _title(result: OverlapResult) -> str:
    def said(name: str) -> str:
        return f"{name} ({CLASSES[name]})"

    other = f" with {said(result.with_class)}" if result.with_class else ""
    about = f"{said(result.ratio_class)}{other} · {result.parameters:,} parameters"
    mixed = "runs that differ in more than the weights"
    how = printable(result.perturbation) if result.differing is None else mixed
    return about + "\n" + " · ".join(part for part in (how, caption(result)) if part)


def _has_pairs(result: OverlapResult) -> bool:
    return bool((np.asarray(result.sizes)[:-1] > 0).any()) if len(result.sizes) > 1 else False


VIEWS: Mapping[str, View] = {
    "matrix": View(matrix, has("places")),
    "distance": View(distance, _has_pairs),
}
