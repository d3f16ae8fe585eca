"""What the monitor costs a training by SAM, in percent of its time.

    python -m tests.benchmarks.monitor [WORKLOAD ...] [--seconds 30] [--json FILE]

One thread, CPU time of the process, which is what the monitor's own clock counts here, too. A training by SAM
(batches of 100 digits, or of 64 images), a probe of 256 or of 64 examples.

- *ratios*: classes of two gradients and h_t at every 100th step without a budget, in percent of 100 steps.
- *λmax*: likewise, after the first search; what the budget is for.
- *idle*: the calls in steps that are not measured, in percent of a step.
- *default*: a monitor of defaults that writes to a file, in percent of the training, as it says itself;
  beside it (*found*) by how much its steps are slower than as many steps without it before and after.
- *once*: what is done once.

The aim is 2 % of the step time with ratios.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import unittest.mock
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from landscape.monitoring import Monitor
from landscape.monitoring.clock import Clock
from tests.benchmarks.workloads import Workload, digits_mlp, measured, resnet

RHO = 0.05
EVERY = 100


@dataclass(frozen=True)
class Loop:
    """A training by SAM on batches that are used again and again."""

    name: str
    model: nn.Module
    batches: Sequence[tuple[Tensor, Tensor]]
    probe: tuple[Tensor, Tensor]

    def step(self, number: int, monitor: Monitor | None) -> None:
        x, y = self.batches[number % len(self.batches)]
        parameters = list(self.model.parameters())
        self._backward(x, y)
        if monitor is not None:
            monitor.first()
        with torch.no_grad():
            gradients = [p.grad for p in parameters if p.grad is not None]
            norms = torch.stack(torch._foreach_norm(gradients))
            moves = torch._foreach_mul(gradients, RHO / norms.norm())
            torch._foreach_add_(parameters, moves)
        self._backward(x, y)
        if monitor is not None:
            monitor.step()
        with torch.no_grad():
            torch._foreach_sub_(parameters, moves)
            torch._foreach_add_(parameters, [p.grad for p in parameters if p.grad is not None], alpha=-0.01)

    def _backward(self, x: Tensor, y: Tensor) -> None:
        self.model.zero_grad()
        torch.autograd.backward(cross_entropy(self.model(x), y))


def digits() -> Loop:
    load = digits_mlp(100)
    x, y = (torch.cat(parts) for parts in zip(*load.batches, strict=True))
    return Loop("digits MLP, batches of 100", load.model.train(), load.batches[:-1], (x[:256], y[:256]))


def images() -> Loop:
    load: Workload = resnet(64)
    return Loop("ResNet-20, batches of 64", load.model.train(), load.batches, load.batches[0])


LOOPS: dict[str, Callable[[], Loop]] = {"digits": digits, "resnet": images}


def seconds(action: Callable[[], object]) -> float:
    """CPU time of the process."""
    start = time.process_time()
    action()
    return time.process_time() - start


def turn(loop: Loop, first: int, count: int, monitor: Monitor | None) -> float:
    """CPU time of ``count`` steps."""

    def steps() -> None:
        for number in range(first, first + count):
            loop.step(number, monitor)

    return seconds(steps)


def parts(loop: Loop, repeats: int) -> dict[str, float]:
    """Percent of EVERY steps that one measurement of each kind takes; and of a step that a call takes."""
    found: dict[str, float] = {}
    turn(loop, 0, 3, None)
    plain = statistics.median(turn(loop, i, 1, None) for i in range(max(9, repeats)))
    for name, options in (("ratios", {"lambda_every": 0}), ("lambda", {"every": 1 << 40, "lambda_every": 1})):
        options = {"every": 1, "budget": None, "seed": 0, **options}
        monitor = Monitor(loop.model, "cross_entropy", loop.probe, first_step=1, **options)
        times = [turn(loop, i, 1, monitor) for i in range(repeats)]
        found[name] = 100 * (statistics.median(times[repeats // 2 :]) - plain) / (EVERY * plain)
    idle = Monitor(loop.model, "cross_entropy", loop.probe, every=1 << 40, lambda_every=0, first_step=1)
    loop.step(0, idle)

    def calls() -> None:
        for _ in range(1000):
            idle.first()
            idle.step()

    found["idle"] = 100 * seconds(calls) / 1000 / plain
    return {"step_ms": 1e3 * plain, **found}


def whole(loop: Loop, limit: float, least: int) -> dict[str, Any]:
    """A training with a monitor of defaults for so many seconds, and one without before and after."""
    plain = turn(loop, 0, least, None)
    count = max(least, round(limit * least / plain))
    before = turn(loop, 0, count // 2, None)
    with tempfile.TemporaryDirectory() as folder, unittest.mock.patch("time.perf_counter", time.process_time):
        path = Path(folder) / "monitor.h5"
        monitor = Monitor(loop.model, "cross_entropy", loop.probe, output=path, seed=0)
        monitor._clock = Clock(monitor.settings.budget, 2, now=time.process_time)
        watched = turn(loop, 0, count, monitor)
        result = monitor.result()
        monitor.close()
    without = before + turn(loop, 0, count - count // 2, None)
    return {
        "default": result.cost_percent,
        "found": 100 * (watched - monitor._clock.once - without) / without,
        "once_ms": 1e3 * monitor.result().once_seconds,
        "steps": result.total_steps,
        "measurements": len(result.steps),
        "ratios_measured": int(np.ma.count(result.h_norms)),
        "lambda_measured": int(np.ma.count(result.lambda_max)),
        "put_off": result.put_off,
    }


@dataclass(frozen=True)
class Row:
    workload: str
    figures: dict[str, Any]

    def line(self) -> str:
        f = self.figures
        return (
            f"{self.workload:28} {f['step_ms']:8.2f} ms {f['ratios']:7.3f} % {f['lambda']:7.2f} % "
            f"{f['idle']:7.3f} % {f['default']:7.2f} % {f['found']:7.2f} % {f['once_ms']:7.0f} ms "
            f"{f['ratios_measured']:5d}, {f['lambda_measured']} in {f['steps']:,}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="What the monitor costs a training by SAM.")
    parser.add_argument("workloads", nargs="*", help=f"of {', '.join(LOOPS)}; all without")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    print(
        f"{'training by SAM':28} {'a step':>11} {'ratios':>9} {'λmax':>9} {'idle':>9} {'default':>9} "
        f"{'found':>9} {'once':>10}  ratios, λmax measured in steps"
    )
    rows = []
    with measured():
        for name in arguments.workloads or LOOPS:
            loop = LOOPS[name]()
            repeats, least = (200, 100) if name == "digits" else (6, 4)
            found = {**parts(loop, repeats), **whole(loop, arguments.seconds, least)}
            rows.append(Row(loop.name, found))
            print(rows[-1].line(), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    main()
