"""Whole studies as Python functions: a batch, stored runs, comparisons, reports, export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from landscape.analyses.base import ANALYSES
from landscape.batches import BatchObserver, BatchResult, planned_batch, run_batch
from landscape.errors import ConfigurationError
from landscape.project import BatchSettings, ProblemSettings
from landscape.settings import options_of
from landscape.study import Runs, open_runs
from landscape.study.export import export

__all__ = ["batch", "export", "open"]


def batch(
    checkpoints: Sequence[str | Path] | str | Path = (),
    *,
    observer: BatchObserver | None = None,
    debug: bool = False,
    **options: Any,
) -> BatchResult:
    """Run analyses on all checkpoints, each in a result file of its own; see ``landscape batch --help``.

    Keywords are the options of ``landscape batch`` and of the problem: ``run=("eigen", "trace", "ratios"),
    jobs=1, shard=None, order="auto", warm_starts=True, output=None, seed=None, …, config=None, samples=None,
    device="auto", …``. Options of an analysis are given by its name: ``eigen={"k": 10}``.

    The work is done by processes of their own, from what the configuration or the options name; this one
    neither loads a model nor runs the code that makes it. What failed does not raise: it is in
    ``result.of("failed")``.

    Args:
        checkpoints: files, folders or patterns; those that ``landscape.toml`` names without any.
        debug: let the processes write to stderr.

    Raises:
        LandscapeError: wrong options or configuration, no such checkpoints, or nothing can be written.
    """
    groups = {group: {o.name for o in options_of(group)} for group in (BatchSettings, ProblemSettings)}
    own = {name: value for name, value in options.items() if name in ANALYSES}
    known = set.union(*groups.values(), ANALYSES)
    if unknown := [name for name in options if name not in known]:
        raise ConfigurationError(
            f"batch() does not know {unknown[0]!r}", do=f"it knows {', '.join(sorted(known))}"
        )
    for kind, given in own.items():
        if not isinstance(given, Mapping):
            raise ConfigurationError(
                f"options of {kind} are given by their names", found=repr(given), do=f'{kind}={{"seed": 0}}'
            )
    chosen, problem = (
        {name: value for name, value in options.items() if name in names} for names in groups.values()
    )
    listed = [checkpoints] if isinstance(checkpoints, str | Path) else checkpoints
    plan = planned_batch(listed, problem, chosen, start=Path.cwd(), command="landscape.batch", own=own)
    return run_batch(plan, observer=observer, debug=debug)


def open(path: str | Path = "landscape-results") -> Runs:
    """Stored runs of a result file, or of all in a folder, in the order of training.

    ``.where(kind="eigen")`` and the like choose, ``[0].read()`` gives a result, ``.pandas()`` a table.

    Raises:
        StoreError: there is nothing there, or the one file that it names cannot be read.
    """
    return open_runs(path)
