"""The training is the same with the monitor and without it, whatever happens to the monitor."""

from __future__ import annotations

import copy
import random
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils import check_random_state
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from landscape.errors import ConfigurationError, DataError
from landscape.monitoring import Monitor
from tests.monitoring.support import blobs, loss_of, net, perturbed, plain_net, train

#: NumPy's global generator, which a training loop may draw from.
GLOBAL = check_random_state(None)
EVERYTHING = {"every": 2, "trace_every": 4, "budget": None, "trace_products": 8, "seed": 0}


def state_of(model: nn.Module) -> dict[str, Any]:
    """Whatever a training leaves behind: weights, buffers, gradients, modes, generators, switches."""
    state: dict[str, Any] = {f"state {k}": v.clone() for k, v in model.state_dict().items()}
    state |= {f"grad {k}": p.grad.clone() for k, p in model.named_parameters() if p.grad is not None}
    state |= {f"needs {k}": p.requires_grad for k, p in model.named_parameters()}
    state |= {f"mode {k}": m.training for k, m in model.named_modules()}
    state |= {"torch": torch.get_rng_state(), "python": random.getstate()}
    state |= {"numpy": torch.tensor(GLOBAL.get_state()[1].astype(np.int64))}
    state |= {"matmul": torch.get_float32_matmul_precision(), "grad": torch.is_grad_enabled()}
    return state


def assert_same(left: dict[str, Any], right: dict[str, Any]) -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        same = value.equal(right[name]) if isinstance(value, torch.Tensor) else value == right[name]
        assert same, name


@pytest.mark.parametrize("rho", [0.0, 0.1])
@pytest.mark.parametrize("batch", [None, 16])
def test_training_is_the_same_bit_for_bit(rho: float, batch: int | None) -> None:
    data, states = blobs(), []
    for watched in (False, True):
        torch.manual_seed(5)
        random.seed(5)
        GLOBAL.seed(5)
        model, monitor = net(), None
        if watched:
            monitor = Monitor(model, "cross_entropy", data, rho=None if rho else 0.2, **EVERYTHING)
        train(model, data, 9, monitor, rho=rho, batch=batch)
        states.append(state_of(model))
        if monitor is not None:
            result = monitor.result()
            assert result.steps.tolist() == [0, 2, 4, 6, 8]
            assert result.source == ("training" if rho else "probe")
            assert np.ma.count(result.lambda_max) == np.ma.count(result.h_norms) == 5
            assert np.ma.count(result.trace) == 3
    assert_same(*states)


