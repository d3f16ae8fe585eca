"""From the state of a slice to its result, whatever was reached."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from landscape.analyses.base import Saved
from landscape.analyses.slice import Settings
from landscape.analyses.slice_work import highest
from landscape.analyses.work import problem_fields
from landscape.files import short_names
from landscape.problem import Problem
from landscape.results import SliceResult
from landscape.slices.batchnorm import STATISTICAL_BATCH, has_statistics
from landscape.slices.differences import Difference, disagrees
from landscape.slices.refine import filled
from landscape.slices.sample import error_of

__all__ = ["slice_result"]


def slice_result(problem: Problem, settings: Settings, saved: Saved) -> SliceResult:
    """The result of a saved state, of as much as was reached."""
    saved = _with_grid(problem, settings, saved)
    c, a = saved.counters, saved.arrays
    common = problem_fields(problem, saved)
    gradient_norm, own_loss = common.pop("gradient_norm"), common.pop("loss")
    grid = _Grid(settings, saved)
    centre = dict(zip(c["channels"], c["centre"], strict=True))
    norms = np.array(c["direction_norms"])
    plane = "y" in a
    over = c["phase"] == "over"
    test = problem.test is not None
    return SliceResult(
        **common,
        status="complete" if over else "partial",
        x=a["x"],
        y=a.get("y"),
        loss=grid["loss"],
        standard_errors=grid["error"],
        errors_method=c["method"],
        evaluated=a["known"].copy(),
        interpolation_errors=grid.errors,
        accuracies=grid.get("accuracy"),
        accuracy_errors=_share_errors(grid.get("accuracy"), c["labels_of"].get("", 0)),
        gradient_norms=grid.get("gradient_norm"),
        **_metrics(list(problem.metrics), grid),
        evaluations=int(c["evaluations"]) + 1,
        seconds=float(c["seconds"]),
        centre_loss=centre["loss"],
        centre_error=centre["error"],
        gradient_norm=gradient_norm,
        own_loss=own_loss,
        weights_norm=c["weights_norm"],
        test_examples=problem.test.examples if problem.test is not None else None,
        test_centre_loss=centre.get("test_loss"),
        test_centre_error=centre.get("test_error"),
        test_accuracy=centre.get("test_accuracy"),
        test_loss=grid.get("test_loss") if test else None,
        test_standard_errors=grid.get("test_error") if test else None,
        test_accuracies=grid.get("test_accuracy") if test else None,
        test_accuracy_errors=_share_errors(grid.get("test_accuracy"), c["labels_of"].get("test_", 0)),
        axes=np.array(c["labels"], dtype=object),
        along=np.array([axis.name for axis in settings.axes], dtype=object),
        direction_norms=norms,
        relative_norms=norms / (c["weights_norm"] or math.nan),
        angle=c["angle"],
        orthogonal=plane and settings.orthogonalize,
        slopes=np.array(c["slopes"]),
        **_curvatures(saved),
        batchnorm=_batchnorm(problem, settings),
        recalibration_batch=(
            min(STATISTICAL_BATCH, problem.examples)
            if _batchnorm(problem, settings) == "recalibrated"
            else None
        ),
        **_barriers(saved),
        **_points(problem, saved),
        directions=saved.fixed.get("directions"),
    )


def _with_grid(problem: Problem, settings: Settings, saved: Saved) -> Saved:
    """The state; with an empty grid and unknown directions where it was stopped before they were there."""
    if "values" in saved.arrays:
        return saved
    count = len(settings.axes)
    unknown, channels = [math.nan] * count, ["loss", "error"]
    channels += [channel for name in problem.metrics for channel in (name, error_of(name))]
    counters = {
        "labels": [axis.text for axis in settings.axes],
        "angle": None,
        "curvatures": unknown,
        "curvature_errors": unknown,
        "direction_norms": unknown,
        "slopes": unknown,
        "channels": channels,
        "centre": [math.nan] * len(channels),
        "method": "not computed: stopped before the first point",
        "labels_of": {},
        **saved.counters,
    }
    shape = (0,) * count
    arrays = {
        **saved.arrays,
        **dict.fromkeys("xy"[:count], np.zeros(0)),
        "values": np.zeros((*shape, len(counters["channels"]))),
        "known": np.zeros(shape, bool),
        "pending": np.zeros(shape, bool),
    }
    return Saved(arrays, counters, saved.fixed)


def _metrics(names: list[str], grid: _Grid) -> dict[str, Any]:
    """The user's own figures, if there are any."""
    if not names:
        return {}
    return {
        "metric_names": np.array(names, dtype=object),
        "metrics": np.ma.stack([grid[name] for name in names]),
        "metric_errors": np.ma.stack([grid[error_of(name)] for name in names]),
    }


