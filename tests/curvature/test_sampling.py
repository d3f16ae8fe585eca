"""Standard errors over the data against a bootstrap over examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landscape.curvature.sampling import ratio_standard_error, standard_errors
from landscape.problem import Problem
from tests.support.closed_form import FLOAT64, classification, dense_hessian, generator, matrix_of, split_data
from tests.support.models import mlp, tiny_transformer

N = 240


def top(matrix: Tensor, k: int = 2) -> tuple[np.ndarray, Tensor]:
    values, vectors = torch.linalg.eigh(matrix)
    return values.flip(0)[:k].numpy(), vectors.T.flip(0)[:k].contiguous()


def bootstrap(
    problem: Problem, sums: Sequence[Callable[[nn.Module], Tensor]], counts: Tensor, repeats: int
) -> Tensor:
    """Standard deviation of the top eigenvalues over resampled examples, from the examples' own Hessians."""
    hessians = torch.stack([dense_hessian(problem.model, one) for one in sums])
    values, g = [], generator(5)
    for _ in range(repeats):
        times = torch.bincount(
            torch.randint(len(sums), (len(sums),), generator=g), minlength=len(sums)
        ).double()
        matrix = torch.einsum("i,ijk->jk", times, hessians) / (times @ counts)
        matrix += problem.weight_decay * torch.eye(len(matrix), dtype=FLOAT64)
        values.append(torch.linalg.eigvalsh(matrix).flip(0)[:2])
    return torch.stack(values).std(0)


def found(problem: Problem, micro_batch: int = 32, seed: int = 0, error: float = 1e-4) -> Any:
    values, vectors = top(matrix_of(problem, 64))
    return standard_errors(
        problem, values, vectors, np.full(2, error * values[0]), seed=seed, micro_batch=micro_batch
    )


def regression(activation: type[nn.Module] | None = None) -> tuple[nn.Module, Tensor, Tensor]:
    """Softmax regression, or a small net, on inputs whose two leading directions stand apart."""
    x, y = classification(N, 3, 3)
    x = x * torch.tensor([3.0, 1.5, 0.5], dtype=FLOAT64)
    model = nn.Linear(3, 3) if activation is None else mlp(3, 4, 3, activation=activation)
    return model.double(), x, y


@pytest.mark.parametrize("kind", ["softmax regression", "tanh", "ReLU", "weight decay"])
def test_agrees_with_a_bootstrap(kind: str) -> None:
    model, x, y = regression({"tanh": nn.Tanh, "ReLU": nn.ReLU}.get(kind))
    decay = 0.3 if kind == "weight decay" else 0.0
    problem = Problem(model, "cross_entropy", (x, y), weight_decay=decay)
    ours = found(problem)
    assert ours.method.startswith("second differences")
    single = [lambda m, i=i: F.cross_entropy(m(x[i : i + 1]), y[i : i + 1]) for i in range(N)]
    theirs = bootstrap(problem, single, torch.ones(N, dtype=FLOAT64), 1500)
    # 1500 resamples know a standard deviation to 3 %; the rest is of second order: the gaps are finite.
    assert np.abs(ours.values[0] / theirs[0].item() - 1) < 0.1


def padded() -> tuple[nn.Module, list[tuple[Tensor, Tensor]], Tensor, Tensor]:
    """One token is common and mostly followed by the same one, so that the top eigenvalue stands apart."""
    g = generator()
    x, y = torch.randint(5, (N, 4), generator=g), torch.randint(5, (N, 4), generator=g)
    x[torch.rand((N, 4), generator=g) < 0.7] = 0
    y[torch.rand((N, 4), generator=g) < 0.3] = 1
    y[torch.arange(4) >= torch.randint(0, 5, (N, 1), generator=g)] = -100
    model = nn.Sequential(nn.Embedding(5, 2), nn.Linear(2, 5, bias=False)).double()
    return model, split_data((x, y), [100, 1, 139]), x, y


