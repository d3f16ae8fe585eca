"""Other checkpoints on a slice: the ends of an interpolation, and a training run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from landscape.plots.panels import shown
from landscape.plots.slice_fields import name_of
from landscape.plots.style import BLACK, VERMILLION
from landscape.results import SliceResult

__all__ = ["OUTLINE", "Trajectory", "draw_points", "label_point", "trajectory_of"]

#: From early to late: not among the colours of the loss, and lighter to darker in print.
_TIME = LinearSegmentedColormap.from_list("time", ["#FFFFFF", "#F5B58A", VERMILLION, "#5A2500"])
#: Areas of the marks (points²) of what lies in the slice and of what lies farthest from it.
_NEAR, _FAR = 16.0, 90.0
#: So many points of a trajectory have their names beside them.
_FEW = 6
#: Names closer than this part of the picture would run into each other.
_CLOSE = 0.09
#: Distances below this part of ‖w‖ are nothing but rounding.
_ROUNDING = 1e-6
#: Marks and letters that stand out from any colour.
OUTLINE = [withStroke(linewidth=2.2, foreground="white")]

Floats = NDArray[np.float64]
Align = Literal["left", "center", "right"]


@dataclass(frozen=True)
class Trajectory:
    """The p checkpoints of a training run, in its order.

    Attributes:
        at: (p,) their steps, or 1, 2, … where not all are known.
        words: what ``at`` is.
        names: (p,).
        coordinates: (p, axes) of their projections.
        distances: (p,) from the slice, in units of ‖w‖ (of the weights, if that is zero).
        losses, errors, slice_losses: (p,) each; NaN where not measured.
    """

    at: Floats
    words: str
    names: tuple[str, ...]
    coordinates: Floats
    distances: Floats
    losses: Floats
    errors: Floats
    slice_losses: Floats

    @property
    def colours(self) -> list[str]:
        """A colour for each: by step."""
        low, span = self.at.min(), np.ptp(self.at) or 1.0
        return [to_hex(_TIME(float((at - low) / span))) for at in self.at]

    @property
    def areas(self) -> Floats:
        """The size of each one's mark: by its distance from the slice."""
        known = np.nan_to_num(self.distances)
        farthest = float(known.max(initial=0.0))
        return _NEAR + (_FAR - _NEAR) * (known / farthest if farthest > _ROUNDING else 0 * known)


def trajectory_of(result: SliceResult) -> Trajectory | None:
    """The training run among the points; None without."""
    chosen = _chosen(result, "trajectory")
    if not len(chosen) or result.point_coordinates is None:
        return None
    steps = _column(result.point_steps, chosen)
    known = bool(np.isfinite(steps).all())
    order = np.argsort(steps, kind="stable") if known else np.arange(len(chosen))
    chosen = chosen[order]
    unit = result.weights_norm if math.isfinite(result.weights_norm) and result.weights_norm > 0 else 1.0
    return Trajectory(
        at=steps[order] if known else np.arange(1.0, len(chosen) + 1),
        words="Training step (or epoch)" if known else "Checkpoint, in the order given",
        names=tuple(_names(result, chosen)),
        coordinates=np.ma.filled(np.ma.asarray(result.point_coordinates, dtype=np.float64), np.nan)[chosen],
        distances=_column(result.point_distances, chosen) / unit,
        losses=_column(result.point_losses, chosen),
        errors=_column(result.point_errors, chosen),
        slice_losses=_column(result.point_slice_losses, chosen),
    )


def _chosen(result: SliceResult, role: str) -> NDArray[np.intp]:
    """The numbers of the points of a role."""
    roles = [] if result.point_roles is None else list(result.point_roles)
    return np.flatnonzero(np.array([found == role for found in roles], dtype=bool))


def _names(result: SliceResult, chosen: NDArray[np.intp]) -> list[str]:
    return ["" if result.point_names is None else name_of(result.point_names[i]) for i in chosen]


def _column(values: np.ndarray | None, chosen: NDArray[np.intp]) -> Floats:
    """A quantity of these points, NaN where it is not known."""
    if values is None:
        return np.full(len(chosen), np.nan)
    return np.ma.filled(np.ma.asarray(values, dtype=np.float64), np.nan)[chosen]


