"""How products are made: within the memory budget, by measurement, smaller when memory runs out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from landscape.curvature import strategy as strategy_room
from landscape.curvature.hessian import HessianOperator
from landscape.curvature.operators import OPERATORS, OperatorChoice, make_operator
from landscape.curvature.products import GraphOperator
from landscape.curvature.strategy import Strategy, choose_strategy, graph_bytes_per_example
from landscape.errors import DataError
from landscape.problem import Problem
from tests.support.closed_form import classification, generator, matrix_of
from tests.support.models import images, mlp, tiny_resnet, tiny_transformer, tokens

CASES: dict[str, Callable[[], Problem]] = {
    "MLP": lambda: Problem(mlp(10, 64, 64, 4), "cross_entropy", single(classification(256, 10, 4))),
    "ResNet": lambda: Problem(tiny_resnet(), "cross_entropy", images(64, generator(), size=16)),
    "transformer": lambda: Problem(
        tiny_transformer(), "cross_entropy", tokens(128, 6, generator(), vocabulary=12)
    ),
}


def single(data: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return data[0].float(), data[1]


def bytes_held(problem: Problem, examples: int, name: str) -> int:
    """Bytes allocated and not freed while a piece's graph is built, as torch's allocator counts them."""
    piece = next(problem.pieces(examples))
    operator = make_operator(problem, Strategy(examples, 1, 0, 0), OperatorChoice(name))
    assert isinstance(operator, GraphOperator)
    with problem.arithmetic():
        operator.build(piece)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
            graph = operator.build(piece)
        held = sum(event.self_cpu_memory_usage for event in recorded.key_averages())
        del graph
    return int(held)


@pytest.mark.parametrize("operator", [name for name in OPERATORS if name != "finite-difference"])
@pytest.mark.parametrize("name", CASES)
def test_the_bytes_of_a_graph_are_predicted(name: str, operator: str) -> None:
    problem = CASES[name]()
    for examples in (8, 32):
        held = bytes_held(problem, examples, operator)
        predicted = strategy_room.graph_bytes(problem, examples, graph_bytes_per_example(problem))
        assert held * 0.9 <= predicted <= held * 2 + 20_000


@pytest.mark.parametrize("name", CASES)
def test_strategies_stay_within_the_budget(name: str) -> None:
    problem = CASES[name]()
    whole = problem.measure()
    for budget in (0, 50_000, 1_000_000, 5_000_000, 1 << 32):
        problem.memory = budget
        chosen, evaluation = choose_strategy(problem)
        assert 1 <= chosen.micro_batch <= problem.examples
        assert chosen.pieces == sum(1 for _ in problem.pieces(chosen.micro_batch))
        assert 0 <= chosen.kept_pieces <= chosen.pieces
        assert (chosen.kept_pieces + 1) * chosen.graph_bytes <= max(budget, 2 * chosen.graph_bytes)
        assert not chosen.kept_pieces or (chosen.kept_pieces + 1) * chosen.graph_bytes <= budget
        assert evaluation.loss == pytest.approx(whole.loss, rel=1e-5)
        if budget == 0:
            assert (chosen.micro_batch, chosen.kept_pieces) == (1, 0)
        if budget == 1 << 32:
            assert chosen.kept_pieces == chosen.pieces


def test_what_is_reserved_elsewhere_is_left_alone() -> None:
    problem = CASES["MLP"]()
    problem.memory = 1 << 30
    assert choose_strategy(problem, reserved=1 << 30)[0].kept_pieces == 0


def test_any_strategy_gives_the_same_matrix() -> None:
    problem = CASES["MLP"]()
    rows = torch.eye(problem.size)[:3]
    results = []
    for budget in (0, 300_000, 1 << 30):
        problem.memory = budget
        results.append(HessianOperator(problem, choose_strategy(problem)[0]).apply(rows))
    assert torch.allclose(results[0], results[1], rtol=1e-4, atol=1e-6)
    assert torch.allclose(results[0], results[2], rtol=1e-4, atol=1e-6)


def test_an_asked_batch_size_is_the_piece() -> None:
    x, y = classification(100, 4, 3)
    for size, expected in ((16, 16), (1000, 100)):
        problem = Problem(mlp(4, 5, 3).double(), "cross_entropy", (x, y), batch_size=size)
        assert choose_strategy(problem)[0].micro_batch == expected


class Hungry(nn.Module):
    """Runs out of memory above ``limit`` examples."""

    def __init__(self, limit: int, error: type[Exception]) -> None:
        super().__init__()
        self.net, self.limit, self.error = mlp(4, 5, 3), limit, error

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.limit:
            raise self.error("[enforce fail] not enough memory: you tried to allocate 7 bytes")
        logits: Tensor = self.net(x)
        return logits


@pytest.mark.parametrize("error", [RuntimeError, MemoryError, torch.OutOfMemoryError])
def test_pieces_shrink_when_memory_runs_out(error: type[Exception]) -> None:
    data = single(classification(400, 4, 3))
    problem = Problem(Hungry(20, error), "cross_entropy", data)
    chosen, evaluation = choose_strategy(problem)
    assert chosen.micro_batch <= 20
    plain = Problem(mlp(4, 5, 3), "cross_entropy", data)
    assert evaluation.loss == pytest.approx(plain.measure().loss, rel=1e-5)
    assert torch.allclose(matrix_of(problem, 20), matrix_of(plain, 20))
    with pytest.raises(error, match="not enough memory"):
        choose_strategy(Problem(Hungry(0, error), "cross_entropy", data))


def test_other_errors_are_no_reason_to_try_again() -> None:
    class Wrong(nn.Module):
        calls = 0

        def __init__(self) -> None:
            super().__init__()
            self.net = mlp(4, 5, 3)

        def forward(self, x: Tensor) -> Any:
            type(self).calls += 1
            raise ValueError("no")

    problem = Problem(Wrong(), "cross_entropy", single(classification(40, 4, 3)))
    with pytest.raises(DataError, match="no"):
        choose_strategy(problem)
    assert Wrong.calls == 1


def test_the_ladder_takes_the_fastest_size_and_prefers_larger_ones() -> None:
    """Synthetic times: each size's cost per example is given."""
    for costs, expected in (
        ({8: 1.0, 32: 0.6, 64: 0.9}, 32),
        ({8: 1.0, 32: 0.8, 64: 0.7}, 64),
        ({8: 1.0, 32: 1.02, 64: 2.0}, 32),
        ({8: 1.0, 32: 1.5}, 8),
    ):
        ladder = strategy_room._Ladder(64)
        ladder._took(8, 100.0)  # the start of everything is no measurement
        for _ in range(8):
            ladder._took(ladder.size, costs[ladder.size] * ladder.size)
        assert ladder.best() == expected
