"""Products with the Hessian of the data set's loss, by double backward (Pearlmutter 1994)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.curvature.products import GraphOperator, Part, explained
from landscape.curvature.strategy import Strategy
from landscape.data import Piece
from landscape.problem import Problem

__all__ = ["HessianOperator", "build_graph", "products_on"]


@dataclass(frozen=True)
class _Graph:
    """A piece's first-order graph: the gradients that depend on the weights any further, and where they go.

    ``share`` is what the piece counts for in the data set's mean.
    """

    share: float
    gradients: tuple[Tensor, ...]
    where: tuple[int, ...]
    examples: int


class HessianOperator(GraphOperator[_Graph]):
    """The Hessian of a problem's loss at its weights, (n, n), only ever multiplied.

    One gradient on the same data is the unit of cost. A product through a kept graph costs about 2, through
    a rebuilt one about 3; a block of K vectors through one rebuilt graph (1 + 2K)/K each. ``strategy`` says
    how large the pieces are and how many of them keep their graphs.
    """

    def build(self, piece: Piece) -> _Graph:
        return build_graph(self.problem, piece)

    def roots(self, graph: _Graph) -> Sequence[Tensor]:
        return graph.gradients

    def differentiate(
        self, graph: _Graph, row: dict[int, Tensor], part: Part, retain: bool
    ) -> tuple[Sequence[Tensor | None], float]:
        chosen = [(g, row[i]) for g, i in zip(graph.gradients, graph.where, strict=True) if i in row]
        if not chosen:
            return [None] * len(row), graph.share
        try:
            found = torch.autograd.grad(
                [gradient for gradient, _ in chosen],
                part.tensors(self.problem),
                grad_outputs=[vector for _, vector in chosen],
                retain_graph=retain,
                allow_unused=True,
            )
        except RuntimeError as error:
            raise explained(error) from error
        return found, graph.share


def build_graph(problem: Problem, piece: Piece) -> _Graph:
    """The first-order graph of a piece's mean loss; to be called within ``problem.arithmetic()``."""
    loss = problem.mean_loss(piece)
    try:
        gradients = problem.gradient_of(loss, create_graph=True)
    except RuntimeError as error:
        raise explained(error) from error
    # A gradient that does not depend on the weights (a linear loss) has a zero Hessian.
    used = [(i, g) for i, g in enumerate(gradients) if g is not None and g.requires_grad]
    where, kept = tuple(i for i, _ in used), tuple(g for _, g in used)
    return _Graph(problem.share(piece), kept, where, piece.examples)


def products_on(problem: Problem, pieces: Iterable[Piece], vectors: Tensor) -> Tensor:
    """Hessian products over some pieces only (their shares of the data set's loss), (m, n) float64."""
    return HessianOperator(problem, Strategy(1, 0, 0, 0)).over(pieces, vectors)
