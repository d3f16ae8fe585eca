"""Weights are written afresh, nothing of the user's changes, and a point is the same whenever measured."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landscape.errors import LandscapeError
from landscape.problem import Problem
from landscape.slices.batchnorm import RecalibratedStatistics
from landscape.slices.evaluate import Surface
from landscape.slices.weights import Weights
from tests.problem.test_unchanged import SITUATIONS, Fragile, everything, loader, user_model
from tests.slices.exact import directions_of, grid, moved
from tests.support.closed_form import FLOAT64, classification, generator
from tests.support.models import mlp, seeded, tiny_resnet

N = 20
POINTS = grid([-0.5, 0.0, 1.0], [-1.0, 0.25])


def data() -> tuple[Tensor, Tensor]:
    x, y = classification(N, 4, 3)
    return x.float(), y


def surface_of(problem: Problem, **options: Any) -> Surface:
    chosen: dict[str, Any] = {"gradient_norms": True, **options}
    return Surface(problem, directions_of(problem), 8, **chosen)


# --- how they lie in memory ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, FLOAT64])
def test_every_parameter_begins_at_64_bytes_and_is_the_right_one(dtype: torch.dtype) -> None:
    class Odd(nn.Module):
        """Parameters of 1, 3 and 5·7 numbers, none, and two that are one."""

        def __init__(self) -> None:
            super().__init__()
            self.scalar = nn.Parameter(torch.tensor(2.0))
            self.three = nn.Parameter(torch.arange(3.0))
            self.table = nn.Parameter(torch.randn(5, 7, generator=generator(1)).T)
            self.none = nn.Parameter(torch.zeros(0, 4))
            self.again = self.three

        def forward(self, x: Tensor) -> Tensor:
            return self.scalar * x[:, :3] * self.again + self.table.sum() + self.none.sum()

    x = torch.randn(6, 4, generator=generator(2), dtype=FLOAT64)
    problem = Problem(Odd().to(dtype), "mse", (x, x[:, :3]))
    directions = directions_of(problem)
    weights = Weights(problem, directions)
    weights.move((0.5, -2.0))
    expected = dict(moved(problem, directions, (0.5, -2.0)).named_parameters())
    model = weights.problem.model
    for name, parameter in model.named_parameters():
        assert parameter.data_ptr() % 64 == weights.at.data_ptr() % 64
        assert parameter.is_contiguous()
        assert torch.allclose(parameter, expected[name], rtol=4 * torch.finfo(dtype).eps, atol=1e-6)
    assert model.again is model.three
    assert weights.problem.selection.flat().equal(torch.cat([p.reshape(-1) for p in model.parameters()]))
    weights.move((0.0, 0.0))
    assert torch.equal(weights.problem.selection.flat(), problem.selection.flat())
    weights.put(directions[0])
    assert torch.equal(weights.problem.selection.flat(), directions[0])
    with torch.no_grad():  # another point is written from the centre, whatever has become of the model
        weights.at.fill_(np.nan)
    weights.move((0.5, -2.0))
    assert torch.isfinite(weights.problem.selection.flat()).all()


def test_weights_that_lie_channels_last_move() -> None:
    model = tiny_resnet().to(memory_format=torch.channels_last)
    x = torch.randn(3, 3, 8, 8, generator=generator(1))
    problem = Problem(model, "cross_entropy", (x, torch.tensor([0, 1, 2])))
    directions = directions_of(problem)
    outputs = moved(problem, directions, (0.3, 0.1))(x).detach()
    expected = float(F.cross_entropy(outputs, torch.tensor([0, 1, 2])))
    found = Surface(problem, directions, 3).row([(0.3, 0.1)])[0, 0]
    assert found == pytest.approx(expected, rel=1e-5)
    assert found != pytest.approx(problem.measure().loss, rel=1e-2)


# --- nothing is changed --------------------------------------------------------------------------------


def everything_of(problem: Problem) -> dict[str, Any]:
    return everything(problem.model)


@pytest.mark.parametrize("train_mode", [False, True])
@pytest.mark.parametrize("memory", [1 << 30, 64])
@pytest.mark.parametrize("recalibrated", [False, True])
def test_nothing_is_changed(train_mode: bool, memory: int, recalibrated: bool) -> None:
    model = user_model()
    before = everything(model)
    problem = Problem(model, "cross_entropy", loader(), train_mode=train_mode, memory=memory, batch_size=8)
    own = everything_of(problem)
    surface = surface_of(problem, recalibration=RecalibratedStatistics(problem) if recalibrated else None)
    surface.row(POINTS)
    surface.row([(np.nan, 0.0), (np.inf, 1.0)])
    surface.at_weights(torch.full((problem.size,), 0.1), {"norm.running_mean": torch.ones(6)})
    surface.row_with((0.5, 0.5), {"norm.running_var": torch.ones(6)})
    surface.contrast([(0.0, 0.0), (1.0, 0.5)], [-1.0, 1.0])
    assert everything(model) == before
    assert everything_of(problem) == own
    # The copy's weights move, its buffers and modes are put back.
    copy = everything(surface.problem.model)
    assert copy["modes"] == own["modes"]
    if train_mode or not recalibrated:
        for name, _ in model.named_buffers():
            assert copy[name][0] == own[name][0], name


class Failing:
    """A loss or metric that raises at its k-th call."""

    def __init__(self, k: int) -> None:
        self.k, self.calls = k, 0

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == self.k:
            raise RuntimeError("this is too much")
        return F.cross_entropy(outputs, targets)


@pytest.mark.parametrize("train_mode", [False, True])
@pytest.mark.parametrize("fatal", [1, 5, 9])
@pytest.mark.parametrize("part", ["model", "loss", "metric"])
def test_nothing_is_changed_by_an_exception(part: str, fatal: int, train_mode: bool) -> None:
    """It is raised at the centre or in mid-row, with weights moved and statistics being measured."""
    model = user_model(fatal if part == "model" else 0)
    before = everything(model)
    loss: Any = Failing(8 * fatal) if part == "loss" else "cross_entropy"
    problem = Problem(model, loss, loader(), train_mode=train_mode, batch_size=8)
    own, metrics = everything_of(problem), {"metric": Failing(fatal)} if part == "metric" else {}

    def rows() -> None:
        surface = surface_of(problem, metrics=metrics, recalibration=RecalibratedStatistics(problem))
        for _ in range(5):
            surface.row(POINTS)

    with pytest.raises(LandscapeError, match=r"this model has had enough|this is too much"):
        rows()
    assert everything(model) == before
    assert everything_of(problem) == own


@pytest.mark.parametrize("recalibrated", [False, True])
def test_a_row_after_an_exception_is_as_without(recalibrated: bool) -> None:
    problem = Problem(Fragile().eval(), "cross_entropy", data())
    calls = {"fail": False}

    def metric(outputs: Tensor, targets: Tensor) -> Tensor:
        if calls["fail"]:
            raise RuntimeError("this is too much")
        return outputs.mean()

    options: dict[str, Any] = {"metrics": {"metric": metric}}
    surface = surface_of(
        problem, recalibration=RecalibratedStatistics(problem) if recalibrated else None, **options
    )
    expected = surface.row(POINTS)
    calls["fail"] = True
    at = torch.full((problem.size,), 0.1)
    for use in (
        lambda: surface.row(POINTS),
        lambda: surface.at_weights(at, {"norm.running_mean": torch.ones(6)}),
        lambda: surface.row_with((1.0, 1.0), {"norm.running_var": torch.full((6,), 9.0)}),
    ):
        with pytest.raises(LandscapeError, match="the metric metric failed"):
            use()
    calls["fail"] = False
    assert np.array_equal(surface.row(POINTS), expected, equal_nan=True)
    rest = {name: buffer.clone() for name, buffer in problem.model.named_buffers()}
    fresh = surface_of(problem, **options)
    assert np.array_equal(surface.at_weights(at, rest)[0], fresh.at_weights(at, rest)[0])


@pytest.mark.parametrize("situation", SITUATIONS)
def test_called_under(situation: str) -> None:
    """The same bits, whatever the caller has switched on."""
    problem = Problem(Fragile().eval(), "cross_entropy", data())
    expected = surface_of(problem).row(POINTS)
    with SITUATIONS[situation]():
        surface = surface_of(Problem(problem.model, "cross_entropy", data()))
        assert np.array_equal(surface.row(POINTS), expected)
    assert np.array_equal(surface.row(POINTS), expected)


# --- the same point ------------------------------------------------------------------------------------


def whole(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


CASES: dict[str, Callable[[], tuple[Problem, dict[str, Any]]]] = {
    "plain": lambda: (Problem(mlp(4, 5, 3), "cross_entropy", data()), {}),
    "streamed": lambda: (Problem(mlp(4, 5, 3), "cross_entropy", loader(), memory=64), {}),
    "whole": lambda: (Problem(mlp(4, 5, 3), whole, data()), {}),
    "groups": lambda: (Problem(mlp(4, 5, 3), lambda o, t: F.cross_entropy(o, t), data()), {}),
    "saved": lambda: (Problem(seeded(Fragile, 1), "cross_entropy", data()), {}),
    "recalibrated": lambda: _recalibrated(data()),
    "recalibrated, streamed": lambda: _recalibrated(loader(), memory=64),
    "train": lambda: (
        Problem(seeded(Fragile, 1), "cross_entropy", data(), train_mode=True, batch_size=8),
        {},
    ),
    "weight decay": lambda: (Problem(mlp(4, 5, 3), "cross_entropy", data(), weight_decay=0.1), {}),
}


def _recalibrated(given: Any, **options: Any) -> tuple[Problem, dict[str, Any]]:
    problem = Problem(seeded(Fragile, 1), "cross_entropy", given, **options)
    return problem, {"recalibration": RecalibratedStatistics(problem)}


@pytest.mark.parametrize("name", CASES)
def test_a_point_has_the_same_bits_in_any_order(name: str) -> None:
    """Alone, in a row, in reverse, in another surface, after points of all kinds."""
    problem, options = CASES[name]()
    surface = surface_of(problem, **options)
    expected = surface.row(POINTS)
    same = functools.partial(np.array_equal, equal_nan=True)
    assert same(surface.row(POINTS[::-1])[::-1], expected)
    alone = np.stack([surface_of(problem, **options).row([point])[0] for point in POINTS])
    assert same(alone, expected)
    mixed = surface.row(
        [POINTS[1], (np.nan, 0.0), POINTS[0], (1e30, -1e30), POINTS[5], (0.0, np.inf), POINTS[2]]
    )
    assert same(mixed[[0, 2, 4, 6]], expected[[1, 0, 5, 2]])
    assert np.isnan(mixed[1, 0])
    assert np.isnan(mixed[1, 1])
    surface.at_weights(torch.full((problem.size,), np.nan))
    surface.contrast([(1.0, 1.0)], [1.0])
    assert same(surface.row(POINTS[3:4])[0], expected[3])
    assert surface.evaluations >= 2 * len(POINTS)


def test_the_centre_is_the_problems_loss() -> None:
    for name in ("plain", "streamed", "whole", "groups", "saved", "train", "weight decay"):
        problem, _ = CASES[name]()
        surface, found = surface_of(problem), problem.measure()
        length = surface.channels.index("gradient_norm")
        assert surface.centre[0] == pytest.approx(found.loss, rel=1e-6)
        assert surface.centre[length] == pytest.approx(float(found.gradient.norm()), rel=1e-5)
        there = surface.row([(0.0, 0.0)])[0]
        assert there[0] == surface.centre[0]
        assert there[1] == 0 or np.isnan(there[1])  # the difference to itself


# --- what is not finite --------------------------------------------------------------------------------


class Root(nn.Module):
    """√w·x: NaN at negative w."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([4.0]))

    def forward(self, x: Tensor) -> Tensor:
        return self.w.sqrt() * x


