"""``landscape noise`` on the command line, and how its results are said."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from landscape.analyses.noise import Settings
from landscape.problem import Problem
from landscape.results import NoiseResult
from landscape.run import RunSettings, execute
from landscape_cli.console import Console
from landscape_cli.views import print_result
from tests.cli.support import call
from tests.run.support import small_problem
from tests.support.models import mlp


@functools.cache
def measured(problem: Problem | None = None, **options: Any) -> NoiseResult:
    problem = problem or small_problem()
    settings = Settings(**{"k": 3, "tol": 0.1, "draws": 2, **options})
    result = execute("noise", problem, settings, RunSettings(seed=1), store=False)
    assert isinstance(result, NoiseResult)
    return result


def said(capsys: pytest.CaptureFixture[str], result: NoiseResult) -> str:
    capsys.readouterr()
    print_result(Console("noise"), result)
    return capsys.readouterr().out


def test_every_figure_is_said_with_its_error(capsys: pytest.CaptureFixture[str]) -> None:
    result = measured()
    text = said(capsys, result)
    rows = [line for line in text.splitlines() if line.startswith(("gauss-newton  ", "hessian  "))]
    assert len(rows) == 4
    for words in ("share in top 3", "by chance 5.9 %", "Tr C =", "noise scale", "loss-scaled", "McCandlish"):
        assert words in text
    assert "nan" not in text.lower()
    assert f"{result.cosines[0]:.2f}" in rows[0]


def test_what_is_not_defined_is_said_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    same = Problem(mlp(4, 3), "cross_entropy", (torch.ones(7, 4), torch.ones(7, dtype=torch.int64)))
    text = said(capsys, measured(problem=same))
    assert "no noise: the gradients of all examples are the same" in text
    assert "nan" not in text.lower()


@pytest.mark.parametrize("empty", ["cosines", "shares", "diagonal_correlations", "noise_trace"])
def test_figures_that_are_not_known_are_dashes(capsys: pytest.CaptureFixture[str], empty: str) -> None:
    result = measured()
    nothing: Any = np.nan if empty == "noise_trace" else np.array([np.nan, getattr(result, empty)[1]])
    text = said(capsys, dataclasses.replace(result, **{empty: nothing}))
    assert "nan" not in text.lower()
    assert "—" in text or empty == "noise_trace"


def test_a_space_that_is_not_told_apart_has_no_share(capsys: pytest.CaptureFixture[str]) -> None:
    result = dataclasses.replace(measured(), share_space_errors=np.array([1.0, 0.01]))
    assert "eigenvectors of gauss-newton are not told from the next one" in said(capsys, result)


def test_json_is_one_object_without_nan() -> None:
    fields = json.loads(json.dumps(measured(against="hessian").to_json(), allow_nan=False))
    assert fields["matrices"] == ["hessian"]
    assert fields["scaled_alignment"] is None
    assert len(fields["cosine_intervals"][0]) == 2


@pytest.mark.usefixtures("project")
def test_the_command_measures_stores_and_draws() -> None:
    options = ("-k", "2", "--tol", "0.5", "--draws", "2", "--seed", "1")
    done = call("noise", "ckpt.pt", *options)
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].endswith("is this my loss?")
    assert lines[2].startswith("noise against")
    file, run = lines[-1].removeprefix("to see it: landscape plot ").split()
    assert call("plot", file, run, "-o", "x.png").exit_code == 0
    assert Path("x.png").stat().st_size > 10_000
    assert call("noise", "ckpt.pt", *options).stdout == done.stdout
    shown = json.loads(call("noise", "ckpt.pt", *options, "--json").stdout)
    assert shown["runs"][0]["kind"] == "noise"


@pytest.mark.usefixtures("project")
def test_an_interval_that_is_too_wide_is_exit_4() -> None:
    done = call("noise", "ckpt.pt", "-k", "2", "--tol", "1e-12", "--max-products", "72", "--draws", "2")
    assert done.exit_code == 4
    assert "allow more --max-products" in done.stderr


@pytest.mark.usefixtures("project")
def test_bad_options_say_what_to_do() -> None:
    done = call("noise", "ckpt.pt", "--max-products", "30")
    assert done.exit_code == 2
    assert "allow at least 120" in done.stderr
