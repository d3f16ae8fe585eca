"""A data set that is evaluated again and again, each time against the same examples at the centre."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landscape.data import Piece, examples_in, inputs_of, rows_of, targets_of
from landscape.errors import ConfigurationError, LandscapeError
from landscape.linalg.probes import derived_seed
from landscape.losses import label_hits
from landscape.machine import brief, is_out_of_memory
from landscape.models import call_model, explained
from landscape.problem import Problem

__all__ = ["GROUPS", "Metric", "Sample", "error_of"]

#: Random groups of examples whose differences give standard errors where single examples' losses are unknown.
GROUPS = 20

#: A user's metric: ``(outputs, targets) ->`` a mean, or one number for each example.
Metric = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class _Groups:
    """Rows and terms of the groups of a piece, and the share of its pairs of examples in one group."""

    rows: list[tuple[Tensor, float]]
    together: float


@dataclass(frozen=True)
class _Centre:
    """Sums of losses of a piece at the centre, float64; the terms of each, None if all have one.

    ``together`` is that of :class:`_Groups`, 0 for single examples.
    """

    sums: Tensor
    terms: Tensor | None
    together: float

    @property
    def counted(self) -> Tensor:
        """The terms of each."""
        return torch.ones_like(self.sums) if self.terms is None else self.terms


class Sample:
    """A data set in fixed pieces.

    Of losses sᵢ over mᵢ terms, those at the centre s⁰ᵢ, and dᵢ = sᵢ − s⁰ᵢ: the loss is Σsᵢ/Σmᵢ, and the
    squared standard error of the difference Σ(dᵢ − mᵢD)²·N/(N−1)/(Σmᵢ)² with D = Σdᵢ/Σmᵢ, that of a ratio
    (Cochran 1977, eq. 6.13), all from sums over the examples in float64. What both points have in common
    drops out: the sample is paired. Where single examples' losses are not known, i is a random group of
    examples, see :func:`_paired`.

    Attributes:
        channels: what :meth:`means` gives, by name: loss, error, accuracy if targets are labels, and
            metrics, each with its error (NaN where it gives means).
        labels: how many the accuracy is of.
        method: how errors are obtained, or why they are not.
        resident: the data are in memory.
    """

    def __init__(self, problem: Problem, micro_batch: int, seed: int, metrics: Mapping[str, Metric]) -> None:
        self._how, self.method = _how(problem)
        self._seed, self._metrics = seed, metrics
        self._problem, self._size = problem, micro_batch
        self.resident = problem.data.batches is not None
        self._kept: list[Piece] | None = None
        if self._how == "calls":
            self._by_calls()
        self._groups: dict[int, _Groups] = {}
        self._before: list[_Centre] = []
        self._count, self._squares, self.labels, self._examples = 0, 0.0, 0, 0
        self._labelled = False
        self.channels: tuple[str, ...] = ()

    def pieces(self, problem: Problem) -> Iterator[Piece]:
        """The data, cut once if they are in memory."""
        if self._kept is None and self.resident:
            self._kept = list(self._problem.pieces(self._size))
        yield from self._problem.pieces(self._size) if self._kept is None else self._kept

    def begin(self, problem: Problem) -> np.ndarray:
        """Evaluate the centre, which other points are compared with; its error is that of the loss itself."""
        total, apart = self.nothing(), 0
        for piece in self._splittable(problem):
            with problem.statistics():
                outputs = self._outputs(problem, piece)
                sums, terms = self._with_terms(problem, piece, outputs)
            if outputs is not None and problem.loss.classes:
                self.labels += label_hits(problem.loss, outputs, targets_of(piece.batch))[1]
                self._labelled = self.labels > 0
            centre = self._centre(problem, piece, sums, terms)
            self._before.append(centre)
            found = int((terms > 0).sum())
            apart += found
            # Sums over groups stand for those over their examples, see _paired.
            self._count += piece.examples if centre.together else found
            self._examples += piece.examples
            self._squares += float(_paired(terms, terms, centre.together))
            total += self._added(problem, piece, outputs, sums, sums, centre)
        if apart < 2 and self._how != "none":
            self._how, self.method = "none", "not computed: a single example with terms"
        accuracy = ("accuracy",) if self._labelled else ()
        metrics = (channel for name in self._metrics for channel in (name, error_of(name)))
        self.channels = ("loss", "error", *accuracy, *metrics)
        return self.means(total)

    def nothing(self) -> Tensor:
        """Sums of a point to begin with: Σsᵢ, Σdᵢ², Σdᵢmᵢ, Σdᵢ, labels predicted right, Σf and Σf²."""
        return torch.zeros(5 + 2 * len(self._metrics), dtype=torch.float64, device=self._problem.device)

    @property
    def can_batch(self) -> bool:
        """Whether :meth:`part` may be called with a batch of weights."""
        return self.resident and self._how == "examples" and not self._metrics

    def part(
        self, problem: Problem, number: int, piece: Piece, weights: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """What a piece adds to the sums, at ``weights`` or those that ``problem``'s model has."""
        centre = self._before[number]
        with problem.statistics():
            outputs = self._outputs(problem, piece, weights)
            sums = self._sums(problem, piece, outputs)
        return self._added(problem, piece, outputs, sums, sums - centre.sums, centre)

    def examples(self, problem: Problem, piece: Piece) -> Tensor:
        """Summed losses, float64, of a piece's examples, or of whatever errors come from."""
        with problem.statistics():
            return self._sums(problem, piece, self._outputs(problem, piece))

    def mean_of(self, parts: Sequence[Tensor]) -> tuple[float, float]:
        """The mean over the terms, and its standard error, of numbers like those of :meth:`examples`.

        One tensor for each piece.
        """
        mass = self._problem.terms
        mean = sum(float(part.sum()) for part in parts) / mass
        if self._how == "none":
            return mean, math.nan
        squares = 0.0
        for part, centre in zip(parts, self._before, strict=True):
            rest = part - mean * centre.counted
            squares += float(_paired(rest, rest, centre.together))
        if not math.isfinite(squares):
            return mean, math.nan
        return mean, math.sqrt(squares * self._count / (self._count - 1)) / mass

    def means(self, total: Tensor) -> np.ndarray:
        """(channels,) float64 from the sums over all pieces."""
        loss, squares, crossed, differences, hits, *metrics = total.tolist()
        mass = self._problem.terms
        mean = differences / mass
        variance = squares - 2 * mean * crossed + mean * mean * self._squares
        error = math.nan
        if self._how != "none" and math.isfinite(variance):
            error = math.sqrt(max(0.0, variance) * self._count / (self._count - 1)) / mass
        # Outputs that are not finite would all count as the first class.
        accuracy = [math.nan if math.isnan(loss) else hits / self.labels] if self._labelled else []
        own = (value for pair in zip(metrics[::2], metrics[1::2], strict=True) for value in self._mean(*pair))
        return np.array([loss / mass, error, *accuracy, *own])

    def _mean(self, total: float, squares: float) -> tuple[float, float]:
        """The mean of a metric over the examples, and its standard error, NaN where only means are known."""
        n, mean = self._examples, total / self._examples
        spread = squares - n * mean * mean
        if n < 2 or not math.isfinite(spread):
            return mean, math.nan
        return mean, math.sqrt(max(0.0, spread) / (n - 1) / n)

    def _by_calls(self) -> None:
        """Errors from whole pieces, which are then many and drawn at random."""
        self._problem = _shuffled(self._problem, self._seed)
        self._size = max(1, min(self._size, -(-self._problem.examples // GROUPS)))
        self._kept = None

    def _splittable(self, problem: Problem) -> Iterator[Piece]:
        """The pieces, smaller ones if a loss takes outputs that cannot be cut into groups of examples."""
        if self._how == "groups":
            piece = next(self.pieces(problem))
            with problem.statistics():
                outputs = self._outputs(problem, piece)
            if not _by_example(outputs, piece.examples):
                self._how, self.method = "calls", _calls(self._problem)
                self._by_calls()
        yield from self.pieces(problem)

    def _centre(self, problem: Problem, piece: Piece, sums: Tensor, terms: Tensor) -> _Centre:
        """What later points are compared with."""
        together = self._grouped(problem, piece).together if self._how == "groups" else 0.0
        return _Centre(sums, None if bool((terms == 1).all()) else terms, together)

    def _outputs(self, problem: Problem, piece: Piece, weights: Mapping[str, Tensor] | None = None) -> Any:
        """The model's outputs; None for a loss that calls the model itself."""
        if problem.loss.whole:
            return None
        try:
            return call_model(problem.model, inputs_of(piece.batch), weights)
        except Exception as error:
            raise explained(error, piece.batch) from error

    def _added(
        self,
        problem: Problem,
        piece: Piece,
        outputs: Any,
        sums: Tensor,
        differences: Tensor,
        centre: _Centre,
    ) -> Tensor:
        """What a piece adds."""
        total, terms, together = differences.sum(), centre.terms, centre.together
        # Of terms that are all one, Σdᵢmᵢ is Σdᵢ.
        crossed = total if terms is None and not together else _paired(differences, centre.counted, together)
        found = [sums.sum(), _paired(differences, differences, together), crossed, total]
        right = (
            _hits(problem, outputs, targets_of(piece.batch)) if self._labelled else torch.zeros_like(total)
        )
        metrics = (self._metric(name, problem, piece, outputs) for name in self._metrics)
        return torch.stack([*found, right, *(value for pair in metrics for value in pair)])

    def _metric(self, name: str, problem: Problem, piece: Piece, outputs: Any) -> tuple[Tensor, Tensor]:
        """The sum of a user's metric over the examples of a piece, and of its squares, if it is known."""
        given = (problem.model, piece.batch) if outputs is None else (outputs, targets_of(piece.batch))
        try:
            found = self._metrics[name](*given)
            value = torch.as_tensor(found, dtype=torch.float64).detach()
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise ConfigurationError(
                f"the metric {name} failed on a batch",
                found=brief(error),
                do=f"a metric takes ({'model, batch' if outputs is None else 'outputs, targets'})",
            ) from error
        if value.numel() == 1:
            mean = value.reshape(()).to(self._problem.device)
            alone = piece.examples == 1 and value.ndim == 1
            return mean * piece.examples, mean.square() if alone else mean * math.nan
        if value.shape != (piece.examples,):
            raise ConfigurationError(
                f"the metric {name} must return a mean, or one number for each of {piece.examples} examples",
                found=f"shape {tuple(value.shape)}",
            )
        value = value.to(self._problem.device)
        return value.sum(), value @ value

    def _sums(self, problem: Problem, piece: Piece, outputs: Any) -> Tensor:
        """Summed losses, float64, of the examples of a piece, or of its random groups, or of the piece."""
        loss, batch = problem.loss, piece.batch
        try:
            if self._how == "examples" and loss.sums is not None:
                return loss.sums(outputs, targets_of(batch)).double()
            if self._how == "groups":
                targets = targets_of(batch)
                means = [
                    loss.mean(rows_of(outputs, rows), rows_of(targets, rows)).reshape(()).double() * count
                    for rows, count in self._grouped(problem, piece).rows
                ]
                return torch.stack(means)
            mean = problem.mean_loss(piece) if outputs is None else loss.mean(outputs, targets_of(batch))
        except LandscapeError:
            raise
        except Exception as error:
            raise explained(error, batch) from error
        return mean.reshape(1).double() * piece.terms

    def _with_terms(self, problem: Problem, piece: Piece, outputs: Any) -> tuple[Tensor, Tensor]:
        """The same, and how many terms each has."""
        sums = self._sums(problem, piece, outputs)
        if self._how == "examples" and problem.loss.each is not None:
            return sums, problem.loss.each(outputs, targets_of(piece.batch))[1].double()
        grouped = self._how == "groups"
        counts = [count for _, count in self._grouped(problem, piece).rows] if grouped else [piece.terms]
        return sums, sums.new_tensor(counts)

    def _grouped(self, problem: Problem, piece: Piece) -> _Groups:
        """The piece in up to 20 random groups that have terms, the same at each point."""
        if piece.first not in self._groups:
            generator = torch.Generator().manual_seed(derived_seed(self._seed, "groups", piece.first))
            order = torch.randperm(piece.examples, generator=generator).to(problem.device)
            groups, terms = order.tensor_split(min(GROUPS, piece.examples)), problem.loss.terms
            counts = [
                float(len(rows) if terms is None else terms(rows_of(targets_of(piece.batch), rows)))
                for rows in groups
            ]
            together = sum(len(rows) * (len(rows) - 1) for rows in groups)
            self._groups[piece.first] = _Groups(
                [(r, c) for r, c in zip(groups, counts, strict=True) if c > 0],
                together / max(1, piece.examples * (piece.examples - 1)),
            )
        return self._groups[piece.first]


def error_of(metric: str) -> str:
    """The channel of a metric's standard error."""
    return f"{metric} error"


def _how(problem: Problem) -> tuple[str, str]:
    """What the losses are of that errors come from (examples, groups of outputs, calls, none), in words."""
    if problem.train_mode:
        return "none", "not computed: in train mode the examples of a batch are not independent"
    if problem.examples < 2:
        return "none", "not computed: a single example"
    if problem.loss.each is not None:
        return "examples", "paired differences of single examples"
    if not problem.loss.whole:
        return "groups", f"paired differences of {GROUPS} random groups of examples in each piece"
    return "calls", _calls(problem)


def _calls(problem: Problem) -> str:
    """How errors are obtained from whole pieces, in words."""
    if problem.data.batches is None or len(problem.data.batches) > 1:
        return "paired differences of pieces of the data, in the order they come in"
    return f"paired differences of {GROUPS} or more random groups of examples"


def _by_example(outputs: Any, examples: int) -> bool:
    """Whether outputs are tensors, in plain containers, of which each example has its row."""
    if isinstance(outputs, Tensor):
        return outputs.ndim > 0 and len(outputs) == examples
    if type(outputs) is dict:
        outputs = tuple(outputs.values())
    if not isinstance(outputs, tuple | list) or not outputs:
        return False
    return all(_by_example(part, examples) for part in outputs)


def _paired(a: Tensor, b: Tensor, together: float) -> Tensor:
    """Σ aᵢbᵢ over the examples of a piece, from sums over random groups of them.

    If two examples are in one group with probability p (``together``), the sum over the groups is on average
    (1 − p) Σ aᵢbᵢ + p ΣaᵢΣbᵢ. Sorted data, whose pieces are far from each other, do not bias what is left.
    """
    return a @ b if not together else (a @ b - together * a.sum() * b.sum()) / (1 - together)


def _shuffled(problem: Problem, seed: int) -> Problem:
    """The problem with its examples in random order, so that pieces are groups drawn at random."""
    batches = problem.data.batches
    if batches is None or len(batches) != 1:
        return problem
    generator = torch.Generator().manual_seed(derived_seed(seed, "order"))
    return problem.minibatch(torch.randperm(examples_in(batches[0]), generator=generator))


def _hits(problem: Problem, outputs: Tensor, targets: Tensor) -> Tensor:
    """Labels predicted right, as a tensor: no waiting for the device."""
    loss = problem.loss
    right = loss.shaped(outputs, targets).argmax(1) == targets
    if loss.ignored is not None and loss.ignored >= 0:
        right &= targets != loss.ignored
    return right.sum()
