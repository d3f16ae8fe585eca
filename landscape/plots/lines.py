"""Lines over training: panels with a shared time, a line for each training run, errors told apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from landscape.files import printable
from landscape.plots.panels import plain, text_width
from landscape.plots.series import TrainingRun, time_axis
from landscape.plots.style import BLACK, BLUE, GREEN, GREY, VERMILLION
from landscape.results import Result
from landscape.results.measures import Reading

__all__ = ["LOOKS", "Line", "Look", "Panel", "draw_panels", "hollow", "legend_of_figure", "value_scale"]

#: Positive values further apart than this factor are drawn on a logarithmic axis.
_WIDE = 100.0

Floats = NDArray[np.float64]
Read = Callable[[Any], Reading | None]


@dataclass(frozen=True)
class Look:
    """How a line is drawn, so that colour alone need not tell it apart."""

    colour: str
    marker: str
    line: Literal["-", "--", "-.", ":"]


#: Looks in turn. Okabe & Ito (2008), Color Universal Design.
LOOKS = (
    Look(BLUE, "o", "-"),
    Look(VERMILLION, "s", "--"),
    Look(GREEN, "^", "-."),
    Look("#CC79A7", "D", ":"),
    Look("#E69F00", "v", "-"),
    Look("#56B4E9", "P", "--"),
    Look(BLACK, "X", "-."),
)


@dataclass(frozen=True)
class Line:
    """One figure of the checkpoints of one training run.

    Attributes:
        name: what the legend calls it.
        at: (t,) times.
        readings: (t,) of each; None where there is none.
        complete: (t,), False for hollow points.
        look: of the line.
    """

    name: str
    at: Floats
    readings: Sequence[Reading | None]
    complete: Sequence[bool]
    look: Look

    @classmethod
    def of(cls, run: TrainingRun[Any], read: Read, look: Look, name: str = "") -> Line:
        """The line of what ``read`` says of each result of a training run."""
        results: Sequence[Result] = run.results
        done = [result.status == "complete" for result in results]
        return cls(name or run.name, run.at, [read(result) for result in results], done, look)

    def values(self) -> Floats:
        """(t,) values, NaN where there is none."""
        return np.array([math.nan if r is None else r.value for r in self.readings])

    def deviations(self) -> Floats:
        """(t,) standard errors, NaN where they are not known."""
        found = [None if r is None else r.standard_error for r in self.readings]
        return np.array([math.nan if e is None else e for e in found], dtype=np.float64)

    def sides(self) -> Floats:
        """(2, t) how far the values may be off for their data, down and up; NaN where it is not known."""
        found = [None if r is None else r.sides for r in self.readings]
        return np.array([(math.nan,) * 2 if ends is None else ends for ends in found]).clip(min=0.0).T


@dataclass(frozen=True)
class Panel:
    """The lines of one figure.

    Attributes:
        label: what the y axis says.
        short: the same for the legend.
        lines: one for each training run.
        words: what the x axis says.
        limit: value of a dashed line across, with its name.
        title: above the panel.
    """

    label: str
    short: str
    lines: Sequence[Line]
    words: str
    limit: tuple[float, str] | None = None
    title: str = ""


def draw_panels(
    figure: Figure,
    panels: Sequence[Panel],
    columns: int = 1,
    *,
    same_values: bool = False,
    timed: bool = True,
) -> list[Axes]:
    """Draw the panels into an empty figure, row by row; with one axis of ``same_values``. Returns their axes.

    Panels that are not ``timed`` have x axes of their own, left as they come.

    Thin bars are what a figure may be off by for its data, bands ± the standard error; hollow points are of
    results that are not complete. An axis is logarithmic where all is positive and spans two decades.
    """
    rows = -(-len(panels) // columns)
    shared = timed and len({panel.words for panel in panels}) == 1
    grid = figure.subplots(rows, columns, sharex=shared, sharey=same_values, squeeze=False).ravel()
    axes: list[Axes] = list(grid[: len(panels)])
    for unused in grid[len(panels) :]:
        unused.set_visible(False)
    for i, (ax, panel) in enumerate(zip(axes, panels, strict=True)):
        _draw_panel(ax, panel, panels if same_values else [panel])
        last = i + columns >= len(panels)
        ax.tick_params(labelbottom=last or not shared)
        ax.set_xlabel(panel.words if last or not shared else "")
    for ax, panel in list(zip(axes, panels, strict=True))[: (1 if shared else None) if timed else 0]:
        every = panels if shared else [panel]
        times = np.concatenate([line.at for one in every for line in one.lines])
        time_axis(ax, times, most=8 if columns == 1 else 8 // columns + 2)
    figure.align_ylabels(axes)
    return axes


def _draw_panel(ax: Axes, panel: Panel, scaled: Sequence[Panel]) -> None:
    """One panel; its axis is scaled for the values of all of ``scaled``."""
    ax.margins(y=0.1)
    for line in panel.lines:
        _draw_line(ax, line)
    if panel.limit is not None:
        ax.axhline(panel.limit[0], color=GREEN, linestyle=(0, (6, 2)), linewidth=1.2, zorder=1)
    values = np.concatenate([line.values() for one in scaled for line in one.lines])
    values = np.append(values, [one.limit[0] for one in scaled if one.limit is not None])
    value_scale(ax, values[np.isfinite(values)])
    ax.set_ylabel(panel.label)
    if panel.title:
        ax.set_title(panel.title, loc="left", fontsize=7)


def _draw_line(ax: Axes, line: Line) -> None:
    values, look = line.values(), line.look
    deviation = line.deviations()
    if np.isfinite(deviation).any():
        low, high = values - deviation, values + deviation
        ax.fill_between(line.at, low, high, color=look.colour, alpha=0.2, linewidth=0, zorder=2)
    if len(values) == 1 and np.isfinite(deviation).any():  # a band of one point has no width
        ax.errorbar(
            line.at, values, yerr=deviation, fmt="none", ecolor=look.colour, alpha=0.3, elinewidth=6, zorder=2
        )
    ax.errorbar(
        line.at, values, yerr=line.sides(), linestyle=look.line, color=look.colour,
        linewidth=1.2, ecolor=look.colour, elinewidth=0.9, capsize=2.5, zorder=3,
    )  # fmt: skip
    for complete in (True, False):
        chosen = np.array(line.complete, dtype=bool) == complete
        ax.plot(
            line.at[chosen], values[chosen], look.marker, color=look.colour, markersize=4,
            markerfacecolor=look.colour if complete else "white", zorder=4,
        )  # fmt: skip


def value_scale(ax: Axes, values: Floats, axis: Literal["x", "y"] = "y") -> None:
    """Logarithmic where all values are positive and span two decades, else linear with the zero line."""
    where = ax.yaxis if axis == "y" else ax.xaxis
    if len(values) and values.min() > 0 and values.max() > _WIDE * values.min():
        low, high = float(values.min()), float(values.max())
        ends = low / (high / low) ** 0.1, high * (high / low) ** 0.1
        ax.set(**{f"{axis}scale": "log", f"{axis}lim": ends})
        where.set_major_locator(LogLocator(numticks=6))
        where.set_minor_formatter(NullFormatter())
    else:
        where.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
        if len(values) and values.min() < 0 < values.max():
            (ax.axhline if axis == "y" else ax.axvline)(0.0, color=GREY, linewidth=0.6, zorder=0)
    where.set_major_formatter(FuncFormatter(plain))


def hollow(label: str = "not complete") -> Line2D:
    """What the legend shows for hollow points."""
    return Line2D([], [], linestyle="none", marker="o", color=GREY, markerfacecolor="white", label=label)


def legend_of_figure(figure: Figure, panels: Sequence[Panel], *, named: bool) -> None:
    """One legend below: the training runs (if ``named``), what bars and bands are, and of which panels."""
    entries: list[Any] = []
    lines = {line.name: line for panel in panels for line in panel.lines}
    if named:
        entries += [_handle(line) for line in lines.values()]
    entries += [
        Line2D([], [], color=GREEN, linestyle=(0, (6, 2)), linewidth=1.2, label=panel.limit[1])
        for panel in panels
        if panel.limit is not None
    ]
    if any(not done for panel in panels for line in panel.lines for done in line.complete):
        entries.append(hollow())
    entries += [_bar(figure.axes[0], f"± {text}") for text in _meanings(panels, "error", "meaning")]
    entries += [
        Patch(facecolor=GREY, alpha=0.35, label=f"± standard error {text}")
        for text in _meanings(panels, "standard_error", "sampling")
    ]
    if entries:
        figure.legend(
            handles=entries,
            loc="outside lower center",
            ncols=_columns([e.get_label() for e in entries], figure),
        )


def _columns(labels: Sequence[str], figure: Figure) -> int:
    """As many columns as fit side by side, at most three."""
    widest = 0.6 + max(text_width(label, 8.0) for label in labels)
    return max(1, min(3, len(labels), int(figure.get_figwidth() / widest)))


def _handle(line: Line) -> Line2D:
    look = line.look
    return Line2D(
        [], [], color=look.colour, marker=look.marker, linestyle=look.line, markersize=4, linewidth=1.2,
        label=printable(line.name).replace("$", r"\$"),
    )  # fmt: skip


def _bar(ax: Axes, text: str) -> ErrorbarContainer:
    """A thin bar with caps for the legend."""
    return ax.errorbar([], [], yerr=[], fmt="none", ecolor=BLACK, elinewidth=0.9, capsize=2.5, label=text)


def _meanings(panels: Sequence[Panel], error: str, words: str) -> list[str]:
    """What the bars or bands are; with the names of the panels where they do not mean the same in all."""
    found: dict[str, list[str]] = {}
    for panel in panels:
        for line in panel.lines:
            for reading in line.readings:
                known = None if reading is None else getattr(reading, error)
                if (
                    known is not None
                    and known > 0
                    and panel.short not in found.setdefault(getattr(reading, words), [])
                ):
                    found[getattr(reading, words)].append(panel.short)
    found = {text: names for text, names in found.items() if names}
    if len(found) < 2:
        return list(found)
    return [f"{text} ({', '.join(names)})" for text, names in found.items()]
