"""Finite differences: closed forms, orders of the error, the sweep's plateau, clear errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from landscape.curvature.finite_difference import (
    DIFFERENCES,
    FiniteDifferenceOperator,
    _middle_of_plateau,
    default_rho,
    rho_sweep,
)
from landscape.curvature.strategy import Strategy
from landscape.errors import ComputationError, ConfigurationError
from landscape.linalg.operator import norm
from landscape.problem import Problem
from tests.support.closed_form import FLOAT64, classification, generator, matrix_of
from tests.support.models import mlp, seeded

PIECES = Strategy(8, 5, 0, 0)


def trained(dtype: str = "float64", activation: type[nn.Module] = nn.Tanh) -> Problem:
    return Problem(
        mlp(4, 8, 3, activation=activation), "cross_entropy", classification(37, 4, 3), dtype=dtype
    )


def direction(problem: Problem, seed: int = 0) -> Tensor:
    vector = torch.randn(problem.size, generator=generator(seed), dtype=FLOAT64)
    return (vector / vector.norm()).to(problem.dtype)


def fd(problem: Problem, **options: Any) -> FiniteDifferenceOperator:
    return FiniteDifferenceOperator(problem, PIECES, **options)


@pytest.mark.parametrize("difference", DIFFERENCES)
def test_a_quadratic_is_exact_for_any_step(difference: str) -> None:
    x = torch.randn(30, 5, generator=generator(), dtype=FLOAT64)
    y = torch.randn(30, 1, generator=generator(1), dtype=FLOAT64)
    problem = Problem(nn.Linear(5, 1, bias=False).double(), "mse", (x, y))
    exact = 2 * x.T @ x / 30
    vectors = 7.5 * torch.randn(3, 5, generator=generator(2), dtype=FLOAT64)
    vectors[1] = 0
    for rho in (1e-2, 1.0, 100.0):
        found = fd(problem, rho=rho, difference=difference).apply(vectors)
        assert norm(found - vectors @ exact) <= 1e-11 * norm(vectors @ exact)
        assert not found[1].any()


@pytest.mark.parametrize(("difference", "order"), [("central", 2), ("as-written", 1)])
def test_the_order_of_the_error(difference: str, order: int) -> None:
    problem = trained()
    vector = direction(problem)
    exact = vector @ matrix_of(problem)
    rhos = np.array([0.4, 0.2, 0.1, 0.05, 0.025])
    errors = [
        norm(fd(problem, rho=rho, difference=difference).apply(vector[None])[0] - exact) for rho in rhos
    ]
    orders = np.diff(np.log(errors)) / np.diff(np.log(rhos))
    assert abs(orders[-1] - order) <= 0.1
    assert np.all(np.abs(orders - order) <= 0.5)


@pytest.mark.parametrize("difference", DIFFERENCES)
def test_the_error_is_the_measured_one(difference: str) -> None:
    problem = trained()
    vector = direction(problem)
    exact = vector @ matrix_of(problem)
    for rho in (1e-1, 1e-3):
        operator = fd(problem, rho=rho, difference=difference)
        error = norm(operator.apply(vector[None])[0] - exact)
        assert error <= operator.error(vector) * (1 + 1e-6)
        assert operator.error(vector) <= 1.01 * error
        assert operator.products == 1


class Once(torch.autograd.Function):
    """tanh without a second derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.tanh()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return grad * (1 - y * y)


