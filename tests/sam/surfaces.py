"""Losses whose rise around the weights is known: planes, quadratics, and one that overflows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from landscape.curvature.strategy import Strategy
from landscape.problem import Problem
from landscape.sam.losses import losses_of
from landscape.sam.sharpness import Around, ball_of
from tests.support.closed_form import FLOAT64, generator

__all__ = ["Point", "around", "flat", "plane", "problem_of", "quadratic"]


class Point(nn.Module):
    """A model that is nothing but its weights, some called weight and some called bias."""

    def __init__(self, w: Tensor, biases: int = 0) -> None:
        super().__init__()
        cut = len(w) - biases
        self.weight = nn.Parameter(w[:cut].clone())
        self.bias = nn.Parameter(w[cut:].clone()) if biases else None

    @property
    def w(self) -> Tensor:
        return self.weight if self.bias is None else torch.cat([self.weight, self.bias])


def problem_of(value: Callable[[Tensor], Tensor], w: Tensor, biases: int = 0, **options: Any) -> Problem:
    """The loss ``value(w)`` whatever the data, of which there are four."""

    def loss(model: Any, batch: Any) -> Tensor:
        return value(model.w) + 0 * batch[0].sum()

    data = (torch.zeros(4, 1, dtype=w.dtype), torch.zeros(4, 1, dtype=w.dtype))
    return Problem(Point(w, biases), loss, data, **options)


def plane(slope: Tensor, biases: int = 0, **options: Any) -> Problem:
    """bᵀw at random weights of the same number."""
    w = torch.randn(len(slope), generator=generator(3), dtype=FLOAT64)
    return problem_of(lambda at: slope.to(at) @ at, w, biases, **options)


def quadratic(matrix: Tensor, slope: Tensor, **options: Any) -> Problem:
    """1 + bᵀw + ½wᵀAw at w = 0, so that gradient and Hessian are b and A."""

    def value(w: Tensor) -> Tensor:
        return 1 + slope.to(w) @ w + 0.5 * w @ matrix.to(w) @ w

    return problem_of(value, torch.zeros(len(slope), dtype=FLOAT64), **options)


def around(problem: Problem, kind: str = "sam", p: float = 2.0, eta: float = 0.01, seed: int = 0) -> Around:
    """The loss around a problem's weights, all data in one piece."""
    micro_batch = problem.examples
    losses = losses_of(problem, micro_batch)
    weights = [w.detach().double() for w in problem.selection.tensors]
    ball = ball_of(kind, problem.selection.layout.names, weights, p, eta)
    return Around(problem, losses, ball, Strategy(micro_batch, 1, 0, 0), seed=seed)


def flat(parts: list[Tensor]) -> Tensor:
    """A list of tensors as one vector (n,)."""
    return torch.cat([part.reshape(-1) for part in parts])
