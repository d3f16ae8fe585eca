"""The parent of a batch's workers: hands out units, listens, replaces who dies, and ends them all."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing import connection
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from landscape.batches.parts import Begun, Progressed, Report, Seen, Spec, Unit
from landscape.batches.worker import Inspect, Inspected, Over
from landscape.errors import FAILED, ComputationError

__all__ = ["Pool", "Stop", "Task"]

Task = Inspect | Unit

#: What a worker process runs; -P keeps the current folder off its path.
_WORKER = "from landscape.batches.worker import main; main()"
#: Seconds between two looks at signals and limits, and before a unit that was busy is tried again.
_TICK, _RETRY = 0.1, 0.3
#: Workers that may end one after the other before they have begun anything.
_STRIKES = 2
#: Seconds that workers are given to end by themselves once nothing is left to do.
_GRACE = 2.0


@dataclass
class Stop:
    """Why the work is to stop early; ``kill`` at once, not after the current step."""

    asked: Callable[[], bool]
    kill: Callable[[], bool]


@dataclass
class _Process:
    """A worker as its parent sees it."""

    process: subprocess.Popen[bytes]
    pipe: Connection
    number: int
    task: Task | None = None
    at: Begun | None = None
    progress: Progressed | None = None
    asked: bool = False
    began: float = field(default_factory=time.monotonic)

    @property
    def why(self) -> str:
        """How it ended, in words."""
        status = self.process.wait()
        if status >= 0:
            return f"exit status {status}"
        memory = " (memory?)" if status == -signal.SIGKILL else ""
        return f"signal {-status}, {signal.strsignal(-status)}{memory}"


class Pool:
    """``jobs`` worker processes that carry out a :class:`Spec`.

    Args:
        threads: of the arithmetic in each; as many as torch likes without.
        hear: gets every event, with the number of the worker that it is of.
        stop: looked at several times a second.
        noisy: let workers write to stderr, for finding faults.
    """

    def __init__(
        self, spec: Spec, jobs: int, threads: int | None, hear: Callable[[int, Any], None], stop: Stop,
        noisy: bool = False,
    ) -> None:  # fmt: skip
        self._spec, self._jobs, self._threads = spec, jobs, threads
        self._hear, self._stop, self._noisy = hear, stop, noisy
        self._all: list[_Process] = []
        self._strikes, self._numbers = 0, 0

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    @property
    def running(self) -> list[tuple[int, Begun, Progressed | None, float]]:
        """(worker, what it is at, how far, since when) of those that are at something."""
        return [(p.number, p.at, p.progress, p.began) for p in self._all if p.at is not None]

    def inspect(self, paths: Sequence[Path]) -> dict[Path, Seen]:
        """A look at each file; fewer if the work was stopped."""
        size = max(1, min(16, -(-len(paths) // self._jobs)))
        tasks = [Inspect(tuple(paths[i : i + size])) for i in range(0, len(paths), size)]
        return {seen.path: seen for answer in self._map(tasks) for seen in answer.seen}

    def carry_out(self, units: Sequence[Unit]) -> None:
        """All units, unless the work is stopped.

        Raises:
            BatchFailure: what makes going on useless, such as a full disk.
        """
        for _ in self._map(units):
            pass

    def _map(self, tasks: Sequence[Any]) -> Iterator[Any]:
        waiting: deque[Task] = deque(tasks)
        later: deque[tuple[float, Task]] = deque()
        while waiting or later or any(p.task is not None for p in self._all):
            if self._stop.asked():
                waiting.clear()
                later.clear()
                self._ask_to_stop()
            while later and later[0][0] <= time.monotonic():
                waiting.append(later.popleft()[1])
            self._hand_out(waiting)
            for worker in self._ready():
                try:
                    answer = worker.pipe.recv()
                except (EOFError, OSError):
                    self._lost(worker, waiting)
                    continue
                if isinstance(answer, Inspected):
                    worker.task = None
                    yield answer
                elif isinstance(answer, Over):
                    task, worker.task, worker.at, worker.progress = worker.task, None, None, None
                    if answer.why == "busy" and task is not None:
                        later.append((time.monotonic() + _RETRY, task))
                    elif answer.why == "failed":
                        raise BatchFailure(answer)
                else:
                    self._take(worker, answer)

    def _take(self, worker: _Process, event: Any) -> None:
        self._strikes = 0
        if isinstance(event, Begun):
            worker.at, worker.progress, worker.began = event, None, time.monotonic()
        elif isinstance(event, Progressed):
            worker.progress = event
        elif isinstance(event, Report):
            worker.at = None
        self._hear(worker.number, event)

    def _hand_out(self, waiting: deque[Task]) -> None:
        while waiting and not self._stop.asked():
            worker = next((p for p in self._all if p.task is None), None)
            if worker is None:
                if len(self._all) >= self._jobs:
                    return
                worker = self._start()
            worker.task = waiting.popleft()
            with contextlib.suppress(OSError):  # it has ended: its pipe says so next
                worker.pipe.send(worker.task)

    def _ready(self) -> list[_Process]:
        pipes = [p.pipe for p in self._all]
        if not pipes:
            time.sleep(_TICK)
        found = connection.wait(pipes, _TICK) if pipes else []
        if not found:
            self._hear(-1, None)
        return [p for p in self._all if p.pipe in found]

    def _start(self) -> _Process:
        ours, theirs = connection.Pipe()
        environment = dict(os.environ)
        if self._threads is not None:
            environment["OMP_NUM_THREADS"] = str(self._threads)
        line = [sys.executable, "-P", "-c", _WORKER, str(theirs.fileno()), str(os.getpid())]
        out = None if self._noisy else subprocess.DEVNULL
        try:
            with theirs:
                process = subprocess.Popen(
                    line, stdin=subprocess.DEVNULL, stdout=sys.stderr if self._noisy else out, stderr=out,
                    pass_fds=[theirs.fileno()], env=environment,
                    start_new_session=True,  # Ctrl-C is for the parent, who decides what follows
                )  # fmt: skip
        except OSError as error:
            raise ComputationError(
                f"cannot start {self._jobs} worker processes", found=str(error), do="use fewer --jobs"
            ) from error
        with contextlib.suppress(OSError):
            ours.send_bytes(pickle.dumps(self._spec))
        self._numbers += 1
        worker = _Process(process, ours, self._numbers)
        self._all.append(worker)
        return worker

    def _lost(self, worker: _Process, waiting: deque[Task]) -> None:
        """A worker has ended in the middle: what it was at has failed, the rest goes to others."""
        why, at, task = worker.why, worker.at, worker.task
        worker.pipe.close()
        self._all.remove(worker)
        if worker.asked or self._stop.asked():
            return
        if at is None:
            self._strikes += 1
            if self._strikes > _STRIKES:
                raise ComputationError(
                    "worker processes end before they have begun",
                    found=why,
                    do="look at one checkpoint alone, with the command of its analysis",
                )
        else:
            error = f"its process ended\nfound: {why}\ndo: the same command tries it again; use fewer --jobs"
            self._hear(worker.number, Report(at.path, at.kind, "failed", error=error, exit_code=FAILED))
        if isinstance(task, Unit) and at is not None:
            task = replace(task, omitted=task.omitted | {(at.path, at.kind)})
        if task is not None:
            waiting.appendleft(task)

    def _ask_to_stop(self) -> None:
        for worker in self._all:
            if self._stop.kill():
                worker.process.kill()
            elif worker.task is not None and not worker.asked:
                worker.process.terminate()
            worker.asked = True

    def _end(self) -> None:
        """End all processes: the idle ones at once, the others when they have put down what they are at."""
        for worker in self._all:
            worker.pipe.close()
            if worker.task is None:
                worker.process.kill()  # nothing is under way, and a Python with torch takes a second to leave
            else:
                worker.process.terminate()
        deadline = time.monotonic() + _GRACE
        for worker in self._all:
            try:
                worker.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
        self._all.clear()


class BatchFailure(Exception):
    """What ended the batch as a whole."""

    def __init__(self, over: Over) -> None:
        super().__init__(over.error)
        self.over = over
