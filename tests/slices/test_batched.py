"""Several points in one call of the model: the figures of the loop, and 1 where that does not work."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from landscape.problem import Problem
from landscape.slices import batched
from landscape.slices.evaluate import Surface
from landscape.slices.sample import Metric

POINTS = [(a, b) for a in (-1.0, 0.0, 0.7) for b in (-0.5, 0.0, 2.0)]


class Deciding(nn.Module):
    """Looks at its values, which a batch of weights does not allow."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return y if bool(y.sum() > 0) else -y


def data(count: int = 37) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 5, generator=generator, dtype=torch.float64), torch.arange(count) % 3


def surface(model: nn.Module, test: bool = False) -> Surface:
    problem = Problem(
        model.double(), "cross_entropy", data(), weight_decay=0.1, test_data=data(11) if test else None
    )
    generator = torch.Generator().manual_seed(2)
    directions = torch.randn(2, problem.size, generator=generator, dtype=torch.float64)
    return Surface(problem, directions, 10, test=problem.test)


@pytest.mark.parametrize("batch", [2, 4, 9, 100])
@pytest.mark.parametrize("test", [False, True])
def test_figures_are_those_of_the_loop(batch: int, test: bool) -> None:
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.BatchNorm1d(7), nn.Linear(7, 3))
    made = surface(model, test)
    found = batched.rows(made, POINTS, batch)
    np.testing.assert_allclose(found, made.row(POINTS), rtol=1e-12, atol=1e-14)
    assert found.shape == (len(POINTS), len(made.channels))


def test_the_surface_is_as_before_afterwards() -> None:
    made = surface(nn.Linear(5, 3))
    first = made.row(POINTS)
    batched.rows(made, POINTS, 4)
    assert (made.row(POINTS) == first).all()


def test_on_a_processor_points_come_one_by_one() -> None:
    assert batched.fastest_batch(surface(nn.Linear(5, 3))) == 1


def test_the_fastest_of_what_was_measured_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    made, seconds = surface(nn.Linear(5, 3)), {1: 1.0, 8: 0.5, 32: 0.6}
    monkeypatch.setattr(batched, "_seconds", lambda surface, batch: seconds[batch])
    assert batched.measured_batch(made) == 8
    seconds[8] = seconds[32] = 0.95
    assert batched.measured_batch(made) == 1


def test_a_model_that_cannot_is_taken_one_by_one() -> None:
    assert batched.measured_batch(surface(Deciding())) == 1


def test_what_needs_each_point_by_itself_is_not_batched() -> None:
    def metric(outputs: Tensor, targets: Tensor) -> float:
        return float(outputs.sum())

    metrics: dict[str, Metric] = {"own": metric}
    problem = Problem(nn.Linear(5, 3).double(), "cross_entropy", data())
    directions = torch.ones(1, problem.size, dtype=torch.float64)
    assert Surface(problem, directions, 10).can_batch
    assert not Surface(problem, directions, 10, metrics=metrics).can_batch
    assert not Surface(problem, directions, 10, gradient_norms=True).can_batch
