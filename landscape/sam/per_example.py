"""Gradients example by example: one vectorised pass over a chunk, or one example at a time.

An example's loss is the sum over its own terms (one for a label; one for each token of a sequence that is not
masked), without weight decay, which belongs to no example. The loss over the data is the sum of them over all
terms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from landscape.data import Batch, Piece, inputs_of, map_tensors, targets_of, tensors_in
from landscape.errors import ConfigurationError
from landscape.losses import Loss, call_whole
from landscape.machine import brief, is_out_of_memory
from landscape.models import call_model
from landscape.problem import Problem

__all__ = ["Example", "PerExample", "Point", "Weights", "per_example", "refuse_train_mode"]

#: Tensors in the shapes of the measured parameters.
Weights = tuple[Tensor, ...]
#: Cotangent → its product with the transposed Jacobian, parameter by parameter.
Pull = Callable[[Tensor], Weights]
#: (function of weights, weights) → (its value there, the pull-back of cotangents).
_Vjp = Callable[[Callable[[Weights], Tensor], Weights], tuple[Tensor, Pull]]


def _transformed(function: Callable[[Weights], Tensor], weights: Weights) -> tuple[Tensor, Pull]:
    """By ``torch.func``, which can be vectorised."""
    found: Any = torch.func.vjp(lambda *parts: function(parts), *weights)
    value, pull = found
    return value, pull


def _taped(function: Callable[[Weights], Tensor], weights: Weights) -> tuple[Tensor, Pull]:
    """By plain reverse mode, which knows everything that a model can be trained with."""
    leaves = tuple(weight.detach().requires_grad_() for weight in weights)
    value = function(leaves)

    def pull(cotangent: Tensor) -> Weights:
        if not value.requires_grad:
            return tuple(torch.zeros_like(leaf) for leaf in weights)
        parts = torch.autograd.grad(value, leaves, cotangent, retain_graph=True, allow_unused=True)
        return tuple(
            torch.zeros_like(leaf) if part is None else part
            for leaf, part in zip(weights, parts, strict=True)
        )

    return value.detach(), pull


@dataclass(frozen=True)
class Point:
    """An example at some weights.

    Attributes:
        loss: the sum over its terms.
        terms: how many these are.
        residual: r = ∂loss/∂outputs; 1 where only the loss as a whole is known.
        pull: J(w)ᵀ · of a cotangent of the outputs, J the Jacobian of the outputs.
        hits, labels: labels predicted right, and labels; 0 where the targets are none.
    """

    loss: Tensor
    terms: Tensor
    residual: Tensor
    pull: Pull
    hits: Tensor
    labels: Tensor

    def gradient(self) -> Weights:
        """J(w)ᵀ r(w)."""
        return self.pull(self.residual)


@dataclass(frozen=True)
class Example:
    """A single example, as a batch of one, whose loss is a function of the weights."""

    of: PerExample
    batch: Batch
    terms: Tensor
    vjp: _Vjp

    @property
    def weights(self) -> Weights:
        """The weights of the problem."""
        return tuple(parameter.detach() for parameter in self.of.problem.selection.tensors)

    def at(self, weights: Weights) -> Point:
        """The example's loss at ``weights``, and what its gradient is made of."""
        zero = torch.zeros_like(self.terms)
        if not self.of.separable:
            value, pull = self.vjp(self._whole, weights)
            return Point(value, self.terms, torch.ones_like(value), pull, zero, zero)
        outputs, pull = self.vjp(self._outputs, weights)
        loss, of_outputs = self.vjp(lambda given: self._loss(given[0]), (outputs,))
        (residual,) = of_outputs(torch.ones_like(loss))
        targets, known = targets_of(self.batch), self.of.problem.loss
        terms = self.terms if known.each is None else known.each(outputs, targets)[1].sum()
        hits, labels = _hits(known, outputs, targets) if known.classes else (zero, zero)
        return Point(loss, terms, residual, pull, hits, labels)

    def _named(self, weights: Weights) -> dict[str, Tensor]:
        return dict(zip(self.of.problem.selection.layout.names, weights, strict=True))

    def _outputs(self, weights: Weights) -> Tensor:
        found: Tensor = call_model(self.of.problem.model, inputs_of(self.batch), self._named(weights))
        return found

    def _loss(self, outputs: Any) -> Tensor:
        known, targets = self.of.problem.loss, targets_of(self.batch)
        if known.each is not None:
            return known.each(outputs, targets)[0].sum()
        return (known.mean(outputs, targets) * self.terms).reshape(())

    def _whole(self, weights: Weights) -> Tensor:
        """The loss where there is no single tensor of outputs between it and the weights."""
        problem = self.of.problem
        if not problem.loss.whole:
            return self._loss(call_model(problem.model, inputs_of(self.batch), self._named(weights)))
        mean = call_whole(problem.loss.mean, problem.model, self.batch, self._named(weights))
        return (mean * self.terms).reshape(())


