"""Made-up results of the checkpoints of training runs, in memory and in result files."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from landscape.results import CheckpointReference, EigenResult, Result, TraceResult
from landscape.store import ResultFile
from tests.results.samples import eigen_result, provenance, trace_result

R = TypeVar("R", bound=Result)


def at_checkpoint(
    result: R,
    name: str,
    step: int | None,
    *,
    run: str = "",
    epoch: int | None = None,
    content: str = "",
    **changes: Any,
) -> R:
    """The result as if of the checkpoint ``name`` (of that ``content``), with changes of its provenance."""
    sha256 = hashlib.sha256(f"{name}{content}".encode()).hexdigest()
    reference = CheckpointReference(path=f"runs/{name}", sha256=sha256, step=step, epoch=epoch)
    own: dict[str, Any] = {"settings": {}, "checkpoint": reference}
    return dataclasses.replace(
        result, provenance=provenance(run or f"{result.kind}-{sha256[:8]}", **(own | changes))
    )


def eigen_at(
    name: str, step: int | None, largest: float, deviation: float = 0.5, **changes: Any
) -> EigenResult:
    """λmax ± 0.001 and half of it, with the same standard error."""
    values = np.array([largest, largest / 2])
    result = eigen_result(
        values, standard_errors=np.ma.MaskedArray([deviation, deviation]), lambda_min=-0.25, noise_floor=0.0,
        converged=np.array([True, True]), loss=1.0 / largest,
    )  # fmt: skip
    return at_checkpoint(result, name, step, **changes)


def trace_at(name: str, step: int | None, trace: float, half: float = 0.25, **changes: Any) -> TraceResult:
    """A trace with its interval, in two layers."""
    result = trace_result(
        trace=trace, half_width=half, interval=np.array([trace - half, trace + half]),
        layer_traces=np.array([0.75 * trace, 0.25 * trace]),
        layer_intervals=np.array([[0.75, 0.75], [0.25, 0.25]]) * trace + np.array([-half, half]),
    )  # fmt: skip
    return at_checkpoint(result, name, step, **changes)


def trainings(count: int = 6, names: Sequence[str] = ("sgd", "sam")) -> list[EigenResult | TraceResult]:
    """Eigenvalues and traces of the checkpoints of training runs; λmax of the second is half of the first."""
    found: list[EigenResult | TraceResult] = []
    for i, name in enumerate(names):
        for k in range(count):
            checkpoint, step = f"{name}-epoch{k:03}.pt", 10 * k
            found.append(eigen_at(checkpoint, step, (8.0 + k) / 2**i, 0.125))
            found.append(trace_at(checkpoint, step, 40.0 - k - 10 * i))
    return found


def store(folder: Path, results: Sequence[Result]) -> list[Path]:
    """Write the results, one file for each checkpoint; the files in the order of first appearance."""
    files: dict[Path, None] = {}
    for result in results:
        assert result.provenance is not None
        assert result.provenance.checkpoint is not None
        path = folder / f"{Path(result.provenance.checkpoint.path).stem}.h5"
        ResultFile(path).add(result)
        files[path] = None
    return list(files)
