"""Workers: the same arrays whatever their number, errors as they are, and never one left behind."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from landscape.errors import CheckpointError, ComputationError, ConfigurationError, StoreError
from landscape.machine import is_out_of_memory
from landscape.machine import threads as threads_of_torch
from landscape.slices.workers import Threads, Workers, WorkerTraceback
from landscape.store import locked

ROOT = Path(__file__).parents[2]


def _squares(task: int) -> np.ndarray:
    return np.array([task, task**2, os.getpid()], dtype=float)


def _slow(task: float) -> np.ndarray:
    time.sleep(task)
    return np.array([task])


def _surface() -> Callable[[tuple[float, ...]], np.ndarray]:
    """Loss and gradient norm of a convolutional net with BatchNorm along a random direction."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10)
    )
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0.0, 0.3, generator=generator)
    model.eval()
    centre = [p.detach().clone() for p in model.parameters()]
    direction = [torch.randn(p.shape, generator=generator) for p in centre]
    x = torch.randn(200, 1, 8, 8, generator=generator)
    y = torch.randint(0, 10, (200,), generator=generator)

    def at(coordinate: float) -> tuple[float, float]:
        for p, c, d in zip(model.parameters(), centre, direction, strict=True):
            p.data = c + coordinate * d
        loss = nn.functional.cross_entropy(model(x), y)
        gradient = torch.autograd.grad(loss, list(model.parameters()))
        return loss.item(), float(sum(g.double().square().sum() for g in gradient))

    return lambda row: np.array([at(coordinate) for coordinate in row])


ROWS = [(i / 7, i / 3, -i / 5) for i in range(7)]


def _bytes(found: Iterator[tuple[Any, np.ndarray]]) -> dict[Any, bytes]:
    return {task: array.tobytes() for task, array in found}


