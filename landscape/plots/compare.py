"""Checkpoints and training runs side by side, and one measure against another."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from landscape.errors import InputError
from landscape.files import printable
from landscape.plots.bars import short_names
from landscape.plots.lines import LOOKS, Line, Panel, draw_panels, legend_of_figure, value_scale
from landscape.plots.measures_training import DRAWN, STUDIED, study_of_runs
from landscape.plots.panels import unit
from landscape.plots.series import TrainingRun
from landscape.plots.style import GREY, new_figure, style
from landscape.results import DataResult, EigenResult, Result
from landscape.results.comparison import Comparison, Correlation, Row
from landscape.results.reading import BOUND, Reading, finite

__all__ = ["compared", "scatter"]

_WORDS = {"step": "Training step", "epoch": "Epoch", "number": "Number in the checkpoint's name"}
_COLUMNS = 3
_LINE = 95

Sides = Mapping[str, Mapping[str, Sequence[Result]]]


def compared(comparison: Comparison, results: Sides, *, measure: Sequence[str] | None = None) -> Figure:
    """The figure of a comparison: of training runs their time series, else dots with error bars.

    Dots have a panel for each measure; of eigenvalues the spectra come first.

    Args:
        results: those that were compared, by the names of the columns and by kind.
        measure: names of measures; the main ones without.

    Raises:
        InputError: nothing to draw, or a measure that there is not.
    """
    if comparison.over:
        axes = study_of_runs(_training(comparison, results), measure)
    else:
        axes = _side_by_side(comparison, results, measure)
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    return figure


def _training(comparison: Comparison, results: Sides) -> dict[str, list[TrainingRun[Any]]]:
    """The training runs by kind, by what was compared of each."""
    found: dict[str, list[TrainingRun[Any]]] = {}
    for column in comparison.columns:
        for kind, of in results[column.name].items():
            at = {run.id: run.at for run in column.runs if run.kind == kind}
            timed = [(at[r.provenance.id], r) for r in of if r.provenance is not None]
            known = [(time, result) for time, result in timed if time is not None]
            times = np.array([time for time, _ in known], dtype=np.float64)
            run = TrainingRun(column.name, tuple(r for _, r in known), times, _WORDS[comparison.over])
            found.setdefault(kind, []).append(run)
    return found


def _side_by_side(comparison: Comparison, results: Sides, measure: Sequence[str] | None) -> Axes:
    usual = DRAWN if len({row.kind for row in comparison.rows}) == 1 else STUDIED
    rows = [
        row
        for row in comparison.rows
        if measure is not None or row.measure in usual.get(row.kind, ()) or row.measure == "loss"
    ]
    if not rows:
        raise InputError("there is nothing to draw of this comparison", do="choose with --measure")
    names = short_names([column.name for column in comparison.columns])
    spectra = _spectra(results, names) if measure is None else []
    panels = spectra + [_dots(row, names, _complete(comparison, row.kind)) for row in rows]
    columns = min(_COLUMNS, len(panels))
    with style():
        figure = new_figure(max(6.0, 3.0 * columns), max(1.4 + 2.0 * -(-len(panels) // columns), 3.4))
        axes = draw_panels(figure, panels, columns, timed=False)
        for ax in axes[len(spectra) :]:
            ax.set_xlim(-0.6, len(names) - 0.4)
            ax.set_xticks([])
        for ax in axes[: len(spectra)]:
            ax.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        figure.suptitle(_caption(comparison, results), fontsize=8)
        legend_of_figure(figure, panels, named=True)
    return axes[0]


def _caption(comparison: Comparison, results: Sides) -> str:
    """How large the models and data are where all are alike, else in what they differ."""
    parts = [f"{len(comparison.columns)} checkpoints", *comparison.differing]
    first = next(result for of in results.values() for some in of.values() for result in some)
    if isinstance(first, DataResult) and not comparison.differing:
        parts += [f"{first.parameters:,} parameters", f"{first.examples:,} examples"]
    return _words(" · ".join(parts))


def _complete(comparison: Comparison, kind: str) -> list[bool]:
    """Whether the run of each column is complete."""
    return [all(r.status == "complete" for r in c.runs if r.kind == kind) for c in comparison.columns]


def _dots(row: Row, names: Sequence[str], complete: Sequence[bool]) -> Panel:
    """A panel with one dot for each side."""
    lines = [
        Line(name, np.array([float(i)]), [reading], [complete[i]], LOOKS[i % len(LOOKS)])
        for i, (name, reading) in enumerate(zip(names, row.readings, strict=True))
        if reading is not None
    ]
    words = f"{row.label}\n({row.unit})" if row.unit not in ("", row.label) else row.label
    return Panel(words, row.label, lines, "")


def _spectra(results: Sides, names: Sequence[str]) -> list[Panel]:
    """A panel with the eigenvalues of every side by index, where all have more than one."""
    found = [[r for r in of.get("eigen", ()) if isinstance(r, EigenResult)] for of in results.values()]
    if not all(len(one) == 1 and len(one[0].eigenvalues) > 1 for one in found):
        return []
    lines = []
    for i, (name, (result,)) in enumerate(zip(names, found, strict=True)):
        count = len(result.eigenvalues)
        at = np.arange(1.0, count + 1)
        complete = [bool(done) for done in result.converged]
        lines.append(Line(name, at, _pairs(result), complete, LOOKS[i % len(LOOKS)]))
    return [Panel(f"Eigenvalue\n({unit(found[0][0].operator)})", "λ", lines, "Index, largest first")]


def _pairs(result: EigenResult) -> list[Reading | None]:
    """What is known of every eigenvalue."""
    values = zip(result.eigenvalues, result.residuals, result.standard_errors, strict=True)
    return [
        Reading(float(value), finite(residual + result.noise_floor), BOUND, finite(error))
        if math.isfinite(value)
        else None
        for value, residual, error in values
    ]


def scatter(correlations: Sequence[Correlation]) -> Figure:
    """One measure against the other, the checkpoints of a training run joined in their order.

    The coefficients with their intervals are in the legend.
    """
    apart = [one for one in correlations if one.steps is not None or len(correlations) == 1]
    shown = apart or list(correlations)
    with style():
        figure = new_figure(6.0, 4.6)
        ax = figure.add_subplot()
        for i, one in enumerate(shown):
            look = LOOKS[i % len(LOOKS)]
            lines = [Line("", np.zeros(0), of, [], look) for of in zip(*one.readings, strict=True)]
            x, y = (line.values() for line in lines)
            ax.plot(x, y, look.line, color=look.colour, linewidth=0.8, alpha=0.6, zorder=2)
            _errors(ax, *lines)
            ax.plot(x, y, look.marker, color=look.colour, markersize=5, zorder=4)
            ax.plot(x[-1:], y[-1:], look.marker, color=look.colour, markersize=9, zorder=4)
        values = np.array([[r.value for r in pair] for one in shown for pair in one.readings])
        ax.margins(0.08)
        value_scale(ax, values[:, 0], axis="x")
        value_scale(ax, values[:, 1])
        ax.set_xlabel(shown[0].labels[0].replace("$", r"\$"))
        ax.set_ylabel(shown[0].labels[1].replace("$", r"\$"))
        entries = [_entry(one, i) for i, one in enumerate(shown)]
        entries += [_entry(one, None) for one in correlations if one not in shown]
        figure.legend(handles=entries, loc="outside lower center")
        title = f"{shown[0].x} and {shown[0].y}; the large marks are the last checkpoints"
        figure.suptitle(_words(title), fontsize=8)
    return figure


def _errors(ax: Axes, x: Line, y: Line) -> None:
    """Wide light bars are ± the standard errors, thin ones what the figures may be off by for their data."""
    for across, up, width, alpha in (
        (x.deviations(), y.deviations(), 4.0, 0.2),
        (x.sides(), y.sides(), 0.9, 1.0),
    ):
        ax.errorbar(
            x.values(), y.values(), xerr=across, yerr=up, fmt="none", ecolor=x.look.colour, alpha=alpha,
            elinewidth=width, zorder=3,
        )  # fmt: skip


def _entry(one: Correlation, look: int | None) -> Line2D:
    """The coefficient of a training run, in the legend."""
    text = f": Spearman {one.spearman.value:.2f}"
    if one.spearman.interval is not None:
        text += " (95 %: {:.2f} to {:.2f}, were checkpoints independent)".format(*one.spearman.interval)
    label = _words(one.name) + f"{text}, n = {one.count}".replace("-", "−")
    if look is None:
        return Line2D([], [], linestyle="none", marker="", color=GREY, label=label)
    chosen = LOOKS[look % len(LOOKS)]
    return Line2D([], [], color=chosen.colour, marker=chosen.marker, linestyle=chosen.line, label=label)


def _words(text: str) -> str:
    return textwrap.fill(printable(text), _LINE).replace("$", r"\$")
