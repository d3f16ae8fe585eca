"""The loss along lines and planes, against closed forms and one call on all the data at each point."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from landscape.errors import ConfigurationError, DataError
from landscape.machine import preserved_randomness
from landscape.problem import Problem
from landscape.slices.coordinates import coordinates
from landscape.slices.evaluate import Surface
from tests.slices.exact import deep_linear, directions_of, grid, moved, naive
from tests.support.closed_form import FLOAT64, classification, generator
from tests.support.models import images, mlp, seeded, tiny_resnet, tiny_transformer, tokens

N = 23
GRIDS = {
    "odd": [coordinates(-1, 1, 5), coordinates(-1, 1, 5)],
    "even": [coordinates(-1, 1, 4), coordinates(-1, 1, 6)],
    "not square": [coordinates(-2.0, 0.5, 7), coordinates(0.25, 3.0, 4)],
    "line": [coordinates(-1.5, 4.0, 12)],
    "line beside zero": [coordinates(2.0, 3.0, 2)],
    "small": [coordinates(-1e-6, 2e-6, 4), coordinates(-1e-3, 1e-3, 3)],
}


def linear_net(widths: tuple[int, ...], dtype: torch.dtype, **options: Any) -> tuple[Problem, Tensor, Tensor]:
    """A deep linear network without biases on random data that no linear map fits."""
    g = generator(3)
    model = mlp(*widths, activation=nn.Identity, bias=False, seed=1)
    layers = nn.Sequential(*(layer for layer in model if isinstance(layer, nn.Linear))).to(dtype)
    x = torch.randn(N, widths[0], generator=g, dtype=FLOAT64).to(dtype)
    y = torch.randn(N, widths[-1], generator=g, dtype=FLOAT64).to(dtype)
    return Problem(layers, "mse", (x, y), **options), x, y


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("widths", [(4, 3), (1, 1), (4, 5, 2, 3)], ids=str)
@pytest.mark.parametrize(("dtype", "rounding"), [(FLOAT64, 1e-14), (torch.float32, 1e-6)])
def test_quadratics_and_deep_linear_networks(
    name: str, widths: tuple[int, ...], dtype: torch.dtype, rounding: float
) -> None:
    """One linear layer is a quadratic; three make a polynomial of degree six. At every point, to rounding."""
    problem, x, y = linear_net(widths, dtype)
    axes = GRIDS[name]
    directions = directions_of(problem, len(axes), scale=0.7)
    assert isinstance(problem.model, nn.Sequential)
    exact = deep_linear(problem.model, x, y, [problem.selection.layout.split(row) for row in directions])
    assert sum(next(iter(exact.coefficients))) == 0
    for micro_batch in (N, 7, 1):
        surface = Surface(problem, directions, micro_batch)
        assert surface.channels == ("loss", "error")
        value, size = exact.at((0.0,) * len(axes))
        assert abs(surface.centre[0] - value) <= rounding * size
        found = surface.row(grid(*axes))
        assert found.shape == (int(np.prod([len(axis) for axis in axes])), 2)
        for row, point in zip(found, grid(*axes), strict=True):
            value, size = exact.at(point)
            assert abs(row[0] - value) <= rounding * size, point


@pytest.mark.parametrize("axes", [1, 2])
def test_weight_decay_adds_half_of_it_times_the_squared_norm(axes: int) -> None:
    problem, x, y = linear_net((4, 3, 2), FLOAT64, weight_decay=0.37)
    directions = directions_of(problem, axes)
    assert isinstance(problem.model, nn.Sequential)
    exact = deep_linear(problem.model, x, y, [problem.selection.layout.split(row) for row in directions])
    surface = Surface(problem, directions, 7, gradient_norms=True)
    plain = Surface(linear_net((4, 3, 2), FLOAT64)[0], directions, 7)
    assert surface.centre[0] == pytest.approx(problem.measure().loss, rel=1e-14)
    points = grid(*[coordinates(-2, 1.5, 4)] * axes)
    for row, plain_row, point in zip(surface.row(points), plain.row(points), points, strict=True):
        w = problem.selection.flat() + torch.tensor(point, dtype=FLOAT64) @ directions
        value, size = exact.at(point)
        assert row[0] == pytest.approx(value + 0.37 / 2 * float(w @ w), rel=1e-13 * max(1, size / value))
        assert row[1] == pytest.approx(plain_row[1], rel=1e-12)  # it is no sampling error
        at = Problem(moved(problem, directions, point), "mse", (x, y), weight_decay=0.37).measure()
        assert row[2] == pytest.approx(float(at.gradient.norm()), rel=1e-12)
    w = directions[0] * 2
    expected = Problem(_put(problem, w), "mse", (x, y), weight_decay=0.37).measure().loss
    assert surface.at_weights(w)[0] == pytest.approx(expected, rel=1e-14)


def _put(problem: Problem, flat: Tensor) -> nn.Module:
    return moved(problem, (flat - problem.selection.flat())[None], (1.0,))


# --- losses, data and models of all kinds --------------------------------------------------------------


class Parts(nn.Module):
    """Tied, frozen and unused parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.second.weight = self.first.weight
        self.unused = nn.Parameter(torch.ones(3))
        self.head.bias.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.tanh(self.second(torch.tanh(self.first(x)))))
        return logits


