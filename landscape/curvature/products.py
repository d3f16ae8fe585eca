"""What products with every matrix of a data set's loss have in common: pieces, graphs, counts, errors."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from landscape.curvature.strategy import Strategy
from landscape.data import Piece
from landscape.errors import ComputationError, ConfigurationError, LandscapeError
from landscape.linalg.operator import norm
from landscape.machine import brief, is_out_of_memory
from landscape.parameters import Layout
from landscape.problem import Problem

__all__ = ["Block", "DataOperator", "GraphOperator", "Part", "check_differentiable", "explained"]


@dataclass(frozen=True)
class Part:
    """Some of the measured parameters: their places among all, and how they lie in a vector of their own."""

    indices: tuple[int, ...]
    layout: Layout

    def tensors(self, problem: Problem) -> list[Tensor]:
        return [problem.selection.tensors[i] for i in self.indices]

    def rows(self, vector: Tensor) -> dict[int, Tensor]:
        """A vector of the part's length, parameter-shaped, by the parameters' places among all."""
        return dict(zip(self.indices, self.layout.split(vector), strict=True))


class DataOperator(ABC):
    """A symmetric matrix (n, n) made from a problem's loss at its weights, only ever multiplied.

    Attributes:
        size, dtype, device: see :class:`landscape.linalg.operator.Operator`.
        products, passes: how many products were made, and in how many passes over the data; those of
            :meth:`block` count, too.
        semidefinite: whether vᵀAv ≥ 0 is promised.
    """

    #: How the matrix is called in messages.
    title = "Hessian"
    #: What may be wrong where a product is not finite.
    advice = "look for sqrt, norm or log near zero in the model or the loss, or use --dtype float64"

    def __init__(self, problem: Problem, strategy: Strategy, *, semidefinite: bool = False) -> None:
        self.problem, self.strategy, self.semidefinite = problem, strategy, semidefinite
        self.size, self.dtype, self.device = problem.size, problem.dtype, problem.device
        self.products = self.passes = 0
        layout = problem.selection.layout
        self.whole = Part(tuple(range(len(layout.names))), layout)
        self._pieces: list[Piece] | None = None

    def apply(self, vectors: Tensor) -> Tensor:
        """Products with the rows of ``vectors`` (m, n); (m, n) float64.

        Raises:
            ComputationError: the loss is not differentiable often enough, or a product is not finite.
        """
        return self.multiplied(vectors, self.whole)

    def multiplied(self, vectors: Tensor, part: Part) -> Tensor:
        """Products with the part's diagonal block, in its own layout; counted like any other."""
        with self.problem.arithmetic():
            vectors = vectors.clone() if vectors.is_inference() else vectors
            out = self._products(vectors, part)
        self.products += len(vectors)
        self.passes += 1
        if not math.isfinite(float(out.sum())):
            raise ComputationError(
                f"a {self.title} product is not finite although loss and gradient are", do=self.advice
            )
        self._check(vectors, out, part)
        return out

    def error(self, vector: Tensor) -> float:
        """Estimate of ‖computed − exact product‖ for a unit ``vector`` (n,)."""
        return self.error_on(vector, self.whole)

    def block(self, names: Sequence[str]) -> Block:
        """The diagonal block of the named parameters, whose vectors hold these alone, in layout order.

        It shares graphs and counters with this operator and differentiates these parameters only.

        Raises:
            ConfigurationError: no names, or a name that is not among the measured parameters.
        """
        layout = self.problem.selection.layout
        unknown = [name for name in names if name not in layout.names]
        if unknown or not names:
            raise ConfigurationError(
                "a block needs the names of measured parameters",
                found=", ".join(unknown[:3]) or "none",
                do=f"names here are like {', '.join(layout.names[:3])}",
            )
        indices = tuple(i for i, name in enumerate(layout.names) if name in names)
        chosen = Layout(tuple(layout.names[i] for i in indices), tuple(layout.shapes[i] for i in indices))
        return Block(self, Part(indices, chosen))

    @abstractmethod
    def error_on(self, vector: Tensor, part: Part) -> float:
        """:meth:`error` of a part's diagonal block."""

    @abstractmethod
    def _products(self, vectors: Tensor, part: Part) -> Tensor:
        """The products themselves, weight decay included; within ``problem.arithmetic()``."""

    def _check(self, vectors: Tensor, products: Tensor, part: Part) -> None:
        """Look whether what is promised of the matrix holds for these products."""
        return

    def release(self) -> None:
        """Let what is held between products go."""
        self._pieces = None

    def _cut(self) -> Iterable[Piece]:
        """The data in pieces; cut once where the data are in memory."""
        if self.problem.data.batches is None:
            return self.problem.pieces(self.strategy.micro_batch)
        if self._pieces is None:
            self._pieces = list(self.problem.pieces(self.strategy.micro_batch))
        return self._pieces