def _share_errors(shares: np.ndarray | None, count: int) -> np.ndarray | None:
    """Standard error of a share of so many labels, √(p(1 − p)/(n − 1))."""
    if shares is None or count < 2:
        return None
    found: np.ndarray = np.sqrt(shares * (1 - shares) / (count - 1))
    return found


class _Grid:
    """The channels of the grid by name: masked where nothing was reached, interpolated where asked for."""

    def __init__(self, settings: Settings, saved: Saved) -> None:
        a = saved.arrays
        values, known = a["values"], a["known"]
        self.errors: np.ndarray | None = None
        reached = known
        if settings.refine and known.any():
            coordinates = tuple(a[name] for name in "xy" if name in a)
            finished = not (a["pending"] & ~known).any()
            if finished:
                values, self.errors = filled(coordinates, values, known)
                reached = np.ones_like(known)
        self._values, self._reached = values, reached
        self._names = list(saved.counters["channels"])

    def __getitem__(self, name: str) -> np.ndarray:
        """One channel; a masked array only if something is missing."""
        found = self._values[..., self._names.index(name)].copy()
        return found if self._reached.all() else np.ma.MaskedArray(found, mask=~self._reached)

    def get(self, name: str) -> np.ndarray | None:
        return self[name] if name in self._names else None


def _batchnorm(problem: Problem, settings: Settings) -> str:
    if not has_statistics(problem.model):
        return "none"
    if problem.train_mode:
        return "batch"
    return "recalibrated" if settings.recalibrated else "saved"


def _curvatures(saved: Saved) -> dict[str, Any]:
    """What is known of second derivatives, if any axis is an eigenvector."""
    c, a = saved.counters, saved.arrays
    curvatures = np.array(c["curvatures"])
    if not np.isfinite(curvatures).any():
        return {}
    absent = np.isnan(curvatures)
    found: dict[str, Any] = {
        "curvatures": np.ma.MaskedArray(curvatures, mask=absent),
        "curvature_errors": np.ma.MaskedArray(np.array(c["curvature_errors"]), mask=absent),
    }
    for name in ("differences", "difference_errors"):
        if name in a:
            found[name] = np.ma.MaskedArray(a[name].copy(), mask=absent)
    if "differences" in a:
        pairs = zip(a["differences"], a["difference_errors"], strict=True)
        known = zip(curvatures, c["curvature_errors"], pairs, strict=True)
        found["disagreeing"] = np.array(
            [
                bool(math.isfinite(value) and disagrees(value, error, Difference(*pair)))
                for value, error, pair in known
            ]
        )
    return found


def _barriers(saved: Saved) -> dict[str, Any]:
    c, a = saved.counters, saved.arrays
    found: dict[str, Any] = {
        name: c[name] for name in ("barrier", "barrier_error", "barrier_at") if name in c
    }
    if "saved_values" in a:
        wanted = a["known"] & (a["x"] >= 0) & (a["x"] <= 1)
        reached = wanted.copy()
        reached[np.flatnonzero(reached)[int(c["raw"]) :]] = False
        raw = a["saved_values"].copy()
        found["saved_loss"] = np.ma.MaskedArray(raw, mask=~reached)
        x, raw = a["x"][reached], raw[reached]
        if reached.sum() == wanted.sum() and (at := highest(x, raw)) is not None:
            ends = raw[x == 0][0], raw[x == 1][0]
            found["saved_barrier"] = float(raw[x == at][0] - (1 - at) * ends[0] - at * ends[1])
    return found


def _points(problem: Problem, saved: Saved) -> dict[str, Any]:
    """The other checkpoints, if there are any."""
    c, a = saved.counters, saved.arrays
    listed = c.get("points")
    if not listed:
        return {}
    done = np.arange(len(listed)) < int(c.get("points_done", 0))
    values = a.get("point_values", np.full((len(listed), 2), np.nan))
    steps = [point["step"] for point in listed]
    own = [problem.checkpoint.path] if problem.checkpoint else []
    names = short_names([*own, *(point["path"] for point in listed)])[len(own) :]
    found: dict[str, Any] = {
        "point_names": np.array(names, dtype=object),
        "point_steps": np.ma.MaskedArray(
            [0 if step is None else step for step in steps],
            mask=[step is None for step in steps],
            dtype=np.int64,
        ),
        "point_roles": np.array([point["role"] for point in listed], dtype=object),
        "point_coordinates": a["point_coordinates"],
        "point_distances": a["point_distances"],
        "point_losses": np.ma.MaskedArray(values[:, 0].copy(), mask=~done),
        "point_errors": np.ma.MaskedArray(values[:, 1].copy(), mask=~done),
        "point_slice_losses": np.ma.MaskedArray(a["point_slices"].copy(), mask=~done),
    }
    if c.get("explained") is not None:
        found["explained_variance"] = np.array(c["explained"])
    return found
