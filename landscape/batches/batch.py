"""``landscape batch``: every analysis on every checkpoint of training runs, by several processes."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from landscape.batches.order import in_training_order, units
from landscape.batches.parts import Begun, Noted, Progressed, Report, Seen, Spec, Unit
from landscape.batches.planning import BatchPlan
from landscape.batches.pool import BatchFailure, Pool, Stop
from landscape.batches.work import is_warm
from landscape.errors import INTERRUPTED, NOT_REACHED, InputError, LandscapeError
from landscape.store import ResultFile

__all__ = ["BatchObserver", "BatchResult", "Running", "Snapshot", "WarmStarts", "run_batch"]


@dataclass(frozen=True)
class Running:
    """What a worker is at."""

    worker: int
    path: Path
    kind: str
    done: int
    total: int | None
    text: str


@dataclass(frozen=True)
class Snapshot:
    """How a batch stands: counts of analyses, what is running, seconds left (None while unknown)."""

    total: int
    computed: int
    found: int
    failed: int
    running: tuple[Running, ...]
    seconds_left: float | None

    @property
    def done(self) -> int:
        return self.computed + self.found + self.failed


class BatchObserver(Protocol):
    """Somebody who is told how it goes."""

    def note(self, text: str) -> None:
        """A line worth saying."""

    def reported(self, report: Report) -> None:
        """An analysis of a checkpoint is over."""

    def changed(self, snapshot: Snapshot) -> None:
        """Several times a second."""


class _Silent:
    def note(self, text: str) -> None:
        """Nothing is said."""

    def reported(self, report: Report) -> None:
        """Nothing is said."""

    def changed(self, snapshot: Snapshot) -> None:
        """Nothing is shown."""


@dataclass(frozen=True)
class WarmStarts:
    """Products of a search that began from a neighbour's eigenvectors, and of the same search begun afresh.

    Both are made once in a batch that has several chains, at the end of the middle one.
    """

    path: Path
    warm_products: int
    cold_products: int

    @property
    def saving(self) -> float:
        """Share of the products of a start afresh that a warm one did without; negative if it took more."""
        return 1 - self.warm_products / self.cold_products

    def to_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "path": str(self.path), "saving": self.saving}


@dataclass(frozen=True, repr=False)
class BatchResult:
    """What came of a batch.

    Attributes:
        reports: of each analysis of each checkpoint, in training order.
        runs: the checkpoints in training order, apart by training run.
        stopped: why it ended early: ``interrupted``, ``time limit``, or empty.
        seconds: wall-clock time.
        folder: of the result files.
    """

    reports: tuple[Report, ...]
    runs: tuple[tuple[Seen, ...], ...]
    stopped: str
    seconds: float
    folder: Path

    def __repr__(self) -> str:
        """How many of what; the reports would fill pages."""
        counts = Counter(one.outcome for one in self.reports)
        said = ", ".join(f"{count} {outcome}" for outcome, count in counts.items()) or "nothing done"
        return f"<BatchResult: {said}; {self.folder}>"

    def of(self, outcome: str) -> list[Report]:
        """The reports of one outcome."""
        return [one for one in self.reports if one.outcome == outcome]

    @property
    def exit_code(self) -> int:
        """0 all complete; 130 interrupted; else the highest of the analyses' own; 4 if a limit stopped it."""
        if self.stopped == "interrupted":
            return INTERRUPTED
        codes = [one.exit_code for one in self.reports]
        failed = [one.exit_code for one in self.of("failed")]
        return max(failed or [*codes, NOT_REACHED if self.stopped else 0])

    @property
    def warm_starts(self) -> WarmStarts | None:
        """What they saved where that was tried; None if it was not, or in an earlier part of this batch."""
        for one in self.of("computed"):
            if one.cold_products and one.products:
                return WarmStarts(one.path, one.products, one.cold_products)
        return None

    def to_json(self) -> dict[str, Any]:
        saved = self.warm_starts
        return {
            "folder": str(self.folder),
            "seconds": self.seconds,
            "stopped": self.stopped or None,
            "analyses": [one.to_json() for one in self.reports],
            "warm_starts": None if saved is None else saved.to_json(),
        }


def run_batch(
    plan: BatchPlan,
    *,
    observer: BatchObserver | None = None,
    dry_run: bool = False,
    debug: bool = False,
) -> BatchResult:
    """All analyses on all checkpoints; what is stored is found, what was interrupted goes on.

    Args:
        dry_run: say what would be done, and about how long it takes; store nothing.
        debug: let the processes write to stderr.

    Raises:
        InputError: no order of training, or a folder that cannot be written.
        ComputationError: workers cannot be started, or end before they have begun.
        LandscapeError: what concerned all checkpoints, such as a full disk.
    """
    observer, began = observer or _Silent(), time.monotonic()
    settings = plan.settings
    each = _threads_each(plan.threads, settings.jobs)
    spec = dataclasses.replace(plan.spec, memory_share=settings.jobs, dry=dry_run)
    if each is not None:
        problem = dataclasses.replace(spec.problem, threads=each)
        spec = dataclasses.replace(spec, problem=problem, given=spec.given | {"threads"})
    if not dry_run:
        ResultFile(spec.folder / "batch.h5").check_writable()
    listed = plan.checkpoints
    with _signals() as signalled:
        late = _deadline(began, settings.time_limit)
        stop = Stop(lambda: signalled() > 0 or late(), lambda: signalled() > 1)
        desk = _Desk(spec, observer, settings.jobs)
        with Pool(spec, settings.jobs, each, desk.hear, stop, debug) as pool:
            desk.pool = pool
            seen = pool.inspect(listed)
            runs: list[tuple[Seen, ...]] = []
            if not stop.asked():
                runs = in_training_order([seen[path] for path in listed], settings.order)
                which, count = settings.share
                share = units(runs, is_warm(spec))[which - 1 :: count]
                desk.begin(share)
                try:
                    pool.carry_out(share)
                except BatchFailure as failure:
                    raise _error(failure) from failure
        stopped = "interrupted" if signalled() else "time limit" if late() and not desk.finished else ""
    return BatchResult(desk.in_order(runs), tuple(runs), stopped, time.monotonic() - began, spec.folder)


