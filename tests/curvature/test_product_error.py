"""The error claimed for a product against the error it has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from landscape.curvature.hessian import HessianOperator
from landscape.curvature.strategy import Strategy
from landscape.linalg.operator import norm
from landscape.problem import Problem
from tests.support.closed_form import classification, generator, operator_of
from tests.support.models import images, mlp, tiny_resnet, tiny_transformer, tokens


def product_error(problem: Problem, vector: Tensor, micro_batch: int) -> float:
    return HessianOperator(problem, Strategy(micro_batch, 1, 0, 0)).error(vector)


def trained(model: nn.Module, x: Tensor, y: Tensor, steps: int = 40) -> nn.Module:
    adam = torch.optim.Adam(model.train().parameters(), lr=1e-2)
    for _ in range(steps):
        adam.zero_grad()
        outputs = model(x)
        torch.autograd.backward(
            nn.functional.cross_entropy(outputs.reshape(-1, outputs.shape[-1]), y.reshape(-1))
        )
        adam.step()
    return model.eval()


def floats(data: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return data[0].float(), data[1]


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple[Tensor, Tensor]]]] = {
    "MLP": (lambda: mlp(10, 32, 32, 4), lambda: floats(classification(512, 10, 4))),
    "ReLU MLP": (lambda: mlp(10, 32, 4, activation=nn.ReLU), lambda: floats(classification(512, 10, 4))),
    "ResNet": (tiny_resnet, lambda: images(128, generator(), size=8)),
    "transformer": (tiny_transformer, lambda: tokens(128, 6, generator(), vocabulary=12)),
}


@pytest.mark.parametrize("name", CASES)
def test_float32_products(name: str) -> None:
    build, make_data = CASES[name]
    x, y = make_data()
    model = trained(build(), x, y)
    for data in ((x, y), sorted_by_label(x, y)):
        problem = Problem(model, "cross_entropy", data)
        double = problem.in_dtype(torch.float64)
        vectors = torch.randn(2, problem.size, generator=generator())
        for _ in range(4):  # towards the top of the spectrum, where errors are largest
            vectors[1] = operator_of(problem, 64).apply(vectors[1:])[0]
            vectors /= vectors.norm(dim=1, keepdim=True)
        errors = operator_of(problem, 32).apply(vectors) - operator_of(double).apply(vectors.double())
        for vector, error in zip(vectors, errors, strict=True):
            claimed = product_error(problem, vector, 32)
            assert norm(error) <= claimed <= 100 * norm(error)


def sorted_by_label(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    order = y.reshape(len(y), -1)[:, 0].argsort()
    return x[order], y[order]


@pytest.mark.parametrize("name", ["MLP", "transformer"])
def test_float64_products(name: str) -> None:
    """Against products made in pieces of another size, which have errors of their own."""
    build, make_data = CASES[name]
    x, y = make_data()
    problem = Problem(trained(build(), x, y).double(), "cross_entropy", (x, y))
    vector = torch.randn(problem.size, generator=generator(), dtype=torch.float64)
    vector /= vector.norm()
    product, other = (operator_of(problem, size).apply(vector[None])[0] for size in (32, 1))
    claimed = product_error(problem, vector, 32)
    assert norm(product - other) <= claimed <= 1e-13 * norm(product)


def test_models_that_only_run_in_float32() -> None:
    class Single(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp(10, 32, 4)
            self.dtypes: list[torch.dtype] = []

        def forward(self, x: Tensor) -> Tensor:
            self.dtypes.append(x.dtype)
            if x.dtype != torch.float32:
                raise TypeError("float32 only")
            logits: Tensor = self.net(x)
            return logits

    x, y = floats(classification(512, 10, 4))
    problem = Problem(Single(), "cross_entropy", (x, y))
    problem.check_deterministic()
    vector = torch.ones(problem.size) / problem.size**0.5
    product = operator_of(problem, 32).apply(vector[None])[0]
    assert 1e-9 * norm(product) <= product_error(problem, vector, 32) <= 1e-5 * norm(product)


def test_it_costs_far_less_than_a_product() -> None:
    calls: list[Any] = []
    x, y = floats(classification(640, 10, 4))
    problem = Problem(mlp(10, 8, 4), "cross_entropy", (x, y))
    problem.model.register_forward_pre_hook(lambda module, inputs: calls.append(len(inputs[0])))
    product_error(problem, torch.ones(problem.size), 1000)
    assert 0 < sum(calls) <= 2 * 640 / 32
