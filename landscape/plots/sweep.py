"""The error of finite differences over their step."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray

from landscape.errors import InputError
from landscape.plots.panels import legend_below, shown
from landscape.plots.style import BLUE, GREEN, GREY, VERMILLION, caption, new_figure, style
from landscape.results import MatrixResult

__all__ = ["PLATEAU", "sweep"]

#: Errors within this factor of the least belong to the plateau in whose middle the step is chosen.
PLATEAU = 2.0
_DIFFERENCES = {"central": "central differences", "as-written": "one-sided differences, as written"}

Floats = NDArray[np.float64]


def sweep(result: MatrixResult, ax: Axes | None = None) -> Axes:
    """Draw the measured error of a product over the step ρ tried, into ``ax`` or a new figure.

    The plateau, in whose middle ρ is chosen, is a band; the chosen ρ is a line. Steps whose product was not
    finite are crosses at the upper edge, errors of exactly zero triangles at the lower one.

    Raises:
        InputError: a result without a sweep.
    """
    if result.rho_sweep is None or result.rho_errors is None or not len(result.rho_sweep):
        raise InputError(
            "there is no sweep of the step to draw",
            do="make one with --operator finite-difference --rho-sweep",
        )
    steps, errors = (np.asarray(v, dtype=np.float64) for v in (result.rho_sweep, result.rho_errors))
    with style():
        ax = new_figure(6.0, 3.8).add_subplot() if ax is None else ax
        ax.set_xscale("log")
        ax.set_yscale("log")
        _draw(ax, result, steps, errors)
        ax.set_title(caption(result), loc="left")
        legend_below(ax)
    return ax


def _draw(ax: Axes, result: MatrixResult, steps: Floats, errors: Floats) -> None:
    positive = np.isfinite(errors) & (errors > 0)
    label = _DIFFERENCES.get(result.difference or "", "finite differences")
    ax.plot(
        steps[positive],
        errors[positive],
        "o-",
        color=BLUE,
        markersize=4,
        linewidth=1.2,
        label=label,
        zorder=3,
    )
    band = _plateau(steps, errors)
    if band is not None:
        text = f"plateau: within {PLATEAU:g} × the least error"
        ax.axvspan(*band, color=GREY, alpha=0.2, linewidth=0, label=text, zorder=0)
    if result.rho is not None and result.rho > 0:
        error = "" if result.rho_error is None else f", error {shown(result.rho_error)}"
        ax.axvline(
            result.rho,
            color=GREEN,
            linestyle="--",
            linewidth=1.2,
            label=f"ρ = {shown(result.rho)}{error}",
            zorder=2,
        )
    edge = ax.get_xaxis_transform()
    for chosen, place, marker, words in (
        (~np.isfinite(errors), 0.97, "x", "no finite product"),
        (errors == 0, 0.03, "v", "no error at all"),
    ):
        if chosen.any():
            ax.plot(
                steps[chosen], np.full(chosen.sum(), place), marker, color=VERMILLION, markersize=5,
                transform=edge, label=words, zorder=3,
            )  # fmt: skip
    unit = next(q.unit for q in result.quantities() if q.name == "rho_sweep")
    ax.set_xlabel(f"Step ρ along a direction of large curvature ({unit})")
    ax.set_ylabel(f"Relative error of a product{_against(result)}")
    ax.xaxis.set_major_locator(LogLocator(numticks=12))
    ax.yaxis.set_minor_formatter(NullFormatter())


def _against(result: MatrixResult) -> str:
    known = {
        "double backward": "\nagainst double backward",
        "neighbouring rho": "\nagainst the neighbouring steps",
    }
    return known.get(result.rho_against or "", "")


def _plateau(steps: Floats, errors: Floats) -> tuple[float, float] | None:
    """Half-way beyond the steps around the least error whose errors are within the factor of it."""
    sized = np.where(np.isfinite(errors), errors, math.inf)
    least = int(sized.argmin())
    if len(steps) < 2 or not math.isfinite(sized[least]):
        return None
    outside = np.flatnonzero(sized > PLATEAU * sized[least])
    first = int(outside[outside < least].max(initial=-1)) + 1
    last = int(outside[outside > least].min(initial=len(steps))) - 1
    ends = np.sqrt(steps[[max(first - 1, 0), last]] * steps[[first, min(last + 1, len(steps) - 1)]])
    return float(ends[0]), float(ends[1])
