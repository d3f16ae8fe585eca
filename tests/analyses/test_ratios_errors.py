"""What ``ratios`` says where rounding, masks or zero gradients take figures away."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landscape.errors import DataError
from landscape.problem import Problem
from tests.analyses.test_ratios import NAMES, net, run
from tests.support.closed_form import classification, generator


def near_a_minimum(dtype: str) -> Problem:
    """Softmax regression at weights where the examples' gradients cancel to 1e-7 of their size."""
    x, y = classification(80, 4, 3)
    model = nn.Linear(4, 3).double()
    y = torch.cat([y, torch.randint(3, (80,), generator=generator(5))])
    x = torch.cat([x, torch.randn(80, 4, generator=generator(6), dtype=torch.float64)])
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=200, tolerance_grad=1e-8, tolerance_change=0)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        return loss

    optimizer.step(closure)
    return Problem(model, "cross_entropy", (x, y), dtype=dtype)


def test_near_a_minimum_rounding_is_not_hidden() -> None:
    """The gradient is as small as its rounding: classes and figures move, and their errors say so."""
    single, double = (run(near_a_minimum(dtype)) for dtype in ("float32", "float64"))
    assert double.gradient_norm < 1e-6
    assert single.rounding > 0.01
    assert double.rounding < 1e-6
    moved = np.abs(single.counts - double.counts).sum() / 2
    assert moved <= single.uncertain.sum() * single.parameters
    assert single.cosine_error is not None
    assert abs(single.cosine - double.cosine) <= 2 * single.cosine_error


@pytest.mark.parametrize("kind", ["tanh net", "late"])
def test_errors_of_a_full_batch_hold_what_rounding_does(kind: str) -> None:
    """float32 against float64 at the same float32 weights."""
    model, x, y = net(2, torch.float32)
    if kind == "late":
        optimizer = torch.optim.SGD(model.parameters(), 0.5)
        for _ in range(300):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    single = run(Problem(model, "cross_entropy", (x, y)), rho=0.1)
    double = run(Problem(model, "cross_entropy", (x, y), dtype="float64"), rho=0.1)
    for name in ("gradient_norm_ratio", "cosine", "directional_curvature"):
        error = getattr(single, f"{name}_error")
        assert 0 < error < 1e-2 * max(1.0, abs(getattr(double, name)))
        assert abs(getattr(single, name) - getattr(double, name)) <= 3 * error


def masked(keep: Sequence[int]) -> Problem:
    """Twelve examples, all ignored but some."""
    model, x, y = net()
    y = torch.where(torch.isin(torch.arange(len(y)), torch.tensor(keep)), y, -100)
    return Problem(model, "cross_entropy", (x[:12], y[:12]))


def test_a_mini_batch_without_terms_is_drawn_again() -> None:
    found = run(masked([0, 1, 2]), minibatch="1", batches=20)
    assert found.fractions[NAMES.index("dead")] < 0.5
    assert np.isfinite(found.perturbed_loss)
    assert found.perturbed_loss > 0.1
    assert found.cosine_error is not None


def test_pairs_without_a_figure_are_left_out_of_its_mean() -> None:
    """A mini-batch whose gradient is zero has no cosine; the others have."""
    x = torch.cat([torch.zeros(6, 3), torch.randn(6, 3, generator=generator())]).double()
    model = nn.Linear(3, 1, bias=False).double()
    found = run(Problem(model, "mse", (x, torch.zeros(12, 1).double())), minibatch="1", batches=30)
    assert found.fractions[NAMES.index("dead")] > 0.2
    assert found.cosine == pytest.approx(1)
    assert np.isfinite(found.gradient_shares).all()
    assert found.gradient_shares.sum() == pytest.approx(1)


def test_data_without_any_term_are_an_error() -> None:
    with pytest.raises(DataError, match="no terms"):
        run(masked([]))
