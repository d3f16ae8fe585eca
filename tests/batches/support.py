"""A project with a tiny net and some checkpoints, and batches on it: in this process, and in others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

import landscape
from landscape.batches import BatchPlan, Report, Seen, planned_batch
from landscape.batches.order import in_training_order, units
from landscape.batches.parts import Begun, Unit
from landscape.batches.work import Event, Worker, inspect, is_warm
from landscape.results import Result
from landscape.store import ResultFile, holds_vectors
from tests.run.support import assert_same_bits

KINDS = ("eigen", "trace", "ratios")

PROBLEM = '''\
"""A tanh network of 43 parameters on 40 random examples."""

import os
import time

import torch
from torch import nn


class Slow(nn.Module):
    def forward(self, x):
        time.sleep(float(os.environ.get("SLOW", "0")))
        return x


def model():
    return nn.Sequential(nn.Linear(4, 5), Slow(), nn.Tanh(), nn.Linear(5, 3))


def data():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 4, generator=generator)
    return x, (x @ torch.randn(4, 3, generator=generator)).argmax(1)
'''

#: Pieces are not chosen by the clock, so that figures can be compared bit for bit.
CONFIG = """\
model = "problem.py:model"
data = "problem.py:data"
loss = "cross_entropy"
dtype = "float64"
batch_size = 16

[eigen]
k = 2
tol = 1e-6

[trace]
tol = 0.3
"""


def net() -> nn.Module:
    """The network of :data:`PROBLEM` under the same names of parameters."""
    return nn.Sequential(nn.Linear(4, 5), nn.Identity(), nn.Tanh(), nn.Linear(5, 3))


def data() -> tuple[torch.Tensor, torch.Tensor]:
    """The data of :data:`PROBLEM`."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 4, generator=generator)
    return x, (x @ torch.randn(4, 3, generator=generator)).argmax(1)


def write_project(folder: Path, count: int = 3, name: str = "net-step{}.pt") -> list[Path]:
    """``problem.py``, ``landscape.toml`` and ``count`` checkpoints of one training in ``runs/``."""
    (folder / "problem.py").write_text(PROBLEM)
    (folder / "landscape.toml").write_text(CONFIG)
    return train(folder / "runs", [name.format(5 * (i + 1)) for i in range(count)])


def train(folder: Path, names: Iterable[str], seed: int = 0) -> list[Path]:
    """Checkpoints after 5, 10, … steps of gradient descent on the net of :data:`PROBLEM`."""
    x, y = data()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = net()
    descent = torch.optim.SGD(model.parameters(), lr=0.3)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for i, name in enumerate(names):
        for _ in range(5):
            descent.zero_grad()
            torch.autograd.backward(nn.functional.cross_entropy(model(x), y))
            descent.step()
        paths.append(folder / name)
        landscape.save_checkpoint(paths[-1], model, step=5 * (i + 1))
    return paths


def change(file: str, old: str, new: str) -> Callable[[Path], None]:
    """What replaces a text in a file of the project."""

    def carry_out(folder: Path) -> None:
        path = folder / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return carry_out


def planned(
    folder: Path, checkpoints: Sequence[str] = ("runs/*.pt",), problem: Any = None, **batch: Any
) -> BatchPlan:
    """The plan of ``landscape batch`` in ``folder``, with seed 0 unless told otherwise."""
    options = {"seed": 0, **batch}
    return planned_batch(checkpoints, problem or {}, options, start=folder, command="landscape batch")


class Events(list[Any]):
    """What a worker emits; ``before`` is called with each event first."""

    def __init__(self, before: Callable[[Event], None] = lambda event: None) -> None:
        super().__init__()
        self._before = before

    def hear(self, event: Event) -> None:
        self.append(event)
        self._before(event)

    @property
    def reports(self) -> list[Report]:
        return [event for event in self if isinstance(event, Report)]

    @property
    def begun(self) -> list[tuple[str, str]]:
        """(name of the checkpoint, kind) of what was not found done."""
        return [(event.path.name, event.kind) for event in self if isinstance(event, Begun)]

    def outcomes(self) -> dict[tuple[str, str], str]:
        """What came of each analysis, by name of the checkpoint and kind."""
        return {(one.path.name, one.kind): one.outcome for one in self.reports}


def looked_at(plan: BatchPlan) -> list[Seen]:
    return [inspect(path) for path in plan.checkpoints]


def pieces(plan: BatchPlan) -> list[Unit]:
    """The units that the processes of this batch would share."""
    runs = in_training_order(looked_at(plan), plan.settings.order)
    which, count = plan.settings.share
    return units(runs, is_warm(plan.spec))[which - 1 :: count]


def carried_out(plan: BatchPlan, before: Callable[[Event], None] = lambda event: None) -> Events:
    """A batch by one worker in this process."""
    events = Events(before)
    worker = Worker(plan.spec, events.hear)
    for unit in pieces(plan):
        worker.carry_out(unit)
    return events


def stored(folder: Path) -> dict[tuple[str, str], Result]:
    """All results of a folder by name of the checkpoint and id; each file and each run must read."""
    found = {}
    for path in sorted(folder.glob("*.h5")):
        if holds_vectors(path):
            continue
        for header in ResultFile(path).runs():
            name = Path(header.checkpoint_path or "").name
            assert (name, header.id) not in found, f"{name} has two files"
            found[name, header.id] = ResultFile(path).read(header.id)
    return found


def assert_same_results(one: Path, other: Path) -> None:
    """Two folders hold the same runs, bit for bit, and nothing else."""
    first, second = stored(one), stored(other)
    assert first.keys() == second.keys()
    for key, result in first.items():
        assert_same_bits(result, second[key])
    assert names(one) == names(other)


def names(folder: Path) -> list[str]:
    """Of all files, hidden ones too."""
    return sorted(path.name for path in folder.iterdir())
