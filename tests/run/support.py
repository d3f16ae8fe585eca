"""A small problem, and the command on the digits example in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from landscape.analyses.base import Saved, Start, State, analysis
from landscape.problem import Problem
from landscape.results import EigenResult, Result
from landscape.store import ResultFile

DIGITS = Path(__file__).parents[2] / "examples" / "digits"

#: Long enough to be killed in the middle, with pieces that are not chosen by the clock.
LONG = ("--which", "both", "-k", "6", "--tol", "1e-8", "--seed", "3", "--batch-size", "256")


def small_problem(**options: Any) -> Problem:
    """A tanh network of 61 parameters on 50 random examples."""
    generator = torch.Generator().manual_seed(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    x = torch.randn(50, 4, generator=generator)
    y = torch.randint(0, 3, (50,), generator=generator)
    return Problem(model, "cross_entropy", (x, y), **options)


class Listener:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.steps: list[int] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def progress(self, done: int, total: int | None, text: str) -> None:
        self.steps.append(done)


def landscape(*arguments: str, output: Path) -> list[str]:
    """The command line of ``landscape eigen mlp-sgd.pt`` writing to ``output``."""
    return [
        *(sys.executable, "-m", "landscape_cli", "eigen", "mlp-sgd.pt"),
        *arguments,
        *("-o", str(output)),
    ]


def start(*arguments: str, output: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        landscape(*arguments, output=output),
        cwd=DIGITS,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def stored(path: Path) -> EigenResult:
    """The only run in a result file."""
    file = ResultFile(path)
    (header,) = file.runs()
    result = file.read(header.id)
    assert isinstance(result, EigenResult)
    return result


def assert_same_bits(one: Result, other: Result, *, but: Sequence[str] = ()) -> None:
    """Everything but the time it took (and ``but``) is the same, bit for bit."""
    assert type(one) is type(other)
    for (quantity, value), (_, again) in zip(one, other, strict=True):
        if quantity.name in ("seconds", *but):
            continue
        if isinstance(value, np.ndarray) and value.dtype == object:
            assert value.tolist() == again.tolist(), quantity.name
        elif isinstance(value, np.ndarray):
            assert np.ma.getdata(value).tobytes() == np.ma.getdata(again).tobytes(), quantity.name
            assert (np.ma.getmaskarray(value) == np.ma.getmaskarray(again)).all(), quantity.name
        else:
            assert value == again or (value != value and again != again), quantity.name
    for name in one.apart:
        value, again = getattr(one, name), getattr(other, name)
        assert (value is None) == (again is None), name
        assert value is None or np.asarray(value).tobytes() == np.asarray(again).tobytes(), name


def copied(state: State, seed: int) -> Start:
    """A resumption from ``state`` as if through a file."""
    saved = state.save()
    arrays = {name: np.array(array) for name, array in saved.arrays.items()}
    counters = json.loads(json.dumps(saved.counters))
    return Start(seed, Saved(arrays, counters), json.loads(json.dumps(dict(state.strategy))))


def carried_out(
    kind: str, problem: Problem, settings: Any, start: Start, *inputs: Result
) -> tuple[Any, list[Start]]:
    """(the result, the states on the way to it), nothing stored."""
    module, states = analysis(kind), []
    for state in module.steps(problem, settings, {one.kind: one for one in inputs}, start):
        states.append(copied(state, start.seed))
    return module.finish(problem, settings, state.save()), states
