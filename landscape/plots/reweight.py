"""The weights of examples over their losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from landscape.errors import InputError
from landscape.plots.panels import legend_below, plain, shown
from landscape.plots.style import BLACK, BLUE, GREY, VERMILLION, caption, new_figure, style
from landscape.plots.view import View
from landscape.results import ReweightResult

__all__ = ["VIEWS", "parts", "weights"]

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: Examples in a bin of the running median, at least, and bins at most.
_BIN, _BINS = 12, 24
#: Weights that differ by more than this are drawn on a logarithmic axis.
_WIDE = 8.0


def weights(result: ReweightResult, ax: Axes | None = None) -> Axes:
    """Draw each example's weight over its loss, with running medians and quartiles.

    Into ``ax``, or into a new figure.

    Raises:
        InputError: no example has a weight.
    """
    _check(result, result.weight)
    with style():
        ax = new_figure(6.0, 4.4).add_subplot() if ax is None else ax
        _panel(ax, result, result.weight, "Weight in 1-SAM, ‖∇l(w + ε)‖ / ‖∇l(w)‖")
        _scale(ax, [result.weight])
        ax.set_title(_title(result), loc="left")
        legend_below(ax)
    return ax


def parts(result: ReweightResult, ax: Axes | None = None) -> Axes:
    """Draw the logit part and, to its right, the Jacobian part over the loss, on one scale.

    Raises:
        InputError: no example has them.
    """
    _check(result, result.logit_weight)
    with style():
        ax = new_figure(9.0, 4.4).add_subplot() if ax is None else ax
        other = _beside(ax)
        labels = (
            "Logit part, ‖J(w)ᵀ r(w + ε)‖ / ‖J(w)ᵀ r(w)‖",
            "Jacobian part, ‖J(w + ε)ᵀ r(w)‖ / ‖J(w)ᵀ r(w)‖",
        )
        _panel(ax, result, result.logit_weight, labels[0], named=("points", "one"))
        _panel(other, result, result.jacobian_weight, labels[1], named=("medians",))
        _scale(ax, [result.logit_weight, result.jacobian_weight])
        ax.set_title(_title(result), loc="left")
        legend_below(ax)
        legend_below(other)
    return ax


def _check(result: ReweightResult, values: np.ndarray) -> None:
    if not _there(result, values).any():
        raise InputError(
            "no example has this weight, so there is nothing to draw",
            found=f"{result.zero_gradients} gradients are zero, {result.overflowed} are not finite at w + ε",
        )


def _there(result: ReweightResult, values: np.ndarray) -> Mask:
    """Examples that have a weight and a loss."""
    known: Mask = ~np.ma.getmaskarray(values) & np.isfinite(np.ma.getdata(values))
    known &= np.isfinite(np.ma.getdata(result.example_loss))
    return known


def _beside(ax: Axes) -> Axes:
    """A second panel in the right half of ``ax``, with the same axes."""
    figure, place = ax.get_figure(), ax.get_subplotspec()
    assert isinstance(figure, Figure | SubFigure)
    if place is not None:
        grid = place.subgridspec(1, 2)
        ax.set_subplotspec(grid[0])
        return figure.add_subplot(grid[1], sharex=ax, sharey=ax)
    box = ax.get_position()
    ax.set_position((box.x0, box.y0, 0.43 * box.width, box.height))
    place_right = (box.x0 + 0.57 * box.width, box.y0, 0.43 * box.width, box.height)
    return figure.add_axes(place_right, sharex=ax, sharey=ax)


def _panel(
    ax: Axes,
    result: ReweightResult,
    values: np.ndarray,
    label: str,
    named: Sequence[str] = ("points", "medians", "one"),
) -> None:
    """One scatter; ``named`` says what of it the legend below it explains."""
    there = _there(result, values)
    loss, weight = np.ma.getdata(result.example_loss), np.ma.getdata(values)
    above = there & (loss > 0)
    logarithmic = bool((loss[there] >= 0).all() and above.any())
    zeros = there & (loss == 0)
    if logarithmic:
        loss = np.where(loss == 0, loss[above].min() / 2, loss)  # at the left edge
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(numticks=9))
        ax.xaxis.set_minor_formatter(NullFormatter())
    for name, chosen, colour, marker in _groups(result, there):
        ax.plot(
            loss[chosen],
            weight[chosen],
            marker,
            color=colour,
            markersize=2.6,
            alpha=min(0.6, max(0.12, 400 / max(int(chosen.sum()), 1))),
            markeredgewidth=0.6 if marker == "x" else 0.0,
            rasterized=True,
            label=f"{name} ({int(chosen.sum()):,})" if "points" in named else None,
            zorder=2,
        )
        words = f"{name}: running median, quartiles" if "medians" in named else None
        _running(ax, loss[chosen], weight[chosen], colour, words)
    ax.axhline(
        1.0, color=GREY, linewidth=0.9, linestyle=":", label="1: as in SGD" if "one" in named else None,
        zorder=1,
    )  # fmt: skip
    name = "Loss of the example" if result.terms == result.examples else "Summed loss of the example"
    edge = f" ({int(zeros.sum()):,} of loss 0 at the left edge)" if logarithmic and zeros.any() else ""
    ax.set_xlabel(name + edge)
    ax.set_ylabel(label)


def _groups(result: ReweightResult, there: Mask) -> list[tuple[str, Mask, str, str]]:
    """Name, examples, colour and marker of each group that has any."""
    if result.noisy is None:
        return [("examples", there, BLUE, "o")]
    noisy = np.asarray(result.noisy, dtype=bool)
    groups = [
        ("clean labels", there & ~noisy, BLUE, "o"),
        ("noisy labels", there & noisy, VERMILLION, "x"),
    ]
    return [group for group in groups if group[1].any()]


def _running(ax: Axes, loss: Floats, weight: Floats, colour: str, label: str | None) -> None:
    """Medians and quartiles over the loss; none for few examples."""
    bins = _bins(loss, logarithmic=ax.get_xscale() == "log")
    if len(bins) < 2:
        return
    at = np.array([np.median(loss[b]) for b in bins])
    low, middle, high = (np.array([np.quantile(weight[b], q) for b in bins]) for q in (0.25, 0.5, 0.75))
    dashes = "-" if colour == BLUE else "--"
    ax.fill_between(at, low, high, color=colour, alpha=0.22, linewidth=0, zorder=3)
    ax.plot(at, middle, dashes, color=BLACK, linewidth=2.6, alpha=0.7, zorder=4)
    ax.plot(at, middle, dashes, color=colour, linewidth=1.5, zorder=5, label=label)


def _bins(loss: Floats, *, logarithmic: bool) -> list[NDArray[np.intp]]:
    """Rows in order of loss, in bins as wide as the axis allows and no smaller than a median asks for."""
    order = np.argsort(loss, kind="stable")
    place = (np.log(loss) if logarithmic else loss)[order]
    width = (place[-1] - place[0]) / _BINS if len(place) else 0.0
    edges = [0]
    for i in range(1, len(place)):
        if i - edges[-1] >= _BIN and place[i] - place[edges[-1]] >= width and len(place) - i >= _BIN:
            edges.append(i)
    return np.split(order, edges[1:])


def _scale(ax: Axes, values: list[np.ndarray]) -> None:
    """A logarithmic axis of weights where they differ by much."""
    found = np.concatenate([np.ma.compressed(np.ma.masked_invalid(v)) for v in values])
    positive = found[found > 0]
    if len(positive) == len(found) and found.max() > _WIDE * found.min():
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter(FuncFormatter(plain))
        ax.yaxis.set_minor_formatter(NullFormatter())


def _title(result: ReweightResult) -> str:
    """Which checkpoint, which ρ, what is not drawn."""
    unit = " ‖∇l‖" if result.relative else ""
    left_out = result.zero_gradients + result.without_terms + result.overflowed
    words = [caption(result), f"ρ = {shown(result.rho)}{unit}"]
    if left_out:
        words.append(f"{left_out:,} without a weight")
    return " · ".join(word for word in words if word)


def _has(name: str) -> Any:
    return lambda result: bool(_there(result, getattr(result, name)).any())


#: The pictures of a reweight run by name.
VIEWS: Mapping[str, View] = {
    "weights": View(weights, _has("weight")),
    "parts": View(parts, _has("logit_weight")),
}
