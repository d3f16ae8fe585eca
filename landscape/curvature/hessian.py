"""Products with the Hessian of the data set's loss, by double backward (Pearlmutter 1994)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.curvature.strategy import Strategy
from landscape.data import Piece
from landscape.errors import ComputationError, LandscapeError
from landscape.linalg.operator import norm
from landscape.machine import brief, is_out_of_memory
from landscape.problem import Problem

__all__ = ["HessianOperator"]


@dataclass(frozen=True)
class _Graph:
    """A piece's first-order graph: the gradients that depend on the weights any further, and where they go.

    ``share`` is what the piece counts for in the data set's mean.
    """

    share: float
    gradients: tuple[Tensor, ...]
    where: tuple[int, ...]


class HessianOperator:
    """The Hessian of a problem's loss at its weights, (n, n), only ever multiplied.

    One gradient on the same data is the unit of cost. A product through a kept graph costs about 2, through
    a rebuilt one about 3; a block of K vectors through one rebuilt graph (1 + 2K)/K each. ``strategy`` says
    how large the pieces are and how many of them keep their graphs. Sums over pieces are float64.

    Attributes:
        products, passes: how many products were made, and in how many passes over the data.
    """

    def __init__(self, problem: Problem, strategy: Strategy) -> None:
        self.problem, self.strategy = problem, strategy
        self.size, self.dtype, self.device = problem.size, problem.dtype, problem.device
        self.products = self.passes = 0
        self._kept: list[_Graph] | None = None
        self._pieces: list[Piece] | None = None

    def apply(self, vectors: Tensor) -> Tensor:
        """Products with the rows of ``vectors`` (m, n); (m, n) float64.

        Raises:
            ComputationError: the loss is not twice differentiable, or a product is not finite.
        """
        with self.problem.arithmetic():
            vectors = vectors.clone() if vectors.is_inference() else vectors
            out = torch.zeros(vectors.shape, dtype=torch.float64, device=self.device)
            totals, rows = list(out), [self.problem.selection.layout.split(vector) for vector in vectors]
            for graph, kept in self._graphs():
                for i, row in enumerate(rows):
                    last = not kept and i == len(rows) - 1
                    parts = differentiate(self.problem, graph, row, retain=not last)
                    self.problem.add_flat(totals[i], parts, graph.share)
                del graph, parts  # before the next one is built
        if self.problem.weight_decay:
            out += self.problem.weight_decay * vectors.double()
        self.products += len(vectors)
        self.passes += 1
        if not math.isfinite(float(out.sum())):
            raise ComputationError(
                "a Hessian product is not finite although loss and gradient are",
                do="look for sqrt, norm or log near zero in the model or the loss, or use --dtype float64",
            )
        return out

    def error(self, vector: Tensor) -> float:
        """Estimate of ‖computed − exact product‖ for a unit ``vector`` (n,): see :func:`product_error`."""
        return product_error(self.problem, vector, self.strategy.micro_batch)

    def release(self) -> None:
        """Let the kept graphs go."""
        self._kept = self._pieces = None

    def _cut(self) -> Iterable[Piece]:
        """The data in pieces; cut once where the data are in memory."""
        if self.problem.data.batches is None:
            return self.problem.pieces(self.strategy.micro_batch)
        if self._pieces is None:
            self._pieces = list(self.problem.pieces(self.strategy.micro_batch))
        return self._pieces

    def _graphs(self) -> Iterator[tuple[_Graph, bool]]:
        """Each piece's graph and whether it stays: the kept ones first, the others built on the way."""
        if self._kept is None:
            kept: list[_Graph] = []
            for index, piece in enumerate(self._cut()):
                graph = build_graph(self.problem, piece)
                if index == 0:
                    check_differentiable(graph)
                if index < self.strategy.kept_pieces:
                    kept.append(graph)
                yield graph, index < self.strategy.kept_pieces
            self._kept = kept
            return
        for graph in self._kept:
            yield graph, True
        if len(self._kept) < self.strategy.pieces:
            for index, piece in enumerate(self._cut()):
                if index >= len(self._kept):
                    yield build_graph(self.problem, piece), False


def build_graph(problem: Problem, piece: Piece) -> _Graph:
    """The first-order graph of a piece's mean loss; to be called within ``problem.arithmetic()``."""
    loss = problem.mean_loss(piece)
    try:
        gradients = problem.gradient_of(loss, create_graph=True)
    except RuntimeError as error:
        raise _explained(error) from error
    # A gradient that does not depend on the weights (a linear loss) has a zero Hessian.
    used = [(i, g) for i, g in enumerate(gradients) if g is not None and g.requires_grad]
    return _Graph(problem.share(piece), tuple(g for _, g in used), tuple(i for i, _ in used))


