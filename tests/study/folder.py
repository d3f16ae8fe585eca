"""A folder of results of two training runs, made by hand."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from landscape.results import CheckpointReference, Result
from landscape.store import ResultFile
from tests.results.samples import eigen_result, provenance, trace_result

MAKERS: dict[str, Callable[..., Result]] = {"eigen": eigen_result, "trace": trace_result}


def put(
    folder: Path,
    name: str,
    *kinds: str,
    step: int | None = None,
    epoch: int | None = None,
    run: str = "",
    started: str = "2026-01-01T00:00:00+00:00",
    settings: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """A run of each kind on the checkpoint ``name``, into ``<folder>/<its stem>.h5``; the file."""
    stem = name.rpartition("/")[2].rpartition(".")[0] or name
    file = folder / f"{stem}.h5"
    reference = CheckpointReference(path=name, sha256=name.encode().hex()[-60:], step=step, epoch=epoch)
    for kind in kinds:
        own = provenance(
            run or f"{kind}-{stem}",
            checkpoint=reference,
            started=started,
            settings={"operator": "hessian", "tol": 1e-3, "k": None} | (settings or {}),
        )
        ResultFile(file).add(MAKERS[kind](provenance=own, **changes))
    return file


def study(folder: Path) -> Path:
    """SGD and SAM at the steps 0, 9 and 10, ``eigen`` and ``trace`` of each; λmax is 100·(SAM) + step."""
    for name, contents in _files().items():
        (folder / name).write_bytes(contents)
    return folder


@functools.cache
def _files() -> Mapping[str, bytes]:
    """Made once: writing a run takes longer than most tests."""
    with tempfile.TemporaryDirectory() as made:
        for number, name in enumerate(("sgd", "sam")):
            for step in (10, 0, 9):
                top = 100.0 * number + step
                put(Path(made), f"runs/{name}-step{step}.pt", "eigen", step=step, lambda_max=top)
                put(Path(made), f"runs/{name}-step{step}.pt", "trace", step=step, trace=2 * top)
        return {file.name: file.read_bytes() for file in Path(made).iterdir()}
