"""From what an axis is called to a direction: computed, read from files, or taken from a stored run."""

from __future__ import annotations

import glob
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landscape.analyses import eigen
from landscape.analyses.inputs import same_matrix
from landscape.analyses.matrix import MatrixSettings
from landscape.analyses.slice import Settings
from landscape.checkpoint import inspect_checkpoint, is_directory
from landscape.errors import ComputationError, ConfigurationError
from landscape.files import natural_order, printable, short_names
from landscape.linalg.eigenpairs import Which
from landscape.problem import Problem
from landscape.results import EigenResult, Result
from landscape.sam.perturbation import Perturbation
from landscape.slices.axes import AxisChoice
from landscape.slices.directions import angle_between, orthogonalised, random_direction
from landscape.slices.others import read_other
from landscape.slices.sample import Sample

__all__ = [
    "Directions",
    "contents",
    "directions",
    "eigen_settings",
    "holds_pairs",
    "is_stored",
    "metric_values",
    "path_of",
    "trajectory_paths",
]

_CRITICAL = "the gradient is zero there"
#: What a slice measures under these names; of test data, beginning with test_.
_MEASURED = ("loss", "error", "accuracy", "gradient_norm")
#: Examples on which metrics are looked at.
_FEW = 8
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


def path_of(axis: AxisChoice) -> Path:
    """The file that an axis names."""
    return Path(axis.file).expanduser()


def is_stored(axis: AxisChoice) -> bool:
    """Whether the direction is one that an earlier run stored: a file of vectors, or the hash of one."""
    return axis.name == "saved" and Path(axis.file).suffix in ("", ".h5")


def contents(problem: Problem, settings: Settings) -> Any:
    """The files that settings name, by content, and what the slice shows beside the loss."""
    found: dict[str, Any] = {"metrics": metric_values(problem)}
    if problem.test is not None:
        found["test"] = problem.test.data.fingerprint
    for axis in settings.axes:
        if axis.name == "to":
            found[axis.text] = inspect_checkpoint(path_of(axis)).sha256
        elif axis.name == "saved":
            found[axis.text] = _saved_contents(axis)
    if settings.trajectory:
        found["trajectory"] = [inspect_checkpoint(path).sha256 for path in trajectory_paths(settings)]
    return found


def _saved_contents(axis: AxisChoice) -> str:
    """The hash of a file of directions; of directions named by their hash, that."""
    path = path_of(axis)
    if not is_stored(axis):
        return inspect_checkpoint(path).sha256
    if not path.is_file():
        return axis.file
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def metric_values(problem: Problem) -> dict[str, str]:
    """The user's metrics on a few examples, to three digits: they tell functions of the same name apart.

    Raises:
        ConfigurationError: a metric that fails, or is called as something that is measured anyway.
    """
    for name in problem.metrics:
        if name in _MEASURED or name.startswith("test_"):
            raise ConfigurationError(
                f"a metric cannot be called {printable(name)!r}: that is measured already",
                do="give its function another name",
            )
    if not problem.metrics or problem.data.batches is None:
        return dict.fromkeys(problem.metrics, "")
    few = problem.minibatch(torch.arange(min(_FEW, problem.examples)))
    sample = Sample(few, _FEW, 0, problem.metrics)
    with few.arithmetic(), torch.no_grad(), few.statistics():
        values = sample.begin(few)[-len(problem.metrics) :]
    return {name: f"{value:.3g}" for name, value in zip(problem.metrics, values, strict=True)}


def trajectory_paths(settings: Settings) -> list[Path]:
    """The files of ``--trajectory``, those of a pattern with the numbers in their names in numeric order.

    Raises:
        ConfigurationError: a pattern that no file matches.
    """
    found: list[Path] = []
    for text in settings.trajectory:
        pattern = str(Path(text).expanduser())
        matches = [Path(pattern)] if _is_checkpoint(Path(pattern)) else map(Path, glob.glob(pattern))
        files = sorted(filter(_is_checkpoint, matches), key=natural_order)
        if not files:
            raise ConfigurationError(
                "no file matches --trajectory",
                found=printable(text),
                do="put a pattern in quotes: --trajectory 'runs/*.pt'",
            )
        found += files
    return list(dict.fromkeys(found))


def _is_checkpoint(path: Path) -> bool:
    """A file, or a folder that describes a model."""
    return path.is_file() or is_directory(path)


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


def eigen_settings(problem: Problem, settings: Settings) -> eigen.Settings:
    """The search for the eigenvectors that a slice needs and no stored run holds.

    Raises:
        ConfigurationError: there are not so many.
    """
    numbers = [axis.number or 1 for axis in settings.axes if axis.name == "eigen"]
    for number in numbers:
        if abs(number) > problem.size:
            raise ConfigurationError(
                f"there is no eigenvector {number}", found=f"{problem.size} parameters are measured"
            )
    ends = {number > 0 for number in numbers}
    which: Which = "both" if len(ends) == 2 else "largest" if ends == {True} else "smallest"
    k = max(abs(number) for number in numbers)
    return eigen.Settings(k=k, which=which, eigenvectors=True, standard_errors=False)


