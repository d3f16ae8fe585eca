"""Loss and gradient over the data at weights other than the model's own, which stay as they are.

Parameters are lists of tensors in the model's shapes and dtype, so that nothing is as long as the model but
what is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from landscape.data import Piece
from landscape.parameters import add_scaled
from landscape.problem import Problem

__all__ = ["chunks", "distance", "inner", "largest_entry", "loss_and_gradient", "loss_at", "norm", "summed"]

#: Elements that elementwise work in float64 is done on at once.
CHUNK = 1 << 18
#: Sums of squares in between have lost nothing to under- or overflow in float64.
SAFE = 1e-280, 1e300


def loss_at(problem: Problem, pieces: Iterable[Piece], weights: Sequence[Tensor]) -> float:
    """The loss at ``weights`` (one tensor a parameter), summed in float64; it may be infinite or NaN."""
    loss = 0.0
    with problem.arithmetic(), torch.no_grad():
        for piece in pieces:
            loss += float(problem.mean_loss_at(piece, weights)) * problem.share(piece)
    return loss + _decay(problem, weights)


def loss_and_gradient(
    problem: Problem, pieces: Iterable[Piece], weights: Sequence[Tensor] | None = None
) -> tuple[float, list[Tensor]]:
    """The loss and its gradient at ``weights``, or at the model's own; neither need be finite.

    The gradient is a list of tensors like the parameters. It is summed over pieces in float64 and rounded
    once, bit by bit that of :meth:`Problem.measure`; a single piece's is what the backward pass gave.
    """
    loss = 0.0
    with problem.arithmetic():
        at = list(problem.selection.tensors) if weights is None else [_variable(w) for w in weights]
        sums = _Sums(at, keep=bool(problem.weight_decay))
        for piece in pieces:
            mean = problem.mean_loss(piece) if weights is None else problem.mean_loss_at(piece, at)
            sums.add(list(torch.autograd.grad(mean, at, allow_unused=True)), problem.share(piece))
            loss += float(mean.detach()) * problem.share(piece)
        if problem.weight_decay:
            for i, w in enumerate(at):
                sums.add_one(i, problem.weight_decay * w.detach().double())
        return loss + _decay(problem, at), sums.rounded()


def _variable(weight: Tensor) -> Tensor:
    """To be differentiated by, which what was made in inference mode cannot be."""
    return (weight.clone() if weight.is_inference() else weight.detach()).requires_grad_()


class _Sums:
    """Gradients summed in float64; the first one is only kept as it is, unless another one comes.

    What is taken over is let go tensor by tensor, so that little more than the larger of both is ever held.
    """

    def __init__(self, like: Sequence[Tensor], keep: bool) -> None:
        self._like = like
        self._first: tuple[list[Tensor | None], float] | None = None
        self._total = [self._zeros(i) for i in range(len(like))] if keep else []

    def _zeros(self, i: int) -> Tensor:
        return torch.zeros_like(self._like[i], dtype=torch.float64, requires_grad=False)

    def add(self, parts: list[Tensor | None], share: float) -> None:
        """Add ``share`` times ``parts``, a list that is emptied or kept."""
        if not self._total and self._first is None:
            for i, part in enumerate(parts):
                parts[i] = None if part is None else part.contiguous()  # one after the other
            self._first = parts, share
            return
        first, first_share = self._first or ([], 0.0)
        self._first = None
        for i in range(len(self._like)):
            if first:
                self._total.append(_added(self._zeros(i), first[i], first_share))
                first[i] = None
            self._total[i] = _added(self._total[i], parts[i], share)
            parts[i] = None

    def add_one(self, i: int, part: Tensor) -> None:
        """Add to one tensor of sums that were kept from the beginning."""
        self._total[i].add_(part)

    def rounded(self) -> list[Tensor]:
        """In the dtype of the weights."""
        first, share = self._first or ([None] * len(self._like), 1.0)
        found = []
        for i, w in enumerate(self._like):
            part = first[i]
            if self._total:
                found.append(self._total[i].to(w.dtype))
                self._total[i] = torch.empty(0)
            elif part is None:
                found.append(torch.zeros_like(w, requires_grad=False))
            else:
                found.append(part if share == 1 else (part.double() * share).to(part.dtype))
            first[i] = None
        return found


def _added(total: Tensor, part: Tensor | None, share: float) -> Tensor:
    if part is not None:
        add_scaled(total, part, share)
    return total


def _decay(problem: Problem, weights: Sequence[Tensor]) -> float:
    if not problem.weight_decay:
        return 0.0
    detached = [w.detach() for w in weights]
    return problem.weight_decay / 2 * inner(detached, detached)


def chunks(*tensors: Tensor) -> Iterable[tuple[Tensor, ...]]:
    """Tensors of one shape, flat and piece by piece."""
    flat = [tensor.detach().reshape(-1) for tensor in tensors]
    for first in range(0, flat[0].numel(), CHUNK):
        yield tuple(tensor[first : first + CHUNK] for tensor in flat)


def summed(values: Iterable[float]) -> float:
    """The sum of finite or other numbers: infinite or NaN where :func:`math.fsum` would raise."""
    every = list(values)
    try:
        return math.fsum(every)
    except (OverflowError, ValueError):  # beyond the largest float, ∞ − ∞
        return float(sum(every))


def inner(left: Sequence[Tensor], right: Sequence[Tensor]) -> float:
    """The inner product of two lists of tensors, in float64; it need not be finite."""
    return summed(
        float(a.double() @ b.double()) for x, y in zip(left, right, strict=True) for a, b in chunks(x, y)
    )


def largest_entry(parts: Iterable[Tensor]) -> float:
    """The largest |entry| of a list of tensors; NaN if any is NaN, 0 if there are none."""
    found = [float(x.abs().max()) for part in parts for (x,) in chunks(part)]
    return math.nan if any(math.isnan(f) for f in found) else max(found, default=0.0)


def norm(parts: Sequence[Tensor]) -> float:
    """The Euclidean norm of a list of tensors, in float64, whatever their size."""
    squares = inner(parts, parts)
    if SAFE[0] < squares < SAFE[1]:
        return math.sqrt(squares)
    largest = largest_entry(parts)
    if largest == 0 or not math.isfinite(largest):
        return largest
    return largest * math.sqrt(
        math.fsum(float((x.double() / largest).square().sum()) for part in parts for (x,) in chunks(part))
    )


def distance(left: Sequence[Tensor], right: Sequence[Tensor]) -> float:
    """The Euclidean norm of a difference, in float64, whatever the dtypes."""
    return math.sqrt(
        summed(
            float((a.double() - b.double()).square().sum())
            for x, y in zip(left, right, strict=True)
            for a, b in chunks(x, y)
        )
    )
