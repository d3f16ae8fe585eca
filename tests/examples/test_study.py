"""The study of the digits example: its script runs, finds its work done, and shows what the README says."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import landscape
from landscape.results import EigenResult

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example in which the script has run."""
    folder = Path(shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("study") / "digits"))
    assert "16 computed, 0 were there already" in _run(folder)
    return folder


def _run(folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "study.py"], cwd=folder, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_short() -> None:
    assert len((EXAMPLE / "study.py").read_text().splitlines()) < 40


def test_a_second_time_everything_is_there_already(folder: Path) -> None:
    said = _run(folder)
    assert "0 computed, 16 were there already" in said
    assert said.count("λmax") == 8
    assert (folder / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_sam_is_flatter_at_every_checkpoint(folder: Path) -> None:
    found: dict[str, dict[int | None, float]] = {}
    runs = landscape.open(folder / "study").where(kind="eigen")
    assert len(runs) == 8
    for run in runs:
        result = run.read()
        assert isinstance(result, EigenResult)
        found.setdefault(run.training, {})[run.header.checkpoint_step] = result.lambda_max
    sgd, sam = found["mlp-sgd"], found["mlp-sam"]
    assert sgd.keys() == sam.keys()
    assert all(sam[step] < sgd[step] for step in sgd)


def test_starts_from_a_neighbour_are_recorded(folder: Path) -> None:
    results = [run.read() for run in landscape.open(folder / "study").where(kind="eigen")]
    warm = [result.warm for result in results if isinstance(result, EigenResult)]
    assert warm == [False, True] * 4  # two chains of each run
