"""The running average over its iterations, beside the eigenvalue that it is taken for."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from landscape.errors import InputError
from landscape.plots.panels import panel_below, plain, sentence, shown, unit
from landscape.plots.style import BLACK, BLUE, GREEN, GREY, VERMILLION, caption, new_figure, style
from landscape.results import EigenResult

__all__ = ["history"]

#: Positive values further apart than this factor are drawn on a logarithmic axis.
_WIDE = 100.0
#: Evaluations further apart than one in this many iterations are marked, unless that makes too many marks.
_SPARSE, _MARKS = 3, 60
#: Share of the height for the residual.
_HEIGHTS = (2.6, 1.0)

Floats = NDArray[np.float64]


def history(result: EigenResult, ax: Axes | None = None) -> Axes:
    """Draw ‖v‖ and the Rayleigh quotient of v over the iterations, into ``ax`` or a new figure.

    The largest eigenvalue by Lanczos, where the result has it, is a line in the band of its interval. The
    residual of v has a panel of its own, taken from the lower part of ``ax``. What the average came to is
    said in words. Returns the upper axes.

    Raises:
        InputError: a result that is not of a running average.
    """
    if result.history is None or not len(result.history):
        raise InputError(
            "there is no history to draw",
            found=f"a result of the method {result.method}",
            do="make one with --method running-average",
        )
    with style():
        ax = new_figure(6.0, 4.6).add_subplot() if ax is None else ax
        residuals = _floats(result.evaluation_residuals)
        lower = panel_below(ax, _HEIGHTS, shared=True) if np.isfinite(residuals).any() else None
        _draw(ax, result)
        if lower is not None:
            _residual(lower, residuals, result)
        _words(ax, lower, result)
    return ax


def _floats(values: NDArray[np.float64] | None) -> Floats:
    return np.zeros(0) if values is None else np.asarray(values, dtype=np.float64)


def _draw(ax: Axes, result: EigenResult) -> None:
    norms, quotients = _floats(result.history), _floats(result.rayleigh)
    gradient = result.perturb == "gradient"
    label = "‖v‖: gradient-direction curvature ‖Hu‖, not λmax" if gradient else "‖v‖"
    iterations = np.arange(1, len(norms) + 1)
    ax.plot(iterations, norms, color=BLUE, linewidth=1.5, label=label, zorder=3)
    known = np.isfinite(quotients)
    if known.any():
        marker, line = _marks(known)
        ax.plot(
            iterations[: len(quotients)][known], quotients[known], color=VERMILLION, marker=marker,
            markersize=3.5, linestyle=line, linewidth=1.2, label="Rayleigh quotient of v, all data",
            zorder=4,
        )  # fmt: skip
    _reference(ax, result)
    if (quotients[known] < 0).any():
        ax.axhline(0.0, color=GREY, linewidth=0.6, zorder=0)
    _scale(ax, np.concatenate([norms, quotients[known]]))
    ax.set_ylabel(f"{sentence(result.operator)} curvature ({unit(result.operator)})")
    ax.set_title(f"{caption(result)}\n{_verdict(result, norms)}", loc="left")


def _marks(known: NDArray[np.bool_]) -> tuple[str, str]:
    """Marker and line: points that are few and far between are shown as such."""
    count = int(known.sum())
    sparse = count <= 12 or (len(known) > _SPARSE * count and count <= _MARKS)
    return ("D", ":") if sparse else ("", "--")


def _top(result: EigenResult) -> tuple[float, float, float] | None:
    """(λmax by Lanczos, lower end, upper end of its interval), if known."""
    values = _floats(result.reference_eigenvalues)
    if not np.isfinite(values).any():
        return None
    index = int(np.nanargmax(values))
    bounds = _floats(result.reference_intervals)
    low, high = bounds[index] if len(bounds) else (math.nan, math.nan)
    return float(values[index]), float(low), float(high)


def _reference(ax: Axes, result: EigenResult) -> None:
    top = _top(result)
    if top is None:
        return
    value, low, high = top
    reach = max(high - value, value - low)
    known = math.isfinite(reach)
    label = f"λmax by Lanczos, {shown(value, 4)}" + (f" ± {shown(reach, 2)}" if known else "")
    ax.axhline(value, color=GREEN, linewidth=1.2, linestyle="-.", label=label, zorder=2)
    if known:
        ax.axhspan(low, high, color=GREEN, alpha=0.25, linewidth=0, zorder=1)


def _scale(ax: Axes, values: Floats) -> None:
    """Linear from zero, or logarithmic for a wide range of positive values."""
    values = values[np.isfinite(values)]
    positive = values[values > 0]
    if len(positive) == len(values) and len(values) and positive.max() > _WIDE * positive.min():
        ax.set_yscale("log")
        return
    ax.margins(y=0.08)
    if values.min(initial=0.0) >= 0:
        ax.set_ylim(bottom=0.0)
    ax.yaxis.set_major_formatter(FuncFormatter(plain))


def _verdict(result: EigenResult, norms: Floats) -> str:
    """What the average came to, in one line."""
    length, top = norms[-1], _top(result)
    if result.status == "oscillating":
        quotients = _floats(result.rayleigh)
        known = quotients[np.isfinite(quotients)]
        along = f" (λ ≈ {known[-1]:.3g})".replace("-", "−") if len(known) else ""
        return f"oscillating: v flips its sign at each step{along}, so ‖v‖ = {length:.4g} is no eigenvalue"
    beside = "" if top is None or top[0] <= 0 else f", {_rounded(length / top[0])} × λmax by Lanczos"
    if result.status != "complete":
        return f"stopped before it converged: ‖v‖ = {length:.4g}{beside}"
    what = "‖v‖ has settled at" if result.perturb == "gradient" else "converged to ‖v‖ ="
    return f"{what} {length:.4g}{beside}"


def _rounded(ratio: float) -> str:
    return f"{ratio:.3f}" if 0.1 <= ratio < 10 else f"{ratio:.2g}"


def _words(ax: Axes, lower: Axes | None, result: EigenResult) -> None:
    last = ax if lower is None else lower
    beta = "" if result.new_weight is None else f" (weight of the new product: {result.new_weight:g})"
    last.set_xlabel(f"Iteration{beta}")
    last.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True, steps=[1, 2, 5, 10]))
    handles, labels = ax.get_legend_handles_labels()
    if lower is not None:
        others, texts = lower.get_legend_handles_labels()
        handles, labels = handles + others, labels + texts
    below = -0.14 if lower is None else -0.45
    last.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, below), ncols=2)


def _residual(ax: Axes, residuals: Floats, result: EigenResult) -> None:
    """Residual of v, on a logarithmic axis as far as it is positive."""
    known = np.isfinite(residuals)
    marker, line = _marks(known)
    iterations = np.arange(1, len(residuals) + 1)
    ax.plot(
        iterations[known], residuals[known], color=BLACK, marker=marker, markersize=3.5,
        linestyle="-" if line == "--" else line, linewidth=1.2,
    )  # fmt: skip
    positive = residuals[known & (residuals > 0)]
    if len(positive):
        ax.set_yscale("log")
        ax.yaxis.set_minor_formatter(NullFormatter())  # the decades will do
        low, high = ax.get_ylim()
        ax.set_ylim(min(low, positive.min() / 5), max(high, positive.max() * 5))
        _floor(ax, result.noise_floor)
    ax.set_ylabel("Residual\nof v")


def _floor(ax: Axes, floor: float) -> None:
    """What is below the noise floor, where the picture goes down to it."""
    low, high = ax.get_ylim()
    if low < floor < high:
        ax.axhspan(low, floor, color=GREY, alpha=0.2, linewidth=0, label=f"below the noise floor {floor:.2g}")
        ax.set_ylim(low, high)