def check_differentiable(graph: _Graph) -> None:
    """Look for the nodes that mark a ``once_differentiable`` function: autograd.grad passes them by silently.

    Raises:
        ComputationError: there is one; second derivatives would lack what goes through it.
    """
    waiting = [gradient.grad_fn for gradient in graph.gradients]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        if node is None:
            continue
        if node.name() == "torch::autograd::Error":
            raise ComputationError(
                "the loss is not twice differentiable",
                found="a function whose backward is marked once_differentiable",
                do="a custom autograd Function in the model must itself be differentiable",
            )
        for following, _ in node.next_functions:
            if following not in seen:
                seen.add(following)
                waiting.append(following)


def products_on(problem: Problem, pieces: Iterable[Piece], vectors: Tensor) -> Tensor:
    """Hessian products over some pieces only (their shares of the data set's loss), (m, n) float64."""
    with problem.arithmetic():
        vectors = vectors.clone() if vectors.is_inference() else vectors
        out = torch.zeros(vectors.shape, dtype=torch.float64, device=problem.device)
        rows = [problem.selection.layout.split(vector) for vector in vectors]
        for piece in pieces:
            graph = build_graph(problem, piece)
            for i, row in enumerate(rows):
                parts = differentiate(problem, graph, row, retain=i < len(rows) - 1)
                problem.add_flat(out[i], parts, graph.share)
    return out


def differentiate(
    problem: Problem, graph: _Graph, row: Sequence[Tensor], retain: bool
) -> Sequence[Tensor | None]:
    """One product through a graph, parameter-shaped; ``row`` is the vector, parameter-shaped."""
    if not graph.gradients:
        return [None] * len(row)
    try:
        return torch.autograd.grad(
            graph.gradients,
            problem.selection.tensors,
            grad_outputs=[row[i] for i in graph.where],
            retain_graph=retain,
            allow_unused=True,
        )
    except RuntimeError as error:
        raise _explained(error) from error


def product_error(problem: Problem, vector: Tensor, micro_batch: int) -> float:
    """Estimate of ‖Ev‖, E the error of a product as computed, from a sample of the data.

    The product in float32 is compared with the one in float64 on the same examples; to first order the error
    of a float64 product is the same multiple of its own unit roundoff (Higham 2002, §3.1). Where the model
    does not run in the other arithmetic, the product is compared with one that has other piece boundaries.
    The sample's mean has at least the relative error of the data's, whose sums are longer but average more.
    Twice the difference is taken, as it is measured for one vector and one sample only.
    """
    sample = _sample(problem, micro_batch)
    found = _against_double(problem, sample, vector)
    if found is None or not math.isfinite(found):
        rows = vector.to(problem.dtype)[None]
        halves = _halves(problem, sample)
        found = norm((products_on(problem, [sample], rows) - products_on(problem, halves, rows))[0])
    return 2 * problem.terms / sample.terms * found


def _against_double(problem: Problem, sample: Piece, vector: Tensor) -> float | None:
    """‖float32 − float64 product‖ in units of the problem's arithmetic; None if the model lacks either."""
    try:
        single = problem.in_dtype(torch.float32)
        double = single.in_dtype(torch.float64)
        low = single.recast(sample)
        computed = products_on(single, [low], vector.float()[None])[0]
        exact = products_on(double, [double.recast(low)], vector.float().double()[None])[0]
    except (RuntimeError, LandscapeError) as error:
        if is_out_of_memory(error):
            raise
        return None
    return norm(computed - exact) * torch.finfo(problem.dtype).eps / torch.finfo(torch.float32).eps


def _sample(problem: Problem, micro_batch: int) -> Piece:
    """A thirty-second of the data (at least 2 examples), cut as products are."""
    return problem.sample(min(max(2, problem.examples // 32), micro_batch, 256))


def _halves(problem: Problem, piece: Piece) -> Iterator[Piece]:
    middle = piece.examples // 2
    if problem.train_mode or middle == 0:
        yield piece
        return
    for rows in (slice(0, middle), slice(middle, None)):
        yield from problem.cut(piece, rows)


def _explained(error: RuntimeError) -> Exception:
    """What autograd says, in words; running out of memory stays what it is."""
    text = str(error)
    if is_out_of_memory(error):
        return error
    advice = ""
    if "derivative" in text and ("not implemented" in text or "not differentiable" in text):
        advice = "replace that operation by one with a second derivative"
    elif "does not require grad" in text or "once_differentiable" in text or "differentiate twice" in text:
        advice = "a custom autograd Function in the model must itself be differentiable"
    if advice:
        return ComputationError("the loss is not twice differentiable", found=brief(error), do=advice)
    return ComputationError(
        "the loss could not be differentiated", found=brief(error), do="--debug shows where it failed"
    )
