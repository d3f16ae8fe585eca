"""From what an axis is called to a direction: computed, read from files, or taken from a stored run."""

from __future__ import annotations

import glob
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from landscape.analyses import eigen
from landscape.analyses.base import Start, State
from landscape.analyses.inputs import same_matrix
from landscape.analyses.matrix import MatrixSettings
from landscape.analyses.slice import Settings
from landscape.checkpoint import inspect_checkpoint
from landscape.errors import ComputationError, ConfigurationError
from landscape.files import natural_order, printable
from landscape.problem import Problem
from landscape.results import EigenResult, Result
from landscape.sam.perturbation import Perturbation
from landscape.slices.axes import AxisChoice
from landscape.slices.directions import angle_between, orthogonalised, random_direction
from landscape.slices.others import read_other

__all__ = ["Directions", "EigenSearch", "contents", "directions", "holds_pairs", "trajectory_paths"]

_CRITICAL = "the gradient is zero there: choose another direction"
_NORMALIZED = {"filter": "filter normalised", "layer": "layer normalised", "none": "as drawn"}


@dataclass(frozen=True)
class Directions:
    """The directions of a slice and what is known of them.

    Attributes:
        vectors: (axes, n), in the problem's dtype.
        labels: what each one is, in words.
        angle: between them before they were made orthogonal, in degrees; None of a line.
        curvatures, errors: eigenvalues and half the width of their intervals, NaN where they are no
            eigenvectors.
    """

    vectors: Tensor
    labels: tuple[str, ...]
    angle: float | None
    curvatures: tuple[float, ...]
    errors: tuple[float, ...]


def is_stored(axis: AxisChoice) -> bool:
    """Whether the direction is one that an earlier run stored: a file of vectors, or the hash of one."""
    return axis.name == "saved" and Path(axis.file).suffix in ("", ".h5")


def contents(problem: Problem, settings: Settings) -> Any:
    """The files that settings name, by content, and what the slice shows beside the loss."""
    found: dict[str, Any] = {"beside": list(problem.metrics)}
    if problem.test is not None:
        found["test"] = problem.test.data.fingerprint
    for axis in settings.axes:
        if axis.name == "to":
            found[axis.text] = inspect_checkpoint(Path(axis.file)).sha256
        elif axis.name == "saved":
            path = Path(axis.file)
            found[axis.text] = path.stem[-16:] if is_stored(axis) else inspect_checkpoint(path).sha256
    if settings.trajectory:
        found["trajectory"] = [inspect_checkpoint(path).sha256 for path in trajectory_paths(settings)]
    return found


def trajectory_paths(settings: Settings) -> list[Path]:
    """The files of ``--trajectory``, those of a pattern with the numbers in their names in numeric order.

    Raises:
        ConfigurationError: a pattern that no file matches.
    """
    found: list[Path] = []
    for text in settings.trajectory:
        pattern = str(Path(text).expanduser())
        matches = [Path(pattern)] if Path(pattern).is_file() else [Path(p) for p in glob.glob(pattern)]
        files = sorted((path for path in matches if path.is_file()), key=natural_order)
        if not files:
            raise ConfigurationError(
                "no file matches --trajectory",
                found=printable(text),
                do="put a pattern in quotes: --trajectory 'runs/*.pt'",
            )
        found += files
    return list(dict.fromkeys(found))


def _index(number: int, result: EigenResult) -> int | None:
    """Where the pair of that number stands in a result; None if it is not in it."""
    which = result.which
    count = len(result.eigenvalues) // (2 if which == "both" else 1)
    if len(result.eigenvalues) == result.parameters:  # all there are
        count, which = result.parameters, "both"
    if which not in (("largest", "both") if number > 0 else ("smallest", "both")) or abs(number) > count:
        return None
    return number - 1 if number > 0 else len(result.eigenvalues) + number