def test_steps_that_are_not_measured_touch_no_tensor() -> None:
    class Seen(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            Seen.count += 1
            return func(*args, **(kwargs or {}))

    model, data = net(), blobs()
    monitor = Monitor(model, "cross_entropy", data, every=10, budget=None)
    train(model, data, 1, monitor)
    loss_of(model, data).backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    with Seen():
        for _ in range(9):
            monitor.first()
            monitor.gradients(gradients, gradients)
            monitor.step()
        assert Seen.count == 0
        monitor.first()
        assert Seen.count > 0


def test_inside_no_grad_and_autocast_the_figures_are_the_same() -> None:
    found = []
    for context in (torch.enable_grad(), torch.no_grad(), torch.autocast("cpu", torch.bfloat16)):
        model, data = net(), blobs()
        monitor = Monitor(model, "cross_entropy", data, budget=None, seed=0, rho=0.1)
        with context:
            monitor.step()
        found.append(monitor.result())
    for other in found[1:]:
        assert other.lambda_max.tolist() == found[0].lambda_max.tolist()
        assert other.counts.tolist() == found[0].counts.tolist()


def test_batch_statistics_are_those_of_the_moment() -> None:
    """Measured in eval mode with the buffers of the training."""
    model, data = net(), blobs()
    monitor = Monitor(model, "cross_entropy", data, every=3, budget=None)
    train(model, data, 3, monitor)
    with torch.no_grad():
        model(data[0])  # a step's forward pass moves the statistics before the monitor is called
        evaluated, trained = (
            loss_of(copy.deepcopy(model).train(mode), data).item() for mode in (False, True)
        )
    monitor.step()
    assert monitor.result().losses[1] == pytest.approx(evaluated, rel=1e-6)
    assert abs(monitor.result().losses[1] - trained) > 1e-3


def test_a_loss_that_is_not_finite_is_said_once_and_survived() -> None:
    model, data = net(), blobs()
    monitor = Monitor(model, "cross_entropy", data, budget=None, every=1)
    train(model, data, 1, monitor)
    with torch.no_grad():
        model[0].weight[0, 0] = float("inf")
    with pytest.warns(RuntimeWarning, match="could not be measured at step 1") as said:
        train(model, data, 3, monitor)
    assert len(said) == 1
    result = monitor.result()
    assert monitor.steps == 4
    assert result.failed >= 3
    assert np.isfinite(result.lambda_max[0])
    assert np.ma.getmaskarray(result.lambda_max).tolist() == [False, True, True, True]
    assert result.counts[1:, list(result.classes).index("nonfinite")].min() > 0
    assert result.h_norms[1] == result.h_norms[0]  # what is not finite is not taken in


def test_an_exception_midway_leaves_everything_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that is none of ours, such as Ctrl-C."""
    model, data = net(), blobs()
    monitor = Monitor(model, "cross_entropy", data, budget=None, every=1)
    train(model, data, 1, monitor)
    loss_of(model, data).backward()
    before = state_of(model)

    def stopped(*_: Any, **__: Any) -> None:
        torch.rand(3)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("landscape.curvature.hessian.HessianOperator.apply", stopped)
        with pytest.raises(KeyboardInterrupt):
            monitor.step()
    assert_same(before, state_of(model))
    monitor.step()
    assert monitor.result().lambda_max is not None
    assert np.isfinite(monitor.result().lambda_max[-1])


def test_running_out_of_memory_takes_smaller_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    from landscape.curvature.hessian import HessianOperator

    model, data = net(), blobs(64)
    monitor = Monitor(model, "cross_entropy", data, budget=None, every=1, seed=0)
    plain = Monitor(model, "cross_entropy", data, budget=None, every=1, seed=0)
    build = HessianOperator.build

    def scarce(self: HessianOperator, piece: Any) -> Any:
        if piece.examples > 10:
            raise MemoryError
        return build(self, piece)

    plain.step()
    with monkeypatch.context() as patched:
        patched.setattr(HessianOperator, "build", scarce)
        monitor.step()
    assert monitor.result().lambda_max == pytest.approx(plain.result().lambda_max, rel=1e-4)
    assert monitor.result().failed == 0

    def none_left(self: HessianOperator, piece: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(HessianOperator, "build", none_left)
    with pytest.warns(RuntimeWarning, match="not enough memory"):
        monitor.step()
    assert monitor.result().failed == 1


# -- used otherwise than it can be ---------------------------------------------------------------------------


def test_weights_that_did_not_move_are_an_error_at_the_beginning() -> None:
    model, data = net(), blobs()
    monitor = Monitor(model, "cross_entropy", data)
    loss_of(model, data).backward()
    monitor.first()
    with pytest.raises(ConfigurationError, match="the weights are the same at both gradients"):
        monitor.step()


def test_later_it_is_a_warning() -> None:
    model, data = net(), blobs()
    monitor = Monitor(model, "cross_entropy", data, every=1, budget=None)
    train(model, data, 1, monitor)
    loss_of(model, data).backward()
    monitor.first()
    with pytest.warns(RuntimeWarning, match="the weights are the same"):
        monitor.step()
    assert monitor.steps == 2


def test_gradients_that_are_gone_are_an_error() -> None:
    model, data = net(), blobs()
    monitor = Monitor(model, "cross_entropy", data)
    with pytest.raises(ConfigurationError, match="no parameter has a gradient"):
        monitor.first()


def test_step_after_the_optimizers_own_is_noticed() -> None:
    model, data = plain_net(), blobs()
    monitor = Monitor(model, "cross_entropy", data)
    loss_of(model, (data[0].double(), data[1])).backward()
    monitor.first()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    with pytest.warns(RuntimeWarning, match="moved against the gradient"):
        monitor.step()


def test_second_may_come_before_the_step() -> None:
    """For loops in which nothing but the optimizer's step comes after the second gradient."""
    found = []
    for early in (False, True):
        model, data = plain_net(), blobs()
        data = data[0].double(), data[1]
        monitor = Monitor(model, "cross_entropy", data, budget=None, seed=0)
        loss_of(model, data).backward()
        monitor.first()
        with perturbed(model, 0.1):
            model.zero_grad()
            loss_of(model, data).backward()
            if early:
                monitor.second()
            else:
                monitor.step()
        if early:
            torch.optim.SGD(model.parameters(), lr=0.1).step()
            monitor.step()
        found.append(monitor.result())
    assert found[0].counts.tolist() == found[1].counts.tolist()
    assert found[0].lambda_max.tolist() == found[1].lambda_max.tolist()  # both at w, before the step
    assert found[1].steps.tolist() == [0]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"evry": 3}, "does not know 'evry'"),
        ({"every": 0}, "must be at least 1"),
        ({"every": 2.5}, "takes an int"),
        ({"new_weight": 0.0}, "above 0"),
        ({"rho": 0.0}, "rho must be above 0"),
        ({"trace_products": 3}, "at least 8"),
    ],
)
def test_wrong_options(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        Monitor(net(), "cross_entropy", blobs(), **options)


def test_a_probe_that_does_not_fit_is_an_error_before_the_training() -> None:
    x, y = blobs()
    with pytest.raises(DataError):
        Monitor(net(), "cross_entropy", (x[:, :3], y))


def test_gradients_of_other_shapes() -> None:
    model, data = net(), blobs()
    monitor = Monitor(model, "cross_entropy", data)
    with pytest.raises(ConfigurationError, match="not shaped as the model's trainable parameters"):
        monitor.gradients([torch.ones(3)], [torch.ones(3)])


def test_a_model_that_was_changed_afterwards() -> None:
    model, data = net(), blobs()
    monitor = Monitor(model, "cross_entropy", data)
    model[4] = nn.Linear(8, 4)
    with pytest.raises(ConfigurationError, match="no longer those"):
        monitor.step()


def test_no_warning_in_an_ordinary_training() -> None:
    model, data = net(), blobs()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Monitor(model, "cross_entropy", data, **EVERYTHING) as monitor:
            train(model, data, 5, monitor)
    assert monitor.result().status == "complete"


def test_frozen_tied_and_unused_parameters() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.frozen = nn.Linear(5, 5), nn.Linear(5, 5)
            self.second = nn.Linear(5, 5)
            self.second.weight = self.first.weight
            self.unused, self.out = nn.Linear(2, 2), nn.Linear(5, 3)
            self.frozen.requires_grad_(False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            inner = torch.tanh(self.frozen(torch.tanh(self.first(x))))
            return self.out(torch.tanh(self.second(inner)))

    torch.manual_seed(0)
    model, data = Odd(), blobs()
    monitor = Monitor(model, "cross_entropy", data, budget=None)
    loss_of(model, data).backward()
    monitor.first()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.0 if p.grad is None else 0.05 * p.grad)
    model.zero_grad()
    loss_of(model, data).backward()
    monitor.step()
    result = monitor.result()
    assert result.parameters == 25 + 5 + 5 + 6 + 18
    assert (result.frozen_parameters, result.tied_parameters, result.unused_parameters) == (30, 25, 6)
    assert result.counts[0].sum() == result.parameters
    assert result.counts[0, list(result.classes).index("dead")] >= 6
