"""Several processes, or several devices, that share one list of tasks.

Who works on a task makes no difference to its answer: each worker has the same function, the same weights and
the same number of threads.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes
import itertools
import os
import pickle
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any, Generic, NoReturn, Protocol, TypeVar

import numpy as np
import torch

from landscape.errors import ComputationError, ConfigurationError
from landscape.machine import brief, is_out_of_memory
from landscape.machine import threads as threads_of_torch

__all__ = ["Threads", "WorkerTraceback", "Workers"]

Task = TypeVar("Task")
Worker = TypeVar("Worker")
Mask = set[int | signal.Signals]

#: Seconds that workers are given to end by themselves before they are killed.
_GRACE = 0.2
#: Signals that a terminal or a queue sends to all processes of a command: the parent decides what follows.
_PARENTS = (signal.SIGINT, signal.SIGTERM)
#: prctl(2): the signal that the kernel sends when the parent ends.
_PR_SET_PDEATHSIG = 1
#: Loaded here: the loader's lock may be held by another thread at a fork.
_LIBC = ctypes.CDLL(None)


class WorkerTraceback(Exception):
    """Where in a worker an exception was raised, as text: the cause of the same exception in the parent."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


class Workers(Generic[Task]):
    """``count`` processes, forked when the context is entered, that share tasks; on a CPU only.

    They end with the context, with the first exception, and with their parent, whatever ends it; SIGINT and
    SIGTERM are left to the parent; they print nothing. A single one is this process itself.

    Args:
        count: how many.
        function: from a task to an array. Workers have it, with all it refers to, as it is when the context
            is entered; what it changes later stays in the worker.
        threads: of torch's arithmetic in each worker.

    Raises:
        ConfigurationError: several processes of several threads each. OpenMP's threads do not survive a fork,
            and a forked process that wants them again may wait for ever; a single thread needs none.
    """

    def __init__(self, count: int, function: Callable[[Task], np.ndarray], threads: int = 1) -> None:
        if count > 1 and threads > 1:
            raise ConfigurationError(
                "several --jobs have one thread each",
                found=f"--jobs {count} with {threads} threads",
                do="use --threads 1, or --jobs 1",
            )
        self.count, self.function, self.threads = count, function, threads
        self._processes: list[_Process] = []
        self._open = False

    def __enter__(self) -> Workers[Task]:
        self._open = True
        try:
            for _ in range(self.count if self.count > 1 else 0):
                self._processes.append(_Process(self.function, self.threads, self._processes))
        except OSError as error:
            self.close()
            raise ComputationError(
                f"cannot start {self.count} worker processes", found=brief(error), do="use fewer --jobs"
            ) from error
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pids(self) -> tuple[int, ...]:
        """Process numbers of the workers; none if this process is the only one."""
        return tuple(process.pid for process in self._processes)

    def map(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, np.ndarray]]:
        """Each task with its array, in the order in which they are done.

        A task is taken from ``tasks`` when a worker is free for it: at most one a worker is under way. Tasks
        and arrays travel by pickle. If this generator ends early, the workers end, too.

        Raises:
            ComputationError: a worker was ended from outside, as the kernel does when memory runs out.
            MemoryError: it had run out of memory.
            Exception: what ``function`` raised, with :class:`WorkerTraceback` as its cause.
            ValueError: the workers have ended.
        """
        if not self._open:
            raise ValueError("the workers have ended, or not begun")
        if self.count <= 1:
            yield from self._here(tasks)
            return
        with _closing_unless_done(self.close) as done:
            yield from _shared(self._processes, tasks, _Process.begin, _ready)
            done()

    def _here(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, np.ndarray]]:
        for task in tasks:
            with threads_of_torch(self.threads):
                found = self.function(task)
            yield task, found

    def close(self) -> None:
        """End the workers, in mid-task if need be; within a second."""
        self._open, processes, self._processes = False, self._processes, []
        for process in processes:
            process.pipe.close()
        deadline = time.monotonic() + _GRACE
        for process in processes:
            process.end(deadline)


