"""The loss, and what is measured beside it, at points w + Σ cᵢ dᵢ: what grids are made of.

A point costs one forward pass over the data and one multiply-add of the weights for each direction. The
problem's own model is never touched.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from landscape.data import Piece
from landscape.problem import Problem
from landscape.sam.passes import loss_and_gradient, norm
from landscape.slices.sample import Metric, Sample
from landscape.slices.weights import Weights

__all__ = ["Recalibration", "Surface"]


class Recalibration(Protocol):
    """Measures the running statistics of BatchNorm anew."""

    def __call__(self, problem: Problem) -> None:
        """Write them into the problem's model, at its weights as they are."""


class Surface:
    """The loss at w + Σ cᵢ dᵢ, on one data set or two.

    Args:
        problem: at its weights w.
        directions: (axes, n), in the problem's dtype.
        micro_batch: examples evaluated at once.
        seed: of the groups that errors come from, where single examples' losses are not known.
        test: the same problem on other data.
        gradient_norms: measure ‖∇L‖ at each point, too.
        recalibration: of BatchNorm at each point; the running statistics stay as saved without. Train mode
            does not use them, and nothing is recalibrated.

    Attributes:
        channels: what is measured at a point, by name: ``loss``, ``error`` (NaN where it is not known),
            ``accuracy`` where labels are classes, ``gradient_norm``, metrics by their names, and ``test_…``.
        centre: (channels,) at w; the error there is that of the loss itself, not of a difference.
        evaluations: losses evaluated, on all data each.
    """

    def __init__(
        self,
        problem: Problem,
        directions: Tensor,
        micro_batch: int,
        *,
        seed: int = 0,
        test: Problem | None = None,
        gradient_norms: bool = False,
        metrics: Mapping[str, Metric] | None = None,
        recalibration: Recalibration | None = None,
    ) -> None:
        with problem.arithmetic():  # also where gradients, or all but inference, are switched off
            self.weights = Weights(problem, directions)
        self.problem = self.weights.problem
        self.recalibration = None if problem.train_mode else recalibration
        self._gradient_norms, self.evaluations = gradient_norms, 0
        self._decay = _Decay(problem, directions)
        sets = {"": (problem, dict(metrics or {})), **({"test_": (test, {})} if test is not None else {})}
        self.samples = {name: Sample(of, micro_batch, seed, own) for name, (of, own) in sets.items()}
        with self.evaluating():
            self._calibrated()
            firsts = {name: sample.begin(self.problem) for name, sample in self.samples.items()}
        self.channels = tuple(
            name + channel for name, sample in self.samples.items() for channel in self._of(name, sample)
        )
        decay = self._decay.at([0.0] * len(directions))
        parts = [self.values(name, found, decay) for name, found in firsts.items()]
        self.centre = np.concatenate(parts)
        self._still = self._unmoved()
        self.evaluations += 1

    def _of(self, name: str, sample: Sample) -> tuple[str, ...]:
        gradient = ("gradient_norm",) if self._gradient_norms and not name else ()
        return (*sample.channels[:2], *gradient, *sample.channels[2:])

    @property
    def can_batch(self) -> bool:
        """Whether several points may be evaluated in one call: plain losses of data in memory."""
        plain = self.recalibration is None and not self._gradient_norms and not self.problem.train_mode
        return plain and all(sample.can_batch for sample in self.samples.values())

    def decay(self, point: Sequence[float]) -> float:
        """The part of the loss at a point that is weight decay's."""
        return self._decay.at(point)

    @property
    def method(self) -> str:
        """How the errors are obtained, or why not."""
        return self.samples[""].method

    def row(self, points: Sequence[Sequence[float]]) -> np.ndarray:
        """(points, channels) float64 at points given by their coordinates; neither need be finite."""
        with self.evaluating():
            if self.recalibration is None and not all(s.resident for s in self.samples.values()):
                return self._side_by_side(points)
            return np.stack([self._at(point) for point in points])

    def _at(self, point: Sequence[float]) -> np.ndarray:
        """(channels,) at a point; the centre is known."""
        if self._still is not None and not any(point):
            return self._still.copy()
        return self._one(lambda: self.weights.move(point), self._decay.at(point))

    def _unmoved(self) -> np.ndarray | None:
        """(channels,) at the centre as a point of a grid, whose differences from the centre are zero."""
        found = self.centre.copy()
        for name in self.samples:
            if not math.isfinite(found[self.channels.index(name + "loss")]):
                return None
            error = self.channels.index(name + "error")
            found[error] *= 0.0  # NaN stays NaN
        return found

    def at_weights(self, flat: Tensor, rest: Mapping[str, Tensor] | None = None) -> np.ndarray:
        """(channels,) at other weights (n,); with ``rest``, buffers and parameters not measured are replaced.

        BatchNorm is recalibrated only without ``rest``.
        """
        with self._replaced(rest or {}), self.evaluating():
            decay = self._decay.of(flat)
            return self._one(lambda: self.weights.put(flat), decay, calibrate=rest is None)

    def row_with(self, point: Sequence[float], rest: Mapping[str, Tensor]) -> np.ndarray:
        """(channels,) at a point, with some buffers of the model replaced; nothing is recalibrated."""
        with self._replaced(rest), self.evaluating():
            return self._one(lambda: self.weights.move(point), self._decay.at(point), calibrate=False)

    def contrast(
        self, points: Sequence[Sequence[float]], coefficients: Sequence[float]
    ) -> tuple[float, float]:
        """(Σ aₖ L(pₖ), its standard error over the data), on the same examples at all points."""
        sample, decay = self.samples[""], 0.0
        totals: list[Tensor] = []
        with self.evaluating():
            for point, a in zip(points, coefficients, strict=True):
                self.weights.move(point)
                self._calibrated()
                parts = [a * sample.examples(self.problem, p) for p in sample.pieces(self.problem)]
                totals = [t + part for t, part in zip(totals, parts, strict=True)] if totals else parts
                decay += a * self._decay.at(point)
        value, error = sample.mean_of(totals)
        return value + decay, error

    @contextlib.contextmanager
    def _replaced(self, rest: Mapping[str, Tensor]) -> Iterator[None]:
        """The model with some buffers and parameters of ``rest``, for a while."""
        model = self.problem.model
        own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        with torch.no_grad():
            before = {name: own[name].clone() for name in rest}
            try:
                for name, value in rest.items():
                    own[name].copy_(value)
                yield
            finally:
                for name, value in before.items():
                    own[name].copy_(value)

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """What evaluations run under."""
        with self.problem.arithmetic(), torch.no_grad():
            yield

    def _calibrated(self) -> None:
        if self.recalibration is not None:
            self.recalibration(self.problem)

    def _one(self, move: Any, decay: float, calibrate: bool = True) -> np.ndarray:
        """One point, the data piece by piece."""
        move()
        if calibrate:
            self._calibrated()
        self.evaluations += 1
        found = []
        for name, sample in self.samples.items():
            pieces = enumerate(sample.pieces(self.problem))
            total = functools.reduce(torch.add, (sample.part(self.problem, k, piece) for k, piece in pieces))
            found.append(self.values(name, sample.means(total), decay))
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _side_by_side(self, points: Sequence[Sequence[float]]) -> np.ndarray:
        """All points on one piece of the data, then on the next: these are read once for a whole row."""
        found = []
        for name, sample in self.samples.items():
            totals = [sample.nothing() for _ in points]
            for k, piece in enumerate(sample.pieces(self.problem)):
                for total, point in zip(totals, points, strict=True):
                    self.weights.move(point)
                    total += sample.part(self.problem, k, piece)
            means = [sample.means(total) for total in totals]
            rows = []
            for mean, point in zip(means, points, strict=True):
                self.weights.move(point)
                rows.append(self.values(name, mean, self._decay.at(point)))
            found.append(np.stack(rows))
        self.evaluations += len(points)
        return np.concatenate(found, axis=1)

    def values(self, name: str, means: np.ndarray, decay: float) -> np.ndarray:
        """The channels of one data set from its means (changed), with the gradient's norm if asked for."""
        means[0] += decay
        if not self._gradient_norms or name:
            return means
        with torch.enable_grad():
            pieces: Iterator[Piece] = self.samples[name].pieces(self.problem)
            length = norm(loss_and_gradient(self.problem, pieces)[1])
        return np.concatenate([means[:2], [length], means[2:]])


class _Decay:
    """½D‖w + Σ cᵢ dᵢ‖², from inner products in float64."""

    def __init__(self, problem: Problem, directions: Tensor) -> None:
        self.half = problem.weight_decay / 2
        if self.half:
            every = torch.cat([problem.selection.flat()[None], directions]).double()
            self._products = (every @ every.T).cpu().numpy()

    def at(self, coordinates: Sequence[float]) -> float:
        if not self.half:
            return 0.0
        c = np.array([1.0, *coordinates])
        with np.errstate(invalid="ignore", over="ignore"):  # coordinates need not be finite
            return self.half * float(c @ self._products @ c)

    def of(self, flat: Tensor) -> float:
        return self.half * float(flat.double() @ flat.double()) if self.half else 0.0
