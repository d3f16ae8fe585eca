"""The one place that makes an analysis happen: identity, seed, partial state, signals, limits, store.

Command line, batch, Python and monitor call :func:`execute`; resumption, skipping what is done, Ctrl-C,
limits and retries are the same for all of them because they are written here once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from landscape.analyses.base import Analysis, Saved, Start, State, analysis
from landscape.errors import (
    DONE,
    FAILED,
    NOT_REACHED,
    BusyError,
    ConfigurationError,
    Interrupted,
    OutOfMemory,
    StoreError,
)
from landscape.identity import run_id as _run_id
from landscape.identity import subject, versions, weights_hash
from landscape.inputs import (
    chosen,
    named_vectors,
    read_fixed,
    stored_inputs,
    with_vectors_apart,
    write_fixed,
)
from landscape.settings import option

if TYPE_CHECKING:
    from landscape.problem import Problem
    from landscape.results import Provenance, Result
    from landscape.store import PartialFile

__all__ = ["Observer", "Plan", "RunSettings", "execute", "exit_code", "plan", "run_id", "stored_path"]

#: Least seconds between two writes of the partial state, and how many times as long as a write takes.
_FLUSH_SECONDS, _FLUSH_RATIO = 0.5, 20.0

#: Beside it, stored vectors are looked for where nothing is stored.
_NOWHERE = "landscape-results/unstored.h5"

#: Seeds are stored as signed 64-bit numbers.
_LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """How a run is carried out and where its result goes; none of it but the seed changes a figure.

    Raises:
        ConfigurationError: a seed of more than 63 bits.
    """

    seed: int | None = option(
        None, "Seed of every random choice; without it a fresh one is drawn, printed and stored.", minimum=0
    )
    time_limit: float | None = option(
        None,
        "Stop after this many seconds, keep what there is (exit 4).",
        metavar="SECONDS",
        minimum=0.0,
        identity=False,
    )
    output: str | None = option(
        None,
        "Result file; default landscape-results/<checkpoint>-<hash>.h5.",
        short="-o",
        metavar="FILE",
        identity=False,
    )
    fresh: bool = option(
        False, "Compute again, also when the same run is stored or was interrupted.", identity=False
    )

    def __post_init__(self) -> None:
        if self.seed is not None and self.seed > _LARGEST_SEED:
            raise ConfigurationError(
                f"--seed must be at most {_LARGEST_SEED}, which result files can hold", found=str(self.seed)
            )


class Observer(Protocol):
    """Somebody who is told how it goes."""

    def note(self, text: str) -> None:
        """A line worth saying."""

    def progress(self, done: int, total: int | None, text: str) -> None:
        """Steps done, steps expected (None if unknown), what is going on."""


class _Silent:
    def note(self, text: str) -> None:
        """Nothing is said."""

    def progress(self, done: int, total: int | None, text: str) -> None:
        """Nothing is shown."""


@dataclass(frozen=True)
class Plan:
    """What a run would take, before it is begun. ``seconds`` come from a few timed examples."""

    id: str
    products: int
    at_most: int
    gradients: float
    memory_bytes: int
    seconds: float
    examples: int
    parameters: int
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def exit_code(result: Result) -> int:
    """0 complete; 4 finished, but not to the accuracy asked for; 3 failed."""
    return {"complete": DONE, "failed": FAILED}.get(result.status, NOT_REACHED)


def stored_path(problem: Problem, run: RunSettings) -> Path:
    """The result file of a run: ``--output``, else one for each checkpoint in ``landscape-results/``."""
    from landscape.store import default_path

    if run.output is not None:
        return Path(run.output)
    if problem.checkpoint is not None:
        return default_path(problem.checkpoint.path, problem.checkpoint.sha256)
    return default_path("weights", weights_hash(problem))


def run_id(kind: str, problem: Problem, settings: Any, run: RunSettings) -> str:
    """What makes it this run: kind, weights, data, problem, settings and, if given, the seed."""
    return _identity(kind, problem, settings, run, subject(problem))


def _identity(kind: str, problem: Problem, settings: Any, run: RunSettings, of: str) -> str:
    about = getattr(analysis(kind), "about", None)
    return _run_id(kind, of, settings, run.seed, None if about is None else about(problem, settings))


def plan(kind: str, problem: Problem, settings: Any, run: RunSettings) -> Plan:
    """What :func:`execute` would take; a few examples are timed, nothing is stored."""
    of = analysis(kind).plan(problem, settings)
    per_gradient = _seconds_per_example(problem) * problem.examples
    return Plan(
        id=run_id(kind, problem, settings, run),
        products=of.products,
        at_most=of.at_most,
        gradients=of.gradients,
        memory_bytes=of.memory_bytes,
        seconds=of.gradients * per_gradient,
        examples=problem.examples,
        parameters=problem.size,
        notes=of.notes,
    )


def _seconds_per_example(problem: Problem) -> float:
    """Time of a gradient, from a few examples, and from more of them where these are done in no time."""
    for size in (8, 256):
        piece = next(iter(problem.pieces(size)))
        problem.measure([piece])
        start = time.perf_counter()
        problem.measure([piece])
        seconds = time.perf_counter() - start
        if seconds > 0.1:
            break
    return seconds / piece.examples


def execute(
    kind: str,
    problem: Problem,
    settings: Any,
    run: RunSettings | None = None,
    *,
    observer: Observer | None = None,
    command: str = "",
    store: bool = True,
    inputs: Sequence[Result] = (),
    vectors: Mapping[str, np.ndarray] | None = None,
    recipe: str = "",
    before_storing: Callable[[Saved], None] | None = None,
) -> Result:
    """Make an analysis happen, or find it done.

    With ``store``, a finished run of the same identity is read back instead, an interrupted one is resumed
    bit for bit, and the result is added to its file. SIGINT and SIGTERM stop it after the current step.

    Args:
        inputs: earlier results to go on from, if the analysis can use them; without any, those stored in the
            file for the same problem.
        vectors: rows as long as the model, by the names that settings know them by.
        recipe: written beside the result, for who wants to know it again by that.
        before_storing: is given the last state before the result is stored, and not where it is found done:
            what is kept then is there whenever the result is.

    Raises:
        BusyError: another process is at this very run.
        Interrupted: by a signal; what was done is kept, the same call resumes it.
        OutOfMemory: also with the smallest pieces.
        LandscapeError: as the problem, the analysis or the store raise it.
    """
    from landscape.store import PartialFile, ResultFile, partial_path

    run, observer = run or RunSettings(), observer or _Silent()
    for note in problem.notes:
        observer.note(note)
    module, of = analysis(kind), subject(problem)
    path = stored_path(problem, run) if store else Path(run.output or _NOWHERE)
    execution = _Execution(module, problem, settings, run, observer, command, of, path, recipe)
    execution.vectors = named_vectors(module, settings, path.parent, vectors or {})
    if not store:
        execution.inputs = chosen(module, settings, of, inputs)
        return execution.carry_out(None)
    execution.identity = identity = _identity(kind, problem, settings, run, of)
    partial = PartialFile(partial_path(path, identity))
    if (found := _finished(path, identity, partial, run, observer, problem)) is not None:
        return found
    ResultFile(path).check_writable()
    with _only_one(partial.path):
        if (found := _finished(path, identity, partial, run, observer, problem)) is not None:
            return found  # by another process, since we looked
        execution.inputs = chosen(module, settings, of, inputs or stored_inputs(module, settings, of, path))
        result = execution.carry_out(partial)
        if result.status == "partial" and _is_finished(path, identity):
            observer.note("an earlier result of this run is stored: it stays until this one is complete")
            return result
        if before_storing is not None and execution.last is not None:
            before_storing(execution.last)
        result = with_vectors_apart(result, path)
        ResultFile(path).add(result)
        if result.status != "partial":
            partial.remove()
    return result


def _finished(
    path: Path, identity: str, partial: PartialFile, run: RunSettings, observer: Observer, problem: Problem
) -> Result | None:
    """The stored run of this identity, unless it is to be computed again or that was begun already.

    Raises:
        DataError: its loss is not the one that was expected.
    """
    from landscape.store import ResultFile

    if run.fresh or partial.path.exists() or not _is_finished(path, identity):
        return None
    found = ResultFile(path).read(identity)
    if (loss := getattr(found, "loss", None)) is not None and np.ndim(loss) == 0:
        problem.check_expected(float(loss))
    observer.note(f"the same run is stored ({identity} in {path}): shown from there; --fresh computes again")
    return found


def _is_finished(path: Path, identity: str) -> bool:
    """Whether this run is stored, and no time limit had stopped it."""
    from landscape.store import ResultFile

    header = ResultFile(path).find(identity)
    return header is not None and header.status != "partial"


@contextlib.contextmanager
def _only_one(partial: Path) -> Iterator[None]:
    """No two processes compute one run at once."""
    from landscape.store import locked

    try:
        with locked(partial, timeout=0.0):
            yield
    except StoreError as error:
        if "another writer" in error.what:
            raise BusyError(
                "this very run is being computed already", found=error.found, do="wait for it, or use --seed"
            ) from error
        raise


@dataclass
class _Execution:
    """One run from beginning to end."""

    module: Analysis
    problem: Problem
    settings: Any
    run: RunSettings
    observer: Observer
    command: str
    subject: str
    path: Path
    recipe: str = ""
    identity: str = ""
    inputs: Mapping[str, Result] = field(default_factory=dict)
    vectors: Mapping[str, np.ndarray] = field(default_factory=dict)
    header: dict[str, Any] = field(default_factory=dict)
    saved: Saved | None = None
    last: Saved | None = None
    last_flush: float = -math.inf
    flush_cost: float = 0.0

    def carry_out(self, partial: PartialFile | None) -> Result:
        """Run or resume the steps, then finish."""
        from landscape.machine import threads

        self._prepare(partial)
        began = time.monotonic()
        with threads(self.header["threads"]) as count, _signals() as stopped, _own_randomness(self.problem):
            self.header["threads"] = count
            state, limited = self._loop(partial, stopped, began)
            result = self.module.finish(self.problem, self.settings, state)
        self.last = state
        if limited:
            result = dataclasses.replace(result, status="partial")
        return dataclasses.replace(result, provenance=self._provenance(state))

    def _prepare(self, partial: PartialFile | None) -> None:
        """The header of a new run, or that of the interrupted one with its state."""
        found = partial.read() if partial and not self.run.fresh else None
        given = self.run.seed is not None
        if found is None:
            self.header = {
                "seed": self.run.seed if given else secrets.randbits(32),
                "seed_given": given,
                "threads": self.problem.threads,
                "strategy": None,
                "inputs": {kind: used.provenance.id for kind, used in self.inputs.items() if used.provenance},
                "started": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "versions": versions(),
            }
            if not given:
                self.observer.note(
                    f"seed {self.header['seed']} (drawn; --seed {self.header['seed']} repeats this run)"
                )
            for kind, name in self.header["inputs"].items():
                self.observer.note(f"uses the stored {kind} run {name}")
            return
        self.header, arrays, counters = found
        step = counters.get("done", counters.get("products", 0))
        self.observer.note(f"resumed at step {step} (seed {self.header['seed']})")
        if self.header["versions"] != versions():
            self.observer.note(
                "software versions have changed since: still right, but not bit for bit the same"
            )
        fixed = read_fixed(self.path.parent, self.header.get("fixed", {}))
        self.saved = Saved(arrays, dict(counters), fixed)

    def _loop(
        self, partial: PartialFile | None, stopped: Callable[[], bool], began: float
    ) -> tuple[Saved, bool]:
        """Step by step to the end, to a limit or to a signal; smaller pieces when memory runs out."""
        from landscape.machine import is_out_of_memory

        strategy: Mapping[str, Any] | None = self.header["strategy"]
        state: State | None = None
        while True:
            try:
                for state in self._steps(strategy):
                    self.saved = None  # taken over: not held twice
                    self.header["strategy"] = strategy = dict(state.strategy)
                    self.observer.progress(state.done, state.total, state.text)
                    if state.over:
                        return state.save(), False
                    late = self.run.time_limit is not None and time.monotonic() - began > self.run.time_limit
                    due = late or stopped() or self._flush_due()
                    if due or state.keep:
                        self._flush(partial, state, durable=due)
                    if stopped():
                        raise self._interrupted(partial, state)
                    if late:
                        self.observer.note(f"time limit reached; {self._again} goes on from here")
                        return state.save(), True
                raise AssertionError("an analysis ends with a last state")
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                strategy = self._smaller(strategy, error)
                self.saved = state.save() if state else self.saved
                state = None  # with it go the graphs and vectors of the attempt that failed

    def _steps(self, strategy: Mapping[str, Any] | None) -> Iterator[State]:
        start = Start(self.header["seed"], self.saved, strategy, self.vectors)
        return self.module.steps(self.problem, self.settings, self.inputs, start)

    def _smaller(self, strategy: Mapping[str, Any] | None, error: BaseException) -> dict[str, Any]:
        """The strategy with smaller pieces, or the error that says what to set."""
        from landscape.curvature.strategy import Strategy
        from landscape.machine import brief

        names = Strategy.__dataclass_fields__
        smaller = Strategy(**{name: strategy[name] for name in names}).smaller() if strategy else None
        if smaller is None or strategy is None:
            raise OutOfMemory(
                "memory ran out, also with the smallest pieces",
                found=brief(error),
                do="use --fresh with a smaller --batch-size or --memory, restrict --params, or use --samples",
            ) from error
        self.observer.note(
            f"memory ran out: going on with pieces of {smaller.micro_batch} examples, "
            f"{smaller.kept_pieces} graphs kept"
        )
        return {**strategy, **smaller.to_json()}

    def _flush_due(self) -> bool:
        """At once at the first state (seed and strategy are on disk before the work), then at times."""
        return time.monotonic() - self.last_flush > max(_FLUSH_SECONDS, _FLUSH_RATIO * self.flush_cost)

    def _flush(self, partial: PartialFile | None, state: State, durable: bool) -> None:
        """Write the state; one that is not ``durable`` outlives this process, if not the machine."""
        if partial is None:
            return
        start = time.monotonic()
        saved = state.save()
        write_fixed(self.path, saved.fixed, self.header.setdefault("fixed", {}))
        header = {**self.header, "identity": self.identity}
        partial.write(header, saved.arrays, saved.counters, durable=durable)
        if durable:
            self.last_flush = time.monotonic()
            self.flush_cost = self.last_flush - start

    def _interrupted(self, partial: PartialFile | None, state: State) -> Interrupted:
        kept = f"{state.done} steps are kept in {partial.path}" if partial else "nothing was being stored"
        return Interrupted(
            "interrupted", found=kept, do=f"{self._again} goes on from there" if partial else ""
        )

    @property
    def _again(self) -> str:
        return "the same command without --fresh" if self.run.fresh else "the same command"

    def _provenance(self, state: Saved) -> Provenance:
        from landscape.results import Provenance, jsonable

        problem = self.problem
        return Provenance(
            id=self.identity or f"{self.module.kind}-unstored",
            subject=self.subject,
            recipe=self.recipe,
            command=self.command,
            checkpoint=problem.checkpoint,
            settings=jsonable({name: _written(v) for name, v in dataclasses.asdict(self.settings).items()}),
            problem=jsonable(problem.description),
            data_fingerprint=problem.data.fingerprint,
            seed=self.header["seed"],
            seed_given=self.header["seed_given"],
            device=str(problem.device),
            dtype=str(problem.dtype).removeprefix("torch."),
            strategy={
                **(self.header["strategy"] or {}),
                "threads": self.header["threads"],
                **({"inputs": self.header["inputs"]} if self.header["inputs"] else {}),
            },
            versions=self.header["versions"],
            started=self.header["started"],
            seconds=float(state.counters.get("seconds", 0.0)),
        )


def _written(value: Any) -> Any:
    """An option as text where JSON has no number for it (p = inf)."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


@contextlib.contextmanager
def _signals() -> Iterator[Callable[[], bool]]:
    """SIGINT and SIGTERM ask for a stop after the step; a second one stops at once. Main thread only."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def ask(number: int, frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    # A handler that was not set from Python (None) could not be put back.
    own = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is not None]
    before = {number: signal.signal(number, ask) for number in own}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _own_randomness(problem: Problem) -> Iterator[None]:
    """Whatever the model draws from torch's global generators, they are as before afterwards."""
    import torch

    devices = [problem.device] if problem.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        yield