class Threads(Generic[Task]):
    """One thread for each of ``functions``, say of the same model on several GPUs, that share tasks.

    As :class:`Workers`, but a task that was begun is always finished: closing waits for those under way.
    Precision switches of torch are the process's, not a thread's: hold
    :func:`landscape.machine.exact_arithmetic` around the whole, or one thread's end undoes them for another.
    """

    def __init__(self, functions: Sequence[Callable[[Task], np.ndarray]]) -> None:
        self.functions = tuple(functions)
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> Threads[Task]:
        self._pool = ThreadPoolExecutor(len(self.functions), "landscape")
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def map(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, np.ndarray]]:
        """Each task with its array, in the order in which they are done, as :meth:`Workers.map`.

        Raises:
            Exception: what a function raised.
            ValueError: the threads have ended.
        """
        if self._pool is None:
            raise ValueError("the threads have ended, or not begun")
        with _closing_unless_done(self.close) as done:
            yield from _shared(self.functions, tasks, self._pool.submit, _finished)
            done()

    def close(self) -> None:
        """End the threads, each after the task that it is at."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(cancel_futures=True)


class _Handle(Protocol):
    """A task under way: a future, or the process that is at it."""

    def result(self) -> np.ndarray:
        """Its array, or what it raised."""


def _shared(
    workers: Iterable[Worker],
    tasks: Iterable[Task],
    begin: Callable[[Worker, Task], Any],
    ready: Callable[[list[Any]], Iterable[Any]],
) -> Iterator[tuple[Task, np.ndarray]]:
    """The tasks among the workers: the next one to who is free, before the consumer has the last answer."""
    waiting = iter(tasks)
    busy: dict[_Handle, tuple[Worker, Task]] = {}
    for worker in workers:
        for task in itertools.islice(waiting, 1):
            busy[begin(worker, task)] = worker, task
    while busy:
        for handle in ready(list(busy)):
            worker, task = busy.pop(handle)
            found = handle.result()
            for following in itertools.islice(waiting, 1):
                busy[begin(worker, following)] = worker, following
            yield task, found


@contextlib.contextmanager
def _closing_unless_done(close: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """Close, also when a generator is left early, unless the function that is yielded was called."""
    done: list[bool] = []
    try:
        yield lambda: done.append(True)
    finally:
        if not done:
            close()


def _finished(futures: list[Future[np.ndarray]]) -> Iterable[Future[np.ndarray]]:
    return concurrent.futures.wait(futures, return_when=concurrent.futures.FIRST_COMPLETED).done


def _ready(processes: list[_Process]) -> Iterable[_Process]:
    ready = connection.wait([process.pipe for process in processes])
    return [process for process in processes if process.pipe in ready]


class _Process:
    """A worker process as its parent sees it.

    Attributes:
        pid: its number.
        pipe: tasks there, answers back; its end tells the worker to end.
    """

    def __init__(
        self, function: Callable[[Any], np.ndarray], threads: int, others: Sequence[_Process]
    ) -> None:
        self.pipe, theirs = connection.Pipe()
        self._status: int | None = None
        parent, own = os.getpid(), [self.pipe, *(other.pipe for other in others)]
        with theirs, _signals_held() as mask, warnings.catch_warnings():
            # Python 3.12 warns of forks beside threads; those of OpenMP are not asked for in the child.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.pid = os.fork()
            if self.pid == 0:
                _serve(function, threads, theirs, own, parent, mask)

    def begin(self, task: Any) -> _Process:
        try:
            self.pipe.send(task)
        except OSError as error:
            raise self._lost() from error
        return self

    def result(self) -> np.ndarray:
        try:
            answer = self.pipe.recv()
        except (EOFError, OSError) as error:
            raise self._lost() from error
        if isinstance(answer, _Failure):
            raise answer.error() from WorkerTraceback(answer.text)
        found: np.ndarray = answer
        return found

    def end(self, deadline: float) -> None:
        """Wait for the process until ``deadline`` (of the monotonic clock), then kill it."""
        while not self._ended():
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                self._ended(wait=True)
                return
            time.sleep(0.001)

    def _ended(self, wait: bool = False) -> bool:
        """Whether it has ended; its number, which may then be another's, is not used again."""
        if self._status is None:
            try:
                pid, status = os.waitpid(self.pid, 0 if wait else os.WNOHANG)
            except ChildProcessError:  # somebody waits for all children of this process
                pid, status = self.pid, 0
            self._status = os.waitstatus_to_exitcode(status) if pid else None
        return self._status is not None

    def _lost(self) -> ComputationError:
        """The error of a process that is not there any more."""
        self.end(time.monotonic() + _GRACE)
        status = self._status or 0
        how = f"signal {-status}, {signal.strsignal(-status)}" if status < 0 else f"exit status {status}"
        return ComputationError(
            "a worker process has ended before its task",
            found=f"process {self.pid}: {how}" + (" (memory?)" if status == -signal.SIGKILL else ""),
            do="use fewer --jobs; the same command goes on from what was kept",
        )


