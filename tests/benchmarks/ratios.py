"""What ``landscape ratios`` costs: its work in gradients over the same data, its memory in parameter vectors.

    python -m tests.benchmarks.ratios [WORKLOAD ...] [--repeats 9] [--json FILE] [--no-memory]

Work: one thread, CPU time of the process, for the command as it runs: identity, determinism check, choice of
the piece size, loss and gradient, rounding, perturbed gradient, all classes, histograms, layers and masks
(*stored*: and writing the file). The unit of *gradients* is a plain loop of forward and backward passes over
the same pieces, that of *passes* landscape's own pass that measures loss and gradient. Every repetition has a
problem and units of its own, in turns; given are the median and the range. The aim is 2.5 gradients.

Memory: by how much the resident memory of a fresh process grows at most (Linux), in vectors as long as the
model, in its dtype. Models of 20 million parameters with 8 examples, so that hardly anything else counts; the
process has done the same on a small model before, for what is imported and set up once, and gives freed
memory back at once. The aim is three vectors more than the plain loop, which holds one vector for a single
piece and two for several. The last model has a single large tensor: whatever is done tensor by tensor is done
to all of it there.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import landscape
from landscape.analyses.ratios import Settings
from landscape.data import Piece
from landscape.run import RunSettings, execute
from tests.benchmarks.workloads import Workload, digits_mlp, language_model, measured, resnet
from tests.support.models import mlp

__all__ = ["COMMANDS", "MODELS", "WORKLOADS", "Work", "gradient", "peak_vectors", "work"]

WORKLOADS: dict[str, Callable[[], Workload]] = {
    "digits": lambda: digits_mlp(1797),
    "resnet-64": lambda: resnet(64),
    "resnet-256": lambda: resnet(256),
    "transformer-32": lambda: language_model(32),
    "transformer-128": lambda: language_model(128),
}

#: A repetition of the unit goes on for so many seconds: a gradient of the digits takes two milliseconds.
UNIT_SECONDS = 0.25


def gradient(problem: landscape.Problem, pieces: Iterator[Piece]) -> list[Tensor]:
    """The unit: forward and backward over the pieces, added up in the model's dtype, nothing else."""
    parameters, total = problem.selection.tensors, None
    for piece in pieces:
        x, y = piece.batch
        logits = problem.model(x)
        loss = nn.functional.cross_entropy(logits.flatten(0, -2), y.flatten()) * problem.share(piece)
        parts = torch.autograd.grad(loss, parameters)
        if total is None:
            total = list(parts)
        else:
            for one, part in zip(total, parts, strict=True):
                one += part
        del parts, loss, logits
    assert total is not None
    return total


@dataclass
class Work:
    """What one workload takes; one entry a repetition."""

    workload: str
    pieces: int = 0
    gradient_seconds: list[float] = field(default_factory=list)
    gradients: list[float] = field(default_factory=list)
    passes: list[float] = field(default_factory=list)
    stored: list[float] = field(default_factory=list)
    sweep: list[float] = field(default_factory=list)

    def line(self) -> str:
        unit = statistics.median(self.gradient_seconds)
        return (
            f"{self.workload:28} {self.pieces:6} {1e3 * unit:8.1f} ms "
            f"{spread(self.gradients):>18} {spread(self.passes):>18} {spread(self.stored):>18} "
            f"{spread(self.sweep):>20}"
        )


def spread(values: list[float]) -> str:
    """The median, and the least and the largest."""
    return f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


def seconds(step: Callable[[], object], at_least: float = 0.0) -> float:
    """CPU time of the process for one call, the mean over as many calls as ``at_least`` seconds take."""
    calls, start = 0, time.process_time()
    while calls == 0 or time.process_time() - start < at_least:
        step()
        calls += 1
    return (time.process_time() - start) / calls


def problem_of(work: Workload) -> landscape.Problem:
    return landscape.Problem(work.model, "cross_entropy", list(work.batches), memory=8 << 30)


def _gradient(problem: landscape.Problem, size: int) -> None:
    gradient(problem, problem.pieces(size))


def _pass(problem: landscape.Problem, size: int) -> None:
    problem.measure(problem.pieces(size))


def _run(load: Workload, settings: Settings, run: RunSettings, *, store: bool) -> None:
    execute("ratios", problem_of(load), settings, run, store=store)


def work(load: Workload, *, repeats: int) -> Work:
    """Time the command and its units on one workload, in turns; the first turn warms up."""
    row = Work(load.name)
    with measured(), tempfile.TemporaryDirectory() as folder:
        for turn in range(repeats + 1):
            problem = problem_of(load)
            assert problem.terms
            start = time.process_time()
            result = execute("ratios", problem, Settings(), RunSettings(seed=0), store=False)
            ours = time.process_time() - start
            assert result.provenance is not None
            size = result.provenance.strategy["micro_batch"]
            unit = seconds(partial(_gradient, problem, size), UNIT_SECONDS)
            one_pass = seconds(partial(_pass, problem, size), UNIT_SECONDS)
            file = str(Path(folder) / f"{turn}.h5")
            stored = seconds(partial(_run, load, Settings(), RunSettings(seed=0, output=file), store=True))
            swept = seconds(partial(_run, load, Settings(rho_sweep=True), RunSettings(seed=0), store=False))
            if turn == 0:
                continue
            row.pieces = sum(1 for _ in problem.pieces(size))
            row.gradient_seconds.append(unit)
            row.gradients.append(ours / unit)
            row.passes.append(ours / one_pass)
            row.stored.append(stored / unit)
            row.sweep.append(swept / unit)
    return row


