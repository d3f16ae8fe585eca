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
from landscape.problem import Problem

__all__ = ["chunks", "inner", "largest_entry", "loss_and_gradient", "loss_at", "norm", "summed"]

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
            sums.add(torch.autograd.grad(mean, at, allow_unused=True), problem.share(piece))
            loss += float(mean.detach()) * problem.share(piece)
        if problem.weight_decay:
            sums.add([problem.weight_decay * w.detach().double() for w in at], 1.0)
        return loss + _decay(problem, at), sums.rounded()


def _variable(weight: Tensor) -> Tensor:
    """To be differentiated by, which what was made in inference mode cannot be."""
    return (weight.clone() if weight.is_inference() else weight.detach()).requires_grad_()


class _Sums:
    """Gradients summed in float64; the first one is only kept as it is, unless another one comes."""

    def __init__(self, like: Sequence[Tensor], keep: bool) -> None:
        self._like = like
        self._first: tuple[Sequence[Tensor | None], float] | None = None
        self._total: list[Tensor] | None = self._zeros() if keep else None

    def _zeros(self) -> list[Tensor]:
        return [torch.zeros_like(w, dtype=torch.float64, requires_grad=False) for w in self._like]

    def add(self, parts: Sequence[Tensor | None], share: float) -> None:
        if self._total is None and self._first is None:
            self._first = parts, share
            return
        if self._first is not None:
            (first, first_share), self._first = self._first, None
            self._total = self._zeros()
            self._sum(first, first_share)
        self._sum(parts, share)

    def _sum(self, parts: Sequence[Tensor | None], share: float) -> None:
        assert self._total is not None
        for total, part in zip(self._total, parts, strict=True):
            if part is not None:
                total.add_(part, alpha=share)

    def rounded(self) -> list[Tensor]:
        """In the dtype of the weights; the sums are let go one by one."""
        parts: Sequence[Tensor | None]
        parts, share = self._first or ([None] * len(self._like), 1.0)
        total, found = self._total, []
        for i, w in enumerate(self._like):
            part = parts[i]
            if total is not None:
                found.append(total[i].to(w.dtype))
                total[i] = torch.empty(0)
            elif part is None:
                found.append(torch.zeros_like(w, requires_grad=False))
            else:
                found.append(part if share == 1 else (part.double() * share).to(part.dtype))
        return found


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
