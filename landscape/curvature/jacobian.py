"""Products with JᵀMJ: J the derivative of some values by the weights, M symmetric and small for each piece.

J v is had from reverse mode alone: Jᵀu is linear in a dummy u, so its derivative by u, applied to v, is J v
(the "double-vjp trick"; Schraudolph 2002, §3, has the product from forward mode, which not every model runs
in).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.curvature.products import GraphOperator, Part, explained
from landscape.data import Piece
from landscape.errors import ComputationError

__all__ = ["JacobianGraph", "JacobianOperator"]


@dataclass(frozen=True)
class Middle:
    """M as the derivative of ``gradient`` by ``leaf``, both shaped as the values."""

    leaf: Tensor
    gradient: Tensor

    def multiply(self, vector: Tensor, retain: bool) -> Tensor:
        if not self.gradient.requires_grad:  # a linear loss
            return torch.zeros_like(vector)
        (found,) = torch.autograd.grad(
            self.gradient, self.leaf, vector, retain_graph=retain, materialize_grads=True
        )
        return found


@dataclass(frozen=True)
class JacobianGraph:
    """A piece's values, Jᵀu for a dummy ``u``, and M (None: the identity); ``share`` multiplies the product.

    ``pulled`` holds Jᵀu for the parameters that the values depend on, ``where`` says which these are.
    """

    share: float
    values: Tensor
    dummy: Tensor
    pulled: tuple[Tensor, ...]
    where: tuple[int, ...]
    middle: Middle | None
    examples: int


class JacobianOperator(GraphOperator[JacobianGraph]):
    """A matrix Σ share·JᵀMJ over the pieces; what values and M are is the subclass's."""

    @abstractmethod
    def build(self, piece: Piece) -> JacobianGraph:
        """A piece's graph, from its values by :meth:`pulled_back`."""

    def pulled_back(
        self, values: Tensor, share: float, examples: int, middle: Middle | None = None
    ) -> JacobianGraph:
        """The graph of some values of the weights: Jᵀu, to be differentiated by u."""
        if not values.requires_grad:
            raise ComputationError(
                "the loss does not depend on the parameters that are measured",
                do="look for detach(), .item() or no_grad in the model or the loss, or change --params",
            )
        dummy = torch.zeros_like(values, requires_grad=True)
        try:
            pulled = torch.autograd.grad(
                values, self.problem.selection.tensors, dummy, create_graph=True, allow_unused=True
            )
        except RuntimeError as error:
            raise explained(error) from error
        used = [(i, p) for i, p in enumerate(pulled) if p is not None and p.requires_grad]
        where, kept = tuple(i for i, _ in used), tuple(p for _, p in used)
        return JacobianGraph(share, values, dummy, kept, where, middle, examples)

    def roots(self, graph: JacobianGraph) -> Sequence[Tensor]:
        return graph.pulled

    def differentiate(
        self, graph: JacobianGraph, row: dict[int, Tensor], part: Part, retain: bool
    ) -> tuple[Sequence[Tensor | None], float]:
        chosen = [(p, row[i]) for p, i in zip(graph.pulled, graph.where, strict=True) if i in row]
        if not chosen:
            return [None] * len(row), graph.share
        try:
            (pushed,) = torch.autograd.grad(
                [pulled for pulled, _ in chosen],
                graph.dummy,
                [vector for _, vector in chosen],
                retain_graph=retain,
                materialize_grads=True,
            )
            if graph.middle is not None:
                pushed = graph.middle.multiply(pushed, retain)
            found = torch.autograd.grad(
                graph.values, part.tensors(self.problem), pushed, retain_graph=retain, allow_unused=True
            )
        except RuntimeError as error:
            raise explained(error) from error
        return found, graph.share
