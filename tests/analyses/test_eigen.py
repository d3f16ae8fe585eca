"""``eigen`` on the digits against the dense float64 Hessian, made without the project's own products."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import landscape
from landscape.problem import Problem
from tests.support.models import mlp

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits"


def dense_spectrum(model: nn.Module, x: Tensor, y: Tensor) -> np.ndarray:
    """All eigenvalues, descending, of the Hessian of the mean cross-entropy, (n,) float64."""
    weights = list(model.parameters())
    gradients = torch.autograd.grad(F.cross_entropy(model(x), y), weights, create_graph=True)
    gradient = torch.cat([part.reshape(-1) for part in gradients])
    rows = [
        torch.cat([row.reshape(-1) for row in torch.autograd.grad(entry, weights, retain_graph=True)])
        for entry in gradient
    ]
    matrix = torch.stack(rows)
    return np.linalg.eigvalsh(((matrix + matrix.T) / 2).numpy())[::-1]


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    x, y = runpy.run_path(str(EXAMPLE / "problem.py"))["data"]()
    return x.float(), y


@pytest.fixture(scope="module")
def trained(digits: tuple[Tensor, Tensor]) -> tuple[nn.Module, np.ndarray]:
    """A network of 610 parameters, briefly trained, in float64, and its dense spectrum."""
    x, y = digits
    model = mlp(64, 8, 10)
    weights = list(model.parameters())
    for _ in range(100):
        gradients = torch.autograd.grad(F.cross_entropy(model(x), y), weights)
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.sub_(gradient, alpha=0.5)
    model = model.double()
    return model, dense_spectrum(model, x.double(), y)


def eigenvalues(
    model: nn.Module, digits: tuple[Tensor, Tensor], dtype: str, which: str, **options: Any
) -> np.ndarray:
    problem = Problem(model, "cross_entropy", digits, dtype=dtype, **options)
    k = 10 if which == "largest" else 3
    tol = 1e-7 if dtype == "float64" else 1e-4
    result = landscape.eigen(problem, k=k, which=which, tol=tol, seed=0, standard_errors=False)
    assert result.status == "complete"
    return result.eigenvalues


@pytest.mark.parametrize(("dtype", "bound"), [("float64", 1e-10), ("float32", 1e-5)])
@pytest.mark.parametrize("which", ["largest", "smallest"])
def test_both_ends_against_the_dense_hessian(
    trained: tuple[nn.Module, np.ndarray],
    digits: tuple[Tensor, Tensor],
    dtype: str,
    bound: float,
    which: str,
) -> None:
    model, every = trained
    right = every[:10] if which == "largest" else every[-3:]
    found = eigenvalues(model, digits, dtype, which, batch_size=256)
    np.testing.assert_allclose(found, right, rtol=bound)


def test_batches_of_1797_256_and_100_agree_to_rounding(
    trained: tuple[nn.Module, np.ndarray], digits: tuple[Tensor, Tensor]
) -> None:
    whole, *others = (
        eigenvalues(trained[0], digits, "float64", "largest", batch_size=size) for size in (1797, 256, 100)
    )
    for other in others:
        np.testing.assert_allclose(other, whole, rtol=1e-12)


@pytest.mark.long
@pytest.mark.parametrize("which", ["largest", "smallest"])
def test_the_example_itself_against_its_dense_hessian(
    example: tuple[nn.Module, np.ndarray], digits: tuple[Tensor, Tensor], which: str
) -> None:
    model, every = example
    right = every[:10] if which == "largest" else every[-3:]
    for dtype, bound in (("float64", 1e-10), ("float32", 1e-5)):
        found = eigenvalues(model, digits, dtype, which, batch_size=256)
        np.testing.assert_allclose(found, right, rtol=bound)


@pytest.fixture(scope="module")
def example(digits: tuple[Tensor, Tensor]) -> tuple[nn.Module, np.ndarray]:
    """The example's MLP of 6570 parameters and its dense spectrum: minutes."""
    model: nn.Module = runpy.run_path(str(EXAMPLE / "problem.py"))["mlp"]()
    model.load_state_dict(torch.load(EXAMPLE / "mlp-sgd.pt", weights_only=True)["state_dict"])
    x, y = digits
    model = model.double()
    return model, dense_spectrum(model, x.double(), y)
