"""Nothing of the user's is changed, whatever happens; and what they have switched on does not matter."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from landscape.curvature.hessian import HessianOperator
from landscape.curvature.sampling import standard_errors
from landscape.curvature.strategy import choose_strategy
from landscape.errors import LandscapeError
from landscape.machine import threads
from landscape.problem import Problem
from tests.support.closed_form import classification, generator, matrix_of


class Fragile(nn.Module):
    """Dropout, BatchNorm and a frozen layer; raises on the ``fatal``-th forward if that is set."""

    calls = 0

    def __init__(self, fatal: int = 0) -> None:
        super().__init__()
        self.first, self.norm, self.drop = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.3)
        self.frozen, self.head, self.fatal = nn.Linear(6, 6).requires_grad_(False), nn.Linear(6, 3), fatal

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == self.fatal:
            raise RuntimeError("this model has had enough")
        h = self.drop(torch.tanh(self.frozen(self.norm(self.first(x)))))
        logits: Tensor = self.head(h)
        return logits


def everything(model: nn.Module) -> dict[str, Any]:
    """All that must not change: the model's and the process's state, in values that can be compared."""
    state: dict[str, Any] = {}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        grad = None if tensor.grad is None else tensor.grad.numpy().tobytes()
        state[name] = (
            tensor.detach().numpy().tobytes(), tensor.requires_grad, grad,
            tensor._version, id(tensor), tensor.dtype,
        )  # fmt: skip
    state["modes"] = [module.training for module in model.modules()]
    state["torch"] = torch.get_rng_state().numpy().tobytes()
    state["numpy"] = [str(part) for part in np.random.get_state()]  # noqa: NPY002
    state["python"] = random.getstate()
    cuda, cudnn = torch.backends.cuda, torch.backends.cudnn
    state["flags"] = (
        cuda.flash_sdp_enabled(),
        cuda.mem_efficient_sdp_enabled(),
        cuda.math_sdp_enabled(),
        cudnn.enabled,
        cudnn.benchmark,
        cudnn.deterministic,
        cudnn.allow_tf32,
        torch.get_float32_matmul_precision(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_default_dtype(),
    )
    return state


def all_of_it(model: nn.Module, data: Any, **options: Any) -> None:
    problem = Problem(model, "cross_entropy", data, batch_size=8, **options)
    with threads(1):
        problem.check_deterministic()
        strategy, _ = choose_strategy(problem)
        operator = HessianOperator(problem, strategy)
        vectors = torch.eye(problem.size, dtype=problem.dtype)[:2]
        products = operator.apply(vectors)
        operator.error(vectors[0])
        values = products.diagonal().numpy()
        standard_errors(problem, values, vectors.double(), np.zeros(2), seed=0, micro_batch=8)


def user_model(fatal: int = 0) -> Fragile:
    """In train mode, with gradients and statistics of its own, as in the middle of a training run."""
    model = Fragile().train()
    x, y = classification(16, 4, 3)
    torch.autograd.backward(nn.functional.cross_entropy(model(x.float()), y))
    model.drop.eval()
    model.calls, model.fatal = 0, fatal
    return model


def loader() -> DataLoader[Any]:
    x, y = classification(20, 4, 3)
    return DataLoader(TensorDataset(x.float(), y), batch_size=6)


@pytest.mark.parametrize("train_mode", [False, True])
@pytest.mark.parametrize("memory", [1 << 30, 64])
def test_after_success(train_mode: bool, memory: int) -> None:
    model = user_model()
    before = everything(model)
    all_of_it(model, loader(), train_mode=train_mode, memory=memory)
    assert everything(model) == before


@pytest.mark.parametrize("train_mode", [False, True])
@pytest.mark.parametrize("fatal", [1, 2, 3, 4, 5, 6])
def test_after_an_exception(fatal: int, train_mode: bool) -> None:
    model = user_model(fatal)
    before = everything(model)
    with pytest.raises(LandscapeError, match="this model has had enough") as caught:
        all_of_it(model, loader(), train_mode=train_mode)
    assert len(str(caught.value).splitlines()) <= 5
    assert everything(model) == before


def test_after_flags_that_differ_from_the_defaults() -> None:
    model, precision = user_model(), torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        before = everything(model)
        all_of_it(model, loader())
        assert everything(model) == before
    finally:
        torch.set_float32_matmul_precision(precision)


SITUATIONS: dict[str, Callable[[], Any]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "set_grad_enabled": lambda: torch.set_grad_enabled(False),
}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_called_under(situation: str) -> None:
    """The same products bit for bit, also with the model and the data made in there."""
    x, y = classification(20, 4, 3)

    def products(model: nn.Module, data: Any) -> Tensor:
        problem = Problem(model, "cross_entropy", data)
        problem.check_deterministic()
        problem.measure()
        matrix = matrix_of(problem, 7, kept=1)
        found = standard_errors(
            problem, matrix.diagonal().numpy()[:1], torch.eye(problem.size, dtype=torch.float64)[:1],
            np.full(1, 1e-6), seed=0, micro_batch=7,
        )  # fmt: skip
        assert "second differences" in found.method
        return matrix

    model = Fragile().eval()
    expected = products(model, (x.float(), y))
    before = everything(model)
    with SITUATIONS[situation]():
        inside = everything(model)
        found = products(model, (x.float(), y))
        assert everything(model) == inside
        with torch.random.fork_rng([]):
            own = Fragile().eval()
        own.load_state_dict(model.state_dict())
        made_inside = products(own, ((x * 1).float(), y * 1))
        in_operator = matrix_of(Problem(model, "cross_entropy", (x.float(), y)), 7)
    assert everything(model) == before
    for other in (found, made_inside, in_operator):
        assert torch.equal(other, expected)


def test_attention_is_differentiated_twice_whatever_kernel_is_chosen_outside() -> None:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    from tests.support.models import tiny_transformer, tokens

    problem = Problem(tiny_transformer(), "cross_entropy", tokens(3, 5, generator(), vocabulary=12))
    rows = torch.eye(problem.size)[:3]
    expected = HessianOperator(problem, choose_strategy(problem)[0]).apply(rows)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        found = HessianOperator(problem, choose_strategy(problem)[0]).apply(rows)
        assert torch.backends.cuda.flash_sdp_enabled()
        assert not torch.backends.cuda.math_sdp_enabled()
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_the_loss_module_of_the_user_is_not_moved() -> None:
    weight = torch.tensor([1.0, 2.0, 3.0])
    loss = nn.CrossEntropyLoss(weight=weight)
    problem = Problem(Fragile().double(), loss, classification(9, 4, 3))
    matrix_of(problem, 4)
    assert loss.weight is weight
    assert weight.dtype == torch.float32