def holds_pairs(settings: Settings, result: Result) -> bool:
    """Whether an eigen run of the Hessian holds all the eigenvectors that are asked for, converged."""
    if not isinstance(result, EigenResult) or not same_matrix(MatrixSettings(), result):
        return False
    wanted = [_index(axis.number or 1, result) for axis in settings.axes if axis.name == "eigen"]
    return result.eigenvectors is not None and all(i is not None and result.converged[i] for i in wanted)


class EigenSearch:
    """The eigenvectors that a slice needs and no stored run holds, by ``eigen``'s own search.

    Attributes:
        results: what was found, by the end of the spectrum.
        saved: where the search under way stands, to go on from.
    """

    def __init__(self, problem: Problem, settings: Settings, seed: int) -> None:
        numbers = [axis.number or 1 for axis in settings.axes if axis.name == "eigen"]
        ends: list[tuple[Literal["largest", "smallest"], list[int]]] = [
            ("largest", [n for n in numbers if n > 0]),
            ("smallest", [-n for n in numbers if n < 0]),
        ]
        self._wanted = [(end, max(given)) for end, given in ends if given]
        self._problem, self._seed = problem, seed
        self.results: list[EigenResult] = []

    def run(self, strategy: Mapping[str, Any] | None = None) -> Iterator[State]:
        """The steps of the search, as ``eigen`` makes them."""
        for end, k in self._wanted:
            own = eigen.Settings(
                k=min(k, self._problem.size), which=end, eigenvectors=True, standard_errors=False
            )
            state: State | None = None
            for state in eigen.steps(self._problem, own, {}, Start(self._seed)):
                if not state.over:
                    yield state
            assert state is not None
            self.results.append(eigen.finish(self._problem, own, state.save()))


def directions(
    problem: Problem,
    settings: Settings,
    gradient: Tensor,
    seed: int,
    eigen_results: Sequence[EigenResult],
    principal_vectors: Tensor | None,
    stored: Mapping[str, np.ndarray],
) -> Directions:
    """The directions of a slice, the second made orthogonal to the first unless settings say otherwise.

    Args:
        gradient: (n,) at the weights, float64.
        eigen_results: that hold what ``eigen`` axes need.
        principal_vectors: (k, n) of the trajectory, if ``pca`` axes need them.
        stored: rows (k, n) of ``saved`` axes, by the text of the file.

    Raises:
        LandscapeError: files that cannot be read or do not fit, a direction of length zero or that is not
            finite, two directions on one line.
    """
    maker = _Maker(problem, settings, gradient, seed, eigen_results, principal_vectors, stored)
    made = [maker.make(axis) for axis in settings.axes]
    for axis, one in zip(settings.axes, made, strict=True):
        length = float(torch.linalg.vector_norm(one.vector.double()))
        if not (0 < length < math.inf):
            raise ComputationError(
                f"--along {printable(axis.text)} is no direction",
                found=f"its length is {length:g}",
                do=one.why or "choose another direction",
            )
    vectors = [one.vector for one in made]
    angle = angle_between(*vectors) if len(vectors) == 2 else None
    if len(vectors) == 2:
        orthogonal = orthogonalised(*vectors)
        vectors = [vectors[0], orthogonal if settings.orthogonalize else vectors[1]]
    return Directions(
        torch.stack(vectors),
        tuple(one.label for one in made),
        angle,
        tuple(one.curvature for one in made),
        tuple(one.error for one in made),
    )


@dataclass(frozen=True)
class _Made:
    """A direction (n,), in words, its curvature if it is an eigenvector; ``why`` it may have no length."""

    vector: Tensor
    label: str
    curvature: float = math.nan
    error: float = math.nan
    why: str = ""


