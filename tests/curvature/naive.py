"""Dense matrices from one example at a time, by torch.func; nothing of the operators is used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from landscape.problem import Problem
from tests.support.closed_form import FLOAT64, classification, generator
from tests.support.models import Transformer, images, mlp, seeded

IGNORED = -100


def hessian(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Double backward, row by row: torch.func's nested derivatives are wrong through LayerNorm."""

    def at(point: Tensor) -> Tensor:
        point = point.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(function(point), point, create_graph=True)
        rows = [
            torch.autograd.grad(entry, point, retain_graph=True, materialize_grads=True)[0].reshape(-1)
            for entry in gradient.reshape(-1)
        ]
        return torch.stack(rows)

    return at


@dataclass(frozen=True, eq=False)
class Naive:
    """A problem and, independently, its examples: batches of one, their summed loss and their terms."""

    problem: Problem
    model: nn.Module
    examples: Sequence[tuple[Tensor, Tensor]]
    summed: Callable[[Tensor, Tensor], Tensor]
    terms: Callable[[Tensor], float]

    @cached_property
    def counted(self) -> list[tuple[Tensor, Tensor]]:
        return [(x, y) for x, y in self.examples if self.terms(y) > 0]

    @cached_property
    def counts(self) -> Tensor:
        return torch.tensor([self.terms(y) for _, y in self.counted], dtype=FLOAT64)

    def outputs(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        layout = self.problem.selection.layout

        def at(flat: Tensor) -> Tensor:
            named = dict(zip(layout.names, layout.split(flat), strict=True))
            with sdpa_kernel(SDPBackend.MATH):
                found: Tensor = functional_call(self.model, named, (x,))
            return found

        return at

    @cached_property
    def weights(self) -> Tensor:
        return self.problem.selection.flat()

    @cached_property
    def jacobians(self) -> list[Tensor]:
        """(outputs of the example, n) each."""
        found = [jacrev(self.outputs(x))(self.weights) for x, _ in self.counted]
        return [j.reshape(-1, j.shape[-1]).detach() for j in found]

    @cache  # noqa: B019
    def gauss_newton(self) -> Tensor:
        total = torch.zeros(len(self.weights), len(self.weights), dtype=FLOAT64)
        for (x, y), jacobian in zip(self.counted, self.jacobians, strict=True):
            out = self.outputs(x)(self.weights).detach()
            inner = hessian(lambda o, y=y: self.summed(o, y))(out)  # type: ignore[misc]
            total += jacobian.T @ inner @ jacobian
        return total / self.counts.sum()

    @cached_property
    def gradients(self) -> Tensor:
        """(N, n): of each example's summed loss."""
        rows = [
            jacrev(lambda w, x=x, y=y: self.summed(self.outputs(x)(w), y))(self.weights)  # type: ignore[misc]
            for x, y in self.counted
        ]
        return torch.stack(rows).detach()

    @cache  # noqa: B019
    def empirical_fisher(self) -> Tensor:
        return self.gradients.T @ self.gradients / self.counts.sum()

    @cache  # noqa: B019
    def noise(self) -> Tensor:
        total = self.counts.sum()
        rest = self.gradients - torch.outer(self.counts, self.gradients.sum(0) / total)
        return len(self.counts) / total**2 * rest.T @ rest

    @cache  # noqa: B019
    def hessian(self) -> Tensor:
        def loss(weights: Tensor) -> Tensor:
            sums = [self.summed(self.outputs(x)(weights), y) for x, y in self.counted]
            return torch.stack(sums).sum() / self.counts.sum()

        return hessian(loss)(self.weights)


def naive(
    model: nn.Module, loss: Any, data: Any, summed: Callable[[Tensor, Tensor], Tensor],
    terms: Callable[[Tensor], float] = lambda y: 1.0, **options: Any,
) -> Naive:  # fmt: skip
    model = model.double()
    batches = data if isinstance(data, list) else [data]
    singles = [(x[i : i + 1], y[i : i + 1]) for x, y in batches for i in range(len(x))]
    return Naive(Problem(model, loss, data, **options), model, singles, summed, terms)


def ragged(x: Tensor, y: Tensor) -> list[tuple[Tensor, Tensor]]:
    return list(zip(x.split([7, 7, 3]), y.split([7, 7, 3]), strict=True))


def labels(outputs: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(outputs, y, reduction="sum")


def tokens_loss(outputs: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(outputs.reshape(-1, outputs.shape[-1]), y.reshape(-1), reduction="sum")


def squares(outputs: Tensor, y: Tensor) -> Tensor:
    return ((outputs - y) ** 2).sum()


def elements(y: Tensor) -> float:
    return float(y.numel())


def pseudo_huber(outputs: Tensor, y: Tensor) -> Tensor:
    """A convex loss that couples the outputs of an example; a mean over examples."""
    return (1 + (outputs - y).square().sum(1)).sqrt().mean()


def masked_sequences() -> tuple[Tensor, Tensor]:
    """Six sequences with 4, 1, 0, 3, 2 and 4 labels."""
    x, y = torch.randint(7, (2, 6, 4), generator=generator())
    for row, kept in enumerate([4, 1, 0, 3, 2, 4]):
        y[row, kept:] = IGNORED
    return x, y


def convolutional() -> nn.Module:
    def build() -> nn.Module:
        body = [nn.Conv2d(3, 2, 3, bias=False), nn.BatchNorm2d(2), nn.Tanh(), nn.AvgPool2d(2)]
        return nn.Sequential(*body, nn.Flatten(), nn.Linear(18, 3))

    model = seeded(build, 0).train()
    with torch.no_grad():
        model(images(32, generator(3), size=8, classes=3)[0])
    return model.eval()


class WithUnused(nn.Module):
    """A module the loss never sees, a frozen one, and a parameter without a dot in its name."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.net, self.unused = mlp(4, 5, 3), nn.Linear(2, 2)
        self.net[0].weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.scale * self.net(x)
        return out


def regression(n: int = 17) -> tuple[Tensor, Tensor]:
    make = generator(5)
    return torch.randn(n, 4, generator=make, dtype=FLOAT64), torch.randn(n, 2, generator=make, dtype=FLOAT64)


def binary() -> tuple[Tensor, Tensor]:
    x, y = regression()
    return x, (y > 0).double()


def probabilities() -> nn.Module:
    return nn.Sequential(mlp(4, 5, 2), nn.Sigmoid())


def log_probabilities() -> nn.Module:
    return nn.Sequential(mlp(4, 5, 3), nn.LogSoftmax(1))


WEIGHTS = torch.tensor([0.5, 2.0, 1.0], dtype=FLOAT64)

CASES: dict[str, Callable[[], Naive]] = {
    "cross-entropy, ragged": lambda: naive(
        mlp(4, 6, 3), "cross_entropy", ragged(*classification(17, 4, 3)), labels
    ),
    "masked tokens, tied": lambda: naive(
        seeded(lambda: Transformer(7, 4, 4, 1, 2, True), 0),
        "cross_entropy",
        masked_sequences(),
        tokens_loss,
        lambda y: float((y != IGNORED).sum()),
    ),
    "BatchNorm": lambda: naive(
        convolutional(),
        "cross_entropy",
        tuple(t.double() if t.is_floating_point() else t for t in images(9, generator(3), size=8, classes=3)),
        labels,
    ),
    "ReLU": lambda: naive(
        mlp(4, 6, 3, activation=nn.ReLU), "cross_entropy", classification(17, 4, 3), labels
    ),
    "squared error": lambda: naive(mlp(4, 5, 2), "mse", ragged(*regression()), squares, elements),
    "BCE with logits": lambda: naive(
        mlp(4, 5, 2),
        "bce_with_logits",
        binary(),
        lambda o, y: F.binary_cross_entropy_with_logits(o, y, reduction="sum"),
        elements,
    ),
    "BCE": lambda: naive(
        probabilities(),
        nn.BCELoss(),
        binary(),
        lambda o, y: F.binary_cross_entropy(o, y, reduction="sum"),
        elements,
    ),
    "class weights": lambda: naive(
        mlp(4, 6, 3),
        nn.CrossEntropyLoss(weight=WEIGHTS),
        classification(17, 4, 3),
        lambda o, y: F.cross_entropy(o, y, weight=WEIGHTS, reduction="sum"),
        lambda y: float(WEIGHTS[y].sum()),
    ),
    "callable": lambda: naive(
        mlp(4, 5, 2), pseudo_huber, ragged(*regression()), lambda o, y: pseudo_huber(o, y)
    ),
    "one example": lambda: naive(mlp(4, 5, 3), "cross_entropy", classification(1, 4, 3), labels),
    "unused and frozen": lambda: naive(WithUnused(), "cross_entropy", classification(17, 4, 3), labels),
    "restricted": lambda: naive(
        mlp(4, 6, 3), "cross_entropy", classification(17, 4, 3), labels, params=["2.*"]
    ),
}


@cache
def case(name: str) -> Naive:
    """One of :data:`CASES`, its dense matrices computed once."""
    return CASES[name]()
