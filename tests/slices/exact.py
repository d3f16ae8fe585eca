"""Losses along lines and planes that are known: polynomials of deep linear networks, and a naive twin."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from landscape.problem import Problem
from tests.support.closed_form import FLOAT64, generator

__all__ = ["Polynomial", "deep_linear", "directions_of", "grid", "moved", "naive"]

Powers = tuple[int, ...]


class Polynomial:
    """A polynomial in the coordinates of a slice, by its coefficients."""

    def __init__(self, coefficients: Mapping[Powers, Any]) -> None:
        self.coefficients = dict(coefficients)

    def __mul__(self, other: Polynomial) -> Polynomial:
        found: dict[Powers, Any] = {}
        for p, a in self.coefficients.items():
            for q, b in other.coefficients.items():
                key = tuple(i + j for i, j in zip(p, q, strict=True))
                found[key] = found.get(key, 0) + a @ b
        return Polynomial(found)

    def at(self, point: Sequence[float]) -> tuple[float, float]:
        """(the value, the sum of the terms' sizes, which its rounding is relative to)."""
        terms = [
            float(a) * float(np.prod([c**k for c, k in zip(point, p, strict=True)]))
            for p, a in self.coefficients.items()
        ]
        return float(sum(terms)), float(sum(abs(term) for term in terms))


def deep_linear(model: nn.Sequential, x: Tensor, y: Tensor, rows: Sequence[Sequence[Tensor]]) -> Polynomial:
    """Mean squared error of y ≈ W_L … W₁ x (no biases) at Wₗ + Σ cᵢ Dᵢₗ, as a polynomial in c.

    ``rows``: for each axis the matrices Dᵢₗ. All in NumPy, from the coefficients of the product of matrices.
    """
    axes = len(rows)
    unit = [tuple(int(i == j) for j in range(axes)) for i in range(axes)]
    zero = (0,) * axes
    product = Polynomial({zero: x.double().numpy().T})
    for layer, linear in enumerate(model):
        assert isinstance(linear, nn.Linear)
        factor = {zero: linear.weight.detach().double().numpy()}
        factor |= {unit[i]: rows[i][layer].double().numpy() for i in range(axes)}
        product = Polynomial(factor) * product
    product.coefficients[zero] = product.coefficients[zero] - y.double().numpy().T
    squares = {p: a.reshape(1, -1) / a.size for p, a in product.coefficients.items()}
    columns = {p: a.reshape(-1, 1) for p, a in product.coefficients.items()}
    found = Polynomial(squares) * Polynomial(columns)
    return Polynomial({p: a.item() for p, a in found.coefficients.items()})


def directions_of(problem: Problem, axes: int = 2, seed: int = 7, scale: float = 0.3) -> Tensor:
    """Random rows (axes, n) in the problem's dtype."""
    drawn = torch.randn(axes, problem.size, generator=generator(seed), dtype=FLOAT64)
    return (scale * drawn).to(problem.dtype)


def grid(*axes: Sequence[float] | np.ndarray) -> list[tuple[float, ...]]:
    """All points of a grid, the last axis fastest."""
    return [
        tuple(float(c) for c in point)
        for point in np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))
    ]


def moved(problem: Problem, directions: Tensor, point: Sequence[float]) -> nn.Module:
    """A copy of the model at w + Σ cᵢ dᵢ, parameter by parameter, rounded once from float64."""
    model = copy.deepcopy(problem.model)
    named = dict(model.named_parameters())
    parts = [problem.selection.layout.split(row) for row in directions]
    with torch.no_grad():
        for k, name in enumerate(problem.selection.layout.names):
            step = sum(c * part[k].double() for c, part in zip(point, parts, strict=True))
            named[name].copy_(named[name].double() + step)
    return model


def naive(
    problem: Problem,
    directions: Tensor,
    points: Sequence[Sequence[float]],
    loss: Callable[[nn.Module], Tensor],
) -> Iterator[tuple[float, float]]:
    """(loss, gradient's norm) at each point: one call of ``loss(model)`` on all the data."""
    for point in points:
        model = moved(problem, directions, point)
        value = loss(model)
        named = dict(model.named_parameters())
        chosen = [named[name] for name in problem.selection.layout.names]
        parts = torch.autograd.grad(value, chosen, allow_unused=True)
        squares = sum(float(part.double().square().sum()) for part in parts if part is not None)
        yield float(value.detach()), squares**0.5
