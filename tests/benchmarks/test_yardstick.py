"""The yardsticks measure what they say: products against a dense Hessian, residuals against known pairs."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tests.benchmarks.peers import Pairs, kept_eigsh, true_residuals
from tests.benchmarks.product import KeptProduct, block_products, gradient, rebuilt_product
from tests.benchmarks.workloads import Batch, MeanCrossEntropy, measured
from tests.support.models import images, mlp, tiny_resnet, tiny_transformer, tokens


def dense_hessian(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """All rows at once, from the gradient of the whole data's mean."""
    parameters = list(model.parameters())
    loss = MeanCrossEntropy()(model(x), y)
    g = torch.cat([p.reshape(-1) for p in torch.autograd.grad(loss, parameters, create_graph=True)])
    rows = torch.autograd.grad(g, parameters, torch.eye(len(g), dtype=g.dtype), is_grads_batched=True)
    return torch.cat([row.reshape(len(g), -1) for row in rows], dim=1)


def ragged(x: Tensor, y: Tensor) -> list[Batch]:
    sizes = [4, 4, len(x) - 8]
    return list(zip(torch.split(x, sizes), torch.split(y, sizes), strict=True))


@pytest.fixture(params=["mlp", "transformer"])
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    if request.param == "mlp":
        x, y = images(9, generator, size=4)
        return nn.Sequential(nn.Flatten(), mlp(48, 6, 10)).double(), x.double(), y
    x, y = tokens(9, 6, generator, vocabulary=12)
    return tiny_transformer().double(), x, y


def test_products_are_those_of_the_dense_hessian(case: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, y = case
    loss_fn, batches = MeanCrossEntropy(), ragged(x, y)
    with measured():
        exact = dense_hessian(model, x, y)
        block = torch.randn(3, len(exact), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        kept = KeptProduct(model, loss_fn, batches)
        close = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-12)
        close(kept(block[0]), exact @ block[0])
        close(kept(block[1]), exact @ block[1])
        close(rebuilt_product(model, loss_fn, batches, block[2]), exact @ block[2])
        close(block_products(model, loss_fn, batches, block), block @ exact)


def test_the_unit_is_the_gradient_of_the_whole_data() -> None:
    x, y = images(9, torch.Generator().manual_seed(0), size=8)
    model = tiny_resnet().double()
    whole = torch.autograd.grad(cross_entropy(model(x.double()), y), list(model.parameters()))
    found = gradient(model, cross_entropy, ragged(x.double(), y))
    torch.testing.assert_close(found, torch.cat([p.reshape(-1) for p in whole]), rtol=1e-9, atol=1e-12)


def test_true_residuals_see_a_wrong_value_and_a_wrong_vector(case: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, y = case
    batches = ragged(x, y)
    with measured():
        values, vectors = np.linalg.eigh(dense_hessian(model, x, y).numpy())
        mixed = (vectors[:, -1] + vectors[:, -2]) / np.sqrt(2)
        pairs = Pairs(
            np.array([values[-1], values[-1] + 0.5, values[-1]]),
            np.stack([vectors[:, -1], vectors[:, -1], mixed], axis=1),
            0,
        )
        residuals = true_residuals(model.float(), MeanCrossEntropy(), batches, pairs)
    gap = (values[-1] - values[-2]) / np.sqrt(2)
    np.testing.assert_allclose(residuals[1:], [0.5, gap], rtol=1e-4)
    assert residuals[0] < 1e-5


def test_eigsh_on_the_kept_graph_finds_the_top(case: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, y = case
    with measured():
        exact = np.linalg.eigvalsh(dense_hessian(model, x, y).numpy())[::-1]
        pairs = kept_eigsh(model, MeanCrossEntropy(), ragged(x, y), 3, tol=1e-10)
    np.testing.assert_allclose(pairs.eigenvalues, exact[:3], rtol=1e-8)
    assert pairs.products >= 3
