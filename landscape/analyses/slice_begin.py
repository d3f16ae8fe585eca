"""How the work of a slice begins: the loss measured, directions made, other checkpoints located."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landscape.analyses import eigen
from landscape.analyses.base import Saved, Start, State
from landscape.analyses.slice import Settings
from landscape.analyses.slice_directions import (
    directions,
    eigen_settings,
    metric_values,
    path_of,
    trajectory_paths,
)
from landscape.analyses.work import Work
from landscape.errors import ConfigurationError
from landscape.files import printable
from landscape.linalg.operator import norm
from landscape.problem import Evaluation, Problem
from landscape.results import EigenResult, Result
from landscape.slices.batchnorm import has_statistics
from landscape.slices.others import read_other
from landscape.slices.pieces import forward_pieces
from landscape.slices.trajectory import Projection, principal, project

__all__ = ["DirectedWork"]

#: Names of arrays of the search for eigenvectors begin so in a saved state.
_SEARCH = "search_"


class DirectedWork(Work):
    """The directions of a slice; what is done along them is a subclass's.

    Attributes:
        axes: what was chosen for each axis.
        fixed: the directions (axes, n), once they are made.
    """

    kept: tuple[str, ...] = ("gradient", "point_coordinates", "point_distances", "point_slices")

    def __init__(
        self, problem: Problem, settings: Settings, inputs: Mapping[str, Result], start: Start
    ) -> None:
        self.settings, self._inputs, self._start = settings, inputs, start
        self.axes = settings.axes
        self.fixed: dict[str, np.ndarray] = {} if start.saved is None else dict(start.saved.fixed)
        if settings.batchnorm == "recalibrated" and problem.train_mode:
            raise ConfigurationError(
                "in train mode each batch has its own statistics: there is nothing to recalibrate",
                found="--train-mode --batchnorm recalibrated",
                do="leave one of them out",
            )
        metric_values(problem)
        super().__init__(problem, start)
        self._search = _taken_up(start.saved)
        self.counters.pop("search", None)
        if start.saved is None:
            self.counters |= {"phase": "directions", "evaluations": 0}
            self.counters["weights_norm"] = norm(problem.selection.flat().double())
            self.extra["gradient"] = self._gradient.cpu().numpy()

    def evaluate(self) -> Evaluation:
        """Loss and gradient, which is kept; in pieces as they are best for the many losses that follow."""
        if not self.strategy:
            points = math.prod(one.count or 1 for one in self.settings.ranges)
            self.strategy = forward_pieces(self.problem, points).to_json()
        found = super().evaluate()
        self._gradient = found.gradient
        return found

    # --- the phases --------------------------------------------------------------------------------------

    @abstractmethod
    def _phases(self) -> dict[str, Callable[[], Iterable[State]]]:
        """What is done once the directions are made, by name, in order."""

    def run(self) -> Iterator[State]:
        """All phases that are not over yet; after each of their steps a state."""
        phases = {"directions": self._directions, **self._phases()}
        names = [*phases, "over"]
        yield self._state("measuring")
        while (name := self.counters["phase"]) != "over":
            yield from phases[name]()
            self.counters["phase"] = names[names.index(name) + 1]
            yield self._state(f"{name} done")
        yield self._state("done", over=True)

    @property
    def _interpolates(self) -> bool:
        """Whether there are running statistics to interpolate beside recalibrated ones."""
        return (
            [axis.name for axis in self.axes] == ["to"]
            and self.settings.recalibrated
            and not self.problem.train_mode
            and has_statistics(self.problem.model)
        )

    def _state(self, text: str, over: bool = False, keep: bool = False) -> State:
        c, known = self.counters, self.extra.get("known")
        c["done"], total = 0, None
        if known is not None:
            c["done"] = int(known.sum()) + int(c.get("raw", 0)) + int(c.get("points_done", 0))
            wanted = known | self.extra["pending"]
            total = int(wanted.sum()) + len(c["points"])
            if self._interpolates:
                x = self.extra["x"]
                total += int((wanted & (x >= 0) & (x <= 1)).sum())
        return replace(self.state(text, self._save, done=c["done"], total=total, over=over), keep=keep)

    def _save(self) -> Saved:
        arrays, counters = {name: array.copy() for name, array in self.extra.items()}, dict(self.counters)
        if self._search is not None:
            inner = self._search()
            arrays |= {_SEARCH + name: array for name, array in inner.arrays.items()}
            counters["search"] = inner.counters
        return Saved(arrays, counters, dict(self.fixed))

    # --- directions --------------------------------------------------------------------------------------

    def _directions(self) -> Iterator[State]:
        """Make the directions, and what is known of them."""
        found: EigenResult | None = None
        if any(axis.name == "eigen" for axis in self.axes):
            found = yield from self._pairs()
        gradient = torch.from_numpy(np.array(self.extra["gradient"])).to(self.problem.device)
        made = directions(
            self.problem, self.settings, gradient, self.seed, found, self._principal(), self._start.vectors
        )
        vectors = made.vectors.double()
        self.fixed["directions"] = made.vectors.cpu().numpy()
        self.counters |= {
            "labels": list(made.labels),
            "angle": made.angle,
            "curvatures": list(made.curvatures),
            "curvature_errors": list(made.errors),
            "direction_norms": torch.linalg.vector_norm(vectors, dim=1).tolist(),
            "slopes": (vectors @ gradient.double()).tolist(),
        }
        self._locate()
        self.extra.pop("gradient")

    def _pairs(self) -> Generator[State, None, EigenResult]:
        """The eigenvectors, from a stored run or by ``eigen``'s own search, whose states are part of ours."""
        stored = self._inputs.get("eigen")
        if isinstance(stored, EigenResult) and self._search is None:
            return stored
        settings = eigen_settings(self.problem, self.settings)
        saved = None if self._search is None else self._search()
        strategy = None if saved is None else dict(self.strategy)
        for state in eigen.steps(self.problem, settings, {}, Start(self.seed, saved, strategy)):
            self.strategy |= state.strategy
            self._search = state.save
            self.counters["done"] = state.done
            text = f"eigenvectors: {state.text}"
            yield self.state(text, self._save, done=state.done, total=state.total)
        self._search = None
        return eigen.finish(self.problem, settings, state.save())

    def _principal(self) -> Tensor | None:
        """The principal directions of the trajectory, if an axis is one."""
        numbers = [axis.number or 1 for axis in self.axes if axis.name == "pca"]
        if not numbers:
            return None
        paths = trajectory_paths(self.settings)
        found = principal(
            lambda i: read_other(self.problem, paths[i]).weights,
            len(paths),
            self.problem.selection.flat(),
            numbers,
            self.problem.memory // 4,
            lambda i: printable(paths[i]),
        )
        return found.directions

    def _locate(self) -> None:
        """Where other checkpoints lie: ends of interpolations, and the trajectory."""
        ends = [path_of(axis) for axis in self.axes if axis.name == "to"]
        run = trajectory_paths(self.settings) if self.settings.trajectory else []
        self.counters |= {"points": [], "explained": None}
        found = [self._located(paths, role) for paths, role in ((ends, "end"), (run, "trajectory")) if paths]
        if run:
            self.counters["explained"] = found[-1].shares.tolist()
        if found:
            self.extra["point_coordinates"] = np.concatenate([one.coordinates for one in found])
            self.extra["point_distances"] = np.concatenate([one.distances for one in found])
            self.extra["point_slices"] = np.full(len(self.counters["points"]), np.nan)

    def _located(self, paths: Sequence[Path], role: str) -> Projection:
        """Project checkpoints, and note which they are."""
        listed: list[dict[str, Any]] = [{} for _ in paths]

        def load(i: int) -> Tensor:
            other = read_other(self.problem, paths[i])
            known, step = other.reference, other.reference.step
            step = known.epoch if step is None else step
            listed[i] = {"path": str(paths[i]), "role": role, "sha256": known.sha256, "step": step}
            return other.weights

        rows = torch.from_numpy(np.array(self.fixed["directions"])).to(self.problem.device)
        centre = self.problem.selection.flat()
        found = project(load, len(paths), centre, rows, lambda i: printable(paths[i]))
        self.counters["points"] += listed
        return found


def _taken_up(saved: Saved | None) -> Callable[[], Saved] | None:
    """The state of the search for eigenvectors within a saved one."""
    if saved is None or "search" not in saved.counters:
        return None
    arrays = {
        name.removeprefix(_SEARCH): array for name, array in saved.arrays.items() if name.startswith(_SEARCH)
    }
    inner = Saved(arrays, dict(saved.counters["search"]))
    return lambda: inner
