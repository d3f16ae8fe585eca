"""Kill the command in the middle, run it again: the arrays are those of an undisturbed run, bit for bit."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from landscape.results import EigenResult
from tests.run.support import LONG, assert_same_bits, start, stored


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[EigenResult, float]:
    """(the result, seconds that its products took)."""
    path = tmp_path_factory.mktemp("undisturbed") / "result.h5"
    process = start(*LONG, output=path)
    _wait_for_state(path, process)
    began = time.monotonic()
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    return stored(path), time.monotonic() - began


def _wait_for_state(path: Path, process: subprocess.Popen[str]) -> None:
    """Until the run has written its first state, so that what follows strikes in mid-iteration."""
    while process.poll() is None and not list(path.parent.glob(f"{path.stem}.*.partial")):
        time.sleep(0.005)


def _kill_and_resume(path: Path, seconds: float, number: int) -> bool:
    """Whether the run was stopped in the middle and resumed."""
    process = start(*LONG, output=path)
    _wait_for_state(path, process)
    time.sleep(seconds)
    alive = process.poll() is None
    process.send_signal(number)
    process.communicate()
    if alive and number == signal.SIGINT:
        assert process.returncode == 130
    again = start(*LONG, output=path)
    _, errors = again.communicate(timeout=120)
    assert again.returncode == 0, errors
    if alive and list(path.parent.glob("*.partial")):
        raise AssertionError("the partial state of a finished run was left behind")
    return "resumed at step" in errors


def _moments(count: int, duration: float, seed: int) -> list[float]:
    """At once after the first state, and at random ones."""
    generator = random.Random(seed)
    return [0.0, *(generator.uniform(0, 0.8 * duration) for _ in range(count - 1))]


def test_kill_9_in_mid_iteration(undisturbed: tuple[EigenResult, float], tmp_path: Path) -> None:
    result, duration = undisturbed
    resumed = 0
    for i, moment in enumerate(_moments(3, duration, seed=5)):
        path = tmp_path / f"{i}.h5"
        resumed += _kill_and_resume(path, moment, signal.SIGKILL)
        assert_same_bits(stored(path), result)
    assert resumed > 0


@pytest.mark.long
def test_kill_9_at_many_moments(undisturbed: tuple[EigenResult, float], tmp_path: Path) -> None:
    result, duration = undisturbed
    resumed = 0
    for i, moment in enumerate(_moments(30, duration, seed=6)):
        path = tmp_path / f"{i}.h5"
        resumed += _kill_and_resume(path, moment, signal.SIGKILL)
        assert_same_bits(stored(path), result)
    assert resumed > 10


def test_ctrl_c_keeps_what_was_done(undisturbed: tuple[EigenResult, float], tmp_path: Path) -> None:
    result, _ = undisturbed
    path = tmp_path / "result.h5"
    assert _kill_and_resume(path, 0.1, signal.SIGINT)
    assert_same_bits(stored(path), result)


def test_a_killed_run_and_an_earlier_result_share_a_file(
    undisturbed: tuple[EigenResult, float], tmp_path: Path
) -> None:
    _, duration = undisturbed
    path = tmp_path / "result.h5"
    earlier = start("-k", "1", "--seed", "0", output=path)
    assert earlier.wait(timeout=120) == 0
    process = start(*LONG, output=path)
    _wait_for_state(path, process)
    time.sleep(duration / 3)
    process.kill()
    process.communicate()
    assert stored(path).eigenvalues.shape == (1,)
