"""What a monitor measured along a training run: curvature, ratio classes, trace and loss over the steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from landscape.errors import InputError
from landscape.plots.panels import panel_below, plain, shown
from landscape.plots.ratio_classes import COLOURS, MARKERS, label, percent_axis, present
from landscape.plots.style import BLACK, BLUE, GREEN, GREY, VERMILLION, caption, new_figure, style
from landscape.plots.view import View
from landscape.results import CLASSES, MonitorResult

__all__ = ["VIEWS", "curvature", "overview", "ratios"]

#: Positive values further apart than this factor are drawn on a logarithmic axis.
_WIDE = 100.0
#: 2/η is drawn where it is not farther up than this many times the curvatures.
_NEAR = 10.0
#: More measurements than this are drawn without markers.
_MARKS = 60
_UNIT = "loss / weight²"

Floats = NDArray[np.float64]
Panel = Callable[[Axes, MonitorResult], None]


def overview(result: MonitorResult, ax: Axes | None = None) -> Axes:
    """Draw whatever was measured, a panel each over one axis of steps, into ``ax`` or a new figure.

    Curvature: λmax with its error, ‖h_t‖, and 2/η where the learning rate is known. Ratio classes as shares
    of the parameters, with what rounding may have moved. The trace with its intervals. The loss on the probe
    data. Returns the first panel.

    Raises:
        InputError: nothing was measured yet.
    """
    return _stacked(result, [panel for has, panel in _PANELS if has(result)], ax)


def curvature(result: MonitorResult, ax: Axes | None = None) -> Axes:
    """Draw λmax, ‖h_t‖ and 2/η alone, as :func:`overview` does."""
    return _stacked(result, [_curvature] if _has_curvature(result) else [], ax)


def ratios(result: MonitorResult, ax: Axes | None = None) -> Axes:
    """Draw the ratio classes alone, as :func:`overview` does."""
    return _stacked(result, [_ratios] if _has_ratios(result) else [], ax)


def _stacked(result: MonitorResult, panels: Sequence[Panel], ax: Axes | None) -> Axes:
    if not panels:
        raise InputError(
            "there is nothing to draw", found=f"{len(result.steps)} measurements of other things"
        )
    with style():
        axes = _axes(len(panels), ax)
        for place, draw in zip(axes, panels, strict=True):
            draw(place, result)
        axes[0].set_title(f"{caption(result)}{_words(result)}", loc="left")
        axes[-1].set_xlabel("Steps of the optimizer")
        axes[-1].xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
    return axes[0]


def _axes(count: int, ax: Axes | None) -> list[Axes]:
    """Panels one below the other, in a new figure or in the place of ``ax``."""
    if ax is None:
        column = new_figure(6.8, 1.2 + 2.0 * count).subplots(count, 1, sharex=True, squeeze=False)
        return list(column[:, 0])
    axes = [ax]
    for left in range(count - 1, 0, -1):
        axes.append(panel_below(axes[-1], (1.0, float(left)), shared=True))
    return axes


def _legend(ax: Axes, title: str = "") -> None:
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), title=title or None, title_fontsize=8)


def _words(result: MonitorResult) -> str:
    count = len(result.steps)
    left = " · " if caption(result) else ""
    probe = f"{result.parameters:,} parameters, {result.examples:,} probe examples"
    return (
        f"{left}{probe}\n{count:,} measurement{'' if count == 1 else 's'} in {result.total_steps:,} steps, "
        f"{shown(result.cost_percent, 2)} % of the training time"
    )


def _filled(values: NDArray[np.float64] | None) -> Floats:
    """Numbers, NaN where there are none."""
    if values is None:
        return np.zeros(0)
    return np.ma.filled(np.ma.asarray(values, dtype=np.float64), np.nan)


def _line(ax: Axes, result: MonitorResult, values: Floats, colour: str, marker: str, text: str) -> None:
    """A line through what there is; each value is marked unless there are many."""
    known = np.isfinite(values)
    mark = marker if known.sum() <= _MARKS else ""
    steps = np.asarray(result.steps)[known]
    ax.plot(
        steps, values[known], color=colour, marker=mark, markersize=3.5, linewidth=1.2, label=text, zorder=3
    )


def _band(ax: Axes, result: MonitorResult, values: Floats, errors: Floats, colour: str) -> None:
    """value ± error: bars where values are few, else a band."""
    known = np.isfinite(values) & np.isfinite(errors)
    steps, values, errors = np.asarray(result.steps)[known], values[known], errors[known]
    if len(values) <= _MARKS:
        ax.errorbar(steps, values, errors, color=colour, linestyle="", capsize=2, linewidth=0.9, zorder=2)
    else:
        ax.fill_between(steps, values - errors, values + errors, color=colour, alpha=0.3, linewidth=0)


def _has_curvature(result: MonitorResult) -> bool:
    return any(np.isfinite(_filled(v)).any() for v in (result.lambda_max, result.h_norms))


def _curvature(ax: Axes, result: MonitorResult) -> None:
    top, average = _filled(result.lambda_max), _filled(result.h_norms)
    if np.isfinite(top).any():
        _line(ax, result, top, BLUE, "o", "λmax of the probe data")
        _band(ax, result, top, _filled(result.lambda_max_errors), BLUE)
    if np.isfinite(average).any():
        _line(ax, result, average, VERMILLION, "s", "‖h_t‖: gradient-\ndirection curvature\n‖Hu‖, not λmax")
        _band(ax, result, average, _filled(result.h_errors), VERMILLION)
    values = np.concatenate([top, average])
    values = values[np.isfinite(values)]
    limit = 2 / _filled(result.learning_rates)
    near = limit[np.isfinite(limit)]
    if len(near) and near.min() <= _NEAR * max(values.max(), 0.0):
        _line(ax, result, limit, GREY, "", "2/η (gradient descent\nwithout momentum)")
        ax.lines[-1].set_linestyle("--")
        values = np.concatenate([values, near])
    _scale(ax, values)
    ax.set_ylabel(f"Curvature ({_UNIT})")
    _legend(ax)


def _scale(ax: Axes, values: Floats) -> None:
    """Linear from zero, or logarithmic for a wide range of positive values."""
    if len(values) and values.min() > 0 and values.max() > _WIDE * values.min():
        ax.set_yscale("log")
        return
    ax.margins(y=0.08)
    if values.min(initial=0.0) >= 0:
        ax.set_ylim(bottom=0.0)
    ax.yaxis.set_major_formatter(FuncFormatter(plain))


def _has_ratios(result: MonitorResult) -> bool:
    return result.fractions is not None and bool(np.isfinite(_filled(result.fractions)).any())


def _ratios(ax: Axes, result: MonitorResult) -> None:
    place = {str(name): i for i, name in enumerate(result.classes)}
    columns = [place[name] for name in CLASSES]
    values, errors = _filled(result.fractions)[:, columns], _filled(result.uncertain)[:, columns]
    for name in present(values):
        i = list(CLASSES).index(name)
        _line(ax, result, values[:, i], COLOURS[name], MARKERS[name], label(name))
        _band(ax, result, values[:, i], errors[:, i], COLOURS[name])
    percent_axis(ax, values + np.nan_to_num(errors), top=1.05)
    ax.set_ylabel("Share of the\nparameters (%)")
    _legend(ax, "Single training batches" if result.source == "training" else "Probe data")


def _has_trace(result: MonitorResult) -> bool:
    return bool(np.isfinite(_filled(result.trace)).any())


def _trace(ax: Axes, result: MonitorResult) -> None:
    values = _filled(result.trace)
    _line(ax, result, values, GREEN, "D", f"trace, {100 * result.confidence:g} %\nintervals")
    _band(ax, result, values, _filled(result.trace_half_widths), GREEN)
    _scale(ax, values[np.isfinite(values)])
    ax.set_ylabel(f"Trace ({_UNIT})")
    _legend(ax)


def _has_loss(result: MonitorResult) -> bool:
    return bool(np.isfinite(_filled(result.losses)).any())


def _loss(ax: Axes, result: MonitorResult) -> None:
    values = _filled(result.losses)
    _line(ax, result, values, BLACK, "^", "loss of the probe data")
    _scale(ax, values[np.isfinite(values)])
    ax.set_ylabel("Loss")
    _legend(ax)


_PANELS: Sequence[tuple[Callable[[MonitorResult], bool], Panel]] = (
    (_has_curvature, _curvature),
    (_has_ratios, _ratios),
    (_has_trace, _trace),
    (_has_loss, _loss),
)


def _has_any(result: MonitorResult) -> bool:
    return any(has(result) for has, _ in _PANELS)


#: The pictures of a monitor's run by name.
VIEWS = {
    "overview": View(overview, _has_any),
    "curvature": View(curvature, _has_curvature),
    "ratios": View(ratios, _has_ratios),
}
