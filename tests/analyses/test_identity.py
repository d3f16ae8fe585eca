"""A stored result is only taken for one of the same loss; and nothing finished is lost for what is not."""

from __future__ import annotations

import gc
import os
import signal
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import landscape
from landscape.analyses.eigen import Settings
from landscape.analyses.eigen_work import Work
from landscape.curvature.hessian import HessianOperator
from landscape.errors import Interrupted
from landscape.problem import Problem
from landscape.run import RunSettings, run_id
from landscape.store import ResultFile
from tests.run.support import Listener, assert_same_bits, small_problem
from tests.support.models import mlp, seeded


def identity(model: nn.Module, loss: Any = "cross_entropy", **options: Any) -> str:
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(30, 4, generator=generator), torch.randint(0, 3, (30,), generator=generator)
    return run_id("eigen", Problem(model, loss, data, **options), Settings(), RunSettings())


def with_norm() -> nn.Module:
    return seeded(lambda: nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)), 0)


def test_another_function_of_the_same_weights_is_another_run() -> None:
    assert identity(mlp(4, 6, 3)) == identity(mlp(4, 6, 3))
    assert identity(mlp(4, 6, 3)) != identity(mlp(4, 6, 3, activation=nn.ReLU))


def test_frozen_weights_and_buffers_count() -> None:
    other = mlp(4, 6, 3)
    with torch.no_grad():
        other.get_parameter("2.weight").add_(1e-9)
    other = other.double()
    assert identity(mlp(4, 6, 3).double(), params=["0.*"]) != identity(other, params=["0.*"])
    changed = with_norm()
    changed.get_buffer("1.running_var").mul_(3)
    assert identity(with_norm()) != identity(changed)


def test_losses_of_one_name_are_told_apart() -> None:
    def once(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets)

    def twice(outputs: Tensor, targets: Tensor) -> Tensor:
        return 2 * F.cross_entropy(outputs, targets)

    twice.__name__, twice.__qualname__ = once.__name__, once.__qualname__
    net = mlp(4, 6, 3)
    assert identity(net, once) == identity(net, once)
    assert identity(net, once) != identity(net, twice)
    assert identity(net, nn.CrossEntropyLoss()) != identity(net, nn.CrossEntropyLoss(label_smoothing=0.1))


def test_pieces_memory_and_threads_make_no_difference() -> None:
    base = identity(mlp(4, 6, 3))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3 - min(before, 2))
        assert identity(mlp(4, 6, 3), batch_size=3, memory=10**8) == base
    finally:
        torch.set_num_threads(before)


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    return {"k": 3, "tol": 1e-8, "seed": 0, "output": str(tmp_path / "a.h5")}


def problem() -> Problem:
    return small_problem(dtype="float64", batch_size=16)


def test_a_time_limit_on_a_fresh_run_leaves_the_earlier_result(options: dict[str, Any]) -> None:
    first = landscape.eigen(problem(), **options)
    assert landscape.eigen(problem(), **options, fresh=True, time_limit=0.0).status == "partial"
    (header,) = ResultFile(options["output"]).runs()
    assert header.status == "complete"
    listener = Listener()
    again = landscape.eigen(problem(), **options, observer=listener)
    assert any("resumed" in note for note in listener.notes)
    assert_same_bits(again, first)
    assert os.listdir(Path(options["output"]).parent) == ["a.h5"]


def test_an_interrupted_fresh_run_goes_on_without_fresh(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = landscape.eigen(problem(), **options)
    monkeypatch.setattr(HessianOperator, "apply", at_product(6, terminate))
    with pytest.raises(Interrupted, match="without --fresh"):
        landscape.eigen(problem(), **options, fresh=True)
    monkeypatch.undo()
    (header,) = ResultFile(options["output"]).runs()
    assert header.status == "complete"
    listener = Listener()
    again = landscape.eigen(problem(), **options, observer=listener)
    assert "resumed at step 6 (seed 0)" in listener.notes
    assert_same_bits(again, first)


def test_what_ran_out_of_memory_is_let_go_before_the_next_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    before: list[weakref.ref[Work]] = []
    alive: list[int] = []
    begin = Work.__init__

    def counted(self: Work, *given: Any) -> None:
        alive.append(sum(work() is not None for work in before))
        before.append(weakref.ref(self))
        begin(self, *given)

    monkeypatch.setattr(Work, "__init__", counted)
    monkeypatch.setattr(HessianOperator, "apply", at_product(6, run_out))
    gc.disable()
    try:
        landscape.eigen(problem(), k=3, seed=0)
    finally:
        gc.enable()
    assert alive == [0, 0]


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def run_out() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


def at_product(number: int, happens: Callable[[], None]) -> Callable[[HessianOperator, Tensor], Tensor]:
    """Products as ever, but something happens at one of them."""
    plain, count = HessianOperator.apply, iter(range(1, 10**9))

    def apply(self: HessianOperator, vectors: Tensor) -> Tensor:
        if next(count) == number:
            happens()
        return plain(self, vectors)

    return apply