class _Desk:
    """Where all events arrive: reports are kept, the observer is told."""

    def __init__(self, spec: Spec, observer: BatchObserver, jobs: int) -> None:
        self._observer, self._jobs = observer, jobs
        self._kinds = [one.kind for one in spec.analyses]
        self._reports: dict[tuple[Path, str], Report] = {}
        self._expected: list[tuple[Path, str]] = []
        self._begun = False
        self._last = 0.0
        self.pool: Pool | None = None

    def begin(self, share: Sequence[Unit]) -> None:
        """The work is known."""
        self._expected = [(s.path, kind) for unit in share for s in unit.checkpoints for kind in self._kinds]
        self._begun = True

    @property
    def finished(self) -> bool:
        """Whether all checkpoints have been looked at, and all analyses reported."""
        return self._begun and len(self._reports) == len(self._expected)

    def hear(self, worker: int, event: Any) -> None:
        """An event, or None when nothing has happened for a while."""
        if isinstance(event, Report):
            # A unit that was busy is gone through again: what was said of it first is what was done.
            if (event.path, event.kind) not in self._reports:
                self._reports[event.path, event.kind] = event
                self._observer.reported(event)
        elif isinstance(event, Noted):
            self._observer.note(f"{event.path.name}: {event.text}")
        now = time.monotonic()
        if self._expected and (now - self._last > 0.1 or isinstance(event, Begun | Report)):
            self._last = now
            self._observer.changed(self._snapshot())

    def in_order(self, runs: Sequence[Sequence[Seen]]) -> tuple[Report, ...]:
        """The reports as the checkpoints follow each other in training."""
        keys = [(seen.path, kind) for run in runs for seen in run for kind in self._kinds]
        return tuple(self._reports[key] for key in keys if key in self._reports)

    def _snapshot(self) -> Snapshot:
        counts = {
            name: sum(one.outcome == name for one in self._reports.values())
            for name in ("computed", "found", "failed")
        }
        return Snapshot(
            total=len(self._expected),
            **counts,
            running=tuple(self._running()),
            seconds_left=self._seconds_left(),
        )

    def _running(self) -> Iterator[Running]:
        for number, at, progress, _ in [] if self.pool is None else self.pool.running:
            shown = progress or Progressed(0, None, "beginning")
            yield Running(number, at.path, at.kind, shown.done, shown.total, shown.text)

    def _seconds_left(self) -> float | None:
        """From the mean time of each kind so far, what is being done counted as half done."""
        spent: dict[str, list[float]] = {}
        for one in self._reports.values():
            if one.outcome == "computed":
                spent.setdefault(one.kind, []).append(one.seconds)
        left = [kind for path, kind in self._expected if (path, kind) not in self._reports]
        if not spent or any(kind not in spent for kind in left):
            return None
        return sum(statistics.fmean(spent[kind]) for kind in left) / max(1, min(self._jobs, len(left)))


def _error(failure: BatchFailure) -> LandscapeError:
    """What a worker said, as the same kind of error."""
    what, *more = failure.over.error.split("\n")
    parts = {name: line.removeprefix(f"{name}: ") for line in more for name in ("found", "do")
             if line.startswith(f"{name}: ")}  # fmt: skip
    error = InputError(what, **parts)
    error.exit_code = failure.over.exit_code
    return error


def _threads_each(threads: int | None, jobs: int) -> int | None:
    """Threads of each process: those given, or the machine's, shared out; None to leave it to torch."""
    if jobs == 1:
        return threads
    said = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # a list is for nested regions
    there = threads or int(said if said.isdecimal() else 0) or len(os.sched_getaffinity(0))
    return max(1, there // jobs)


def _deadline(began: float, limit: float | None) -> Callable[[], bool]:
    return lambda: limit is not None and time.monotonic() - began > limit


@contextlib.contextmanager
def _signals() -> Iterator[Callable[[], int]]:
    """How often SIGINT or SIGTERM has come; main thread only."""
    count = [0]
    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return

    def ask(number: int, frame: Any) -> None:
        count[0] += 1

    own = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is not None]
    before = {number: signal.signal(number, ask) for number in own}
    try:
        yield lambda: count[0]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
