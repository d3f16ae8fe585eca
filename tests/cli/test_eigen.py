"""``landscape eigen`` from a checkpoint to figures, with everything real."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from landscape.store import ResultFile
from tests.cli.support import call

pytestmark = pytest.mark.usefixtures("project")

SAME = ("eigen", "ckpt.pt", "--seed", "1")


def test_the_loss_then_the_table_then_where_it_is() -> None:
    done = call(*SAME)
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("loss ")
    assert lines[0].endswith("is this my loss?")
    assert "50 examples, 43 parameters" in lines[0]
    assert [line.split()[0] for line in lines[2:6]] == ["pair", "1", "2", "3"]
    file = next(Path("landscape-results").glob("ckpt-*.h5"))
    run = ResultFile(file).runs()[0].id
    assert f"stored in {file} as run {run}" in lines
    assert lines[-1].endswith(f"landscape plot {file} {run}")
    assert "seed 1, given" in lines


def test_notes_say_where_the_problem_came_from_and_quiet_does_not() -> None:
    noted = call(*SAME).stderr
    assert "landscape.toml" in noted
    assert "model_state_dict" in noted
    quiet = call(*SAME, "--fresh", "--quiet")
    assert (quiet.exit_code, quiet.stderr) == (0, "")


def test_json_is_one_object_with_the_stored_figures() -> None:
    done = call(*SAME, "--json")
    printed = json.loads(done.stdout)
    (run,) = printed["runs"]
    stored = ResultFile(run["file"]).read(run["id"])
    assert printed["format_version"] == 1
    assert printed["command"] == "eigen"
    assert set(run) >= {"id", "kind", "status", "checkpoint", "settings", "result"}
    assert (run["kind"], run["status"], run["seed"]) == ("eigen", "complete", 1)
    assert run["checkpoint"]["epoch"] == 3
    assert run["settings"]["k"] == 3
    np.testing.assert_array_equal(run["result"]["eigenvalues"], stored.eigenvalues)  # type: ignore[attr-defined]


def test_the_command_line_is_recorded() -> None:
    file = json.loads(call(*SAME, "--json").stdout)["runs"][0]["file"]
    assert ResultFile(file).runs()[0].command == "landscape eigen ckpt.pt --seed 1 --json"


@pytest.mark.parametrize(("args", "count"), [([], 3), (["-k", "2"], 2), (["--which", "both", "-k", "2"], 4)])
def test_option_before_configuration_before_default(args: list[str], count: int) -> None:
    run = json.loads(call(*SAME, *args, "--json").stdout)["runs"][0]
    assert len(run["result"]["eigenvalues"]) == count
    assert run["settings"]["verify"] == 0
    assert run["result"]["tolerance"] == 1e-3


def test_options_alone_are_enough() -> None:
    Path("landscape.toml").unlink()
    problem = ("--model", "train.py:build_model", "--data", "train.py:build_data", "--loss", "cross_entropy")
    done = call(*SAME, *problem)
    assert done.exit_code == 0, done.stderr
    assert len([line for line in done.stdout.splitlines() if line.endswith("yes")]) == 5


def test_nothing_to_go_on_gives_a_configuration_to_paste() -> None:
    Path("landscape.toml").unlink()
    done = call("eigen", "ckpt.pt")
    assert (done.exit_code, done.stdout) == (2, "")
    assert 'model = "' in done.stderr
    assert "0.weight" in done.stderr
    assert len(call("eigen", "ckpt.pt", "--quiet").stderr.splitlines()) <= 5


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["eigen", "missing.pt"], "missing.pt"),
        (["eigen", "ckpt.pt", "-k", "0"], "at least 1"),
        (["eigen", "ckpt.pt", "--which", "middle"], "largest, smallest"),
        (["eigen", "ckpt.pt", "--expect-loss", "99"], "loss"),
        (["eigen", "ckpt.pt", "--config", "no.toml"], "no.toml"),
        (["eigen", "ckpt.pt", "--state-key", "nothing"], "nothing"),
    ],
)
def test_bad_input_is_a_short_error(args: list[str], words: str) -> None:
    done = call(*args)
    assert (done.exit_code, done.stdout) == (2, "")
    message = done.stderr[done.stderr.index("error: ") :]
    assert words in message
    assert 1 <= len(message.splitlines()) <= 5


def test_not_reached_is_exit_code_4_with_the_result_shown_and_stored() -> None:
    done = call(*SAME, "--tol", "1e-13", "--max-products", "5", "--json")
    assert done.exit_code == 4, done.stderr
    (run,) = json.loads(done.stdout)["runs"]
    assert run["status"] == "not_converged"
    assert ResultFile(run["file"]).read(run["id"]).status == "not_converged"
    assert "--max-products" in done.stderr
    assert "exit code 4" in done.stderr


def test_dry_run_computes_and_stores_nothing() -> None:
    done = call(*SAME, "--dry-run")
    assert done.exit_code == 0, done.stderr
    for name in ("products", "memory", "time"):
        assert name in done.stdout
    assert not Path("landscape-results").exists()
    plan = json.loads(call(*SAME, "--dry-run", "--json").stdout)
    assert plan["runs"] == []
    assert plan["plan"]["products"] > 0


def test_plot_and_show_of_what_was_stored() -> None:
    file = json.loads(call(*SAME, "--json").stdout)["runs"][0]["file"]
    shown = call("show", file, "eigen-").stdout
    assert "train.py:build_model" in shown
    picture = call("plot", file).stdout.strip()
    assert Path(picture).stat().st_size > 1000


def test_the_result_file_can_be_chosen() -> None:
    done = call(*SAME, "-o", "mine.h5", "--json")
    assert json.loads(done.stdout)["runs"][0]["file"] == "mine.h5"
    assert len(ResultFile("mine.h5").runs()) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_goes_on(number: signal.Signals) -> None:
    code = "from landscape_cli.app import main; main()"
    line = [sys.executable, "-c", code, *SAME, "-k", "5", "--tol", "1e-12"]
    slow = os.environ | {"SLOW": "0.1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(line, env=slow, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(Path().glob("landscape-results/*.partial")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "the same command" in err
    assert "Traceback" not in err
    again = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert again.returncode == 0, again.stderr
    assert "resumed" in again.stderr