def directions(
    problem: Problem,
    settings: Settings,
    gradient: Tensor,
    seed: int,
    eigen_result: EigenResult | None,
    principal_vectors: Tensor | None,
    stored: Mapping[str, np.ndarray],
) -> Directions:
    """The directions of a slice, the second made orthogonal to the first unless settings say otherwise.

    Args:
        gradient: (n,) at the weights, float64.
        eigen_result: that holds what ``eigen`` axes need.
        principal_vectors: (k, n) of the trajectory, if ``pca`` axes need them.
        stored: rows (k, n) of ``saved`` axes, by the text of the file.

    Raises:
        LandscapeError: files that cannot be read or do not fit, a direction of length zero or that is not
            finite, two directions on one line.
    """
    maker = _Maker(problem, settings, gradient, seed, eigen_result, principal_vectors, stored)
    made = [maker.make(axis) for axis in settings.axes]
    for axis, one in zip(settings.axes, made, strict=True):
        length = float(torch.linalg.vector_norm(one.vector.double()))
        if not (0 < length < math.inf):
            raise (ConfigurationError if axis.file else ComputationError)(
                f"--along {printable(axis.text)} is no direction",
                found=one.why or "all zeros" if length == 0 else "numbers in it are not finite",
                do=one.do,
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
    """A direction (n,), in words, its curvature if it is an eigenvector.

    ``why`` says why it may have no length, and ``do`` what to do about that.
    """

    vector: Tensor
    label: str
    curvature: float = math.nan
    error: float = math.nan
    why: str = ""
    do: str = "choose another direction"


@dataclass(frozen=True)
class _Maker:
    """Makes one direction after the other."""

    problem: Problem
    settings: Settings
    gradient: Tensor
    seed: int
    eigen_result: EigenResult | None
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
        label = f"random direction {number}, {_NORMALIZED[settings.normalize]}"
        why = "weights of zero have no scale, and biases are left out"
        return _Made(vector, label, why=why, do="use --normalize none, or --biases keep")

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
        result = self.eigen_result
        index = None if result is None else _index(number, result)
        if result is None or index is None or result.eigenvectors is None:
            raise ComputationError(
                f"eigenvector {number} was not found",
                do="look for it with landscape eigen --eigenvectors, which says why",
            )
        vector = torch.from_numpy(np.array(result.eigenvectors[index])).to(self._weights)
        value, (low, high) = float(result.eigenvalues[index]), result.intervals[index]
        name = f"eigenvector {number}" if number > 0 else f"eigenvector {-number} from the smallest"
        return _Made(vector, f"{name}, λ = {value:.4g}", value, max(high - value, value - low))

    def _pca(self, axis: AxisChoice, number: int) -> _Made:
        assert self.principal_vectors is not None
        numbers = [one.number or 1 for one in self.settings.axes if one.name == "pca"]
        vector = self.principal_vectors[numbers.index(number)]
        return _Made(vector, f"principal direction {number} of the trajectory")

    def _to(self, axis: AxisChoice, number: int) -> _Made:
        own = self.problem.checkpoint
        others = [path_of(one) for one in self.settings.axes if one.name == "to"]
        name = printable(short_names([path_of(axis), *others, *([own.path] if own else [])])[0])
        weights = self._weights
        other = read_other(self.problem, path_of(axis))
        vector = (other.weights.double() - weights.double()).to(weights)
        return _Made(vector, f"to {name}", why=f"{name} holds the same weights")

    def _given(self, axis: AxisChoice, number: int) -> _Made:
        if axis.file not in self.stored:
            raise ConfigurationError(
                "a direction is given as an array, to landscape.loss_slice",
                found=f"--along {printable(axis.text)}",
                do="on the command line, name a file: --along saved:FILE",
            )
        return self._row(self.stored[axis.file], number, "direction given")

    def _saved(self, axis: AxisChoice, number: int) -> _Made:
        label = f"{printable(Path(axis.file).name)}, row {number}"
        if not is_stored(axis):
            if number > 1:
                raise ConfigurationError(
                    f"there is no such direction in {printable(Path(axis.file).name)}",
                    found=f"number {number} of a checkpoint, whose weights are one direction",
                )
            return _Made(read_other(self.problem, path_of(axis)).weights, label)
        return self._row(self.stored[axis.file], number, label)

    def _row(self, rows: np.ndarray, number: int, label: str) -> _Made:
        if rows.ndim != 2 or rows.shape[1] != self.problem.size or number > len(rows):
            raise ConfigurationError(
                f"there is no such direction in {label}",
                found=f"rows {rows.shape}",
                do=f"it must be one of rows of {self.problem.size} numbers, one for each parameter",
            )
        return _Made(torch.from_numpy(np.array(rows[number - 1])).to(self._weights), label)