@dataclass(frozen=True)
class _Maker:
    """Makes one direction after the other."""

    problem: Problem
    settings: Settings
    gradient: Tensor
    seed: int
    eigen_results: Sequence[EigenResult]
    principal_vectors: Tensor | None
    stored: Mapping[str, np.ndarray]

    def make(self, axis: AxisChoice) -> _Made:
        """The direction of an axis."""
        made: _Made = getattr(self, f"_{axis.name}")(axis, axis.number or 1)
        return made

    @property
    def _weights(self) -> Tensor:
        return self.problem.selection.flat()

    def _random(self, axis: AxisChoice, number: int) -> _Made:
        settings, selection = self.settings, self.problem.selection
        keep = settings.biases == "keep"
        vector = random_direction(
            self._weights, selection.layout, settings.normalize, biases=keep, seed=self.seed, number=number
        )
        why = "weights of zero have no scale, and biases are left out: use --normalize none, or --biases keep"
        return _Made(vector, f"random direction {number}, {_NORMALIZED[settings.normalize]}", why=why)

    def _gradient(self, axis: AxisChoice, number: int) -> _Made:
        return _Made(self.gradient.to(self._weights), "gradient", why=_CRITICAL)

    def _sam(self, axis: AxisChoice, number: int) -> _Made:
        selection, rho = self.problem.selection, self.settings.rho
        parts = selection.layout.split(self.gradient.to(self._weights))
        tensors = [w.detach() for w in selection.tensors]
        steps = Perturbation(rho=rho).steps(parts, tensors, selection.layout.names, rho)
        vector = torch.cat([part.reshape(-1) for part in steps.parts()])
        return _Made(vector, f"SAM's perturbation, ρ = {rho:g}", why=_CRITICAL)

    def _eigen(self, axis: AxisChoice, number: int) -> _Made:
        return _eigenvector(self.problem, number, self.eigen_results)

    def _pca(self, axis: AxisChoice, number: int) -> _Made:
        assert self.principal_vectors is not None
        numbers = [one.number or 1 for one in self.settings.axes if one.name == "pca"]
        return _Made(self.principal_vectors[numbers.index(number)], f"principal direction {number} of the trajectory")

    def _to(self, axis: AxisChoice, number: int) -> _Made:
        weights, name = self._weights, printable(Path(axis.file).name)
        other = read_other(self.problem, Path(axis.file))
        vector = (other.weights.double() - weights.double()).to(weights)
        return _Made(vector, f"to {name}", why=f"{name} holds the same weights")

    def _given(self, axis: AxisChoice, number: int) -> _Made:
        return self._row(self.stored[axis.file], number, "direction given")

    def _saved(self, axis: AxisChoice, number: int) -> _Made:
        label = f"{printable(Path(axis.file).name)}, row {number}"
        if not is_stored(axis):
            return _Made(read_other(self.problem, Path(axis.file)).weights, label)
        return self._row(self.stored[axis.file], number, label)

    def _row(self, rows: np.ndarray, number: int, label: str) -> _Made:
        if rows.ndim != 2 or rows.shape[1] != self.problem.size or number > len(rows):
            raise ConfigurationError(
                f"there is no such direction in {label}",
                found=f"rows {rows.shape}",
                do=f"it must be one of rows of {self.problem.size} numbers, one for each parameter",
            )
        return _Made(torch.from_numpy(np.array(rows[number - 1])).to(self._weights), label)


def _eigenvector(problem: Problem, number: int, results: Sequence[EigenResult]) -> _Made:
    weights = problem.selection.flat()
    for result in results:
        index = _index(number, result)
        if index is None or result.eigenvectors is None:
            continue
        vector = torch.from_numpy(np.array(result.eigenvectors[index])).to(weights)
        value, (low, high) = float(result.eigenvalues[index]), result.intervals[index]
        name = f"eigenvector {number}" if number > 0 else f"eigenvector {-number} from the smallest"
        return _Made(vector, f"{name}, λ = {value:.4g}", value, max(high - value, value - low))
    raise ConfigurationError(
        f"there is no eigenvector {number}", found=f"a space of {problem.size} dimensions"
    )
