"""Sixty checkpoints, killed at random moments and started again: as if nothing had happened, bit for bit."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from landscape.store import ResultFile, holds_vectors
from tests.batches.processes import Started, start
from tests.batches.support import assert_same_results, stored
from tests.run.support import DIGITS

COUNT = 60
ARGUMENTS = (
    *("runs/*.pt", "--run", "eigen,trace,ratios", "--config", str(DIGITS / "landscape.toml")),
    *("--samples", "200", "--batch-size", "100", "--seed", "0", "--threads", "1"),
    *("--set", "trace.max_products=8", "--set", "eigen.tol=0.01", "--set", "ratios.masks=false"),
)


def train(folder: Path) -> None:
    """A checkpoint of each epoch."""
    epochs = [str(epoch + 1) for epoch in range(COUNT)]
    line = [sys.executable, "train.py", "--epochs", epochs[-1], "--out", str(folder), "--save-at", *epochs]
    subprocess.run(line, cwd=DIGITS, check=True, capture_output=True)
    assert len(list(folder.iterdir())) == COUNT


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """(a folder with a checkpoint of each epoch in ``runs/``, seconds of an undisturbed batch on them)."""
    folder = tmp_path_factory.mktemp("digits")
    train(folder / "runs")
    batch = start(folder, *ARGUMENTS, "-o", "undisturbed")
    batch.wait(lambda: list(folder.glob("undisturbed/*.h5")))
    began = time.monotonic()
    _, errors = batch.ended(4)  # the trace is not as accurate as by default
    assert "failed" not in errors
    assert len(stored(folder / "undisturbed")) == 3 * COUNT
    return folder, time.monotonic() - began


def assert_readable(output: Path) -> int:
    """Each file opens, each run in it reads; how many there are."""
    count = 0
    for path in output.glob("*.h5"):
        if not holds_vectors(path):
            for header in ResultFile(path).runs():
                assert ResultFile(path).read(header.id).kind == header.kind
                count += 1
    return count


def killed(batch: Started, output: Path, seconds: float) -> bool:
    """Kill the parent so many seconds after its work has begun; whether it was still at it."""
    known = set(output.glob("*"))
    while batch.process.poll() is None and set(output.glob("*")) <= known:
        time.sleep(0.005)
    time.sleep(seconds)
    alive = batch.process.poll() is None
    batch.process.kill()
    batch.process.communicate()
    batch.assert_nobody_is_left()
    return alive


def kill_often(project: tuple[Path, float], output: Path, kills: int, jobs: int, seed: int) -> None:
    """So many kills at random moments, spread over the work; then the rest, undisturbed."""
    folder, seconds = project
    generator, done = random.Random(seed), 0
    line = (*ARGUMENTS, "--jobs", str(jobs), "-o", str(output))
    for _ in range(kills):
        moment = generator.uniform(0, 1.5 * seconds / (kills + 1))
        assert killed(start(folder, *line), output, moment), f"{done} of {3 * COUNT} were done"
        now = assert_readable(output)
        assert now >= done, "what was stored is lost"
        done = now
    assert done < 3 * COUNT
    start(folder, *line).ended(4)
    assert_same_results(output, folder / "undisturbed")


def test_five_kills(project: tuple[Path, float], tmp_path: Path) -> None:
    kill_often(project, tmp_path / "r", kills=5, jobs=1, seed=1)


@pytest.mark.long
@pytest.mark.parametrize("jobs", [1, 2])
def test_fifty_kills(project: tuple[Path, float], tmp_path: Path, jobs: int) -> None:
    kill_often(project, tmp_path / "r", kills=50, jobs=jobs, seed=2)