def test_padded_targets_weigh_by_their_terms() -> None:
    model, batches, x, y = padded()
    problem = Problem(model, "cross_entropy", batches)
    ours = found(problem)
    single = [
        lambda m, i=i: F.cross_entropy(m(x[i]), y[i], reduction="sum") for i in range(N) if (y[i] >= 0).any()
    ]
    counts = (y >= 0).sum(1)
    theirs = bootstrap(problem, single, counts[counts > 0].double(), 1500)
    assert np.abs(ours.values[0] / theirs[0].item() - 1) < 0.1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_order_batches_and_pieces_do_not_matter(dtype: str) -> None:
    model, _, x, y = padded()
    orders = torch.arange(N), (y >= 0).sum(1).argsort(stable=True), torch.randperm(N, generator=generator(3))
    reference = found(Problem(model, "cross_entropy", (x, y), dtype="float64")).values
    for order in orders:
        for size in (1, 7, 64, 500):
            data = split_data((x[order], y[order]), [40, 1, N - 41])
            ours = found(Problem(model, "cross_entropy", data, dtype=dtype), size)
            np.testing.assert_allclose(ours.values, reference, rtol=1e-3 if dtype == "float32" else 1e-5)


def of_model(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def test_groups_agree_with_differences() -> None:
    """32 groups know a standard error to 13 %; the mean over seeds to less."""
    net, x, y = regression(nn.Tanh)
    exact = found(Problem(net, "cross_entropy", (x, y))).values
    seeds = [found(Problem(net, of_model, (x, y)), seed=seed) for seed in range(8)]
    assert all(one.method == "32 random groups" for one in seeds)
    mean = np.mean([one.values for one in seeds], axis=0)
    assert np.abs(mean / exact - 1).max() < 0.1
    again = found(Problem(net, of_model, split_data((x, y), [1, N - 1])), micro_batch=13, seed=0)
    np.testing.assert_allclose(again.values, seeds[0].values, rtol=1e-9)
    assert seeds[1].values[0] != seeds[0].values[0]


def test_differences_that_miss_the_eigenvalue_are_rejected() -> None:
    """A value that is not vᵀHv cannot be reproduced: the groups answer instead."""
    net, x, y = regression(nn.Tanh)
    problem = Problem(net, "cross_entropy", (x, y))
    values, vectors = top(matrix_of(problem))
    wrong = standard_errors(problem, 2 * values, vectors, np.full(2, 1e-6), seed=0, micro_batch=32)
    assert wrong.method == "32 random groups"
    right = standard_errors(problem, values, vectors, np.full(2, 1e-6), seed=0, micro_batch=32)
    assert right.method.startswith("second differences")


def test_weights_of_zero_have_no_scale_for_differences() -> None:
    net, x, y = regression()
    for parameter in net.parameters():
        nn.init.zeros_(parameter)
    assert found(Problem(net, "cross_entropy", (x, y))).method == "32 random groups"


def test_not_computed_says_why() -> None:
    net, x, y = regression()
    assert "single example" in found(Problem(net, "cross_entropy", (x[:1], y[:1]))).method
    few = found(Problem(net, of_model, (x[:30], y[:30])))
    assert "only 30 examples" in few.method
    assert few.values.mask.all()


def test_a_model_that_runs_in_float32_only_uses_groups() -> None:
    class Single(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.net(x.float())
            return logits

    _, x, y = regression()
    ours = found(Problem(Single(), "cross_entropy", (x.float(), y)))
    assert ours.method == "32 random groups"
    assert (ours.values > 0).all()


def test_ratio_standard_error_of_a_mean() -> None:
    """With one term each it is the standard error of a mean."""
    q = torch.randn(2, 50, generator=generator(), dtype=FLOAT64)
    expected = q.std(1) / 50**0.5
    assert torch.allclose(ratio_standard_error(q, torch.ones(50, dtype=FLOAT64)), expected, rtol=1e-14)


def test_transformers_use_differences() -> None:
    g = generator()
    x, y = torch.randint(12, (40, 5), generator=g), torch.randint(12, (40, 5), generator=g)
    problem = Problem(tiny_transformer(), "cross_entropy", (x, y), params=["norm.*", "blocks.1.norm2.*"])
    assert found(problem).method.startswith("second differences")
