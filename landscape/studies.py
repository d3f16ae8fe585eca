"""Whole studies as Python functions: a batch, stored runs, comparisons, reports, export."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from landscape.analyses.base import ANALYSES
from landscape.batches import BatchObserver, BatchResult, planned_batch, run_batch
from landscape.errors import ConfigurationError
from landscape.monitoring import recover_in
from landscape.project import BatchSettings, ProblemSettings
from landscape.reports import ReportSummary, write_report
from landscape.settings import options_of
from landscape.study import Runs, open_runs
from landscape.study.compare import compare
from landscape.study.correlation import correlate
from landscape.study.export import export

__all__ = ["batch", "compare", "correlate", "export", "open", "report"]


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

    What monitors that were killed had measured is put into their files first.

    ``.where(kind="eigen")`` and the like choose, ``[0].read()`` gives a result, ``.pandas()`` a table.

    Raises:
        StoreError: there is nothing there, or the one file that it names cannot be read.
    """
    place = Path(path).expanduser()
    recover_in(place)
    return open_runs(place)


def report(
    source: str | Path | Runs = "landscape-results",
    path: str | Path = "report.html",
    *,
    title: str | None = None,
    figures: str = "all",
    progress: Callable[[int, int, str], None] | None = None,
) -> ReportSummary:
    """One self-contained page about stored runs: a folder, a result file, or :func:`open`'s choice of them.

    Args:
        figures: ``all``, or ``last`` for the pictures of each training run's last checkpoint only.
        progress: called with (pictures drawn, of how many, of what).

    Raises:
        LandscapeError: nothing to report on, or a place that cannot be written.
    """
    runs = source if isinstance(source, Runs) else open(source)
    return write_report(runs, path, title=title, figures=figures, progress=progress)
