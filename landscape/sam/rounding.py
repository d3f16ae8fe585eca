"""What rounding does to a gradient, measured on a few examples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from landscape.data import Piece
from landscape.errors import LandscapeError
from landscape.machine import is_out_of_memory
from landscape.problem import Problem
from landscape.sam.passes import distance, loss_and_gradient

__all__ = ["gradient_rounding"]


def gradient_rounding(problem: Problem, examples: int, layer_of: Sequence[int]) -> np.ndarray:
    """Root mean square rounding error of an element of each layer's gradient (layers,), in absolute terms.

    That of the mean over a few examples, which that over all data is not above: rounding errors do not
    cancel each other less than the examples' gradients do, and near a minimum much less. Against float64
    where the arithmetic is float32; float64 itself is taken to be better by the ratio of the two precisions.
    Where the model does not run in the other one, against the same in two pieces.
    """
    piece = problem.sample(examples)
    single = problem.dtype == torch.float32
    scale = 1.0 if single else torch.finfo(problem.dtype).eps / torch.finfo(torch.float32).eps
    try:
        theirs = _twin_gradient(problem, torch.float64 if single else torch.float32, piece)
    except (RuntimeError, TypeError, ValueError, LandscapeError) as error:
        if is_out_of_memory(error):
            raise
        scale, half = 1.0, max(1, piece.examples // 2)
        parts = [*problem.cut(piece, slice(0, half)), *problem.cut(piece, slice(half, None))]
        theirs = loss_and_gradient(problem, parts)[1]
    problem.drop_twins()  # as long as two models
    ours = loss_and_gradient(problem, [piece])[1]
    squares, sizes = np.zeros(max(layer_of, default=-1) + 1), np.zeros(max(layer_of, default=-1) + 1)
    for a, b, layer in zip(ours, theirs, layer_of, strict=True):
        squares[layer] += distance([a], [b]) ** 2
        sizes[layer] += a.numel()
    return scale / problem.share(piece) * np.sqrt(squares / np.maximum(sizes, 1))


def _twin_gradient(problem: Problem, dtype: torch.dtype, piece: Piece) -> list[Tensor]:
    twin = problem.in_dtype(dtype)
    return loss_and_gradient(twin, [twin.recast(piece)])[1]
