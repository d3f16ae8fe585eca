"""``landscape trace`` from a checkpoint to figures, with everything real."""

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

from landscape.results import TraceResult
from landscape.store import ResultFile
from tests.cli.support import call

pytestmark = pytest.mark.usefixtures("project")

SAME = ("trace", "ckpt.pt", "--seed", "1")


def lines_of(text: str) -> dict[str, str]:
    """The summary by its labels."""
    rows = [line.split(None, 1) for line in text.splitlines() if len(line.split(None, 1)) == 2]
    return dict(rows)


def test_the_loss_then_the_layers_then_the_trace_and_where_it_is() -> None:
    done = call(*SAME, "--max-products", "30", "--tol", "0")
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].endswith("is this my loss?")
    assert lines[2].split() == ["layer", "parameters", "trace", "±", "(95", "%)", "per", "parameter"]
    assert [line.split()[:2] for line in lines[3:5]] == [["0", "25"], ["3", "18"]]
    said = lines_of(done.stdout)
    assert "(95 % interval, ± " in said["trace"]
    assert said["method"] == "krylov: exact on 15 dimensions, 15 random vectors for the rest"
    assert said["cost"].startswith("30 products, 30 passes")
    for label in ("mean", "Frobenius", "dimension", "noise"):
        assert label in said
    file = next(Path("landscape-results").glob("ckpt-*.h5"))
    run = ResultFile(file).runs()[0].id
    assert f"stored in {file} as run {run}" in lines
    assert lines[-1].endswith(f"landscape plot {file} {run}")


def test_an_exact_trace_says_so() -> None:
    said = lines_of(call(*SAME).stdout)
    assert said["method"] == "krylov: exact, on all 43 dimensions"


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("hutchinson", "hutchinson: 12 random vectors"),
        ("hutch++", "hutch++: exact on 4 dimensions, 4 random vectors for the rest"),
        ("xtrace", "xtrace: 6 random vectors, each on what the others leave"),
    ],
)
def test_other_methods_say_what_they_did(method: str, words: str) -> None:
    done = call(*SAME, "--method", method, "--max-products", "12", "--tol", "0")
    assert done.exit_code == 0, done.stderr
    assert lines_of(done.stdout)["method"] == words
    assert ("xtrace gives the whole trace only" in done.stdout) == (method == "xtrace")


def test_json_is_one_object_with_the_stored_figures() -> None:
    done = call(*SAME, "--json")
    printed = json.loads(done.stdout)
    (run,) = printed["runs"]
    stored = ResultFile(run["file"]).read(run["id"])
    assert isinstance(stored, TraceResult)
    assert (printed["format_version"], printed["command"]) == (1, "trace")
    assert (run["kind"], run["status"], run["seed"]) == ("trace", "complete", 1)
    assert run["result"]["trace"] == stored.trace
    np.testing.assert_array_equal(run["result"]["layer_traces"], stored.layer_traces)
    assert run["result"]["layers"] == ["0", "3"]
    assert run["result"]["diagonal_file"] is None


@pytest.mark.parametrize("budget", [1, 2, 3])
def test_too_few_products_are_exit_code_4_with_what_was_reached(budget: int) -> None:
    done = call(*SAME, "--max-products", str(budget), "--json")
    assert done.exit_code == 4, done.stderr

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    (run,) = json.loads(done.stdout, parse_constant=refuse)["runs"]
    assert run["status"] == "not_converged"
    assert isinstance(run["result"]["trace"], float)
    without = budget == 1
    assert (run["result"]["half_width"] is None) == without
    assert (run["result"]["interval"] == [None, None]) == without
    shown = call(*SAME, "--max-products", str(budget))
    assert shown.exit_code == 4
    if without:
        assert "1 product gave one random vector, and an interval takes at least 2" in shown.stdout
        assert "too few products for an interval: allow more --max-products" in shown.stderr
    else:
        assert "the interval is wider than asked for" in shown.stderr
    assert "exit code 4" in shown.stderr


def test_a_time_limit_before_anything_is_there() -> None:
    done = call(*SAME, "--time-limit", "0")
    assert done.exit_code == 4, done.stderr
    assert "no estimate yet" in done.stdout
    assert "the same command goes on from here" in done.stderr
    again = call(*SAME, "--time-limit", "0", "--json")
    assert json.loads(again.stdout)["runs"][0]["result"]["trace"] is None
    whole = call(*SAME)
    assert whole.exit_code == 0
    assert "resumed" in whole.stderr


def test_a_stored_search_is_gone_on_from_unless_told_not_to() -> None:
    assert call("eigen", "ckpt.pt", "--krylov", "--seed", "0").exit_code == 0
    done = call(*SAME, "--max-products", "10", "--tol", "0")
    assert done.exit_code == 0, done.stderr
    assert "uses the stored eigen run eigen-" in done.stderr
    assert "of them from a stored run)" in done.stdout
    alone = call(*SAME, "--max-products", "10", "--tol", "0", "--no-reuse")
    assert "uses the stored" not in alone.stderr
    assert "from a stored run" not in alone.stdout


