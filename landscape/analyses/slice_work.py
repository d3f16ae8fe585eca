"""The work behind ``landscape slice``, step by step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from landscape.analyses import eigen
from landscape.analyses.base import Plan, Start, State
from landscape.analyses.slice import Settings
from landscape.analyses.slice_begin import DirectedWork
from landscape.analyses.slice_directions import eigen_settings, path_of, trajectory_paths
from landscape.analyses.work import itemsize
from landscape.errors import CheckpointError, ConfigurationError, LandscapeError
from landscape.files import printable
from landscape.machine import is_out_of_memory
from landscape.problem import Problem
from landscape.results import Result
from landscape.slices.batched import fastest_batch, rows
from landscape.slices.batchnorm import RecalibratedStatistics, has_statistics, interpolated
from landscape.slices.coordinates import coordinates
from landscape.slices.differences import second_difference
from landscape.slices.evaluate import Surface
from landscape.slices.others import read_other
from landscape.slices.refine import first, wanted
from landscape.slices.rise import find_range
from landscape.slices.workers import Threads, Workers

__all__ = ["SliceWork", "highest", "planned"]

#: The first step of an automatic range, in units of the weights' norm.
_STEP = 0.01
#: Relative rounding of a loss, in units of the arithmetic's.
_ROUNDING = 4.0

Task = tuple[int, tuple[int, ...]]


def planned(problem: Problem, settings: Settings) -> Plan:
    """Losses, in gradients (a loss is a third of one), and memory that a run takes."""
    counts = [
        len(coordinates(-1.0 if r.low is None else r.low, 1.0 if r.high is None else r.high, r.count or 2))
        for r in settings.ranges
    ]
    points, notes = math.prod(counts), tuple[str, ...]()
    each = (1 / 3 + settings.gradient_norm) * (1 if problem.test is None else 2)
    if settings.recalibrated and has_statistics(problem.model):
        each += 1 / 3
    products = at_most = 0
    if any(axis.name == "eigen" for axis in settings.axes):
        search = eigen.plan(problem, eigen_settings(problem, settings))
        products, at_most = search.products, search.at_most
        notes = ("a stored run of landscape eigen --eigenvectors saves the products",)
    others = len(trajectory_paths(settings)) if settings.trajectory else 0
    every = points / 8 if settings.refine else points
    return Plan(
        products=products,
        at_most=at_most,
        gradients=2 + 3 * products + each * (every + 2 * others),
        memory_bytes=problem.size * itemsize(problem) * (4 + 3 * len(counts)),
        notes=(f"{points} points", *notes),
    )


class SliceWork(DirectedWork):
    """One run of ``slice``: directions, ranges, the grid, other checkpoints, differences."""

    kept: tuple[str, ...] = (
        *("x", "y", "values", "known", "pending", "saved_values", "point_values"),
        *("differences", "difference_errors"),
    )

    def __init__(
        self, problem: Problem, settings: Settings, inputs: Mapping[str, Result], start: Start
    ) -> None:
        super().__init__(problem, settings, inputs, start)
        self._surface: Surface | None = None
        if problem.device.type == "cpu":  # what does not fit is said now, not when the grid begins
            Workers(settings.jobs, self._evaluate_row, problem.threads or 1)
        else:
            _devices(settings.jobs)

    def _phases(self) -> dict[str, Callable[[], Iterable[State]]]:
        return {
            "ranges": self._ranges,
            "grid": self._grid,
            "raw": self._raw,
            "points": self._points,
            "differences": self._differences,
        }

    # --- the surface -------------------------------------------------------------------------------------

    @property
    def surface(self) -> Surface:
        """Made when it is first needed, always in the same way."""
        if self._surface is None:
            self._surface = self._made_surface(self.problem)
            self.counters["channels"] = list(self._surface.channels)
            self.counters["centre"] = self._surface.centre.tolist()
            self.counters["method"] = self._surface.method
            self.counters["labels_of"] = {name: s.labels for name, s in self._surface.samples.items()}
        return self._surface

    def _made_surface(self, problem: Problem) -> Surface:
        recalibrated = self.settings.recalibrated and not problem.train_mode
        return Surface(
            problem,
            torch.from_numpy(np.array(self.fixed["directions"])).to(problem.device),
            self.strategy["micro_batch"],
            seed=self.seed,
            test=problem.test,
            gradient_norms=self.settings.gradient_norm,
            metrics=problem.metrics,
            recalibration=(
                RecalibratedStatistics(problem) if recalibrated and has_statistics(problem.model) else None
            ),
        )

    def _along(self, axis: int, steps: Sequence[float]) -> np.ndarray:
        """Losses along one axis through the centre."""
        self.counters["evaluations"] += len(steps)
        points = [[t if i == axis else 0.0 for i in range(len(self.axes))] for t in steps]
        return self.surface.row(points)[:, 0]

    def _ranges(self) -> Iterator[State]:
        """The coordinates of each axis."""
        centre = float(self.surface.centre[0])
        for i, (name, given) in enumerate(zip("xy", self.settings.ranges, strict=False)):
            if name in self.extra:
                continue
            low, high = given.low, given.high
            if self._spans_ends and not self.settings.range:
                low, high = _around(self._located_at(i, "end"), 0.25)
            elif low is None or high is None:
                low, high = self._found_range(i, centre)
            assert given.count is not None
            if max(abs(low), abs(high)) > torch.finfo(self.problem.dtype).max:
                raise ConfigurationError(
                    "the --range is too wide for the arithmetic", found=f"{low:g}:{high:g}", do="narrow it"
                )
            self.extra[name] = coordinates(low, high, given.count, self._marks(i))
            yield self._state("looking for ranges")
        shape = tuple(len(one) for one in self._coordinates)
        self.extra["known"] = np.zeros(shape, bool)
        self.extra["pending"] = self._begun() if self.settings.refine else np.ones(shape, bool)
        self.extra["values"] = np.full((*shape, len(self.surface.channels)), np.nan)

    def _begun(self) -> np.ndarray:
        """The coarse points, with the end of an interpolation."""
        found = first(self._coordinates)
        if [axis.name for axis in self.axes] == ["to"]:
            found |= self.extra["x"] == 1
        return found

    @property
    def _spans_ends(self) -> bool:
        """Whether the slice is a plane of other checkpoints, which made orthogonal lie anywhere on it."""
        return len(self.axes) == 2 and any(axis.name == "to" for axis in self.axes)

    def _located_at(self, axis: int, role: str) -> np.ndarray:
        """The coordinates of other checkpoints along an axis."""
        chosen = np.array([point["role"] == role for point in self.counters["points"]], bool)
        found: np.ndarray = self.extra["point_coordinates"][chosen, axis]
        return found

    def _marks(self, axis: int) -> tuple[float, ...]:
        """Coordinates that are on the grid wherever the range holds them: the centre's and those of ends."""
        if not any(one.name == "to" for one in self.axes):
            return (0.0,)
        if len(self.axes) == 1:
            return (0.0, 1.0)
        # Projected, they are 0 and 1 but for the rounding of the weights.
        return tuple(dict.fromkeys((0.0, *(round(float(c), 6) for c in self._located_at(axis, "end")))))

    def _found_range(self, axis: int, centre: float) -> tuple[float, float]:
        """As far as the loss rises; for a trajectory's directions, as far as that goes."""
        if self.axes[axis].name == "pca":
            return _around(self._located_at(axis, "trajectory"), 0.2)
        length = self.counters["direction_norms"][axis]
        unit = _STEP * (self.counters["weights_norm"] or 1.0) / length
        low, high, _ = find_range(lambda t: self._along(axis, t), centre, self.settings.rise, unit)
        return low, high

    @property
    def _coordinates(self) -> tuple[np.ndarray, ...]:
        return tuple(self.extra[name] for name in "xy" if name in self.extra)

    def _grid(self) -> Iterator[State]:
        """All points that are wanted, row by row; when refining, again until no more are."""
        values, known = self.extra["values"], self.extra["known"]
        with self.problem.arithmetic(), self._workers() as workers:
            while True:
                for task, found in workers.map(self._tasks()):
                    row, columns = task
                    where = (row, list(columns)) if len(self._coordinates) == 2 else (list(columns),)
                    values[where] = found
                    known[where] = True
                    # The centre is known already.
                    self.counters["evaluations"] += sum(any(point) for point in self._points_of(task))
                    yield self._state("evaluating", keep=True)
                if not self.settings.refine:
                    break
                self.extra["pending"] = pending = wanted(
                    self._coordinates, values[..., 0], values[..., 1], known
                )
                if not pending.any():
                    break

    def _tasks(self) -> Iterator[Task]:
        """The points still wanted, a row of the plane or a point (or a batch) of the line at a time."""
        missing = self.extra["pending"] & ~self.extra["known"]
        if missing.ndim == 1:
            points, size = np.flatnonzero(self.extra["pending"]), int(self.strategy["points_at_once"])
            for chunk in (points[i : i + size] for i in range(0, len(points), size)):
                if missing[chunk].any():  # the same batches, also on resumption
                    yield 0, tuple(int(j) for j in chunk)
            return
        for row in np.flatnonzero(missing.any(1)):
            yield int(row), tuple(int(j) for j in np.flatnonzero(missing[row]))

    def _points_of(self, task: Task) -> list[tuple[float, ...]]:
        """The coordinates of a task's points."""
        row, columns = task
        if len(self._coordinates) == 1:
            return [(float(self.extra["x"][j]),) for j in columns]
        x, y = self._coordinates
        return [(float(x[row]), float(y[j])) for j in columns]

    def _evaluate_row(self, task: Task, surface: Surface | None = None) -> np.ndarray:
        batch = int(self.strategy["points_at_once"])
        return rows(surface or self.surface, self._points_of(task), batch)

    def _workers(self) -> Workers[Task] | Threads[Task]:
        """The processes that share the grid; threads stay as they began, for roundings depend on them."""
        assert self.surface  # made before the processes are
        if "points_at_once" not in self.strategy:
            self.strategy["points_at_once"] = fastest_batch(self.surface)
        jobs = self.settings.jobs
        if jobs > 1 and self.problem.device.type == "cuda":
            return Threads([self._on(device) for device in _devices(jobs)])
        jobs = min(jobs, len(self._coordinates[0]))  # a row or a point is one worker's
        own = torch.get_num_threads() if self.settings.jobs == 1 else self.problem.threads or 1
        threads = int(self.strategy.setdefault("grid_threads", own))
        return Workers(jobs if threads == 1 else 1, self._evaluate_row, threads)

    def _on(self, device: torch.device) -> Callable[[Task], np.ndarray]:
        """Evaluates rows on a device of its own."""
        surface = self._made_surface(self.problem.on_device(device))
        return lambda task: self._evaluate_row(task, surface)

    # --- beside the grid ---------------------------------------------------------------------------------

    @property
    def _between(self) -> np.ndarray:
        """The evaluated points of an interpolation between both ends: beyond, variances may be negative."""
        x = self.extra["x"]
        found: np.ndarray = self.extra["known"] & (x >= 0) & (x <= 1)
        return found

    def _raw(self) -> Iterator[State]:
        """An interpolation again with the running statistics interpolated, and the barriers of both."""
        if [axis.name for axis in self.axes] != ["to"]:
            return
        known = self.extra["known"]
        x, values = self.extra["x"][known], self.extra["values"][known, 0]
        if self._interpolates:
            rest = read_other(self.problem, path_of(self.axes[0])).rest
            raw = self.extra.setdefault("saved_values", np.full(len(known), np.nan))
            columns = np.flatnonzero(self._between)
            for i in columns[int(self.counters.setdefault("raw", 0)) :]:
                t = float(self.extra["x"][i])
                raw[i] = self.surface.row_with((t,), interpolated(self.problem.model, rest, t))[0]
                self.counters["raw"] += 1
                self.counters["evaluations"] += 1
                yield self._state("with interpolated statistics", keep=True)
        if (at := highest(x, values)) is not None:
            found, error = self.surface.contrast([(at,), (0.0,), (1.0,)], [1.0, at - 1.0, -at])
            self.counters |= {"barrier": found, "barrier_error": error, "barrier_at": at}
            self.counters["evaluations"] += 3

    def _points(self) -> Iterator[State]:
        """The other checkpoints: each at its own weights, and the slice where it is projected to."""
        listed = self.counters["points"]
        if not listed:
            return
        count, width = len(listed), len(self.surface.channels)
        values = self.extra.setdefault("point_values", np.full((count, width), np.nan))
        slices = self.extra["point_slices"]
        for k in range(int(self.counters.setdefault("points_done", 0)), count):
            other = read_other(self.problem, Path(listed[k]["path"]))
            if other.reference.sha256 != listed[k]["sha256"]:
                raise CheckpointError(
                    f"{printable(listed[k]['path'])} has changed since this run began", do="use --fresh"
                )
            values[k] = self.surface.at_weights(other.weights, other.rest)
            slices[k] = self.surface.row([self.extra["point_coordinates"][k].tolist()])[0, 0]
            self.counters["points_done"] = k + 1
            self.counters["evaluations"] += 2
            yield self._state("other checkpoints", keep=True)

    def _differences(self) -> Iterable[State]:
        """The second derivative along eigenvectors from the loss itself, in float64 where that works."""
        curvatures = self.counters["curvatures"]
        if not any(math.isfinite(c) for c in curvatures):
            return ()
        surface, rounding = self._precise()
        found = np.full((len(curvatures), 2), np.nan)
        for i, curvature in enumerate(curvatures):
            if not math.isfinite(curvature):
                continue

            def along(steps: Sequence[float], axis: int = i) -> np.ndarray:
                self.counters["evaluations"] += len(steps)
                points = [[t if j == axis else 0.0 for j in range(len(self.axes))] for t in steps]
                return surface.row(points)[:, 0]

            step = _STEP * (self.counters["weights_norm"] or 1.0) / self.counters["direction_norms"][i]
            difference = second_difference(along, float(surface.centre[0]), curvature, step, rounding)
            found[i] = difference.value, difference.error
        self.extra["differences"], self.extra["difference_errors"] = found.T.copy()
        return ()

    def _precise(self) -> tuple[Surface, float]:
        """The surface in float64 if the model runs in it, and the relative rounding of its losses."""
        twin = self.problem.in_dtype(torch.float64)
        if twin is not self.problem:
            try:
                rows = torch.from_numpy(np.array(self.fixed["directions"])).to(twin.device, twin.dtype)
                surface = Surface(twin, rows, self.strategy["micro_batch"], seed=self.seed)
                return surface, _ROUNDING * torch.finfo(torch.float64).eps
            except (RuntimeError, TypeError, ValueError, LandscapeError) as error:
                if is_out_of_memory(error):
                    raise
        return self.surface, _ROUNDING * torch.finfo(self.problem.dtype).eps


def _around(values: np.ndarray, margin: float) -> tuple[float, float]:
    """A range that holds zero and all values, and so much of its length more on both sides."""
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    more = margin * (high - low)
    return low - more, high + more


def _devices(jobs: int) -> list[torch.device]:
    """A GPU for each job.

    Raises:
        ConfigurationError: there are fewer.
    """
    count = torch.cuda.device_count()
    if jobs > count:
        raise ConfigurationError(
            "on GPUs there is one job for each",
            found=f"--jobs {jobs}, {count} GPUs",
            do=f"use --jobs {count}",
        )
    return [torch.device("cuda", i) for i in range(jobs)]


def highest(x: np.ndarray, loss: np.ndarray) -> float | None:
    """Where from 0 to 1 the loss is farthest above the straight line between both ends; None if unknown."""
    inside = (x >= 0) & (x <= 1)
    t, values = x[inside], loss[inside]
    if len(t) < 2 or not np.isfinite(values).all() or t[0] != 0 or t[-1] != 1:
        return None
    above = values - (1 - t) * values[0] - t * values[-1]
    return float(t[int(np.argmax(above))])
