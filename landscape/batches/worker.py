"""A worker process: takes messages from its parent, answers with events.

It is a process of its own from the start, not a fork: threads, devices and ``__main__`` of whoever calls a
batch have nothing to do with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import signal
import sys
import time
import traceback
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from landscape.batches.parts import Progressed, Seen, Spec, Unit
from landscape.errors import FAILED, BusyError, Interrupted, LandscapeError

__all__ = ["Inspect", "Inspected", "Over", "main"]

#: prctl(2): the signal that the kernel sends when the parent ends.
_PR_SET_PDEATHSIG = 1
#: Least seconds between two reports of progress.
_INTERVAL = 0.2


@dataclass(frozen=True)
class Inspect:
    """Asks for a look at these files."""

    paths: tuple[Path, ...]


@dataclass(frozen=True)
class Inspected:
    """The answer."""

    seen: tuple[Seen, ...]


@dataclass(frozen=True)
class Over:
    """A unit is over.

    Attributes:
        why: ``done``, ``busy`` (another process is at a part of it), ``interrupted`` or ``failed``.
        error: of ``failed`` or ``interrupted``: what is to be said.
        exit_code: that goes with it.
        trace: where it was raised, as text.
    """

    why: str = "done"
    error: str = ""
    exit_code: int = 0
    trace: str = ""


class _Talk:
    """The worker's end of the pipe; progress is passed on a few times a second."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe, self._last = pipe, 0.0

    def emit(self, event: Any) -> None:
        if isinstance(event, Progressed):
            now = time.monotonic()
            if now - self._last < _INTERVAL:
                return
            self._last = now
        self._pipe.send(event)


def main() -> None:
    """Serve until the parent closes the pipe."""
    pipe, parent = Connection(int(sys.argv[1])), int(sys.argv[2])
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before this
        return
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):
        _serve(pipe, pickle.loads(pipe.recv_bytes()))


def _serve(pipe: Connection, spec: Spec) -> None:
    from landscape.batches.work import Worker, inspect

    talk = _Talk(pipe)
    worker = Worker(_with_memory(spec), talk.emit)
    while True:
        message = pipe.recv()
        if isinstance(message, Inspect):
            pipe.send(Inspected(tuple(map(inspect, message.paths))))
        else:
            pipe.send(_carried_out(worker, message))


def _carried_out(worker: Any, unit: Unit) -> Over:
    try:
        worker.carry_out(unit)
    except BusyError as error:
        return Over("busy", str(error), error.exit_code)
    except Interrupted as error:
        return Over("interrupted", str(error), error.exit_code)
    except LandscapeError as error:
        return Over("failed", str(error), error.exit_code, traceback.format_exc())
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        return Over("failed", text, FAILED, traceback.format_exc())
    return Over()


def _with_memory(spec: Spec) -> Spec:
    """A share of the memory for each process, where nothing says how much it may use."""
    from landscape.machine import available_memory, compute_device

    if spec.memory_share < 2 or spec.problem.memory is not None:
        return spec
    free = available_memory(compute_device(spec.problem.device))
    share = max(1, free // (2 * spec.memory_share))
    return replace(spec, problem=replace(spec.problem, memory=str(share)), given=spec.given | {"memory"})
