"""Kill ``landscape slice`` in the middle, run it again: the arrays of an undisturbed run, bit for bit.

One process has everything imported and forks for each run, so that a run takes as long as its work.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from landscape.results import SliceResult
from landscape.store import PartialFile, ResultFile
from tests.run.support import DIGITS, assert_same_bits

FORKS = """
import json, os, sys
import torch
import landscape.api, landscape.run, landscape.analyses.slice_work, landscape.analyses.slice_result
import landscape_cli.app, landscape_cli.views.slice
import sklearn.datasets

while line := sys.stdin.readline():
    arguments, errors = json.loads(line)
    pid = os.fork()
    if pid == 0:
        os.setsid()
        for stream, file in enumerate((os.devnull, os.devnull, errors)):
            os.dup2(os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666), stream)
        code = 70
        try:
            sys.argv = ["landscape", "slice", *arguments]
            landscape_cli.app.main()
        except SystemExit as end:
            code = end.code or 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    print(pid, flush=True)
    sys.stdin.readline()  # until then the number stays the run's, also when it has ended
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""

#: Pieces that are not chosen by the clock.
COMMON = ("--seed", "3", "--batch-size", "300")

CASES = {
    "plane": ("--range=-1:1:25",),
    "line": ("--along", "random", "--range=-1:1.5:301"),
    "refine": ("--refine", "--range=-1:1:33"),
    "jobs": ("--jobs", "2", "--range=-1:0.5:31", "--range=-1:1:17"),
    "auto": ("--along", "gradient", "--along", "random", "--range=auto:21"),
}
#: And those of which a part follows the grid.
MORE = {
    "between": ("--along", "to:mlp-sam.pt", "--range=-0.5:1.5:201"),
    "trajectory": ("--along", "pca", "--along", "pca", "--trajectory", "runs/mlp-sgd-*.pt", "--jobs", "2"),
}


class Forks:
    """Runs of the command, one at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._undisturbed: dict[str, SliceResult] = {}
        self._process = subprocess.Popen(
            [sys.executable, "-c", FORKS],
            cwd=DIGITS,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def start(self, case: str, path: Path) -> Run:
        path.parent.mkdir(exist_ok=True)
        errors = path.with_suffix(".txt")
        errors.write_text("")
        arguments = ["mlp-sgd.pt", *(CASES | MORE)[case], *COMMON, "-o", str(path)]
        return Run(self.say([arguments, str(errors)]), path, self)

    def say(self, request: object) -> int:
        """The number that is answered: of the process that was started, or its exit status."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate(timeout=60)

    def undisturbed(self, case: str) -> SliceResult:
        """What the case comes to."""
        if case not in self._undisturbed:
            run = self.start(case, self.folder / case / "result.h5")
            assert run.wait() == 0, run.errors
            self._undisturbed[case] = run.result
        return self._undisturbed[case]


@dataclass(frozen=True)
class Run:
    """The command, running or at its end."""

    pid: int
    path: Path
    forks: Forks

    def wait(self) -> int:
        """Its exit status; nothing of its session is left."""
        code = self.forks.say("wait")
        deadline = time.monotonic() + 5
        while (left := _session(self.pid)) and time.monotonic() < deadline:
            time.sleep(0.001)
        assert not left, "a worker was left behind"
        return code

    @property
    def errors(self) -> str:
        return self.path.with_suffix(".txt").read_text()

    @property
    def result(self) -> SliceResult:
        """The only run in the file."""
        file = ResultFile(self.path)
        (header,) = file.runs()
        found = file.read(header.id)
        assert isinstance(found, SliceResult)
        return found

    @property
    def partial(self) -> Path | None:
        return next(iter(self.path.parent.glob(f"{self.path.stem}.*.partial")), None)

    @property
    def done(self) -> int:
        """Points that are kept; -1 before the first state."""
        partial = self.partial
        found = None if partial is None else PartialFile(partial).read()
        return -1 if found is None else int(found[2].get("done", 0))

    def wait_for(self, done: int) -> None:
        """Until so many points are kept, or it has ended."""
        while _alive(self.pid) and self.done < done:
            time.sleep(0.001)