def test_the_configuration_has_a_table_of_its_own() -> None:
    with Path("landscape.toml").open("a") as file:
        file.write('\n[trace]\nmethod = "hutchinson"\nmax_products = 9\ntol = 0\nseed = 5\n')
    done = call("trace", "ckpt.pt", "--json")
    (run,) = json.loads(done.stdout)["runs"]
    assert (run["seed"], run["result"]["products"], run["settings"]["method"]) == (5, 9, "hutchinson")
    over = call("trace", "ckpt.pt", "--max-products", "10", "--json")
    assert json.loads(over.stdout)["runs"][0]["result"]["products"] == 10


def test_what_the_configuration_does_not_know_is_an_error() -> None:
    with Path("landscape.toml").open("a") as file:
        file.write("\n[trace]\nk = 3\n")
    done = call("trace", "ckpt.pt")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "does not know 'k'" in done.stderr
    assert "max_products" in done.stderr


def test_the_diagonal_is_in_a_file_and_the_screen_says_which() -> None:
    done = call(*SAME, "--diagonal", "--json")
    file = json.loads(done.stdout)["runs"][0]["result"]["diagonal_file"]
    assert Path("landscape-results", file).stat().st_size > 2 * 43 * 8
    assert f"in {file} with its standard errors" in call(*SAME, "--diagonal").stdout


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--max-products", "0"], "at least 1"),
        (["--tol", "-1"], "at least 0"),
        (["--tol", "nan"], "at least 0"),
        (["--tol", "wide"], "--tol"),
        (["--method", "hutch"], "krylov, hutchinson, hutch++, xtrace"),
        (["--spatial-average"], "add --diagonal"),
        (["--method", "xtrace", "--diagonal"], "--method krylov"),
        (["--operator", "hesian"], "gauss-newton"),
        (["--label-samples", "3"], "--operator fisher"),
        (["--rho", "0.1"], "--operator finite-difference"),
        (["--rho", "-1", "--operator", "finite-difference"], "positive"),
        (["--steps", "3"], "--steps"),
        (["--samples", "0"], "--samples"),
    ],
)
def test_bad_input_is_a_short_error(args: list[str], words: str) -> None:
    done = call(*SAME, *args)
    assert (done.exit_code, done.stdout) == (2, "")
    message = done.stderr[done.stderr.index("error: ") :]
    assert words in message
    assert 1 <= len(message.splitlines()) <= 5
    assert not Path("landscape-results").exists()


def test_another_loss_than_expected_stores_no_run() -> None:
    done = call(*SAME, "--expect-loss", "99")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "--expect-loss" in done.stderr
    assert not list(Path().glob("landscape-results/*.h5"))


def test_a_loss_that_is_not_finite_is_exit_code_3() -> None:
    Path("train.py").write_text(
        Path("train.py").read_text().replace("        return x\n", "        return x / 0\n")
    )
    done = call(*SAME)
    assert (done.exit_code, done.stdout) == (3, "")
    assert "error: " in done.stderr
    assert "Traceback" not in done.stderr


def test_dry_run_computes_and_stores_nothing() -> None:
    done = call(*SAME, "--dry-run")
    assert done.exit_code == 0, done.stderr
    assert "about 64, at most 1000" in done.stdout
    assert "depends on the spectrum" in done.stderr
    assert not Path("landscape-results").exists()
    plan = json.loads(call(*SAME, "--dry-run", "--json", "--max-products", "20").stdout)["plan"]
    assert (plan["products"], plan["at_most"]) == (20, 20)


def test_help_shows_the_panels_and_the_defaults() -> None:
    text = call("trace", "--help").stdout
    for part in (
        "The problem",
        "The run",
        "The trace",
        "The matrix",
        "--max-products",
        "--atol",
        "--no-reuse",
    ):
        assert part in text
    assert "[default: 0.02]" in text
    assert "hutch++" in text


def test_show_and_plot_of_what_was_stored() -> None:
    printed = call(*SAME, "--max-products", "25").stdout
    file = next(Path("landscape-results").glob("ckpt-*.h5"))
    shown = call("show", file, "trace-").stdout
    for line in printed.splitlines():
        if not line.startswith(("seed", "stored", "to see")):
            assert line in shown
    assert "max_products = 25" in shown
    picture = call("plot", file).stdout.strip().splitlines()[0]
    assert Path(picture).stat().st_size > 1000


#: Each product takes two forward passes, which can be made slow.
SLOWLY = ("--operator", "finite-difference", "--rho", "1e-4")


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.long), signal.SIGKILL])
def test_a_run_that_was_stopped_goes_on(number: signal.Signals) -> None:
    code = "from landscape_cli.app import main; main()"
    args = (*SAME, "--tol", "1e-12", "--max-products", "30", "--batch-size", "50", "--json", *SLOWLY)
    line = [sys.executable, "-c", code, *args]
    slow = os.environ | {"SLOW": "0.02", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(line, env=slow, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(Path().glob("landscape-results/*.partial")) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.4)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130 if number == signal.SIGINT else -9, "")
    assert "Traceback" not in err
    resumed = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert "resumed at step" in resumed.stderr
    undisturbed = call(*args, "-o", "other.h5")
    (one,), (other,) = (json.loads(text)["runs"] for text in (resumed.stdout, undisturbed.stdout))
    assert resumed.returncode == undisturbed.exit_code == 4
    assert one["result"] | {"seconds": 0} == other["result"] | {"seconds": 0}