#: Name to widths of a net of linear layers.
MODELS: dict[str, tuple[int, ...]] = {
    "20 layers of 1M": (1000,) * 21,
    "200 layers of 0.1M": (316,) * 201,
    "1 layer of 20M": (4472, 4472),
}

#: So that glibc keeps no freed tensors for later, which would hide or repeat them.
RETURNED = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}

#: What is run in a process of its own.
COMMANDS: dict[str, Callable[[landscape.Problem], object]] = {
    "plain loop": lambda problem: gradient(problem, problem.pieces(problem.batch_size)),
    "loss and gradient": lambda problem: problem.measure(problem.pieces(problem.batch_size)),
    "ratios": lambda problem: ratios(problem),
    "ratios, no layers, no masks": lambda problem: ratios(problem, per_layer=False, masks=False),
    "ratios --rho-sweep": lambda problem: ratios(problem, rho_sweep=True),
    "ratios --perturb adaptive": lambda problem: ratios(problem, perturb="adaptive"),
    "ratios --perturb random": lambda problem: ratios(problem, perturb="random"),
    "ratios --minibatch 4": lambda problem: ratios(problem, minibatch="4", batches=3),
    "ratios, stored": lambda problem: ratios(problem, store=True),
}

#: Those of them that are run on every model.
FEW = ("plain loop", "loss and gradient", "ratios", "ratios, no layers, no masks")


def ratios(problem: landscape.Problem, store: bool = False, **options: Any) -> object:
    with tempfile.TemporaryDirectory() as folder:
        run = RunSettings(seed=0, output=Path(folder) / "result.h5")
        return execute("ratios", problem, Settings(**options), run, store=store)


def problem_for_memory(widths: tuple[int, ...], pieces: int, dtype: str) -> landscape.Problem:
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(8, widths[0], generator=g), torch.randint(widths[-1], (8,), generator=g)
    return landscape.Problem(
        mlp(*widths), "cross_entropy", (x, y), batch_size=8 // pieces, dtype=dtype, memory=8 << 30
    )


def peak_vectors(widths: tuple[int, ...], command: str, pieces: int = 1, dtype: str = "float32") -> float:
    """By how many parameter vectors a fresh process grows at most during ``command``."""
    context = multiprocessing.get_context("spawn")
    os.environ |= RETURNED
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(widths, command, pieces, dtype, sender))
    process.start()
    sender.close()
    try:
        grown: float = receiver.recv()
    except EOFError:
        return math.nan  # it failed, and its traceback is on the screen
    finally:
        process.join()
    return grown


def _measure(widths: tuple[int, ...], command: str, pieces: int, dtype: str, sender: Connection) -> None:
    with measured():
        COMMANDS[command](problem_for_memory((32, 16, 10), pieces, dtype))
        problem = problem_for_memory(widths, pieces, dtype)
        assert problem.terms
        before = _resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        COMMANDS[command](problem)
        grown = _resident("VmHWM") - before
    sender.send(grown / (problem.size * torch.finfo(problem.dtype).bits // 8))


def _resident(name: str) -> int:
    """Bytes, from the process's status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024


def memory() -> Iterator[dict[str, Any]]:
    """One row for each model, number of pieces, dtype and command."""
    cases = [
        *((name, 1, "float32") for name in MODELS),
        ("20 layers of 1M", 4, "float32"),
        ("20 layers of 1M", 1, "float64"),
    ]
    for name, pieces, dtype in cases:
        plain = math.nan
        for command in COMMANDS if name == next(iter(MODELS)) else FEW:
            vectors = peak_vectors(MODELS[name], command, pieces, dtype)
            plain = vectors if command == "plain loop" else plain
            yield {
                "model": f"{name}, {dtype}, {pieces} piece{'s' * (pieces > 1)}",
                "command": command,
                "vectors": vectors,
                "extra": vectors - plain,
            }


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and memory of the gradient ratios.")
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=", ".join(WORKLOADS))
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--no-memory", action="store_true", help="time only")
    parser.add_argument("--no-work", action="store_true", help="memory only")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    rows: dict[str, list[dict[str, Any]]] = {"work": [], "memory": []}
    if not args.no_work:
        print(
            f"{'work':28} {'pieces':>6} {'gradient':>11} {'gradients':>18} {'passes':>18} {'stored':>18} "
            f"{'--rho-sweep':>20}"
        )
        for name in args.workloads or WORKLOADS:
            with measured():
                load = WORKLOADS[name]()
            row = work(load, repeats=args.repeats)
            rows["work"].append(asdict(row))
            print(row.line(), flush=True)
    if not args.no_memory:
        print(f"{'memory':36} {'':28} {'vectors':>8} {'more than the plain loop':>25}")
        for found in memory():
            rows["memory"].append(found)
            print(
                f"{found['model']:36} {found['command']:28} {found['vectors']:8.2f} {found['extra']:25.2f}",
                flush=True,
            )
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