def draw_points(ax: Axes, result: SliceResult) -> None:
    """Draw both kinds into a plane whose limits are set; what lies outside is said in the legend."""
    taken: list[Floats] = []
    ends = _chosen(result, "end")
    if len(ends) and result.point_coordinates is not None:
        at = np.ma.filled(np.ma.asarray(result.point_coordinates, dtype=np.float64), np.nan)[ends]
        ax.plot(
            at[:, 0], at[:, 1], "D", color="white", markeredgecolor=BLACK, markersize=5.5, zorder=7,
            label="other end" if len(ends) == 1 else "other ends", linestyle="none",
        )  # fmt: skip
        for place, name in zip(at, _names(result, ends), strict=True):
            _name(ax, place, name, taken)
    run = trajectory_of(result)
    if run is not None:
        _draw_run(ax, run, taken)


def _draw_run(ax: Axes, run: Trajectory, taken: list[Floats]) -> None:
    x, y = run.coordinates[:, 0], run.coordinates[:, 1]
    ax.plot(x, y, "-", color="white", linewidth=2.2, zorder=5)
    ax.plot(x, y, "-", color=BLACK, linewidth=0.8, zorder=5.1)
    ax.scatter(
        x, y, s=run.areas, c=run.colours, edgecolors=BLACK, linewidths=0.7, zorder=6, gid="trajectory"
    )  # fmt: skip
    _in_legend(ax, run)
    if outside := sum(not _inside(ax, place) for place in run.coordinates):
        ax.plot([], [], " ", label=f"{outside} of {len(x)} checkpoints lie outside")
    if len(x) <= _FEW:
        for place, at, name in zip(run.coordinates, run.at, run.names, strict=True):
            _name(ax, place, f"{at:,.0f}" if run.words.startswith("Training") else name, taken)


def _in_legend(ax: Axes, run: Trajectory) -> None:
    """The first and the last, and the nearest and the farthest, as they are drawn."""
    when = "step" if run.words.startswith("Training") else "checkpoint"
    ends = [0, -1] if len(run.at) > 1 else [0]
    for i in ends:
        label = f"{'trajectory, ' if i == 0 else ''}{when} {run.at[i]:,.0f}"
        ax.plot([], [], "o-" if i == 0 else "o", color=BLACK, linewidth=0.8, markersize=5, label=label,
                markerfacecolor=run.colours[i], markeredgewidth=0.7)  # fmt: skip
    if float(np.nan_to_num(run.distances).max(initial=0.0)) <= _ROUNDING:
        return
    for i in dict.fromkeys((int(np.nanargmin(run.distances)), int(np.nanargmax(run.distances)))):
        handle = Line2D(
            [], [], linestyle="none", marker="o", markerfacecolor="white", markeredgecolor=BLACK,
            markeredgewidth=0.7, markersize=math.sqrt(run.areas[i]), label=_distance(run.distances[i]),
        )  # fmt: skip
        ax.add_line(handle)


def _distance(distance: float) -> str:
    return f"{shown(distance, 2)} ‖w‖ from the slice" if distance > _ROUNDING else "in the slice"


def _inside(ax: Axes, place: Floats) -> bool:
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    return bool(left <= place[0] <= right and low <= place[1] <= high)


def _name(ax: Axes, place: Floats, name: str, taken: list[Floats]) -> None:
    """A name beside its point, unless it would stand outside or on another one."""
    if not name or not _inside(ax, place):
        return
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    share = (place - [left, low]) / [right - left, high - low]
    if any(np.abs(share - other).max() < _CLOSE for other in taken):
        return
    taken.append(share)
    align: Align = "right" if share[0] > 0.7 else "left"
    label_point(ax, (float(place[0]), float(place[1])), name, align=align, below=bool(share[1] > 0.9))


def label_point(
    ax: Axes, place: tuple[float, float], name: str, *, align: Align = "left", below: bool = False
) -> None:
    """A short text at a point, with an outline; ``align`` is the side of the text that is at the point."""
    aside = {"left": 6, "center": 0, "right": -6}[align]
    ax.annotate(
        name, place, (aside, -5 if below else 5), textcoords="offset points", fontsize=7.5, ha=align,
        va="top" if below else "bottom", path_effects=OUTLINE, zorder=9,
    )  # fmt: skip
