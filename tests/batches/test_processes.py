"""Several processes on one folder: the same bits, whoever is killed, interrupted or there as well."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from landscape.batches import BatchPlan, run_batch
from landscape.errors import ComputationError, StoreError
from tests.batches.processes import start
from tests.batches.support import (
    assert_same_results,
    carried_out,
    names,
    planned,
    stored,
    write_project,
)

COUNT = 6  # two chains of three
OPTIONS = ("runs/*.pt", "--run", "eigen,ratios", "--seed", "0", "--threads", "1")

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/environ").exists(), reason="looks for processes in /proc"
)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the results of an undisturbed batch in ``undisturbed/``."""
    folder = tmp_path_factory.mktemp("project")
    write_project(folder, COUNT)
    again(folder, folder / "undisturbed")
    return folder


def again(project: Path, output: Path) -> dict[tuple[str, str], str]:
    """The same batch by one worker in this process; what came of each analysis."""
    plan = planned(project, problem={"threads": 1}, run=("eigen", "ratios"), output=str(output))
    return carried_out(plan).outcomes()


def at_work(output: Path, seconds: float = 0.0) -> bool:
    """Whether a search has begun that can be interrupted."""
    time.sleep(seconds)
    return any(path.name.endswith(".partial") for path in output.glob("*"))


def same_as_undisturbed(project: Path, output: Path) -> None:
    assert_same_results(output, project / "undisturbed")


def test_two_jobs_give_the_bits_of_one(project: Path, tmp_path: Path) -> None:
    out, errors = start(project, *OPTIONS, "--jobs", "2", "--threads", "2", "-o", str(tmp_path / "r")).ended()
    assert out.startswith(f"{2 * COUNT} computed")
    assert "failed" not in errors
    same_as_undisturbed(project, tmp_path / "r")


def test_a_killed_worker_is_said_and_replaced(project: Path, tmp_path: Path) -> None:
    output = tmp_path / "r"
    batch = start(project, *OPTIONS, "-o", str(output), SLOW="0.002")
    batch.wait(lambda: at_work(output))
    (worker,) = batch.workers
    os.kill(worker, signal.SIGKILL)
    out, errors = batch.ended(3)
    assert out.startswith(f"{2 * COUNT - 1} computed")
    assert "1 failed" in out
    assert errors.count("net-step5.pt eigen: failed: its process ended") == 1
    assert "failed: net-step5.pt (eigen)\nits process ended\nfound: signal 9" in errors
    outcomes = again(project, output)
    assert outcomes.pop(("net-step5.pt", "eigen")) == "computed"
    assert set(outcomes.values()) == {"found"}
    assert stored(output).keys() == stored(project / "undisturbed").keys()
    assert names(output) == names(project / "undisturbed")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_batch_goes_on_bit_for_bit(project: Path, tmp_path: Path, number: int) -> None:
    output = tmp_path / "r"
    batch = start(project, *OPTIONS, "-o", str(output), SLOW="0.002")
    batch.wait(lambda: at_work(output))
    batch.process.send_signal(number)
    out, _ = batch.ended(130)
    assert "interrupted: the same command goes on from here" in out
    assert at_work(output), "what was done is kept"
    assert "computed" in again(project, output).values()
    same_as_undisturbed(project, output)


def test_a_second_signal_ends_it_at_once(project: Path, tmp_path: Path) -> None:
    """Each forward pass takes a second: the first signal would wait for the end of a step of many."""
    output = tmp_path / "r"
    batch = start(project, *OPTIONS, "-o", str(output), SLOW="1")
    batch.wait(lambda: any(path.name.endswith(".partial.lock") for path in output.glob("*")))
    time.sleep(0.5)
    batch.process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert batch.process.poll() is None
    began = time.monotonic()
    batch.process.send_signal(signal.SIGINT)
    batch.ended(130)
    assert time.monotonic() - began < 3


def test_a_time_limit(project: Path, tmp_path: Path) -> None:
    output = tmp_path / "r"
    out, _ = start(project, *OPTIONS, "-o", str(output), "--time-limit", "0.1").ended(4)
    assert "time limit: the same command goes on from here" in out
    assert set(again(project, output).values()) == {"computed"}
    same_as_undisturbed(project, output)


def test_workers_end_with_a_parent_that_is_killed(project: Path, tmp_path: Path) -> None:
    output = tmp_path / "r"
    batch = start(project, *OPTIONS, "--jobs", "2", "-o", str(output), SLOW="0.02")
    batch.wait(lambda: at_work(output) and len(batch.workers) == 2)
    batch.process.kill()
    batch.process.communicate()
    batch.assert_nobody_is_left()
    again(project, output)
    same_as_undisturbed(project, output)


def test_several_batches_and_shares_at_once(project: Path, tmp_path: Path) -> None:
    """One whole batch, and two shares of the same in other processes: all is done, none of it twice."""
    output = tmp_path / "r"
    shares = [(), ("--shard", "1/2"), ("--shard", "2/2")]
    batches = [start(project, *OPTIONS, *share, "-o", str(output), SLOW="0.001") for share in shares]
    computed = 0
    for batch in batches:
        out, errors = batch.ended()
        assert "failed" not in errors
        computed += int(out.split(" computed")[0])
    assert computed == 2 * COUNT
    assert set(again(project, output).values()) == {"found"}
    same_as_undisturbed(project, output)


def test_no_room_for_a_file(project: Path, tmp_path: Path) -> None:
    output = tmp_path / "r"
    _, errors = start(project, *OPTIONS, "-o", str(output), small_files=True).ended(2)
    assert "cannot write" in errors
    assert "-o F" in errors
    assert "Traceback" not in errors
    assert not [name for name in names(output) if name.endswith(("h5", "lock", "tmp"))]
    again(project, output)
    same_as_undisturbed(project, output)


@pytest.mark.parametrize("where", ["a file/in/between", "/proc/nowhere"])
def test_a_folder_that_cannot_be(project: Path, tmp_path: Path, where: str) -> None:
    (tmp_path / "a file").write_text("")
    assert_refused(planned(project, output=str(tmp_path / where)))


def test_a_folder_that_is_read_only(project: Path, tmp_path: Path) -> None:
    plan = planned(project, output=str(tmp_path))
    tmp_path.chmod(0o555)
    root = os.geteuid() == 0
    try:
        if root:  # who may write anywhere
            os.seteuid(65534)
        assert_refused(plan)
    finally:
        if root:
            os.seteuid(0)
        tmp_path.chmod(0o755)


def assert_refused(plan: BatchPlan) -> None:
    """One error of a few lines, before anything begins."""
    with pytest.raises(StoreError, match="cannot write") as caught:
        run_batch(plan)
    assert caught.value.exit_code == 2
    assert 1 <= len(str(caught.value).splitlines()) <= 5


def test_workers_that_end_before_they_begin(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("landscape.batches.pool._WORKER", "raise SystemExit(7)")
    with pytest.raises(ComputationError, match=r"(?s)before they have begun.*exit status 7"):
        run_batch(planned(project, output=str(project / "never")))