class Recurrent(nn.Module):
    """An LSTM or GRU of two layers, whose last step is classified; outputs that are no tensor if ``pair``."""

    def __init__(self, kind: Any, pair: bool = False) -> None:
        super().__init__()
        self.rnn, self.head, self.pair = kind(2, 3, num_layers=2), nn.Linear(3, 3), pair

    def forward(self, x: Tensor) -> Any:
        found, state = self.rnn(x.reshape(len(x), 2, 2).transpose(0, 1))
        return (self.head(found[-1]), state) if self.pair else self.head(found[-1])


class Streamed:
    def __init__(self, batches: list[Any]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)


def masked() -> tuple[Tensor, Tensor]:
    x, y = classification(N, 4, 3)
    y[::4] = -100
    y[7:15] = -100  # more than a piece of seven
    return x, y


def padded() -> tuple[Tensor, Tensor]:
    x, y = tokens(7, 5, generator(1), vocabulary=12)
    y[torch.arange(5) >= torch.tensor([5, 3, 1, 5, 2, 5, 4])[:, None]] = -100
    return x, y


def whole(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


CLASSES = classification(N, 4, 3)
WEIGHT = torch.tensor([0.2, 1.0, 3.0], dtype=FLOAT64)
MIXED = nn.CrossEntropyLoss(weight=WEIGHT, ignore_index=1, label_smoothing=0.1)
TARGETS = torch.randn(N, 3, generator=generator(5), dtype=FLOAT64)
NET = functools.partial(mlp, 4, 5, 3)

#: Model, loss, data, options; the same loss of all the data by torch, and how errors are had.
Case = tuple[nn.Module, Any, Any, dict[str, Any], Callable[[nn.Module], Tensor], str]
CASES: dict[str, Callable[[], Case]] = {
    "cross entropy": lambda: (NET(), "cross_entropy", CLASSES, {}, ce(*CLASSES), "examples"),
    "masked": lambda: (NET(), "cross_entropy", masked(), {}, ce(*masked()), "examples"),
    "weights, a class ignored, smoothing": lambda: (
        NET(), MIXED, CLASSES, {}, lambda m: MIXED(m(CLASSES[0]), CLASSES[1]), "examples",
    ),
    "tokens": lambda: (
        tiny_transformer(), "cross_entropy", padded(), {},
        lambda m: F.cross_entropy(m(padded()[0]).flatten(0, 1), padded()[1].flatten()), "examples",
    ),
    "huber": lambda: (
        NET(), nn.HuberLoss(), (CLASSES[0], TARGETS), {},
        lambda m: F.huber_loss(m(CLASSES[0]), TARGETS), "examples",
    ),
    "bce": lambda: (
        NET(), "bce_with_logits", (CLASSES[0], (TARGETS > 0).double()), {},
        lambda m: F.binary_cross_entropy_with_logits(m(CLASSES[0]), (TARGETS > 0).double()), "examples",
    ),
    "callable": lambda: (
        NET(), lambda out, targets: (out.softmax(1) - F.one_hot(targets, 3)).abs().mean(), CLASSES, {},
        lambda m: (m(CLASSES[0]).softmax(1) - F.one_hot(CLASSES[1], 3)).abs().mean(), "random groups",
    ),
    "callable that counts": lambda: (
        NET(), lambda outputs, targets: F.cross_entropy(outputs, targets), masked(),
        {"count": lambda batch: float((batch[1] != -100).sum())}, ce(*masked()), "random groups",
    ),
    "loss of the model": lambda: (NET(), whole, CLASSES, {}, ce(*CLASSES), "random groups"),
    "streamed": lambda: (
        NET(), "cross_entropy", DataLoader(TensorDataset(*CLASSES), batch_size=5), {"memory": 64},
        ce(*CLASSES), "examples",
    ),
    "streamed, loss of the model": lambda: (
        NET(), whole, Streamed([(x, y) for x, y in zip(*(t.split(4) for t in CLASSES), strict=True)]),
        {"memory": 64}, ce(*CLASSES), "order they come in",
    ),
    "tied, frozen, unused": lambda: (
        seeded(Parts, 1), "cross_entropy", CLASSES, {}, ce(*CLASSES), "examples",
    ),
    "some parameters": lambda: (
        NET(), "cross_entropy", CLASSES, {"params": ["0.bias", "2.*"]}, ce(*CLASSES), "examples",
    ),
    "LSTM": lambda: (
        seeded(lambda: Recurrent(nn.LSTM), 1), "cross_entropy", CLASSES, {}, ce(*CLASSES), "examples",
    ),
    "GRU": lambda: (
        seeded(lambda: Recurrent(nn.GRU), 1), "cross_entropy", CLASSES, {}, ce(*CLASSES), "examples",
    ),
    "outputs that cannot be cut": lambda: (
        seeded(lambda: Recurrent(nn.LSTM, pair=True), 1),
        lambda outputs, targets: F.cross_entropy(outputs[0], targets), CLASSES, {},
        lambda m: F.cross_entropy(m(CLASSES[0])[0], CLASSES[1]), "random groups",
    ),
    "BatchNorm as saved": lambda: (
        tiny_resnet(), "cross_entropy", small_images(), {}, ce(*small_images()), "examples",
    ),
}  # fmt: skip


def ce(x: Tensor, y: Tensor) -> Callable[[nn.Module], Tensor]:
    return lambda model: F.cross_entropy(model(x), y)


@functools.cache
def small_images() -> tuple[Tensor, Tensor]:
    x, y = images(9, generator(6), size=8)
    return x.double(), y


@pytest.mark.parametrize("name", CASES)
def test_every_kind_of_problem(name: str) -> None:
    model, loss, data, options, exact, method = CASES[name]()
    problem = Problem(model.double(), loss, data, **options)
    directions = directions_of(problem)
    points = [(-1.0, -0.3), (0.0, 1.0), (0.0, 0.0)]
    expected = list(naive(problem, directions, points, exact))
    for micro_batch in (problem.examples, 7 if problem.examples > 9 else 4):
        surface = Surface(problem, directions, micro_batch, gradient_norms=True)
        assert method in surface.method
        where = surface.channels.index("gradient_norm")
        assert surface.centre[[0, where]] == pytest.approx(expected[-1], rel=1e-11)
        for row, (value, length) in zip(surface.row(points), expected, strict=True):
            assert row[0] == pytest.approx(value, rel=1e-12)
            assert row[where] == pytest.approx(length, rel=1e-10)
    w = directions[1] + 0.1
    assert surface.at_weights(w)[0] == pytest.approx(float(exact(_put(problem, w)).detach()), rel=1e-12)


def test_accuracy_and_metrics() -> None:
    x, y = masked()
    problem = Problem(NET().double(), "cross_entropy", (x, y))
    directions = directions_of(problem, scale=1.0)
    metrics = {
        "largest": lambda outputs, targets: outputs.amax(1),
        "mean": lambda outputs, targets: outputs.mean(),
        "margin": lambda outputs, targets: (outputs[:, 0] > outputs[:, 1]).numpy(),
    }
    points = grid([-1.0, 0.7], [0.0, 0.4, 2.0])
    for micro_batch in (N, 6):  # 6: the metric "mean" is weighted by the examples, and every piece has labels
        surface = Surface(
            problem,
            directions,
            micro_batch,
            metrics=metrics,
            test=Problem(NET().double(), "cross_entropy", CLASSES),
        )
        assert surface.channels == (
            *("loss", "error", "accuracy", "largest", "largest error", "mean", "mean error"),
            *("margin", "margin error"),
            *("test_loss", "test_error", "test_accuracy"),
        )  # fmt: skip
        for row, point in zip(surface.row(points), points, strict=True):
            outputs, kept = moved(problem, directions, point)(x).detach(), y != -100
            assert row[2] == pytest.approx(float((outputs.argmax(1) == y)[kept].double().mean()), rel=1e-14)
            largest, margin = outputs.amax(1), (outputs[:, 0] > outputs[:, 1]).double()
            assert row[3] == pytest.approx(float(largest.mean()), rel=1e-12)
            assert row[4] == pytest.approx(float(largest.std()) / len(largest) ** 0.5, rel=1e-9)
            assert row[5] == pytest.approx(float(outputs.mean()), rel=1e-12)
            assert np.isnan(row[6])  # a mean alone
            assert row[7] == pytest.approx(float(margin.mean()), rel=1e-14)
            assert row[8] == pytest.approx(float(margin.std()) / len(margin) ** 0.5, rel=1e-9)
            outputs = moved(problem, directions, point)(CLASSES[0]).detach()
            assert row[9] == pytest.approx(float(F.cross_entropy(outputs, CLASSES[1])), rel=1e-12)
            assert row[11] == pytest.approx(
                float((outputs.argmax(1) == CLASSES[1]).double().mean()), rel=1e-14
            )
    assert len({float(row[2]) for row in surface.row(points)}) > 2


def test_a_metric_that_fails_says_so() -> None:
    problem = Problem(NET().double(), "cross_entropy", CLASSES)
    directions = directions_of(problem)

    def broken(outputs: Tensor, targets: Tensor) -> Tensor:
        raise ValueError("no such thing")

    with pytest.raises(ConfigurationError, match="the metric broken failed on a batch") as caught:
        Surface(problem, directions, N, metrics={"broken": broken})
    assert "no such thing" in caught.value.found
    with pytest.raises(ConfigurationError, match="one number for each of 7 examples"):
        Surface(problem, directions, 7, metrics={"wide": lambda outputs, targets: outputs})


def test_a_loss_that_fails_says_so() -> None:
    problem = Problem(NET().double(), "mse", CLASSES)
    with pytest.raises(DataError, match="different shapes"):
        Surface(problem, directions_of(problem), N)


class Noisy(nn.Module):
    """Dropout and BatchNorm, in train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.4), nn.Linear(6, 3))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return logits


@pytest.mark.parametrize("kind", ["named", "callable", "whole"])
def test_train_mode(kind: str) -> None:
    """Batch statistics of the statistical batches, dropout from one seed; alone or in a row."""
    loss = {"named": "cross_entropy", "callable": lambda o, t: F.cross_entropy(o, t), "whole": whole}[kind]
    problem = Problem(seeded(Noisy, 1).double(), loss, CLASSES, train_mode=True, batch_size=8)
    directions = directions_of(problem)
    points = grid([-1.0, 0.5], [0.0, 1.0])
    surface = Surface(problem, directions, 3)
    assert surface.centre[0] == pytest.approx(problem.measure().loss, rel=1e-14)
    assert "train mode" in surface.method
    found = surface.row(points)
    for row, point in zip(found, points, strict=True):
        model, total = moved(problem, directions, point).train(), 0.0
        for x, y in zip(*(t.split(8) for t in CLASSES), strict=True):
            with preserved_randomness():
                torch.manual_seed(0)
                total += float(F.cross_entropy(model(x), y, reduction="sum").detach())
        assert row[0] == pytest.approx(total / N, rel=1e-13)
        assert np.isnan(row[1])
        assert np.array_equal(surface.row([point])[0], row, equal_nan=True)
