"""Products against closed forms and dense Hessians, whatever the pieces and graphs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, hessian
from torch.utils._python_dispatch import TorchDispatchMode

from landscape.curvature.hessian import HessianOperator
from landscape.curvature.strategy import Strategy
from landscape.errors import ComputationError
from landscape.linalg.operator import norm
from landscape.problem import Problem
from tests.support.closed_form import (
    FLOAT64,
    Product,
    classification,
    dense_hessian,
    generator,
    logistic_hessian,
    matrix_of,
    operator_of,
    softmax_hessian_at_zero,
)
from tests.support.models import images, mlp, seeded, tiny_resnet, tiny_transformer, tokens


def close(found: Tensor, exact: Tensor, tolerance: float) -> bool:
    return norm(found - exact) <= tolerance * norm(exact)


def test_softmax_regression_at_zero() -> None:
    x, y = classification(50, 4, 3)
    model = nn.Linear(4, 3, bias=False).double()
    nn.init.zeros_(model.weight)
    found = matrix_of(Problem(model, "cross_entropy", (x, y)), 7)
    assert close(found, softmax_hessian_at_zero(x, 3), 1e-14)
    top = torch.linalg.eigvalsh(x.T @ x / 50)[-1] / 3
    assert torch.linalg.eigvalsh(found)[-1] == pytest.approx(float(top), rel=1e-13)


def test_least_squares() -> None:
    x = torch.randn(30, 5, generator=generator(), dtype=FLOAT64)
    y = torch.randn(30, 1, generator=generator(1), dtype=FLOAT64)
    found = matrix_of(Problem(nn.Linear(5, 1, bias=False).double(), "mse", (x, y)), 8)
    assert close(found, 2 * x.T @ x / 30, 1e-14)


def test_logistic_regression() -> None:
    x, y = classification(40, 5, 2)
    model = nn.Linear(5, 1, bias=False).double()
    found = matrix_of(Problem(model, "bce_with_logits", (x, y[:, None].double())), 9)
    assert close(found, logistic_hessian(x, model.weight.detach()[0]), 1e-13)


def test_product_of_two_scalars_is_indefinite() -> None:
    u, v, y = 0.3, -1.7, 2.0
    data = torch.ones(1, dtype=FLOAT64), torch.full((1,), y, dtype=FLOAT64)
    problem = Problem(Product(u, v).double(), lambda out, t: ((out - t) ** 2).mean() / 2, data)
    u, v = problem.selection.flat().tolist()
    exact = torch.tensor([[v * v, 2 * u * v - y], [2 * u * v - y, u * u]], dtype=FLOAT64)
    assert close(matrix_of(problem), exact, 1e-15)
    assert torch.linalg.eigvalsh(exact)[0] < 0


def test_weight_decay_adds_to_the_diagonal_loss_and_gradient() -> None:
    x, y = classification(20, 3, 2)
    plain = Problem(nn.Linear(3, 2).double(), "cross_entropy", (x, y))
    decayed = Problem(plain.model, "cross_entropy", (x, y), weight_decay=0.25)
    weights, before, after = plain.selection.flat(), plain.measure(), decayed.measure()
    assert close(matrix_of(decayed, 6) - matrix_of(plain, 6), 0.25 * torch.eye(8, dtype=FLOAT64), 1e-14)
    assert close(after.gradient - before.gradient, 0.25 * weights, 1e-14)
    assert after.loss - before.loss == pytest.approx(0.125 * float(weights @ weights), rel=1e-13)


def test_a_linear_loss_has_a_zero_hessian() -> None:
    x = torch.randn(12, 3, generator=generator())
    problem = Problem(nn.Linear(3, 1), lambda out, _: out.mean(), (x, x[:, :1]))
    assert not matrix_of(problem, 5, kept=1).any()


class GroupNormNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = torch.nn.functional.silu(self.norm(self.conv(x)))
        logits: Tensor = self.head(h.mean((2, 3)))
        return logits


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.rnn, self.head = kind(3, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.rnn(x)[0][:, -1])
        return logits


def flat_images(n: int = 10) -> tuple[Tensor, Tensor]:
    return images(n, generator(3), size=8, classes=3)


def sequences(n: int = 10) -> tuple[Tensor, Tensor]:
    return torch.randn(n, 5, 3, generator=generator(3)), torch.randint(3, (n,), generator=generator(4))


def running_statistics(build: Callable[[], nn.Module]) -> nn.Module:
    """A BatchNorm net whose running statistics are not the trivial 0 and 1."""
    model = build().train()
    with torch.no_grad():
        model(flat_images(32)[0])
    return model.eval()


NETS: dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple[Tensor, Tensor]]]] = {
    "tanh MLP": (lambda: mlp(4, 6, 3), lambda: classification(10, 4, 3)),
    "BatchNorm conv net": (
        lambda: running_statistics(
            lambda: seeded(
                lambda: nn.Sequential(
                    nn.Conv2d(3, 4, 3, bias=False),
                    nn.BatchNorm2d(4),
                    nn.Tanh(),
                    nn.Flatten(),
                    nn.Linear(144, 3),
                ),
                0,
            )
        ),
        flat_images,
    ),
    "ResNet": (lambda: running_statistics(tiny_resnet), flat_images),
    "transformer": (tiny_transformer, lambda: tokens(6, 5, generator(), vocabulary=12)),
    "GroupNorm": (lambda: seeded(GroupNormNet, 0), flat_images),
    "LSTM": (lambda: seeded(lambda: Recurrent(nn.LSTM), 0), sequences),
    "GRU": (lambda: seeded(lambda: Recurrent(nn.GRU), 0), sequences),
}


def mean_cross_entropy(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    outputs = model(x.to(next(model.parameters()).dtype) if x.is_floating_point() else x)
    return nn.functional.cross_entropy(outputs.reshape(-1, outputs.shape[-1]), y.reshape(-1))


@pytest.mark.parametrize("name", NETS)
def test_dense_hessian_of_small_nets(name: str) -> None:
    build, make_data = NETS[name]
    model, (x, y) = build().double(), make_data()
    size = sum(p.numel() for p in model.parameters())
    some = torch.randperm(size, generator=generator())[:40]
    exact = dense_hessian(model, lambda m: mean_cross_entropy(m, x, y), rows=some.tolist())
    eye = torch.eye(size, dtype=FLOAT64)[some]
    in_double = Problem(model, "cross_entropy", (x, y))
    for pieces in (1, 4, 100):  # 10 or 6 examples: ragged ends, and more than there are
        assert close(operator_of(in_double, pieces).apply(eye), exact, 1e-10)
    in_single = Problem(model.float(), "cross_entropy", (x, y))
    assert in_single.dtype == torch.float32
    assert close(operator_of(in_single, 4).apply(eye.float()), exact, 1e-5)


def test_forward_over_reverse_agrees_on_an_mlp() -> None:
    """torch.func.hessian: another order of differentiation."""
    model, (x, y) = mlp(3, 5, 2).double(), classification(20, 3, 2)
    problem = Problem(model, "cross_entropy", (x, y))
    layout = problem.selection.layout

    def value(w: Tensor) -> Tensor:
        outputs = functional_call(model, dict(zip(layout.names, layout.split(w), strict=True)), (x,))
        return nn.functional.cross_entropy(outputs, y)

    assert close(matrix_of(problem, 7), hessian(value)(problem.selection.flat()), 1e-13)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kept_partly_kept_and_rebuilt_graphs_agree_bit_for_bit(dtype: str) -> None:
    x, y = classification(37, 4, 3)
    problem = Problem(mlp(4, 6, 3), "cross_entropy", (x, y), dtype=dtype)
    vectors = torch.randn(3, problem.size, generator=generator()).to(problem.dtype)
    reference = operator_of(problem, 8).apply(vectors)
    for kept in (0, 2, 5):
        operator = operator_of(problem, 8, kept)
        first, again = operator.apply(vectors), operator.apply(vectors)
        single = torch.stack([operator.apply(v[None])[0] for v in vectors])
        operator.release()
        released = operator.apply(vectors)
        assert all(torch.equal(reference, other) for other in (first, again, single, released))
        assert (operator.products, operator.passes) == (12, 6)


def test_pieces_agree_to_rounding() -> None:
    x, y = classification(53, 4, 3)
    problem = Problem(mlp(4, 6, 3).double(), "cross_entropy", (x, y))
    reference = matrix_of(problem)
    for size in (1, 7, 53, 100):
        assert close(matrix_of(problem, size, kept=1), reference, 1e-14)
    assert close(reference, reference.T, 1e-14)


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, Tensor) and tensor.untyped_storage().nbytes() > 0:
                self.numel = max(self.numel, tensor.numel())
        return result


def test_memory_of_a_product_is_that_of_a_piece() -> None:
    x = torch.randn(1024, 3, generator=generator())
    y = torch.randint(4, (1024,), generator=generator())
    problem = Problem(mlp(3, 64, 4), "cross_entropy", (x, y))
    largest = {}
    for size in (16, 128, 1024):
        operator = operator_of(problem, size)
        operator.apply(torch.ones(1, problem.size))
        with Largest() as seen:
            operator.apply(torch.ones(1, problem.size))
        largest[size] = seen.numel
    assert largest[16] <= max(16 * 64, problem.size)
    assert largest[128] == 128 * 64
    assert largest[1024] == 1024 * 64


def test_a_product_that_is_not_finite_is_an_error() -> None:
    """√ at zero: the loss and the gradient are finite, the curvature is not."""

    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.zeros(2))

        def forward(self, x: Tensor) -> Tensor:
            return (x * self.w).abs().pow(1.5).sum(1, keepdim=True)

    x = torch.ones(4, 2)
    problem = Problem(Root(), "mse", (x, x[:, :1]))
    assert torch.isfinite(problem.measure().gradient).all()
    with pytest.raises(ComputationError, match="product is not finite") as caught:
        HessianOperator(problem, Strategy(4, 1, 0, 0)).apply(torch.ones(1, 2))
    assert len(str(caught.value).splitlines()) <= 5
