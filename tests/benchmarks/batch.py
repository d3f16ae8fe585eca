"""What a batch over a training run takes: two processes against one, and passing over what is done.

    python -m tests.benchmarks.batch                  # both parts, some minutes
    python -m tests.benchmarks.batch done --json FILE

Digits MLP, one checkpoint for each of sixty epochs, eigen, trace and ratios, one thread in each process.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import landscape
from landscape.batches import BatchPlan, planned_batch, run_batch
from tests.batches.support import carried_out
from tests.benchmarks.workloads import DIGITS, measured

COUNT = 60
KINDS = ("eigen", "trace", "ratios")

#: A layer of this width is a checkpoint of 100 MB.
WIDTH, LARGE = 5000, 4

LARGE_PROBLEM = f"""\
import torch


def model():
    return torch.nn.Linear({WIDTH}, {WIDTH}, bias=False)


def data():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(8, {WIDTH}, generator=generator), torch.arange(8)
"""
LARGE_CONFIG = 'model = "problem.py:model"\ndata = "problem.py:data"\nloss = "cross_entropy"\n'


@dataclass
class Jobs:
    """Seconds on the clock, the share of the processors asked for that was got, and the load before."""

    one: float
    two: float
    one_share: float
    two_share: float
    load: float

    @property
    def ratio(self) -> float:
        return self.one / self.two

    def line(self) -> str:
        return (
            f"--jobs 1: {self.one:.1f} s ({self.one_share:.0%} of 1 processor), --jobs 2: {self.two:.1f} s "
            f"({self.two_share:.0%} of 2), {self.ratio:.2f} times as fast; load {self.load:.1f}"
        )


@dataclass
class Done:
    """Milliseconds for each checkpoint that is done: on the clock, of the processor, to look at the file."""

    name: str
    clock: float
    cpu: float
    look: float

    def line(self) -> str:
        return (
            f"{self.name:20} {self.clock:.2f} ms a checkpoint on the clock, {self.cpu:.2f} ms of the "
            f"processor; {self.look:.2f} ms of them to read and hash the file"
        )


def train(folder: Path) -> None:
    """The checkpoints of the digits."""
    epochs = [str(epoch + 1) for epoch in range(COUNT)]
    line = [sys.executable, "train.py", "--epochs", epochs[-1], "--out", str(folder), "--save-at", *epochs]
    subprocess.run(line, cwd=DIGITS, check=True, stdout=subprocess.DEVNULL)


def digits(folder: Path, pattern: str, output: str, jobs: int = 1, **problem: Any) -> BatchPlan:
    # One piece: sizes chosen by the clock differ between a quiet moment and a busy one.
    one_piece = {"config": str(DIGITS / "landscape.toml"), "batch_size": 1797}
    given = {**one_piece, "threads": jobs, **problem}
    batch = {"run": KINDS, "seed": 0, "output": output, "jobs": jobs, "set": ("trace.max_products=60",)}
    return planned_batch([pattern], given, batch, start=folder, command="landscape batch")


def jobs(folder: Path, repeats: int) -> Iterator[Jobs]:
    """One process and two, in turns, the start of the processes included."""
    for turn in range(repeats):
        load, seconds, shares = os.getloadavg()[0], [], []
        for count in (1, 2):
            cpu, start = _children(), time.perf_counter()
            run_batch(digits(folder, "runs/*.pt", f"jobs{count}-{turn}", count))
            seconds.append(time.perf_counter() - start)
            shares.append((_children() - cpu) / seconds[-1] / count)
        yield Jobs(*seconds, *shares, load)


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def done(folder: Path, repeats: int) -> Iterator[Done]:
    """Batches in this process over all checkpoints and over one; all of them have been done before."""
    few, many = (digits(folder, name, "done", samples=200) for name in ("runs/*epoch001.pt", "runs/*.pt"))
    yield passed_over("digits, 26 kB", few, many, repeats)
    large(folder / "large")
    few, many = (ratios(folder / "large", pattern) for pattern in ("runs/net-1.pt", "runs/*.pt"))
    yield passed_over("100 MB", few, many, repeats)


def ratios(folder: Path, pattern: str) -> BatchPlan:
    batch = {"run": ("ratios",), "seed": 0, "set": ("ratios.masks=false",)}
    return planned_batch([pattern], {"threads": 1}, batch, start=folder, command="landscape batch")


def large(folder: Path) -> None:
    """A few checkpoints of 100 MB of one layer."""
    folder.mkdir()
    (folder / "problem.py").write_text(LARGE_PROBLEM)
    (folder / "landscape.toml").write_text(LARGE_CONFIG)
    (folder / "runs").mkdir()
    drawn = torch.Generator().manual_seed(0)
    layer = nn.Linear(WIDTH, WIDTH, bias=False)
    for step in range(1, LARGE + 1):
        nn.init.normal_(layer.weight, std=0.01, generator=drawn)
        landscape.save_checkpoint(folder / "runs" / f"net-{step}.pt", layer, step=step)


def passed_over(name: str, few: BatchPlan, many: BatchPlan, repeats: int) -> Done:
    """The least of several times, divided by the checkpoints that one batch has more than the other."""
    from landscape.batches.work import inspect

    carried_out(many)
    more = len(many.checkpoints) - len(few.checkpoints)
    clocks, cpus, looks = [], [], []
    for _ in range(repeats):
        spent = [_spent(plan) for plan in (few, many)]
        clocks.append((spent[1][0] - spent[0][0]) / more)
        cpus.append((spent[1][1] - spent[0][1]) / more)
        start = time.perf_counter()
        for path in many.checkpoints:
            inspect(path)
        looks.append((time.perf_counter() - start) / len(many.checkpoints))
    return Done(name, 1e3 * min(clocks), 1e3 * min(cpus), 1e3 * min(looks))


def _spent(plan: BatchPlan) -> tuple[float, float]:
    """(clock, processor time) of a batch that finds everything done."""
    clock, cpu = time.perf_counter(), time.process_time()
    events = carried_out(plan)
    spent = time.perf_counter() - clock, time.process_time() - cpu
    assert {one.outcome for one in events.reports} == {"found"}, "a batch that has work to do"
    return spent


def main() -> None:
    parts = ("done", "jobs")
    parser = argparse.ArgumentParser(description="What a batch over a training run takes.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(parts))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    if unknown := set(args.parts) - set(parts):
        parser.error(f"unknown parts: {', '.join(sorted(unknown))}")
    rows: dict[str, list[dict[str, Any]]] = {}
    with measured(), tempfile.TemporaryDirectory() as name:
        train(Path(name) / "runs")
        made: dict[str, Iterator[Any]] = {
            "done": done(Path(name), args.repeats),
            "jobs": jobs(Path(name), args.repeats),
        }
        for part in args.parts or parts:
            print(part)
            for row in made[part]:
                rows.setdefault(part, []).append(asdict(row))
                print(row.line(), flush=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
