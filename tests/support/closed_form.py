"""Problems whose loss, gradient and Hessian are known, and the dense Hessian of any other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from landscape.curvature.hessian import HessianOperator
from landscape.curvature.strategy import Strategy
from landscape.problem import Problem

__all__ = [
    "FLOAT64",
    "Product",
    "classification",
    "dense_hessian",
    "generator",
    "logistic_hessian",
    "matrix_of",
    "operator_of",
    "softmax_hessian_at_zero",
    "split_data",
]

FLOAT64 = torch.float64


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def classification(n: int, features: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Gaussian inputs (n, features) float64 and labels (n,) that depend on them."""
    g = generator(seed)
    x = torch.randn(n, features, generator=g, dtype=FLOAT64)
    w = torch.randn(features, classes, generator=g, dtype=FLOAT64)
    y = (x @ w + torch.randn(n, classes, generator=g, dtype=FLOAT64)).argmax(1)
    return x, y


class Product(nn.Module):
    """u·v·x with two scalars: at ½(uv − y)² the Hessian is [[v², 2uv − y], [2uv − y, u²]]."""

    def __init__(self, u: float, v: float) -> None:
        super().__init__()
        self.u, self.v = nn.Parameter(torch.tensor(u)), nn.Parameter(torch.tensor(v))

    def forward(self, x: Tensor) -> Tensor:
        return self.u * self.v * x


def softmax_hessian_at_zero(x: Tensor, classes: int) -> Tensor:
    """Mean cross-entropy of x Wᵀ at W = 0, over W (classes, features): (I/K − 11ᵀ/K²) ⊗ XᵀX/n."""
    inner = torch.eye(classes, dtype=x.dtype) / classes - 1 / classes**2
    return torch.kron(inner, x.T @ x / len(x))


def logistic_hessian(x: Tensor, w: Tensor) -> Tensor:
    """Mean logistic loss at weights w (features,): Xᵀ diag(p(1 − p)) X / n."""
    p = torch.sigmoid(x @ w)
    return x.T @ (x * (p * (1 - p))[:, None]) / len(x)


def dense_hessian(
    model: nn.Module,
    loss: Callable[[nn.Module], Tensor],
    names: Sequence[str] = (),
    rows: Sequence[int] | None = None,
) -> Tensor:
    """Rows (all) of the (n, n) Hessian of ``loss(model)`` over the parameters ``names`` (all).

    ``loss`` sees a model whose parameters are functions of one flat vector: no code is shared with the
    operator but torch's derivatives themselves.
    """
    every = dict(model.named_parameters())
    chosen = {name: every[name] for name in names or every}
    flat = torch.cat([p.detach().reshape(-1) for p in chosen.values()])

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self) -> Tensor:
            return loss(self.model)

    def value(w: Tensor) -> Tensor:
        parts = torch.split(w, [p.numel() for p in chosen.values()])
        named = {f"model.{n}": part.view(p.shape) for (n, p), part in zip(chosen.items(), parts, strict=True)}
        result: Tensor = functional_call(Whole(), named, ())
        return result

    flat.requires_grad_(True)
    with sdpa_kernel(SDPBackend.MATH):
        (gradient,) = torch.autograd.grad(value(flat), flat, create_graph=True)
        chosen_rows = range(len(flat)) if rows is None else rows
        return torch.stack(
            [torch.autograd.grad(gradient[i], flat, retain_graph=True)[0] for i in chosen_rows]
        )


def operator_of(problem: Problem, micro_batch: int | None = None, kept: int = 0) -> HessianOperator:
    """The Hessian in pieces of ``micro_batch`` examples (all), ``kept`` of which keep their graphs."""
    size = micro_batch or problem.examples
    pieces = sum(1 for _ in problem.pieces(size))
    return HessianOperator(problem, Strategy(size, pieces, min(kept, pieces), 0))


def matrix_of(problem: Problem, micro_batch: int | None = None, kept: int = 0) -> Tensor:
    """The matrix behind the operator, from its products with all unit vectors; (n, n) float64."""
    eye = torch.eye(problem.size, dtype=problem.dtype)
    return operator_of(problem, micro_batch, kept).apply(eye)


def split_data(data: Any, sizes: Sequence[int]) -> list[Any]:
    """(x, y) in batches of the given sizes."""
    return list(zip(*(t.split(list(sizes)) for t in data), strict=True))