@contextlib.contextmanager
def _signals_held() -> Iterator[Mask]:
    """The parent's signals wait for the end of the block; yields the mask that is put back."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _PARENTS)
    try:
        yield before
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(
    function: Callable[[Any], np.ndarray],
    threads: int,
    pipe: connection.Connection,
    parents: Sequence[connection.Connection],
    parent: int,
    mask: Mask,
) -> NoReturn:
    """What a worker does until its pipe ends. It never goes on with what its parent was doing."""
    status = 1
    try:
        _detach(pipe, parents, parent, mask)
        # Before any arithmetic: the threads of the parent's OpenMP pool are not here.
        torch.set_num_threads(threads)
        while True:
            task = pipe.recv()
            pipe.send(_answer(function, task))
    except (EOFError, OSError):
        status = 0  # the parent has ended, or does not wait for us
    finally:
        os._exit(status)


def _detach(
    pipe: connection.Connection,
    parents: Sequence[connection.Connection],
    parent: int,
    mask: Mask,
) -> None:
    """Signals, pipes and streams of a worker."""
    for number in _PARENTS:
        signal.signal(number, signal.SIG_IGN)
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before this
        os._exit(0)
    for other in parents:  # or no worker would see the end of its pipe
        other.close()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in {0, 1, 2} - {pipe.fileno(), nowhere}:
        os.dup2(nowhere, stream)
    sys.stdout = sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


@dataclass(frozen=True)
class _Failure:
    """An exception that can be sent.

    Attributes:
        pickled: the exception; None if it cannot be rebuilt elsewhere.
        line: it in one line.
        text: its traceback.
    """

    pickled: bytes | None
    line: str
    text: str

    def error(self) -> BaseException:
        """The exception, to be raised in another process."""
        if self.pickled is None:
            return RuntimeError(self.line)
        error: BaseException = pickle.loads(self.pickled)
        return error


def _answer(function: Callable[[Any], np.ndarray], task: Any) -> np.ndarray | _Failure:
    try:
        return function(task)
    except BaseException as error:
        text = "".join(traceback.format_exception(error))
        error = _explained(error)
        return _Failure(_pickled(error), brief(error), text)


def _explained(error: BaseException) -> BaseException:
    """What is to be said of an exception in a worker: memory that ran out always with a text."""
    if is_out_of_memory(error):
        return MemoryError(f"in a worker process: {brief(error)}")
    if isinstance(error, RuntimeError) and "fork-based multiprocessing" in str(error):
        # torch starts threads for the GPUs it sees at the first gradient, also of a model on the CPU.
        return ConfigurationError(
            "gradients cannot be taken in several processes while torch sees a GPU",
            found=brief(error),
            do="hide it (CUDA_VISIBLE_DEVICES= landscape …), or use --jobs 1",
        )
    return error


def _pickled(error: BaseException) -> bytes | None:
    """An exception pickled, if it comes out as it was: some cannot be made from their arguments again."""
    try:
        pickled = pickle.dumps(error)
        again = pickle.loads(pickled)
        same = type(again) is type(error) and str(again) == str(error)
    except Exception:
        return None
    return pickled if same else None
