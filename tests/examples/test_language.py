"""The language example: its script trains with the Hugging Face Trainer, its README's commands run on it."""

from __future__ import annotations

import itertools
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import landscape

EXAMPLE = Path(__file__).parents[2] / "examples" / "language"
README = (EXAMPLE / "README.md").read_text()
COMMAND = Path(sys.executable).with_name("landscape")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example, its script run as the README says, without a network to ask."""
    target = Path(shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("examples") / "language"))
    run(target, sys.executable, "make.py")
    return target


def run(folder: Path, *words: str) -> str:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        words, cwd=folder, capture_output=True, text=True, timeout=240, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def commands() -> list[list[str]]:
    lines = README.splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith("landscape ")]


def test_the_script_gives_a_run_of_directories(folder: Path) -> None:
    found = {path.name: landscape.load_checkpoint(path) for path in (folder / "runs").iterdir()}
    assert {c.step for c in found.values()} == set(range(25, 201, 25))
    assert all(name == f"checkpoint-{c.step}" for name, c in found.items())
    last = found["checkpoint-200"]
    assert (last.epoch, last.metadata["learning_rate"]) == (20, 0.01)
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 1_000_000


def test_the_loss_is_the_library_s_over_all_sentences(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    checkpoint = folder / "runs" / "checkpoint-200"
    problem = landscape.load_problem(checkpoint=checkpoint)
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, local_files_only=True).eval()
    with np.load(folder / "tokens.npz") as file:
        x, mask = (torch.from_numpy(file[name]).long() for name in ("x", "attention_mask"))
    with torch.no_grad():
        own = model(input_ids=x, attention_mask=mask, labels=x.masked_fill(mask == 0, -100)).loss
    assert problem.measure().loss == pytest.approx(own.item(), rel=1e-6)
    assert problem.terms == int((mask.sum(1) - 1).sum())


def test_the_sentences_are_what_the_script_says() -> None:
    make: dict[str, Any] = runpy.run_path(str(EXAMPLE / "make.py"))
    tokens, mask = make["sentences"](300, 3)
    assert np.array_equal(tokens, make["sentences"](300, 3)[0])
    assert (mask == (tokens != make["PAD"])).all()
    for row, seen in zip(tokens, mask, strict=True):
        words = row[: seen.sum()]
        assert (words[0], words[-1], (words == make["END"]).sum()) == (make["BEGIN"], make["END"], 1)
        pairs = itertools.pairwise(words[1:-1])
        assert all((b - 3 - 2 * a) % (make["WORDS"] - 3) in (0, 1) for a, b in pairs)
    assert len(set(mask.sum(1))) > 5, "ragged, so that padding is tested"


@pytest.mark.parametrize("words", [c for c in commands() if c[1] in ("inspect", "eigen")], ids=" ".join)
def test_the_first_commands_of_the_readme_run(folder: Path, words: list[str]) -> None:
    assert run(folder, str(COMMAND), *words[1:]).strip()


@pytest.mark.long
@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_the_commands_of_the_readme_run(folder: Path, words: list[str]) -> None:
    assert run(folder, str(COMMAND), *words[1:]).strip()


def test_the_figures_of_the_readme_are_measured(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its table, up to the rounding that other machines train with."""
    rows = re.findall(r"^\| `checkpoint-(\d+)` \| ([\d.]+) \| ([\d.]+) ± [\d.]+ \|", README, re.MULTILINE)
    assert len(rows) == 4
    monkeypatch.chdir(folder)
    for step, loss, value in rows:
        found = landscape.eigen(landscape.load_problem(checkpoint=f"runs/checkpoint-{step}"), k=1, seed=0)
        assert found.loss == pytest.approx(float(loss), rel=0.02)
        assert found.eigenvalues[0] == pytest.approx(float(value), rel=0.1)