def _gone(pid: int) -> bool:
    """Whether a process has ended (a zombie has, too)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def _wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.002)
    return condition()


def _script(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


# The same answers


@pytest.mark.parametrize("count", [2, 3])
def test_the_arrays_are_the_same_bits_whatever_the_count(count: int) -> None:
    with threads_of_torch(1):
        row = _surface()
    with torch.random.fork_rng(), Workers(1, row) as alone:
        expected = _bytes(alone.map(ROWS))
    with Workers(count, row) as workers:
        assert len(set(workers.pids)) == count
        assert _bytes(workers.map(ROWS)) == expected
        assert _bytes(workers.map(ROWS[:2])) == {task: expected[task] for task in ROWS[:2]}
    with threads_of_torch(1), Threads([_surface() for _ in range(count)]) as threads:
        assert _bytes(threads.map(ROWS)) == expected


def test_after_the_parent_has_used_several_threads_of_openmp() -> None:
    """In a process of its own, where a wait for threads that are not there would be seen."""
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent("""
            import numpy as np, torch
            from landscape.slices.workers import Workers
            from tests.slices.test_workers import ROWS, _bytes, _surface

            torch.set_num_threads(4)
            matrix, row = torch.randn(600, 600), _surface()
            torch.linalg.svd(matrix @ matrix.T), matrix.sort(), np.linalg.svd(matrix.numpy()), row(ROWS[1])

            def heavy(task):
                vectors = torch.linalg.svd(matrix @ matrix)[0], matrix.sort()[0]
                return np.concatenate([row(task).ravel(), [float(v.sum()) for v in vectors]])

            with Workers(1, heavy) as alone:
                expected = _bytes(alone.map(ROWS[:3]))
            with Workers(2, heavy) as workers:
                assert _bytes(workers.map(ROWS[:3])) == expected
            assert torch.get_num_threads() == 4
            matrix @ matrix
            print("done")
        """)],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (run.stdout, run.stderr, run.returncode) == ("done\n", "", 0)


def test_all_workers_work_and_each_task_is_done_once() -> None:
    with Workers(3, lambda task: (_slow(0.01), _squares(task))[1]) as workers:
        found = list(workers.map(range(20)))
        assert sorted(task for task, _ in found) == list(range(20))
        assert all(array[1] == task**2 for task, array in found)
        assert {int(array[2]) for _, array in found} == set(workers.pids)


def test_one_worker_is_this_process() -> None:
    before = torch.get_num_threads()
    with Workers(1, lambda task: np.array([os.getpid(), torch.get_num_threads()]), threads=2) as workers:
        assert workers.pids == ()
        assert [array.tolist() for _, array in workers.map([0])] == [[os.getpid(), 2]]
    assert torch.get_num_threads() == before


def test_a_process_has_the_one_thread() -> None:
    with Workers(2, lambda task: np.array([torch.get_num_threads()])) as workers:
        assert [array.tolist() for _, array in workers.map(range(2))] == [[1], [1]]


def test_several_processes_of_several_threads_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"(?s)--jobs 3 with 2 threads.*--threads 1"):
        Workers(3, _squares, threads=2)


@pytest.mark.parametrize("kind", ["one", "processes", "threads"])
def test_tasks_are_taken_as_workers_are_free(kind: str) -> None:
    pools: dict[str, Any] = {
        "one": Workers(1, _squares),
        "processes": Workers(2, _squares),
        "threads": Threads([_squares] * 2),
    }
    taken: list[int] = []

    def tasks() -> Iterator[int]:
        for task in range(10):
            taken.append(task)
            yield task

    with pools[kind] as pool:
        assert taken == []
        for number, _ in enumerate(pool.map(tasks()), start=1):
            assert number <= len(taken) <= number + 2
        assert list(pool.map([])) == []
    with pytest.raises(ValueError, match="have ended"):
        next(pool.map([1]))


def test_answers_come_as_they_are_done() -> None:
    with Workers(2, _slow) as workers:
        assert [task for task, _ in workers.map([0.5, 0.0, 0.01])] == [0.0, 0.01, 0.5]


def test_large_arrays_and_odd_numbers_arrive_as_they_are() -> None:
    odd = np.array([np.nan, np.inf, -np.inf, -0.0, 5e-324])
    with Workers(2, lambda size: np.resize(odd, size)) as workers:
        for size, array in workers.map([(3,), (1000, 1000)]):
            assert array.tobytes() == np.resize(odd, size).tobytes()


# Errors


class _Odd(Exception):
    """Cannot be made again from its arguments."""

    def __init__(self, one: int, other: int) -> None:
        super().__init__(f"{one} and {other}")


def _raising(error: BaseException) -> Callable[[int], np.ndarray]:
    def function(task: int) -> np.ndarray:
        raise error

    return function


def _raised(error: BaseException, pool: str = "processes") -> BaseException:
    """What the parent gets of an exception; in either case no worker is left."""
    pools: dict[str, Any] = {
        "processes": Workers(2, _raising(error)),
        "threads": Threads([_raising(error)] * 2),
    }
    with pools[pool] as workers:
        pids = getattr(workers, "pids", ())
        raised: BaseException | None = None
        try:
            list(workers.map(range(5)))
        except BaseException as one:
            raised = one
        assert raised is not None, "nothing was raised"
        assert all(map(_gone, pids))
        with pytest.raises(ValueError, match="have ended"):
            next(workers.map([1]))
    return raised


def test_an_error_of_ours_arrives_whole() -> None:
    error = CheckpointError("the metric failed", found="shape (3,)", do="return a mean")
    for pool in ("processes", "threads"):
        again = _raised(error, pool)
        assert isinstance(again, CheckpointError)
        assert (again.what, again.found, again.do) == (error.what, error.found, error.do)
        assert (str(again), again.exit_code) == (str(error), 2)
    assert (
        ComputationError.exit_code == getattr(_raised(ComputationError("not finite")), "exit_code", None) == 3
    )


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_memory_that_ran_out_is_recognised(error: BaseException) -> None:
    again = _raised(error)
    assert is_out_of_memory(again)
    assert type(error).__name__ in str(again)


def test_memory_that_did_run_out() -> None:
    def function(task: int) -> np.ndarray:
        return torch.empty(1 << 55, dtype=torch.float64).numpy()

    with Workers(2, function) as workers, pytest.raises(MemoryError, match="in a worker process"):
        next(workers.map(range(2)))


def test_another_exception_brings_its_traceback() -> None:
    again = _raised(KeyError("colour"))
    assert isinstance(again, KeyError)
    assert again.args == ("colour",)
    assert isinstance(again.__cause__, WorkerTraceback)
    assert "in function" in str(again.__cause__)
    assert "raise error" in str(again.__cause__)


@pytest.mark.parametrize("error", [_Odd(1, 2), ValueError(threading.Lock())])
def test_an_exception_that_cannot_travel_is_described(error: BaseException) -> None:
    again = _raised(error)
    assert type(again) is RuntimeError
    assert str(again).startswith(f"{type(error).__name__}: {error}")
    assert isinstance(again.__cause__, WorkerTraceback)


def test_an_exit_in_a_worker_is_the_parents() -> None:
    again = _raised(SystemExit(7))
    assert isinstance(again, SystemExit)
    assert again.code == 7


def test_gradients_beside_the_threads_of_a_gpu() -> None:
    text = "Unable to handle autograd's threading in combination with fork-based multiprocessing."
    again = _raised(RuntimeError(text))
    assert isinstance(again, ConfigurationError)
    assert "CUDA_VISIBLE_DEVICES=" in again.do


def test_tasks_that_fail_end_the_workers() -> None:
    def tasks() -> Iterator[int]:
        yield 1
        raise LookupError("no more")

    for pool in (Workers(2, _squares), Threads([_squares] * 2)):
        with pool, pytest.raises(LookupError, match="no more"):
            list(pool.map(tasks()))


def test_a_killed_worker_is_said() -> None:
    generator = random.Random(1)
    for moment in (0.0, *(generator.uniform(0.0, 0.1) for _ in range(4))):
        with Workers(2, _slow) as workers:
            victim, other = workers.pids
            timer = threading.Timer(moment, os.kill, (victim, signal.SIGKILL))
            timer.start()
            with pytest.raises(ComputationError, match=r"(?s)signal 9.*fewer --jobs") as caught:
                list(workers.map([0.02] * 1000))
            assert str(victim) in caught.value.found
            assert _gone(victim)
            assert _gone(other)


def test_a_worker_that_ends_itself_is_said() -> None:
    def function(task: int) -> np.ndarray:
        os._exit(5)

    with Workers(2, function) as workers, pytest.raises(ComputationError, match="exit status 5"):
        list(workers.map(range(3)))


def test_processes_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    fork, pids = os.fork, []

    def few() -> int:
        if len(pids) == 2:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        pids.append(fork())
        return pids[-1]

    monkeypatch.setattr(os, "fork", few)
    with pytest.raises(ComputationError, match=r"(?s)cannot start 4.*fewer --jobs"), Workers(4, _squares):
        pass
    assert len(pids) == 2
    assert all(map(_gone, pids))


# The end


@pytest.mark.parametrize("how", ["close", "exception", "never mapped", "idle"])
def test_the_end_of_the_context_ends_the_workers(how: str) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    with contextlib.suppress(KeyError), Workers(3, _slow) as workers:
        pids = workers.pids
        assert not any(map(_gone, pids))
        if how == "idle":
            assert len(list(workers.map([0.0] * 3))) == 3
        if how in ("close", "exception"):
            answers: Any = workers.map([0.0, 60.0, 60.0, 60.0, 60.0])
            next(answers)
        began = time.monotonic()
        if how == "close":
            answers.close()
            assert all(map(_gone, pids))
        if how == "exception":
            raise KeyError
    assert all(map(_gone, pids))
    assert time.monotonic() - began < 1.0
    with pytest.raises(ChildProcessError):
        os.waitpid(pids[0], os.WNOHANG)
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_threads_end_after_their_tasks() -> None:
    done: list[float] = []

    def function(task: float) -> np.ndarray:
        time.sleep(task)
        done.append(task)
        return np.zeros(1)

    with Threads([function] * 2) as threads:
        answers: Any = threads.map([0.0, 0.3, 0.2, 0.1, 0.1])
        next(answers)
        answers.close()
        assert set(done) - {0.2} == {0.0, 0.3}, "what was begun is finished, nothing else is begun"
        ended = list(done)
        time.sleep(0.2)
        assert done == ended
    assert not [one for one in threading.enumerate() if one.name.startswith("landscape")]


BUSY = """
    import os, sys, time
    import numpy as np
    from landscape.slices.workers import Workers
    from landscape.store import locked

    def function(task):
        deadline = time.monotonic() + task
        while time.monotonic() < deadline:
            pass
        return np.zeros(1)

    with locked(sys.argv[2], 1.0), Workers(3, function) as workers:
        answers = workers.map([0.0, 60.0, 60.0, 60.0])
        next(answers)
        print(*workers.pids, flush=True)
        if sys.argv[1] == "exit":
            os._exit(0)
        time.sleep(60)
