"""``landscape batch`` in processes of its own, and who of them is left."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

__all__ = ["Started", "start"]

#: Marks in their environments the processes of one batch.
_MARK = "BATCH_OF_THE_TESTS"
_NUMBERS = count()


@dataclass
class Started:
    """A batch that runs: its parent process, and what marks all of its processes."""

    process: subprocess.Popen[str]
    mark: str

    @property
    def workers(self) -> list[int]:
        """The processes that it has started and that still run."""
        return [pid for pid in _marked(self.mark) if pid != self.process.pid]

    def wait(self, until: Callable[[], Any], seconds: float = 120) -> None:
        """Until something is so; the batch must not end before."""
        deadline = time.monotonic() + seconds
        while not until():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def ended(self, code: int = 0) -> tuple[str, str]:
        """(stdout, stderr); it ends with this exit code, and nobody is left behind."""
        out, errors = self.process.communicate(timeout=240)
        assert self.process.returncode == code, errors
        self.assert_nobody_is_left()
        return out, errors

    def assert_nobody_is_left(self, seconds: float = 5) -> None:
        """Workers end with their parent; the kernel may need a moment for it."""
        deadline = time.monotonic() + seconds
        while (left := _marked(self.mark)) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not left


def start(folder: Path, *arguments: str, small_files: bool = False, **environment: str) -> Started:
    """``landscape batch``, one thread in each process; with ``small_files`` no file grows beyond 8 KiB."""
    mark = f"{os.getpid()}-{next(_NUMBERS)}"
    one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", _MARK: mark}
    process = subprocess.Popen(
        [sys.executable, "-m", "landscape_cli", "batch", *arguments],
        cwd=folder,
        env={**os.environ, **one, **environment},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=_limit_files if small_files else None,
    )
    return Started(process, mark)


def _limit_files() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))


def _marked(mark: str) -> list[int]:
    return [pid for pid, environment in _environments() if f"{_MARK}={mark}".encode() in environment]


def _environments() -> Iterator[tuple[int, list[bytes]]]:
    """(process, its environment) of all that run; of those that have ended it is empty."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            yield int(folder.name), (folder / "environ").read_bytes().split(b"\0")
