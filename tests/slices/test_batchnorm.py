"""Running statistics measured anew at each point: against a plain computation on the same batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from landscape.problem import Problem
from landscape.slices import batchnorm
from landscape.slices.batchnorm import RecalibratedStatistics, has_statistics, interpolated, tracked
from landscape.slices.evaluate import Surface
from tests.slices.exact import directions_of, moved
from tests.support.closed_form import FLOAT64, classification, generator
from tests.support.models import images, seeded, tiny_resnet

POINTS = [(0.0, 0.0), (1.0, -0.5), (-0.7, 2.0)]


class Normed(nn.Module):
    """Two layers with running statistics, one whose momentum is cumulative, and one without any."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm1 = nn.Linear(4, 5), nn.BatchNorm1d(5, momentum=0.3)
        self.second, self.norm2 = nn.Linear(5, 4), nn.BatchNorm1d(4, momentum=None, affine=False)
        self.drop, self.head, self.norm3 = nn.Dropout(0.5), nn.Linear(4, 3), nn.LayerNorm(4)
        self.norm1.get_buffer("running_mean").uniform_(-1, 1)
        self.norm2.get_buffer("running_var").uniform_(0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm2(self.second(torch.tanh(self.norm1(self.first(x)))))
        logits: Tensor = self.head(self.norm3(self.drop(torch.tanh(h))))
        return logits


def naive(model: Normed, batches: list[Tensor]) -> dict[str, Tensor]:
    """Means and unbiased variances of batches normalised by their own statistics, weighted by examples."""
    found: dict[str, Tensor] = {}
    total = sum(len(x) for x in batches)

    def normalised(name: str, h: Tensor) -> Tensor:
        for kind, value in (("mean", h.mean(0)), ("var", h.var(0, unbiased=True))):
            key = f"{name}.running_{kind}"
            found[key] = found.get(key, 0.0) + value * len(h) / total
        return (h - h.mean(0)) / (h.var(0, unbiased=False) + 1e-5).sqrt()

    for x in batches:
        h = normalised("norm1", model.first(x))
        normalised("norm2", model.second(torch.tanh(model.norm1.weight * h + model.norm1.bias)))
    return found


def loss_with(model: nn.Module, statistics: dict[str, Tensor], x: Tensor, y: Tensor) -> float:
    model.load_state_dict({**model.state_dict(), **statistics})
    return float(F.cross_entropy(model.eval()(x), y).detach())


class Streamed:
    def __init__(self, data: tuple[Tensor, Tensor], size: int) -> None:
        self.batches = list(zip(*(t.split(size) for t in data), strict=True))

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Statistical batches of eight examples, to have several."""
    monkeypatch.setattr(batchnorm, "STATISTICAL_BATCH", 8)


@pytest.mark.usefixtures("eight")
@pytest.mark.parametrize("form", ["resident", "streamed by 8", "streamed by 5", "streamed by 1", "loader"])
@pytest.mark.parametrize("sizes", [[8, 8, 8], [8, 8, 7], [8, 8, 9], [9], [5]], ids=str)
def test_the_statistics_of_the_batches(sizes: list[int], form: str) -> None:
    """Whatever pieces the data are read in; a last example alone is one more of the batch before."""
    x, y = classification(sum(sizes), 4, 3)
    given: Any = (x, y)
    if form.startswith("streamed"):
        given = Streamed((x, y), int(form.split()[-1]))
    elif form == "loader":
        given = DataLoader(TensorDataset(x, y), batch_size=6)
    memory = 1 << 30 if form == "resident" else 64
    problem = Problem(seeded(Normed, 1).double(), "cross_entropy", given, memory=memory)
    assert (problem.data.batches is None) == (form != "resident")
    directions = directions_of(problem)
    surface = Surface(problem, directions, 7, recalibration=RecalibratedStatistics(problem))
    for point in POINTS:
        (found,) = surface.row([point])
        model = moved(problem, directions, point)
        assert isinstance(model, Normed)
        with torch.no_grad():
            expected = naive(model, list(x.split(sizes)))
        own = dict(surface.problem.model.named_buffers())
        for name, value in expected.items():
            assert torch.allclose(own[name], value, rtol=1e-12, atol=1e-14), name
        assert found[0] == pytest.approx(loss_with(model, expected, x, y), rel=1e-12)
    assert [m.momentum for _, m in tracked(surface.problem.model)] == [0.3, None]
    assert not surface.problem.model.training
    assert not any(m.training for m in surface.problem.model.modules())


@pytest.mark.usefixtures("eight")
@pytest.mark.parametrize("whole", [False, True])
def test_the_batch_size_does_not_change_the_figures(whole: bool) -> None:
    def loss(model: nn.Module, batch: Any) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1])

    data = classification(23, 4, 3)
    model = seeded(Normed, 1).double()
    found = []
    for batch_size in (None, 1, 5):
        problem = Problem(model, loss if whole else "cross_entropy", data, batch_size=batch_size)
        for micro_batch in (23, 6, 1):
            recalibration = RecalibratedStatistics(problem)
            surface = Surface(problem, directions_of(problem), micro_batch, recalibration=recalibration)
            found.append(np.concatenate([surface.row(POINTS)[:, 0], surface.centre[:1]]))
    assert np.abs(np.array(found) / found[0] - 1).max() < 1e-12
    saved = Surface(problem, directions_of(problem), 6).row(POINTS)[:, 0]
    assert np.abs(saved / found[0][:-1] - 1).min() > 1e-3


def test_images_in_one_batch() -> None:
    """Spatial statistics, of float32: torch's own of a model in train mode with a momentum of one."""
    x, y = images(10, generator(3), size=8)
    problem = Problem(tiny_resnet(), "cross_entropy", (x, y))
    assert RecalibratedStatistics(problem).batch == 10
    directions = directions_of(problem, scale=0.05)
    surface = Surface(problem, directions, 4, recalibration=RecalibratedStatistics(problem))
    (found,) = surface.row([(1.0, 1.0)])
    model = moved(problem, directions, (1.0, 1.0)).train()
    for _, module in tracked(model):
        module.momentum = 1.0
    with torch.no_grad():
        model(x)
    assert found[0] == pytest.approx(float(F.cross_entropy(model.eval()(x), y).detach()), rel=1e-5)
    assert batchnorm.STATISTICAL_BATCH == 512


@pytest.mark.usefixtures("eight")
def test_statistics_that_became_nan_leave_nothing_behind() -> None:
    problem = Problem(seeded(Normed, 1), "cross_entropy", classification(23, 4, 3))
    surface = Surface(problem, directions_of(problem), 7, recalibration=RecalibratedStatistics(problem))
    expected = surface.row(POINTS)
    mixed = surface.row([(np.nan, 0.0), POINTS[0], (np.inf, 1.0), POINTS[1], (0.0, 1e38), POINTS[2]])
    assert np.array_equal(mixed[1::2], expected)
    assert np.isnan(mixed[[0, 2], :2]).all()
    surface.row([(np.nan, 0.0)])
    assert not all(bool(b.isfinite().all()) for b in surface.problem.model.buffers())
    assert np.array_equal(surface.row(POINTS), expected)


@pytest.mark.usefixtures("eight")
def test_other_weights_come_with_their_own_statistics_or_are_recalibrated() -> None:
    x, y = classification(23, 4, 3)
    problem = Problem(seeded(Normed, 1).double(), "cross_entropy", (x, y))
    other = seeded(Normed, 2).double()
    flat = torch.cat([p.detach().reshape(-1) for p in other.parameters()])
    rest = {name: buffer.clone() for name, buffer in other.named_buffers()}
    surface = Surface(problem, directions_of(problem), 7, recalibration=RecalibratedStatistics(problem))
    saved = float(F.cross_entropy(other(x), y).detach())
    assert isinstance(other, Normed)
    with torch.no_grad():
        measured = loss_with(other, naive(other, list(x.split(8))), x, y)
    assert surface.at_weights(flat, rest)[0] == pytest.approx(saved, rel=1e-12)
    assert surface.at_weights(flat)[0] == pytest.approx(measured, rel=1e-12)
    assert abs(saved - measured) > 1e-3
    assert surface.row([(0.0, 0.0)])[0, 0] == surface.centre[0]


@pytest.mark.parametrize("dtype", [torch.float32, FLOAT64])
def test_interpolated_statistics_are_those_of_both_ends(dtype: torch.dtype) -> None:
    model, other = (seeded(Normed, seed).to(dtype) for seed in (1, 2))
    with torch.no_grad():  # so far apart that a + (b − a) is not b
        model.get_buffer("norm1.running_var").fill_(1e10)
        other.get_buffer("norm1.running_var").fill_(1e-10)
    ends = [{k: b for k, b in m.named_buffers() if "running" in k} for m in (model, other)]
    rest = dict(other.named_buffers())
    for share, end in zip((0.0, 1.0), ends, strict=True):
        found = interpolated(model, rest, share)
        assert set(found) == set(end)
        assert all(torch.equal(found[name].to(dtype), end[name]) for name in end)
    middle = interpolated(model, rest, 0.25)
    for name, value in middle.items():
        expected = 0.75 * ends[0][name].double() + 0.25 * ends[1][name].double()
        assert torch.allclose(value, expected, rtol=1e-12, atol=0)
    beyond = interpolated(model, rest, 1.5)
    assert float(beyond["norm1.running_var"].max()) == 0.0
    means = (1.5 * ends[1]["norm1.running_mean"] - 0.5 * ends[0]["norm1.running_mean"]).double()
    assert torch.allclose(beyond["norm1.running_mean"], means, rtol=1e-5)


def test_a_point_with_interpolated_statistics() -> None:
    x, y = classification(23, 4, 3)
    problem = Problem(seeded(Normed, 1).double(), "cross_entropy", (x, y))
    other = seeded(Normed, 2).double()
    flat = torch.cat([p.detach().reshape(-1) for p in other.parameters()])
    direction = (flat - problem.selection.flat())[None]
    surface = Surface(problem, direction, 7, recalibration=RecalibratedStatistics(problem))
    rest = dict(other.named_buffers())
    for share, model in ((0.0, problem.model), (1.0, other)):
        found = surface.row_with((share,), interpolated(problem.model, rest, share))
        assert found[0] == pytest.approx(float(F.cross_entropy(model(x), y).detach()), rel=1e-12)


def test_which_models_have_statistics() -> None:
    assert has_statistics(Normed())
    assert [name for name, _ in tracked(Normed())] == ["norm1", "norm2"]
    assert has_statistics(nn.BatchNorm1d(3))
    for model in (nn.Linear(2, 2), nn.LayerNorm(3), nn.BatchNorm1d(3, track_running_stats=False)):
        assert not has_statistics(model)
    bare = nn.BatchNorm1d(3)
    assert set(interpolated(bare, dict(bare.named_buffers()), 0.5)) == {"running_mean", "running_var"}


def test_train_mode_has_nothing_to_recalibrate() -> None:
    problem = Problem(seeded(Normed, 1), "cross_entropy", classification(23, 4, 3), train_mode=True)
    surface = Surface(problem, directions_of(problem), 7, recalibration=RecalibratedStatistics(problem))
    assert surface.recalibration is None
    plain = Surface(problem, directions_of(problem), 7)
    assert np.array_equal(surface.row(POINTS), plain.row(POINTS), equal_nan=True)
    assert surface.centre[0] == pytest.approx(problem.measure().loss, rel=1e-6)
