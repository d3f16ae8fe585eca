"""The centre as a point of the grid is known already: the same figures, to the last bit, without a pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import landscape
from landscape.slices.evaluate import Surface
from tests.support.models import mlp


@pytest.mark.parametrize("loss", ["cross_entropy", lambda outputs, targets: outputs.square().mean()])
@pytest.mark.parametrize("micro_batch", [40, 7])
def test_the_centre_is_what_evaluating_it_gives(loss: Any, micro_batch: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, 5, generator=generator), torch.randint(3, (40,), generator=generator)
    problem = landscape.Problem(mlp(5, 7, 3), loss, (x, y), weight_decay=0.1)
    directions = torch.randn(2, problem.size, generator=generator)
    surface = Surface(problem, directions, micro_batch, gradient_norms=True)
    before = surface.evaluations
    known = surface.row([(0.0, 0.5), (0.0, -0.0)])[1]
    assert surface.evaluations == before + 1
    with surface.evaluating():
        expected = surface._one(lambda: surface.weights.move((0.0, 0.0)), surface.decay((0.0, 0.0)))
    np.testing.assert_array_equal(known, expected)
    assert known[1] == 0.0
    assert surface.centre[1] > 0.0