"""


def _end_of_the_parent(how: str, path: Path) -> None:
    with _script(BUSY, how, path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == 3
        if how == "kill":
            process.kill()
        process.wait(10)
        with locked(path, 0.0):  # at once, though workers that free their memory are still there
            pass
        assert _wait_until(lambda: all(map(_gone, pids))), "a worker was left behind"
        assert process.stdout.read() == process.stderr.read() == ""


@pytest.mark.parametrize("how", ["exit", "kill"])
def test_workers_end_with_their_parent(how: str, tmp_path: Path) -> None:
    _end_of_the_parent(how, tmp_path / "result.h5")


@pytest.mark.long
def test_workers_always_end_with_their_parent(tmp_path: Path) -> None:
    for _ in range(30):
        _end_of_the_parent("kill", tmp_path / "result.h5")


# What is the parent's


def test_the_parents_lock_stays_its_own(tmp_path: Path) -> None:
    """A flock belongs to the open file that parent and workers share: neither's closing gives it back."""
    path = tmp_path / "result.h5"
    with locked(path, 1.0):
        with Workers(2, _slow) as workers:
            os.kill(workers.pids[0], signal.SIGKILL)
            _wait_until(lambda: _gone(workers.pids[0]))
            with pytest.raises(StoreError, match=f"process {os.getpid()}"), locked(path, 0.0):
                pass
        with pytest.raises(StoreError, match=f"process {os.getpid()}"), locked(path, 0.0):
            pass
    with locked(path, 0.0):
        pass


