"""A training run on a slice: where it went, and the loss of the slice beside that of the checkpoints."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from landscape.errors import InputError
from landscape.plots.panels import legend_below, panel_below
from landscape.plots.slice_fields import axis_label, field, title
from landscape.plots.slice_levels import scale
from landscape.plots.slice_line import draw_line, frame
from landscape.plots.slice_plane import axes_size, below_label, draw_plane, legend_room, text_room
from landscape.plots.slice_points import Trajectory, trajectory_of
from landscape.plots.style import BLACK, BLUE, VERMILLION, new_figure, style
from landscape.results import SliceResult

__all__ = ["trajectory"]

#: Losses over a larger factor are drawn on a logarithmic axis.
_FACTOR = 30.0
#: Inches of the panel of the losses, and of what is around both.
_LOWER, _AROUND = 1.5, 3.3

Floats = NDArray[np.float64]


def trajectory(result: SliceResult, ax: Axes | None = None, *, levels: str | None = None) -> Axes:
    """Draw a training run on its plane or line, into ``ax`` or a new figure; the upper axes.

    Points are coloured by step, larger the farther they are from the slice, and the axes say how much of the
    run's variance they hold. Below, the loss of each checkpoint, with its standard error, beside the loss of
    the slice at its projection: where they part, the slice does not show what training saw.

    Args:
        levels: as of :func:`~landscape.plots.slice_plane.plane`; a line has none.

    Raises:
        InputError: no training run is among the points, or levels that do not fit.
    """
    run = trajectory_of(result)
    if run is None:
        raise InputError(
            "there is no trajectory to draw", do="name checkpoints with --trajectory 'runs/*.pt'"
        )
    with style():
        width, height = (4.6, 2.6) if result.y is None else axes_size(result)
        ax = (
            new_figure(max(width + 1.9, 5.6), height + _LOWER + _AROUND + legend_room(result)).add_subplot()
            if ax is None
            else ax
        )
        lower = panel_below(ax, (height + 0.9, _LOWER))
        if result.y is None:
            _on_line(ax, result, run)
        else:
            of = field(result)
            draw_plane(ax, result, of, scale(of, levels), "train", variance=True)
        _losses(lower, run)
        ax.set_title(title(result, inches=text_room(ax)), loc="left")
        legend_below(ax, inches=below_label(ax))
        legend_below(lower)
    return ax


def _on_line(ax: Axes, result: SliceResult, run: Trajectory) -> None:
    """The loss along the line, and each checkpoint over its projection at its own loss."""
    draw_line(ax, result, None)
    frame(ax, result)
    known = np.isfinite(run.losses)
    x, losses = run.coordinates[:, 0], run.losses
    low, high = ax.get_ylim()
    if known.any() and ax.get_yscale() == "linear":
        room = 0.06 * (high - low)
        ax.set_ylim(min(low, losses[known].min() - room), max(high, losses[known].max() + room))
    elif known.any() and losses[known].min() > 0:
        ax.set_ylim(min(low, losses[known].min() / 1.3), max(high, losses[known].max() * 1.3))
    ax.plot(x, losses, "-", color=BLACK, linewidth=0.7, zorder=5)
    ax.scatter(
        x, losses, s=run.areas, c=run.colours, edgecolors=BLACK, linewidths=0.7, zorder=6, gid="trajectory",
        label="checkpoints at their own loss (white: first; larger: farther)",
    )  # fmt: skip
    ax.set_xlabel(axis_label(result, 0, variance=True))


def _losses(ax: Axes, run: Trajectory) -> None:
    """The true loss of each checkpoint with its error, and that of the slice, over the steps."""
    known = [values[np.isfinite(values)] for values in (run.losses, run.slice_losses)]
    every = np.concatenate(known)
    if len(every) and every.min() > 0 and every.max() / every.min() >= _FACTOR:
        ax.set_yscale("log")
    ax.plot(
        run.at, run.slice_losses, "s--", color=VERMILLION, markersize=4, linewidth=1.0, zorder=2,
        markerfacecolor="white", label="the slice at its projection",
    )  # fmt: skip
    ax.plot(run.at, run.losses, "o-", color=BLUE, markersize=4, linewidth=1.2, zorder=3, label="checkpoint")
    drawn = np.isfinite(run.losses) & np.isfinite(run.errors) & (run.errors > 0)
    if drawn.any():
        losses, errors = run.losses[drawn], run.errors[drawn]
        below = np.minimum(errors, 0.95 * losses) if ax.get_yscale() == "log" else errors
        ax.errorbar(
            run.at[drawn], losses, yerr=[below, errors], fmt="none", ecolor=BLACK, elinewidth=0.9,
            capsize=2.5, zorder=4, label="± standard error of the rise above the centre",
        )  # fmt: skip
    if not len(every):
        ax.text(0.5, 0.5, "no finite loss", transform=ax.transAxes, ha="center", va="center")
        ax.set_yticks([])
    ax.set_xlabel(run.words)
    ax.set_ylabel("Loss")
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
