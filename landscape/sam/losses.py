"""The loss around the weights, by forward passes alone, in the most precise arithmetic the model runs in.

Differences of losses are what sharpness is made of, and at small steps float32 cannot resolve them: the loss
of a piece of the data is only known to 1e-7 of itself there. They are taken in float64 wherever that works.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from landscape.curvature.sampling import ratio_standard_error
from landscape.data import inputs_of, targets_of
from landscape.errors import LandscapeError
from landscape.machine import is_out_of_memory
from landscape.models import call_model
from landscape.problem import Problem
from landscape.sam.passes import loss_at

__all__ = ["OverData", "Losses", "losses_of"]

#: Examples' losses are used if their mean is the loss to this part of it.
_AGREES = 1e-5


@dataclass(frozen=True)
class OverData:
    """Standard error of a mean over the data, NaN where it was not computed, and how or why not."""

    value: float
    method: str


class Losses:
    """The loss of a problem at w + ε.

    Attributes:
        problem: in the arithmetic of the losses.
        micro_batch: examples in a piece.
        weights: w, one tensor a parameter.
    """

    def __init__(self, problem: Problem, micro_batch: int) -> None:
        self.problem, self.micro_batch = problem, micro_batch
        self.weights = [w.detach() for w in problem.selection.tensors]

    def on(self, rows: Tensor) -> Losses:
        """The loss of some examples only, numbered as in the data."""
        return Losses(self.problem.minibatch(rows), self.micro_batch)

    def moved(self, step: Sequence[Tensor] | None, scale: float = 1.0) -> list[Tensor]:
        """w + scale·ε, written afresh."""
        if step is None:
            return self.weights
        return [(w.double() + scale * e).to(w.dtype) for w, e in zip(self.weights, step, strict=True)]

    def at(self, step: Sequence[Tensor] | None = None, scale: float = 1.0) -> float:
        """L(w + scale·ε), L(w) without a step; it may be infinite or NaN."""
        return loss_at(self.problem, self.problem.pieces(self.micro_batch), self.moved(step, scale))

    def in_other_pieces(self, step: Sequence[Tensor] | None = None) -> float:
        """The same loss from pieces of another size, which rounds differently (not in train mode)."""
        size = self.micro_batch // 2 if self.micro_batch > 1 else 2
        return loss_at(self.problem, self.problem.pieces(size), self.moved(step))

    @cached_property
    def _at_weights(self) -> tuple[Tensor, Tensor]:
        return self._examples(self.weights)

    def _examples(self, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """(summed loss (N,), terms (N,)) of each example that has any."""
        problem, sums, terms = self.problem, [], []
        each = problem.loss.each
        assert each is not None
        named = dict(zip(problem.selection.layout.names, weights, strict=True))
        with problem.arithmetic(), torch.no_grad():
            for piece in problem.pieces(self.micro_batch):
                outputs = call_model(problem.model, inputs_of(piece.batch), named)
                found, counts = each(outputs, targets_of(piece.batch))
                sums.append(found[counts > 0].double())
                terms.append(counts[counts > 0].double())
        return torch.cat(sums), torch.cat(terms)

    def data_error(self, step: Sequence[Tensor], base: float) -> OverData:
        """Standard error of L(w + ε) − L(w) over the data at this ε, from the examples' own differences.

        The examples are the same at both points, so what they have in common drops out (a paired sample).
        ``base`` is L(w), which the examples' losses must add up to.
        """
        problem = self.problem
        if problem.train_mode:
            return _unknown("in train mode examples of a batch are not independent")
        if problem.loss.each is None:
            return _unknown(f"{problem.loss.name} gives no losses of single examples; -m gives an error")
        if problem.examples < 2:
            return _unknown("a single example")
        before, terms = self._at_weights
        if len(terms) < 2:
            return _unknown("a single example with terms")
        decay = problem.weight_decay / 2 * math.fsum(float(w.double().square().sum()) for w in self.weights)
        mean = float(before.sum() / terms.sum())
        if not abs(mean - (base - decay)) <= _AGREES * max(abs(mean), abs(base)):
            return _unknown("the examples' losses do not add up to the loss")
        after = self._examples(self.moved(step))[0]
        found = float(ratio_standard_error((after - before)[None], terms)[0])
        if not math.isfinite(found):
            return _unknown("an example's loss is not finite there")
        return OverData(found, "examples' own differences at this ε")


def _unknown(reason: str) -> OverData:
    return OverData(math.nan, f"not computed: {reason}")


def losses_of(problem: Problem, micro_batch: int) -> Losses:
    """The losses of a problem, in float64 if the model runs in it."""
    twin = problem.in_dtype(torch.float64)
    if twin is problem:
        return Losses(problem, micro_batch)
    try:
        with twin.arithmetic(), torch.no_grad():
            twin.mean_loss(twin.recast(problem.sample(2)))
    except (RuntimeError, TypeError, ValueError, LandscapeError) as error:
        if is_out_of_memory(error):
            raise
        return Losses(problem, micro_batch)
    return Losses(twin, micro_batch)