class Block:
    """A diagonal block of a :class:`DataOperator`, as an operator of its own."""

    def __init__(self, parent: DataOperator, part: Part) -> None:
        self.parent, self.part = parent, part
        self.names, self.size = part.layout.names, part.layout.size
        self.dtype, self.device = parent.dtype, parent.device
        self.semidefinite = parent.semidefinite  # every diagonal block of a semi-definite matrix is

    def apply(self, vectors: Tensor) -> Tensor:
        """Products with the rows of ``vectors`` (m, size); (m, size) float64."""
        return self.parent.multiplied(vectors, self.part)

    def error(self, vector: Tensor) -> float:
        """Estimate of ‖computed − exact product‖ for a unit ``vector`` (size,)."""
        return self.parent.error_on(vector, self.part)


class Graph(Protocol):
    """What a piece's graph says of itself: how many examples it is made of."""

    @property
    def examples(self) -> int: ...


G = TypeVar("G", bound=Graph)


class GraphOperator(DataOperator, Generic[G]):
    """Products by differentiating a graph of each piece, some of which are kept as ``strategy`` says.

    One gradient on the same data is the unit of cost. Sums over pieces are float64.
    """

    #: The sample on which the error of a product is measured: this part of the data, and the fewest examples.
    sample_part, sample_least = 32, 2

    def __init__(self, problem: Problem, strategy: Strategy, *, semidefinite: bool = False) -> None:
        super().__init__(problem, strategy, semidefinite=semidefinite)
        self._kept: list[G] | None = None

    @abstractmethod
    def build(self, piece: Piece) -> G:
        """A piece's graph; to be called within ``problem.arithmetic()``."""

    @abstractmethod
    def roots(self, graph: G) -> Sequence[Tensor]:
        """What :meth:`differentiate` differentiates, for :func:`check_differentiable`."""

    @abstractmethod
    def differentiate(
        self, graph: G, row: dict[int, Tensor], part: Part, retain: bool
    ) -> tuple[Sequence[Tensor | None], float]:
        """(one product, parameter-shaped for the part's parameters; by what it is to be multiplied)."""

    def scale(self, examples: int) -> float:
        """What the sum over all pieces, with ``examples`` examples in them, is multiplied by."""
        return 1.0

    def release(self) -> None:
        """Let the kept graphs go."""
        super().release()
        self._kept = None

    def over(self, pieces: Iterable[Piece], vectors: Tensor, part: Part | None = None) -> Tensor:
        """Products over some pieces only, (m, n) float64: their share of the matrix, without weight decay."""
        with self.problem.arithmetic():
            vectors = vectors.clone() if vectors.is_inference() else vectors
            built = ((self.build(piece), False) for piece in pieces)
            return self._summed(built, vectors, part or self.whole)[0] * self.scale(self.problem.examples)

    def _products(self, vectors: Tensor, part: Part) -> Tensor:
        out, examples = self._summed(self._graphs(), vectors, part)
        if (factor := self.scale(examples)) != 1.0:
            out *= factor
        return self._decayed(out, vectors)

    def _decayed(self, out: Tensor, vectors: Tensor) -> Tensor:
        if self.problem.weight_decay:
            out += self.problem.weight_decay * vectors.double()
        return out

    def _summed(self, graphs: Iterable[tuple[G, bool]], vectors: Tensor, part: Part) -> tuple[Tensor, int]:
        """(sum of the graphs' products, examples they are made of)."""
        out = torch.zeros(vectors.shape, dtype=torch.float64, device=self.device)
        totals, rows, examples = list(out), [part.rows(vector) for vector in vectors], 0
        for graph, kept in graphs:
            for i, row in enumerate(rows):
                last = not kept and i == len(rows) - 1
                parts, factor = self.differentiate(graph, row, part, retain=not last)
                self.problem.add_flat(totals[i], parts, factor, part.layout)
            examples += graph.examples
            del graph, parts  # before the next one is built
        return out, examples

    def _graphs(self) -> Iterator[tuple[G, bool]]:
        """Each piece's graph and whether it stays: the kept ones first, the others built on the way."""
        if self._kept is None:
            kept: list[G] = []
            for index, piece in enumerate(self._cut()):
                graph = self.build(piece)
                if index == 0:
                    check_differentiable(self.roots(graph))
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
                    yield self.build(piece), False

    def error_on(self, vector: Tensor, part: Part) -> float:
        """Estimate of ‖Ev‖, E the error of a product as computed, from a sample of the data.

        The product in float32 is compared with the one in float64 on the same examples; to first order the
        error of a float64 product is the same multiple of its own unit roundoff (Higham 2002, §3.1). Where
        the model does not run in the other arithmetic, the product is compared with one that has other piece
        boundaries. The sample's mean has at least the relative error of the data's, whose sums are longer but
        average more. Twice the difference is taken, as it is measured for one vector and one sample only.
        """
        problem = self.problem
        sample = list(self._sample())
        found = self._against_double(sample, vector, part)
        if found is None or not math.isfinite(found):
            rows = vector.to(problem.dtype)[None]
            halves = (half for piece in sample for half in _halves(problem, piece))
            found = norm((self.over(sample, rows, part) - self.over(halves, rows, part))[0])
        return 2 * problem.terms / sum(piece.terms for piece in sample) * found

    def _sample(self) -> Iterator[Piece]:
        """Examples spread over the data, in pieces as products are made of."""
        size, step = (
            max(self.sample_least, self.problem.examples // self.sample_part),
            self.strategy.micro_batch,
        )
        sample = self.problem.sample(min(size, 256))
        if self.problem.train_mode or sample.examples <= step:
            yield sample
            return
        for first in range(0, sample.examples, step):
            yield from self.problem.cut(sample, slice(first, first + step))

    def _against_double(self, sample: Sequence[Piece], vector: Tensor, part: Part) -> float | None:
        """‖float32 − float64 product‖ in units of the problem's arithmetic; None if the model lacks one."""
        try:
            single = self._in(self.problem.in_dtype(torch.float32))
            double = self._in(single.problem.in_dtype(torch.float64))
            low = [single.problem.recast(piece) for piece in sample]
            computed = single.over(low, vector.float()[None], part)[0]
            high = (double.problem.recast(piece) for piece in low)
            exact = double.over(high, vector.float().double()[None], part)[0]
        except (RuntimeError, LandscapeError) as error:
            if is_out_of_memory(error):
                raise
            return None
        return norm(computed - exact) * torch.finfo(self.dtype).eps / torch.finfo(torch.float32).eps

    def _in(self, problem: Problem) -> GraphOperator[G]:
        """The same operator of a twin problem, in its arithmetic."""
        twin = copy.copy(self)
        twin.problem, twin.dtype = problem, problem.dtype
        twin._kept = twin._pieces = None
        return twin


def _halves(problem: Problem, piece: Piece) -> Iterator[Piece]:
    middle = piece.examples // 2
    if problem.train_mode or middle == 0:
        yield piece
        return
    for rows in (slice(0, middle), slice(middle, None)):
        yield from problem.cut(piece, rows)


def check_differentiable(roots: Sequence[Tensor]) -> None:
    """Look for the nodes that mark a ``once_differentiable`` function: autograd.grad passes them by silently.

    Raises:
        ComputationError: there is one; second derivatives would lack what goes through it.
    """
    waiting = [root.grad_fn for root in roots]
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


def explained(error: RuntimeError) -> Exception:
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
