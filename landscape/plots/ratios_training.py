"""Gradient ratios over training: the shares of the classes from checkpoint to checkpoint."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpecBase
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from landscape.errors import InputError
from landscape.files import printable
from landscape.plots.bars import layers_shown, short_names
from landscape.plots.panels import legend_below
from landscape.plots.ratio_classes import (
    COLOURS,
    MARKERS,
    at,
    label,
    percent_axis,
    present,
    several_words,
    shares,
)
from landscape.plots.series import TrainingRun, series_caption, time_axis, training_runs
from landscape.plots.style import BLACK, GREY, new_figure, style
from landscape.results import CLASSES, RatiosResult

__all__ = ["training", "training_by_layer"]

#: Of more layers than this only the largest have a panel.
_PANELS = 32
_COLUMNS = 4
_SHARE = "Share of the parameters (%)"
_BOTH = ("values", "errors")

Floats = NDArray[np.float64]


def training(results: Sequence[RatiosResult], ax: Axes | None = None) -> Axes:
    """Draw the shares of the classes over training, into ``ax`` or a new figure. Returns the first axes.

    Error bars are standard errors over mini-batches, or, of full batches, the share whose class rounding may
    have changed. Below are the ratio of the norms of the two gradients and the cosine of their angle. The
    time is the step where all checkpoints know theirs, else the epoch, else the order given. Checkpoints of
    several training runs, by their names, stand side by side.

    Raises:
        InputError: fewer than two results, two of one training run and step, or several training runs that
            were to go into an axes of the caller's.
    """
    runs = training_runs(results)
    if ax is not None and len(runs) > 1:
        raise InputError(
            "several training runs need a figure of their own",
            found=_run_names(runs),
            do="leave ax out, or draw one training run",
        )
    found = [shares(result) for run in runs for result in run.results]
    values, errors = (np.stack([getattr(s, name) for s in found]) for name in _BOTH)
    names, meanings = present(values), [s.meaning for s in found]
    title = f"{series_caption(runs)}\n{several_words(results)}"
    with style():
        ax = new_figure(2.4 + 4.0 * len(runs), 6.6).add_subplot() if ax is None else ax
        panels = _panels(ax, len(runs))
        for run, column in zip(runs, panels.T, strict=True):
            _column(column, run, names)
        percent_axis(ax, values + np.nan_to_num(errors), top=1.05)
        time_axis(ax, np.concatenate([run.at for run in runs]))
        for panel, text in zip(panels[:, 0], (_SHARE, "‖g'‖/‖g‖", "cos(g, g')"), strict=True):
            panel.set_ylabel(text)
        _entries(panels[2, 0], names, meanings)
        if len(runs) == 1:
            ax.set_title(title, loc="left")
            legend_below(panels[2, 0])
        else:
            _around(panels, runs, title)
    return ax


def training_by_layer(results: Sequence[RatiosResult]) -> Axes:
    """Draw a panel like that for each layer, on shared axes, in a new figure. Returns the first.

    Of more than 32 layers the 32 with the most parameters are drawn; only layers of all results are.

    Raises:
        InputError: fewer than two results, two of one step, several training runs, or no layer that all
            results have.
    """
    run, *others = training_runs(results)
    if others:
        raise InputError(
            "the layers over training are those of one training run",
            found=_run_names([run, *others]),
            do="give the files of one, or leave --per-layer out",
        )
    names, numbers, shown_of = _layers(run.results)
    values, errors = _layer_shares(run.results, names)
    columns = min(_COLUMNS, max(math.ceil(math.sqrt(len(names))), min(len(names), 3)))
    lines = -(-len(names) // columns)
    with style():
        figure = new_figure(max(6.4, 2.2 * columns), 1.7 + 1.75 * lines)
        panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
        drawn = present(values)
        for i, (ax, name) in enumerate(zip(panels, short_names(names), strict=False)):
            _lines(ax, run.at, values[:, i], errors[:, i], drawn)
            ax.set_title(f"{name}\n{numbers[i]:,} parameters", loc="left", fontsize=7)
        for ax in panels[len(names) :]:
            ax.set_visible(False)
        for ax in panels[max(len(names) - columns, 0) : len(names)]:
            ax.tick_params(labelbottom=True)
            ax.set_xlabel(run.words)
        percent_axis(panels[0], values + np.nan_to_num(errors), top=1.05)
        time_axis(panels[0], run.at, most=8 // columns + 2)
        title = f"{series_caption([run])}\n{several_words(run.results)}{shown_of}"
        figure.suptitle(title, fontsize=8)
        figure.supylabel("Share of the layer's parameters (%)", fontsize=9)
        _entries(panels[0], drawn, ["± standard error over mini-batches"] * bool(np.isfinite(errors).any()))
        _legend_of(figure, panels[0], 3)
    first: Axes = panels[0]
    return first


def _panels(ax: Axes, columns: int) -> np.ndarray:
    """(3, column) axes in the place of ``ax``, which is the first; rows share y, all share x."""
    figure, place, ratios = ax.get_figure(), ax.get_subplotspec(), (3.0, 1.2, 1.2)
    assert figure is not None
    grid: GridSpecBase
    if place is not None:
        grid = place.subgridspec(3, columns, height_ratios=ratios, hspace=0.08)
    else:
        box = ax.get_position()
        grid = figure.add_gridspec(
            3, columns, height_ratios=ratios, hspace=0.3, left=box.x0, right=box.x1, bottom=box.y0, top=box.y1
        )  # fmt: skip
    ax.set_subplotspec(grid[0, 0])
    panels: NDArray[np.object_] = np.full((3, columns), ax, dtype=object)
    for row, column in np.ndindex(3, columns):
        if (row, column) != (0, 0):
            beside = panels[row, 0] if column else None
            panels[row, column] = figure.add_subplot(grid[row, column], sharex=ax, sharey=beside)
    for (row, column), panel in np.ndenumerate(panels):
        panel.tick_params(labelbottom=row == 2, labelleft=column == 0)
    return panels


def _column(panels: np.ndarray, run: TrainingRun[RatiosResult], names: Sequence[str]) -> None:
    """One training run, from top to bottom."""
    found = [shares(result) for result in run.results]
    values, errors = (np.stack([getattr(s, name) for s in found]) for name in _BOTH)
    _lines(panels[0], run.at, values, errors, names)
    _single(panels[1], run, "gradient_norm_ratio")
    _single(panels[2], run, "cosine")
    panels[2].set_xlabel(run.words)


def _around(panels: np.ndarray, runs: Sequence[TrainingRun[RatiosResult]], title: str) -> None:
    """Title and legend of the whole figure, and the name of each training run above its column."""
    for panel, run in zip(panels[0], runs, strict=True):
        count = len(run.results)
        panel.set_title(f"{_safe(run.name)}: {count} checkpoint{'s' * (count > 1)}", loc="left")
    figure = panels[0, 0].get_figure()
    figure.suptitle(title, fontsize=8)
    _legend_of(figure, panels[2, 0], 3)


def _legend_of(figure: Figure, ax: Axes, columns: int) -> None:
    """The legend of ``ax`` as that of the whole figure, below it."""
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def _safe(name: str) -> str:
    return printable(name).replace("$", r"\$")


def _run_names(runs: Sequence[TrainingRun[RatiosResult]]) -> str:
    return ", ".join(printable(run.name) for run in runs)


def _lines(ax: Axes, at_times: Floats, values: Floats, errors: Floats, names: Sequence[str]) -> None:
    """The shares (time, class) of these classes with their errors."""
    for name in names:
        i = list(CLASSES).index(name)
        ax.errorbar(
            at_times, values[:, i], yerr=errors[:, i], fmt="-", marker=MARKERS[name],
            markersize=4, color=COLOURS[name], ecolor=BLACK, elinewidth=0.8, capsize=2, linewidth=1.2,
        )  # fmt: skip


def _entries(ax: Axes, names: Sequence[str], meanings: Sequence[str]) -> None:
    """What a legend of ``ax`` is to say of these classes and of the bars."""
    for name in names:
        ax.plot([], [], "-", marker=MARKERS[name], markersize=4, color=COLOURS[name], label=label(name))
    for meaning in dict.fromkeys(meanings):
        ax.errorbar([], [], yerr=[], fmt="none", ecolor=BLACK, elinewidth=0.8, capsize=2, label=meaning)


def _single(ax: Axes, run: TrainingRun[RatiosResult], field: str) -> None:
    """One number of each result, with its standard error if it has one; at 1 the gradients agree."""
    values = np.array([getattr(result, field) for result in run.results], dtype=np.float64)
    errors = np.array([getattr(result, f"{field}_error") for result in run.results], dtype=np.float64)
    ax.axhline(1.0, color=GREY, linestyle="--", linewidth=0.8, zorder=0)
    ax.errorbar(
        run.at, values, yerr=errors, fmt="o-", markersize=3, color=BLACK, linewidth=1.0, elinewidth=0.8,
        capsize=2,
    )  # fmt: skip
    ax.margins(y=0.15)
    ax.yaxis.set_major_locator(MaxNLocator(nbins=4))


def _layers(results: Sequence[RatiosResult]) -> tuple[list[str], list[int], str]:
    """The layers that all results have, the numbers of their parameters, and what is not drawn in words."""
    common = _names(results[0])
    for result in results[1:]:
        there = set(_names(result))
        common = [name for name in common if name in there]
    if not common:
        raise InputError(
            "there is no layer that all these runs have",
            do="leave --per-layer out, or give runs on one model",
        )
    sizes = np.ones(len(common))
    if results[0].layer_parameters is not None:
        number = dict(zip(_names(results[0]), results[0].layer_parameters, strict=True))
        sizes = np.array([number[name] for name in common], dtype=np.float64)
    kept, others = layers_shown(sizes, _PANELS)
    note = f"\nthe {len(kept)} largest of {len(common)} layers" if len(others) else ""
    return [common[i] for i in kept], [int(sizes[i]) for i in kept], note


def _names(result: RatiosResult) -> list[str]:
    if result.layers is None or result.layer_fractions is None:
        return []
    return [str(name) for name in result.layers]


def _layer_shares(results: Sequence[RatiosResult], names: Sequence[str]) -> tuple[Floats, Floats]:
    """Shares and standard errors (time, layer, class) of these layers, NaN for what is not known."""
    both = []
    for result in results:
        assert result.layer_fractions is not None
        values = at(result, result.layer_fractions)
        errors = np.full(values.shape, np.nan)
        if result.layer_fraction_errors is not None:
            errors = at(result, result.layer_fraction_errors)
        place = {name: i for i, name in enumerate(_names(result))}
        rows = [place[name] for name in names]
        both.append((values[rows], errors[rows]))
    return np.stack([v for v, _ in both]), np.stack([e for _, e in both])