def test_signals_of_the_group_are_left_to_the_parent() -> None:
    with Workers(2, _slow) as workers:
        answers = workers.map([0.2, 0.2, 0.0])
        for pid in workers.pids:
            for number in (signal.SIGINT, signal.SIGTERM):
                os.kill(pid, number)
        assert len(list(answers)) == 3


def test_ctrl_c_in_a_terminal_lets_the_rows_end() -> None:
    code = """
        import os, signal, time
        import numpy as np
        from landscape.slices.workers import Workers
        from tests.slices.test_workers import _slow

        asked = []
        signal.signal(signal.SIGINT, lambda *_: asked.append(1))
        with Workers(2, _slow) as workers:
            for number, _ in enumerate(workers.map([0.5] * 1000), start=1):
                if number == 1:
                    print("ready", flush=True)
                if asked:
                    break
        print(number, flush=True)
    """
    with _script(code) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.killpg(process.pid, signal.SIGINT)
        out, errors = process.communicate(timeout=30)
    assert out in ("1\n", "2\n", "3\n"), "one more row of each worker at most"
    assert (errors, process.returncode) == ("", 0)


def test_handlers_mask_and_streams_are_as_before(capfd: pytest.CaptureFixture[str]) -> None:
    def function(task: int) -> np.ndarray:
        print("printed")
        print("printed", file=sys.stderr)
        warnings.simplefilter("always")
        warnings.warn("warned", stacklevel=1)
        os.write(1, b"written")
        os.write(2, b"written")
        return np.zeros(1)

    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    print("before", end="")  # in the buffer at the fork
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Workers(2, function) as workers:
            assert len(list(workers.map(range(4)))) == 4
    assert capfd.readouterr() == ("before", "")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == mask


def test_workers_of_a_thread_that_is_not_the_main_one() -> None:
    found: list[float] = []

    def work() -> None:
        with Workers(2, _squares) as workers:
            found.extend(float(array[1]) for _, array in workers.map(range(4)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(30)
    assert sorted(found) == [0.0, 1.0, 4.0, 9.0]


def test_the_workers_functions_are_of_the_moment_of_entry() -> None:
    state = {"factor": 2}

    def function(task: int) -> np.ndarray:
        state["factor"] += 1
        return np.array([task * state["factor"]])

    with Workers(2, function) as workers:
        state["factor"] = 100
        assert sorted(float(array[0]) for _, array in workers.map([1, 1])) == [3.0, 3.0]
    assert state["factor"] == 100