def test_losses_that_are_not_finite_are_kept_as_they_are() -> None:
    """(√w − 1)² times the mean of x² at w = 4 + c: NaN below zero, infinite where w is."""
    x = torch.linspace(0.5, 2, N)[:, None]
    surface = Surface(Problem(Root(), "mse", (x, x)), torch.tensor([[1.0]]), 7, gradient_norms=True)
    points = [(-5.0,), (0.0,), (np.inf,), (1e36,), (12.0,), (np.nan,), (-3.0,), (-4.0,)]
    found = surface.row(points)
    square = float(x.double().square().mean())
    assert np.isnan(found[[0, 5]]).all()
    assert found[2, 0] == np.inf
    assert np.isfinite(found[3, 0])
    assert np.isnan(found[2, 1])
    for k, w in ((1, 4.0), (4, 16.0), (6, 1.0), (7, 0.0)):
        assert found[k, 0] == pytest.approx((w**0.5 - 1) ** 2 * square, rel=1e-6, abs=1e-12)
        assert np.isfinite(found[k, 1])
    assert not np.isfinite(found[7, 2])  # the root has no derivative at zero
    assert found[6, 2] == pytest.approx(0.0, abs=1e-6)
    assert np.array_equal(surface.row(points[1:2])[0], found[1])


def test_differences_whose_squares_overflow_have_no_error() -> None:
    x = torch.ones(4, 1, dtype=FLOAT64)
    model = nn.Linear(1, 1, bias=False).double()
    surface = Surface(
        Problem(model, "mse", (x * torch.arange(1, 5)[:, None], x)), torch.ones(1, 1, dtype=FLOAT64), 4
    )
    (found,) = surface.row([(1e100,)])
    assert found[0] == pytest.approx(7.5e200, rel=1e-12)
    assert np.isnan(found[1])
