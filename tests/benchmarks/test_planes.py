"""The plain loop gives landscape's own surface, and each run makes a bare pass for each of its points."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import landscape
from landscape.slices.evaluate import Surface
from tests.benchmarks.planes import Plane, Unit
from tests.benchmarks.slices import RUNS, SLOW, slice_of, times
from tests.benchmarks.workloads import MeanCrossEntropy, Workload, measured
from tests.support.models import mlp


@pytest.fixture
def load() -> Workload:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(30, 5, generator=generator), torch.randint(3, (30,), generator=generator)
    return Workload("small", mlp(5, 7, 3).eval(), MeanCrossEntropy(), [(x, y)])


def test_the_plain_loop_measures_the_same_plane(load: Workload) -> None:
    plane, coordinates, rows = Plane(load), np.array([-1.0, 0.0, 0.5, 2.0]), list[int]()
    with measured():
        found = plane.losses(coordinates, rows.append)
        flat = torch.stack(
            [torch.cat([part.reshape(-1) for part in one.values()]) for one in plane.directions]
        )
        problem = landscape.Problem(load.model, "cross_entropy", list(load.batches))
        surface = Surface(problem, flat, 30)
        expected = np.array([surface.row([(a, b) for b in coordinates])[:, 0] for a in coordinates])
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert rows == [4, 4, 4, 4]
    assert np.ptp(found) > 0.01
    assert found[1, 1] == pytest.approx(slice_of(load, 3).centre_loss, rel=1e-6)


@pytest.mark.parametrize("what", ["landscape slice", "not stored", "points alone", "plain loop", SLOW[0]])
def test_each_run_makes_a_bare_pass_for_each_point(load: Workload, what: str) -> None:
    made = list[Unit]()

    def watched(load: Workload, n: int, unit: Unit) -> object:
        made.append(unit)
        return RUNS[what](load, n, unit)

    with measured():
        before = {name: p.clone() for name, p in load.model.named_parameters()}
        ratio, each, _ = times(watched, load, 3)
    assert made[0].passes == 9
    assert ratio > 0
    assert each > 0
    assert all(torch.equal(before[name], p) for name, p in load.model.named_parameters())