class OnceTanh(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = Once.apply(x)  # type: ignore[no-untyped-call]
        return out


@pytest.mark.parametrize("difference", DIFFERENCES)
def test_without_a_second_derivative(difference: str) -> None:
    plain, once = trained(), trained(activation=OnceTanh)
    vector = direction(plain)
    exact = vector @ matrix_of(plain)
    for rho in (1e-1, 1e-3, 1e-9):  # truncation and rounding
        operator = fd(once, rho=rho, difference=difference)
        error = norm(operator.apply(vector[None])[0] - exact)
        assert error <= operator.error(vector) <= 20 * error
    sweep = rho_sweep(once, PIECES, vector, difference)
    known = rho_sweep(plain, PIECES, vector, difference)
    assert (sweep.against, known.against) == ("neighbouring rho", "double backward")
    assert np.array_equal(sweep.rhos, known.rhos)
    at = int(np.flatnonzero(sweep.rhos == sweep.best)[0])
    assert known.errors[at] <= 30 * known.error
    assert known.errors[at] <= 2 * sweep.error


@pytest.mark.parametrize("difference", DIFFERENCES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_default_step_is_near_the_plateau(dtype: str, difference: str) -> None:
    problem = trained(dtype)
    sweep = rho_sweep(problem, PIECES, direction(problem), difference)
    assert sweep.error == sweep.errors[sweep.rhos == sweep.best][0]
    assert sweep.errors.min() <= sweep.error <= 2 * sweep.errors.min()
    assert 0 < np.argmin(sweep.errors) < len(sweep.errors) - 1
    vector = direction(problem)
    exact = vector.double() @ matrix_of(problem.in_dtype(torch.float64))
    operator = fd(problem, difference=difference)
    assert operator.rho == default_rho(problem, difference)
    error = norm(operator.apply(vector[None])[0] - exact) / norm(exact)
    assert error <= 20 * sweep.error


def test_the_sweep_finds_the_middle_of_the_plateau() -> None:
    assert _middle_of_plateau(np.array([9.0, 1.9, 1.0, 1.5, 1.8, 2.1, 1.2])) == 2
    assert _middle_of_plateau(np.array([1.0, 3.0])) == 0
    assert _middle_of_plateau(np.array([np.inf, 5.0, 1.0])) == 2
    with pytest.raises(ComputationError, match="no step"):
        _middle_of_plateau(np.array([np.inf, np.inf]))


def test_relu_nets_in_float64() -> None:
    """Within a linear piece the difference is exact, so that small steps are best."""
    problem = trained(activation=nn.ReLU)
    sweep = rho_sweep(problem, PIECES, direction(problem))
    assert sweep.error <= 1e-6
    assert sweep.errors[-1] > 1e-3


class Exploding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.exp((10 * x * self.w).sum(1, keepdim=True))


def test_a_step_that_is_too_large() -> None:
    x = torch.ones(4, 2, dtype=FLOAT64)
    problem = Problem(Exploding().double(), "mse", (x, x[:, :1]))
    vector = torch.ones(1, 2, dtype=FLOAT64)
    with pytest.raises(ComputationError, match="ρ is too large") as caught:
        fd(problem, rho=100.0).apply(vector)
    assert "100" in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 5
    assert torch.equal(problem.selection.flat(), torch.ones(2, dtype=FLOAT64))
    assert np.isfinite(rho_sweep(problem, PIECES, vector[0]).errors).all()
    single = Problem(Exploding(), "mse", (1.5 * x.float(), x[:, :1].float()))
    sweep = rho_sweep(single, PIECES, vector[0].float())
    assert np.isinf(sweep.errors[-1])
    assert sweep.error <= 1e-2


@pytest.mark.parametrize("rho", [0.0, -1e-3, float("nan"), float("inf")])
def test_steps_that_make_no_sense(rho: float) -> None:
    with pytest.raises(ConfigurationError, match="rho must be a positive number"):
        fd(trained(), rho=rho)
    with pytest.raises(ConfigurationError, match="--difference"):
        fd(trained(), difference="forward")


def test_vectors_that_cannot_be_swept_along() -> None:
    problem = trained()
    for wrong in (torch.zeros(problem.size), torch.full((problem.size,), torch.nan)):
        with pytest.raises(ComputationError, match="swept"):
            rho_sweep(problem, PIECES, wrong.double())


def test_weights_that_are_all_zero() -> None:
    model = nn.Linear(4, 3, bias=False).double()
    nn.init.zeros_(model.weight)
    problem = Problem(model, "cross_entropy", classification(20, 4, 3))
    assert default_rho(problem) == pytest.approx(0.1 * (2.0**-53) ** (1 / 3))
    vector = direction(problem)[None]
    assert norm(fd(problem).apply(vector) - vector @ matrix_of(problem)) <= 1e-9


def test_the_base_gradient_is_computed_once() -> None:
    calls: list[int] = []
    problem = trained()
    problem.model.register_forward_pre_hook(lambda module, inputs: calls.append(len(inputs[0])))
    operator = fd(problem, difference="as-written")
    rows = torch.stack([direction(problem, seed) for seed in range(3)])
    operator.apply(rows)
    assert sum(calls) == 4 * 37
    operator.apply(rows)
    assert sum(calls) == 7 * 37
    given = fd(problem, difference="as-written", gradient=problem.measure().gradient)
    calls.clear()
    found = given.apply(rows)
    assert sum(calls) == 3 * 37
    assert norm(found - operator.apply(rows)) <= 1e-6 * norm(found)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.norm, self.head = nn.LSTM(3, 4, batch_first=True), nn.BatchNorm1d(4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.norm(self.rnn(x)[0][:, -1]))
        return out


@pytest.mark.parametrize("train_mode", [False, True])
def test_recurrent_nets_and_batch_statistics(train_mode: bool) -> None:
    x = torch.randn(10, 5, 3, generator=generator(3), dtype=FLOAT64)
    y = torch.randint(3, (10,), generator=generator(4))
    model = seeded(Recurrent, 0).double()
    problem = Problem(model, "cross_entropy", (x, y), train_mode=train_mode)
    before = [buffer.clone() for buffer in problem.model.buffers()]
    vector = direction(problem)[None]
    exact = vector @ matrix_of(problem)
    assert norm(fd(problem).apply(vector) - exact) <= 1e-6 * norm(exact)
    assert all(torch.equal(a, b) for a, b in zip(before, problem.model.buffers(), strict=True))
