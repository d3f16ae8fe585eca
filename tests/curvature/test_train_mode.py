"""Train mode: batch statistics of the statistical batch, dropout from a fixed seed."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landscape.curvature.sampling import standard_errors
from landscape.curvature.strategy import choose_strategy
from landscape.linalg.operator import norm
from landscape.problem import Problem
from tests.support.closed_form import classification, dense_hessian, matrix_of, operator_of
from tests.support.models import seeded


def net() -> nn.Module:
    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3))

    return seeded(build, 0).double()


def test_batch_statistics_are_those_of_the_statistical_batch() -> None:
    x, y = classification(23, 4, 3)
    problem = Problem(net(), "cross_entropy", (x, y), train_mode=True, batch_size=8)
    sizes = [piece.examples for piece in problem.pieces(3)]
    assert sizes == [8, 8, 7]

    def loss(model: nn.Module) -> Tensor:
        parts = zip(x.split(8), y.split(8), strict=True)
        return sum(F.cross_entropy(model(a), b) * len(b) for a, b in parts) / 23  # type: ignore[return-value]

    model = net().train()
    exact = dense_hessian(model, loss)
    for kept in (0, 2, 3):
        assert norm(matrix_of(problem, 3, kept=kept) - exact) <= 1e-12 * norm(exact)
    whole = Problem(net(), "cross_entropy", (x, y), train_mode=True)
    exact = dense_hessian(model, lambda m: F.cross_entropy(m(x), y))
    assert norm(matrix_of(whole, 3) - exact) <= 1e-12 * norm(exact)
    strategy, evaluation = choose_strategy(whole)
    assert (strategy.micro_batch, strategy.pieces) == (23, 1)
    assert abs(evaluation.loss - float(F.cross_entropy(net().train()(x), y).detach())) < 1e-14
    assert all(torch.equal(a, b) for a, b in zip(problem.model.buffers(), net().buffers(), strict=True))


def test_dropout_is_the_same_at_every_evaluation() -> None:
    x, y = classification(20, 4, 3)
    model = nn.Sequential(net(), nn.Dropout(0.4)).double()
    problem = Problem(model, "cross_entropy", (x, y), train_mode=True, batch_size=10)
    state = torch.get_rng_state()
    first = matrix_of(problem)
    assert torch.equal(first, matrix_of(problem, kept=1))
    assert torch.equal(torch.get_rng_state(), state)
    assert norm(first - first.T) <= 1e-13 * norm(first)
    plain = matrix_of(Problem(model, "cross_entropy", (x, y), batch_size=10))
    assert norm(first - plain) > 0.01 * norm(plain)
    torch.manual_seed(12345)
    assert torch.equal(operator_of(problem).apply(torch.eye(problem.size, dtype=torch.float64)), first)
    found = standard_errors(
        problem, first.diagonal().numpy()[:1], torch.eye(problem.size, dtype=torch.float64)[:1],
        first.diagonal().numpy()[:1], seed=0, micro_batch=5,
    )  # fmt: skip
    assert "not computed" in found.method
