"""Bad input: the right error, in at most five lines that say what was found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, TensorDataset

from landscape.curvature.hessian import HessianOperator
from landscape.curvature.strategy import Strategy, choose_strategy
from landscape.errors import ComputationError, ConfigurationError, DataError, LandscapeError
from landscape.problem import Problem
from tests.support.closed_form import classification, matrix_of
from tests.support.models import mlp

X, Y = classification(20, 4, 3)
X = X.float()


def made_by(make: Callable[[], Any]) -> tuple[Any, ...]:
    made = make()
    return made if isinstance(made, tuple) else (made, CE, (X, Y))


def everything(model: Any, loss: Any, data: Any, options: dict[str, Any] | None = None) -> None:
    problem = Problem(model, loss, data, **(options or {}))
    problem.check_deterministic()
    strategy, _ = choose_strategy(problem)
    HessianOperator(problem, strategy).apply(torch.ones(1, problem.size, dtype=problem.dtype))


class Wrapped(nn.Module):
    """A net with something done to its outputs."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.net, self.function = mlp(4, 5, 3), function

    def forward(self, x: Tensor) -> Any:
        return self.function(self.net(x))


class Trains(nn.Module):
    """Puts itself in train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.drop = mlp(4, 5, 3), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        self.train()
        logits: Tensor = self.drop(self.net(x))
        return logits


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * 2 * x


class Lock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = mlp(4, 5, 3)
        self.file = (i for i in range(3))  # a generator cannot be copied


class Empty(Dataset[Any]):
    def __len__(self) -> int:
        return 0

    def __getitem__(self, index: int) -> Any:
        raise IndexError


class Augmented(Dataset[Any]):
    def __init__(self, draw: Callable[[], Tensor]) -> None:
        self.draw = draw

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int) -> Any:
        return X[index] + self.draw(), Y[index]


class Broken(Augmented):
    def __getitem__(self, index: int) -> Any:
        if index == 15:
            raise OSError("disk on fire")
        return X[index], Y[index]


class Ragged(Augmented):
    def __getitem__(self, index: int) -> Any:
        return torch.zeros(index + 1), Y[index]


def one(data: Tensor, index: int, value: float) -> Tensor:
    changed = data.clone()
    changed[index] = value
    return changed


def shuffled() -> DataLoader[Any]:
    data = TensorDataset(X, Y)
    return DataLoader(data, batch_sampler=BatchSampler(RandomSampler(data), 5, False))


def net() -> nn.Module:
    return mlp(4, 5, 3)


CE = "cross_entropy"
HALF = torch.where(torch.arange(20) < 9, Y, -100)
CASES: dict[str, tuple[Callable[[], Any], type[LandscapeError], str]] = {
    # data
    "no examples": (lambda: (net(), CE, (X[:0], Y[:0])), DataError, "empty"),
    "empty data set": (lambda: (net(), CE, Empty()), DataError, "empty"),
    "no batches": (lambda: (net(), CE, []), DataError, "empty"),
    "empty generator": (lambda: (net(), CE, iter(())), DataError, "empty"),
    "a number as data": (lambda: (net(), CE, 3), DataError, "int"),
    "a single tensor": (lambda: (net(), CE, X), DataError, "Tensor"),
    "lengths differ": (lambda: (net(), CE, (X, Y[:7])), DataError, "first dimension"),
    "text arrays": (lambda: (net(), CE, (X, np.array(["a"] * 20))), DataError, "arrays of numbers"),
    "triples": (lambda: (net(), CE, [(X, X, Y)]), DataError, "pairs"),
    "dict without a loss of it": (lambda: (net(), CE, {"x": X, "y": Y}), DataError, "pairs"),
    "shuffled": (lambda: (net(), CE, DataLoader(TensorDataset(X, Y), shuffle=True)), DataError, "shuffle"),
    "shuffled by a batch sampler": (lambda: (net(), CE, shuffled()), DataError, "shuffle"),
    "torch augmentation": (
        lambda: (net(), CE, Augmented(lambda: torch.randn(4))), DataError, "augmentation"),
    "numpy augmentation": (
        lambda: (net(), CE, Augmented(lambda: torch.tensor(np.random.rand()).float())),  # noqa: NPY002
        DataError, "augmentation"),
    "reading fails": (lambda: (net(), CE, Broken(torch.ones(1).sum)), DataError, "disk on fire"),
    "ragged examples": (lambda: (net(), CE, Ragged(torch.ones(1).sum)), DataError, "collate_fn"),
    # labels and shapes
    "label too large": (lambda: (net(), CE, (X, one(Y, 7, 3))), DataError, "3 outputs.*labels from 0 to 3"),
    "label negative": (lambda: (net(), CE, (X, one(Y, 7, -2))), DataError, "labels from -2"),
    "label beyond the weights": (
        lambda: (net(), nn.CrossEntropyLoss(torch.ones(3)), (X, one(Y, 7, 9))), DataError, "out of"),
    "labels as floats": (lambda: (net(), CE, (X, Y.float())), DataError, "integers"),
    "all ignored": (lambda: (net(), CE, (X, torch.full_like(Y, -100))), DataError, "no terms"),
    "features": (lambda: (mlp(5, 5, 3), CE, (X, Y)), DataError, r"\(4, 4\) float32"),
    "mse of another shape": (lambda: (mlp(4, 5, 1), "mse", (X, X[:, 0])), DataError, "different shapes"),
    "probabilities of another shape": (
        lambda: (net(), CE, (X, torch.rand(20, 2))), DataError, r"\(4, 2\) float32"),
    "integers": (lambda: (net(), CE, ((X * 9).long(), Y)), DataError, "they are integers"),
    "uint8 images": (
        lambda: (nn.Sequential(nn.Conv2d(1, 2, 2), nn.Flatten(), nn.Linear(2, 3)), CE,
                 ((X.reshape(20, 1, 2, 2) * 9).to(torch.uint8), Y)), DataError, "they are integers"),
    # losses
    "unknown name": (lambda: (net(), "crossentropy", (X, Y)), ConfigurationError, "cross_entropy"),
    "no callable": (lambda: (net(), 3, (X, Y)), ConfigurationError, "int"),
    "sum of torch": (
        lambda: (net(), nn.CrossEntropyLoss(reduction="sum"), (X, Y)), ConfigurationError, "mean"),
    "sum of one's own": (
        lambda: (net(), lambda o, t: F.cross_entropy(o, t, reduction="sum"), (X, Y)),
        ComputationError, "not the mean"),
    "vector": (
        lambda: (net(), lambda o, t: F.cross_entropy(o, t, reduction="none"), (X, Y)),
        ConfigurationError, "one number.*found"),
    "no tensor": (lambda: (net(), lambda o, t: 0.5, (X, Y)), ConfigurationError, "float"),
    "smoothing at weight zero": (
        lambda: (net(), nn.CrossEntropyLoss(torch.tensor([0.0, 1, 1]), label_smoothing=0.1), (X, Y)),
        ConfigurationError, "label smoothing"),
    "count fails": (
        lambda: (net(), lambda o, t: o.mean(), (X, Y), {"count": lambda batch: batch["x"]}),
        DataError, "could not be counted"),
    "terms not counted": (
        lambda: (net(), lambda o, t: F.cross_entropy(o, t), (X, HALF)),
        ComputationError, "count"),
    # models
    "no model": (lambda: ("model", CE, (X, Y)), ConfigurationError, "Module"),
    "cannot be copied": (lambda: (Lock(), CE, (X, Y)), ConfigurationError, "copied"),
    "not on the parameters": (
        lambda: (Wrapped(Tensor.detach), CE, (X, Y)), ComputationError, "does not depend"),
    "dropout left on": (
        lambda: (Wrapped(lambda h: F.dropout(h, 0.5)), CE, (X, Y)), ComputationError, "deterministic"),
    "noise": (
        lambda: (Wrapped(lambda h: h + torch.randn_like(h)), CE, (X, Y)), ComputationError, "deterministic"),
    "trains itself": (Trains, ComputationError, "train mode"),
    "batch statistics": (
        lambda: (nn.Sequential(nn.BatchNorm1d(4, track_running_stats=False), net()), CE, (X, Y)),
        ComputationError, "batch statistics in 0"),
    "once differentiable": (
        lambda: (Wrapped(Once.apply), CE, (X, Y)), ComputationError, "twice differentiable"),
    "no second derivative": (
        lambda: (Wrapped(lambda h: torch.cdist(h, h.new_ones(3, 3), p=1.5)), CE, (X, Y)),
        ComputationError, "twice differentiable"),
    "infinite loss": (
        lambda: (nn.Sequential(net(), nn.Softmax(1)), lambda o, t: (1 / (o * 0)).mean(), (X, Y)),
        ComputationError, "loss is inf on examples 0 to "),
    "gradient not finite": (
        lambda: (Wrapped(lambda h: torch.sqrt((h * 0) ** 2)), lambda o, t: o.mean(), (X, Y)),
        ComputationError, "gradient is not finite"),
    "outputs that are no tensor": (
        lambda: (Wrapped(lambda h: {"logits": h}), CE, (X, Y)), DataError, "failed"),
    # options
    "batch_size": (lambda: (net(), CE, (X, Y), {"batch_size": 0}), ConfigurationError, "at least 1"),
    "samples": (lambda: (net(), CE, (X, Y), {"samples": -3}), ConfigurationError, "at least 1"),
    "device": (lambda: (net(), CE, (X, Y), {"device": "tpu"}), ConfigurationError, "cpu or cuda"),
    "dtype": (lambda: (net(), CE, (X, Y), {"dtype": "int8"}), ConfigurationError, "float64"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case: str) -> None:
    make, kind, text = CASES[case]
    with pytest.raises(kind, match=f"(?s){text}") as caught:
        everything(*made_by(make))
    assert 1 <= len(str(caught.value).splitlines()) <= 5
    assert all(len(line) < 400 for line in str(caught.value).splitlines())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_examples_of_a_loss_that_is_not_finite_are_named(value: float) -> None:
    x = one(one(X, 13, value), 4, value)
    problem = Problem(mlp(4, 5, 3, activation=nn.ReLU), "mse", (x, X[:, :3]))
    with pytest.raises(ComputationError, match="on examples 4, 13"):
        problem.measure()
    with pytest.raises(ComputationError, match="on example 13"):
        problem.measure(list(problem.pieces(5))[2:])
    skipped = torch.where(torch.arange(20) < 9, -100, Y)
    skewed = Problem(mlp(4, 5, 3, activation=nn.ReLU), "cross_entropy", (one(X, 13, value), skipped))
    with pytest.raises(ComputationError, match="on example 13"):
        skewed.measure(skewed.pieces(3))  # whole pieces before it have no terms


def test_weights_that_are_not_finite_are_said_instead_of_the_examples() -> None:
    model = mlp(4, 5, 3)
    torch.nn.init.constant_(next(model.parameters()), float("nan"))
    with pytest.raises(ComputationError, match=r"not finite.*\ndo: take an earlier checkpoint"):
        Problem(model, "cross_entropy", (X, Y)).measure()


def test_data_that_work_although_they_are_odd() -> None:
    """Batches larger than the data are clipped; float64 data serve a float32 model."""
    problem = Problem(mlp(4, 5, 3), "cross_entropy", (X.double().numpy(), Y.numpy()), batch_size=10_000)
    assert problem.batch_size == 20
    assert problem.dtype == torch.float32
    assert torch.equal(matrix_of(problem), matrix_of(Problem(mlp(4, 5, 3), "cross_entropy", (X, Y))))
    backwards = Problem(mlp(4, 5, 3), "cross_entropy", (X.numpy()[::-1], Y.numpy()[::-1]))
    assert backwards.measure().loss == pytest.approx(problem.measure().loss, rel=1e-6)
    with pytest.raises(DataError, match="expect-loss"):
        Problem(mlp(4, 5, 3), "cross_entropy", (X, Y), expect_loss=7.0).check_expected(problem.measure().loss)
    Problem(mlp(4, 5, 3), "cross_entropy", (X, Y), expect_loss=7.0).check_expected(7.06)


def test_strategy_gets_smaller_until_nothing_is_left() -> None:
    strategy: Strategy | None = Strategy(6, 4, 3, 100)
    sizes = []
    while strategy is not None:
        sizes.append((strategy.micro_batch, strategy.kept_pieces))
        strategy = strategy.smaller()
    assert sizes == [(6, 3), (6, 0), (3, 0), (1, 0)]
