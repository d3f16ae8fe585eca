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

__all__ = ["chunks", "inner", "loss_and_gradient", "loss_at", "norm"]

#: Elements that elementwise work in float64 is done on at once.
CHUNK = 1 << 18


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
    once; that of a single piece is what the backward pass gave.
    """
    own = list(problem.selection.tensors)
    at = own if weights is None else [w.detach().requires_grad_() for w in weights]
    loss, scale = 0.0, 0.0
    total: list[Tensor] | None = None
    first: list[Tensor | None] | None = None
    with problem.arithmetic():
        for piece in pieces:
            mean = problem.mean_loss(piece) if weights is None else problem.mean_loss_at(piece, at)
            parts: list[Tensor | None] = list(torch.autograd.grad(mean, at, allow_unused=True))
            share = problem.share(piece)
            loss += float(mean.detach()) * share
            if total is None and first is None:
                first, scale = parts, share
                continue
            if total is None:
                assert first is not None
                total = [torch.zeros_like(w, dtype=torch.float64) for w in at]
                _add(total, first, scale)
                first = None
            _add(total, parts, share)
        gradient = _rounded(at, total, first, scale)
        if problem.weight_decay:
            gradient = [
                part.add(w.detach(), alpha=problem.weight_decay) for part, w in zip(gradient, at, strict=True)
            ]
    return loss + _decay(problem, at), gradient


def _add(total: Sequence[Tensor], parts: Sequence[Tensor | None], share: float) -> None:
    for sums, part in zip(total, parts, strict=True):
        if part is not None:
            sums.add_(part, alpha=share)


def _rounded(
    at: Sequence[Tensor], total: list[Tensor] | None, first: list[Tensor | None] | None, scale: float
) -> list[Tensor]:
    """The gradient in the dtype of the weights; sums are let go one by one."""
    if total is None:
        parts = first or [None] * len(at)
        return [
            torch.zeros_like(w, requires_grad=False) if p is None else p * scale if scale != 1 else p
            for w, p in zip(at, parts, strict=True)
        ]
    gradient = []
    for i, w in enumerate(at):
        gradient.append(total[i].to(w.dtype))
        total[i] = torch.empty(0)
    return gradient


def _decay(problem: Problem, weights: Sequence[Tensor]) -> float:
    if not problem.weight_decay:
        return 0.0
    return problem.weight_decay / 2 * norm([w.detach() for w in weights]) ** 2


def chunks(*tensors: Tensor) -> Iterable[tuple[Tensor, ...]]:
    """Tensors of one shape, flat and piece by piece."""
    flat = [tensor.detach().reshape(-1) for tensor in tensors]
    for first in range(0, flat[0].numel(), CHUNK):
        yield tuple(tensor[first : first + CHUNK] for tensor in flat)


def inner(left: Sequence[Tensor], right: Sequence[Tensor]) -> float:
    """The inner product of two lists of tensors, in float64."""
    return math.fsum(
        float(a.double() @ b.double()) for x, y in zip(left, right, strict=True) for a, b in chunks(x, y)
    )


def norm(parts: Sequence[Tensor]) -> float:
    """The Euclidean norm of a list of tensors, in float64."""
    return math.sqrt(inner(parts, parts))