def _hits(loss: Loss, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """(labels predicted right, labels) as numbers that can be vectorised."""
    if targets.is_floating_point():
        return outputs.new_zeros(()), outputs.new_zeros(())
    kept = torch.ones_like(targets, dtype=torch.bool) if loss.ignored is None else targets != loss.ignored
    right = (loss.shaped(outputs, targets).argmax(1) == targets) & kept
    return right.sum().to(outputs.dtype), kept.sum().to(outputs.dtype)


@dataclass(frozen=True)
class PerExample:
    """A problem, example by example; made by :func:`per_example`.

    Attributes:
        vectorised: whether chunks are done at once.
        reason: why they are not.
        separable: whether a tensor of outputs lies between weights and loss.
    """

    problem: Problem
    vectorised: bool
    reason: str
    separable: bool

    def over(self, piece: Piece, function: Callable[[Example], Iterable[Tensor]]) -> tuple[Tensor, ...]:
        """``function`` of each example of a piece, its results stacked: a first dimension of examples."""
        tensors, terms = tensors_in(piece.batch), self._terms(piece)

        def one(row: Sequence[Tensor], count: Tensor, vjp: _Vjp) -> tuple[Tensor, ...]:
            parts = iter(row)
            batch = map_tensors(lambda _: next(parts)[None], piece.batch)
            return tuple(function(Example(self, batch, count, vjp)))

        with self.problem.arithmetic():
            if self.vectorised:
                found: tuple[Tensor, ...] = torch.func.vmap(lambda row, count: one(row, count, _transformed))(
                    tensors, terms
                )
                return found
            rows = [one([t[i] for t in tensors], terms[i], _taped) for i in range(piece.examples)]
            return tuple(torch.stack(column) for column in zip(*rows, strict=True))

    def gradients(self, piece: Piece) -> tuple[Tensor, Weights]:
        """(losses (m,), gradients: a tensor (m, *shape) for each parameter), in the problem's dtype."""
        losses, *parts = self.over(piece, _loss_and_gradient)
        return losses, tuple(parts)

    def one_by_one(self, dtype: torch.dtype) -> PerExample:
        """The same in ``dtype``, without vectorising."""
        return PerExample(self.problem.in_dtype(dtype), False, "", self.separable)

    def _terms(self, piece: Piece) -> Tensor:
        """Terms of each example (m,); where they are known from the loss itself, 1."""
        problem = self.problem
        if problem.loss.terms is None or problem.loss.each is not None:
            counts = [1.0] * piece.examples
        else:
            counts = [
                sum(part.terms for part in problem.cut(piece, slice(i, i + 1))) for i in range(piece.examples)
            ]
        return torch.tensor(counts, dtype=problem.dtype, device=problem.device)


def _loss_and_gradient(example: Example) -> Iterator[Tensor]:
    point = example.at(example.weights)
    yield point.loss
    yield from point.gradient()


def refuse_train_mode(problem: Problem) -> None:
    """Raise a :class:`ConfigurationError` where the examples of a batch depend on each other."""
    if problem.train_mode:
        raise ConfigurationError(
            "in train mode an example has no gradient of its own",
            found="batch statistics or dropout over whole batches",
            do="leave out --train-mode: the statistics that were saved with the model are used",
        )


def per_example(problem: Problem, vectorised: bool | None = None) -> PerExample:
    """``problem`` example by example; whether it can be vectorised is tried on two examples.

    Args:
        vectorised: if it is known already.

    Raises:
        ConfigurationError: in train mode, where the examples of a batch depend on each other.
    """
    refuse_train_mode(problem)
    with problem.arithmetic(), torch.no_grad():
        separable = not problem.loss.whole and isinstance(problem.outputs(problem.sample(1)), Tensor)
    if vectorised is not None:
        return PerExample(problem, vectorised, "", separable)
    tried = PerExample(problem, True, "", separable)
    try:
        tried.gradients(problem.sample(2))
    except Exception as error:  # whatever a model does that cannot be vectorised; alone, it may be right
        if is_out_of_memory(error):
            raise
        return PerExample(problem, False, brief(error), separable)
    return tried