def _stat(pid: int) -> list[str]:
    """State, parent, group, session … of a process; empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _alive(pid: int) -> bool:
    return (_stat(pid) or "Z")[0] != "Z"


def _session(pid: int) -> list[int]:
    """The processes of a run: those of its session that have not ended."""
    every = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    return [one for one in every if (stat := _stat(one)) and stat[3] == str(pid) and stat[0] not in "ZX"]


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    found = Forks(tmp_path_factory.mktemp("undisturbed"))
    yield found
    found.close()


def _kill(run: Run, generator: random.Random, points: int) -> None:
    """At a random moment, given by what is kept and some milliseconds more."""
    run.wait_for(generator.randrange(points - points // 10))
    time.sleep(generator.uniform(0.0, 0.02))
    os.kill(run.pid, signal.SIGKILL)


def _killed(forks: Forks, case: str, path: Path, seed: int, kills: int = 1) -> int:
    """How many times the run was resumed until it had ended as if undisturbed."""
    result = forks.undisturbed(case)
    generator, resumed = random.Random(seed), 0
    for _ in range(kills):
        run = forks.start(case, path)
        _kill(run, generator, int(result.evaluated.sum()))
        assert run.wait() in (0, -signal.SIGKILL), run.errors
        resumed += "resumed at step" in run.errors
    run = forks.start(case, path)
    assert run.wait() == 0, run.errors
    assert run.partial is None, "the state of a finished run was left behind"
    assert_same_bits(run.result, result)
    return resumed + ("resumed at step" in run.errors)


@pytest.mark.parametrize("case", CASES)
def test_kill_9_in_mid_grid(forks: Forks, case: str, tmp_path: Path) -> None:
    assert _killed(forks, case, tmp_path / "result.h5", seed=1) == 1


@pytest.mark.long
@pytest.mark.parametrize("case", [*CASES, *MORE])
def test_kill_9_at_many_moments(forks: Forks, case: str, tmp_path: Path) -> None:
    resumed = [_killed(forks, case, tmp_path / f"{seed}" / "result.h5", seed) for seed in range(2, 32)]
    assert sum(resumed) > 20
    assert _killed(forks, case, tmp_path / "again" / "result.h5", 1, kills=5) > 2


@pytest.mark.parametrize(
    ("case", "number"),
    [
        ("jobs", signal.SIGINT),
        *(
            pytest.param(*one, marks=pytest.mark.long)
            for one in (("jobs", signal.SIGTERM), ("plane", signal.SIGINT))
        ),
    ],
)
def test_a_signal_to_the_group_keeps_all_rows(forks: Forks, case: str, number: int, tmp_path: Path) -> None:
    result = forks.undisturbed(case)
    run = forks.start(case, tmp_path / "result.h5")
    run.wait_for(40)
    before = run.done
    os.killpg(run.pid, number)
    assert run.wait() == 130, run.errors
    assert run.errors.count("Traceback") == 0
    kept = run.done
    assert before <= kept < result.evaluated.sum()
    again = forks.start(case, run.path)
    assert again.wait() == 0, again.errors
    assert f"resumed at step {kept}" in again.errors
    assert_same_bits(again.result, result)


def test_a_second_ctrl_c_stops_at_once(forks: Forks, tmp_path: Path) -> None:
    result = forks.undisturbed("jobs")
    run = forks.start("jobs", tmp_path / "result.h5")
    run.wait_for(40)
    for _ in range(2):
        os.killpg(run.pid, signal.SIGINT)
        time.sleep(0.001)
    assert run.wait() == 130, run.errors
    again = forks.start("jobs", run.path)
    assert again.wait() == 0, again.errors
    assert_same_bits(again.result, result)


def test_a_killed_worker_loses_no_row_that_was_kept(forks: Forks, tmp_path: Path) -> None:
    result = forks.undisturbed("jobs")
    run = forks.start("jobs", tmp_path / "result.h5")
    run.wait_for(40)
    before, workers = run.done, [pid for pid in _session(run.pid) if pid != run.pid]
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    assert run.wait() == 3
    assert "fewer --jobs" in run.errors
    assert run.done >= before
    again = forks.start("jobs", run.path)
    assert again.wait() == 0, again.errors
    assert "resumed at step" in again.errors
    assert_same_bits(again.result, result)
