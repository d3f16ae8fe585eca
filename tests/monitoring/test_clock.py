"""When something is measured: every so many steps, as far as the budget of time goes."""

from __future__ import annotations

import random

import numpy as np
import pytest

from landscape.monitoring import Monitor
from landscape.monitoring.clock import Clock
from landscape.monitoring.settings import Settings
from tests.monitoring.support import blobs, net, train


def test_every_part_has_its_own_rhythm() -> None:
    model, data = net(), blobs()
    monitor = Monitor(
        model, "cross_entropy", data, every=4, lambda_every=6, trace_every=9, trace_products=8, budget=None,
        first_step=2, rho=0.1,
    )  # fmt: skip
    train(model, data, 18, monitor, rho=0.0)  # steps 2 to 19
    result = monitor.result()
    assert result.steps.tolist() == [4, 6, 8, 9, 12, 16, 18]
    assert result.steps[~np.ma.getmaskarray(result.h_norms)].tolist() == [4, 8, 12, 16]
    assert result.steps[~np.ma.getmaskarray(result.lambda_max)].tolist() == [6, 12, 18]
    assert result.steps[~np.ma.getmaskarray(result.trace)].tolist() == [9, 18]
    assert (monitor.steps, result.total_steps, result.put_off) == (20, 18, 0)


def test_nothing_but_the_trace() -> None:
    model, data = net(), blobs()
    monitor = Monitor(
        model, "cross_entropy", data, every=1000, lambda_every=0, trace_every=3, trace_products=8, budget=None
    )
    train(model, data, 5, monitor, rho=0.0)
    result = monitor.result()
    assert result.steps.tolist() == [0, 3]
    assert result.lambda_max is None
    assert result.counts is None
    assert result.source == "none"


def test_budget_leaves_out_what_would_cost_too_much() -> None:
    model, data = net(), blobs()
    monitor = Monitor(model, "cross_entropy", data, every=1, budget=1e-6)
    train(model, data, 30, monitor)
    result = monitor.result()
    assert result.steps.tolist() == [0]  # the first time shows what one takes
    assert result.put_off == 29
    assert result.cost_percent == 0
    assert result.once_seconds > 0


class Time:
    """A clock that goes when it is told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("seed", range(5))
def test_budget_is_kept_and_shared(seed: int) -> None:
    """Parts that cost 1000 to 1, with times that vary: all are measured, and together keep to the budget."""
    time, draw = Time(), random.Random(seed)
    clock = Clock(0.02, parts=2, now=time)
    counts = {"cheap": 0, "dear": 0, "write": 0}
    for _ in range(40000):
        time.now += 0.01 * draw.uniform(0.5, 1.5)
        for part, cost in (("cheap", 0.001), ("dear", 0.4)):
            if clock.allows(part):
                with clock.spending(part):
                    time.now += cost * draw.uniform(0.5, 2.0)
                counts[part] += 1
        if clock.allows_writing():
            with clock.spending("write"):
                time.now += 0.02
            counts["write"] += 1
    assert 1.0 < clock.percent <= 2 + 100 * 0.8 / clock.training  # to within one measurement
    assert clock.training == pytest.approx(400, rel=0.02)
    assert counts["cheap"] > 1000
    assert counts["dear"] >= 4
    assert 80 <= counts["write"] <= 101


def test_a_cheap_part_leaves_its_share_to_a_dear_one() -> None:
    time = Time()
    clock, count = Clock(0.02, parts=2, now=time), 0
    for step in range(10000):
        time.now += 0.01
        if step % 100 == 0:
            with clock.spending("cheap"):
                time.now += 1e-6
        if clock.allows("dear"):
            with clock.spending("dear"):
                time.now += 0.01
            count += 1
    assert 125 <= count <= 135  # 1.3 % of 100 s, not 0.65 %


def test_without_a_budget_everything_is_allowed() -> None:
    time = Time()
    clock = Clock(None, now=time)
    for _ in range(3):
        assert clock.allows("part")
        with clock.spending("part"), clock.spending("inner"):
            time.now += 1.0
    time.now += 1.0
    assert (clock.own, clock.once, clock.training) == (3.0, 1.0, 1.0)
    assert clock.percent == pytest.approx(200)


def test_waiting_for_the_device_before_is_not_the_monitors() -> None:
    time = Time()

    def settle() -> None:
        time.now += 1.0

    clock = Clock(None, settle=settle, now=time)
    with clock.spending("part"):
        time.now += 0.25
    assert clock.own == pytest.approx(1.25)  # its own work is waited for, that of before is not counted


def test_rhythms() -> None:
    settings = Settings(every=7, trace_every=3)
    assert [settings.rhythm(part) for part in ("gradients", "lambda", "trace")] == [7, 7, 3]
    assert Settings(lambda_every=0).rhythm("lambda") == 0
