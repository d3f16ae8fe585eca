"""Made-up studies: runs in memory that a page is written about."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from landscape.results import CheckpointReference, Result
from landscape.store import Header
from landscape.study import Runs, Stored
from tests.plots.support import trace_result
from tests.results.samples import eigen_result, provenance
from tests.support.ratio_runs import ratios_run

__all__ = ["Kept", "kept", "runs_of", "study"]


@dataclass(frozen=True)
class Kept(Stored):
    """A run whose result is in memory."""

    result: Result

    def read(self) -> Result:
        return self.result


def kept(result: Result, file: str = "landscape-results/made.h5") -> Kept:
    """The result as if it were stored in ``file``."""
    made = result.provenance
    assert made is not None
    reference = made.checkpoint
    header = Header(
        id=made.id,
        kind=result.kind,
        status=result.status,
        started=made.started,
        seconds=made.seconds,
        command=made.command,
        checkpoint_path=None if reference is None else reference.path,
        checkpoint_step=None if reference is None else reference.step,
        checkpoint_epoch=None if reference is None else reference.epoch,
        checkpoint_sha256=None if reference is None else reference.sha256,
    )
    return Kept(Path(file), header, result)


def runs_of(*results: Result) -> Runs:
    """Results as a collection, in the order given."""
    return Runs(tuple(kept(result) for result in results))


def study(
    checkpoints: int,
    trainings: Sequence[str] = ("net-sgd", "net-sam"),
    kinds: Sequence[str] = ("eigen", "trace", "ratios"),
) -> Runs:
    """Runs of these kinds on so many checkpoints, shared out among the training runs.

    The largest eigenvalue at step t of run number i is 9/(1 + t/100) + i, and the trace four times it.
    """
    found = []
    for i, training in enumerate(trainings):
        for epoch in range(1, checkpoints // len(trainings) + 1):
            top = 9 / (1 + epoch / 10) + i
            found += [
                _named(one, kind, training, epoch)
                for kind, one in (
                    ("eigen", eigen_result(top * np.array([1.0, 0.6, 0.3, -0.1]))),
                    ("trace", trace_result(values=4 * top * np.array([0.5, 0.3, 0.2]))),
                    ("ratios", ratios_run(_classes(epoch), step=10 * epoch)),
                )
                if kind in kinds
            ]
    return runs_of(*found)


def _classes(epoch: int) -> np.ndarray:
    """Classes of 200 parameters, of which ever more are in the first two."""
    rng = np.random.default_rng(epoch)
    late = epoch / (epoch + 5)
    return rng.choice(4, 200, p=[0.4 + 0.3 * late, 0.2, 0.2 - 0.1 * late, 0.2 - 0.2 * late])


def _named(result: Result, kind: str, training: str, epoch: int) -> Result:
    """The result as of a checkpoint of its own."""
    path = f"runs/{training}-epoch{epoch:03d}.pt"
    sha256 = hashlib.sha256(path.encode()).hexdigest()
    changes: dict[str, Any] = {
        "command": f"landscape {kind} {path}",
        "checkpoint": CheckpointReference(path=path, sha256=sha256, step=10 * epoch, epoch=epoch),
        "subject": sha256,
    }
    made = provenance(f"{kind}-{sha256[:8]}", **changes)
    return dataclasses.replace(result, provenance=made)
