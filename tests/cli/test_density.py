"""``landscape density`` from a checkpoint to figures, with everything real."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from landscape.results import DensityResult
from landscape.store import ResultFile
from tests.cli.support import call

pytestmark = pytest.mark.usefixtures("project")

SAME = ("density", "ckpt.pt", "--seed", "1", "--steps", "12")


def test_the_loss_then_single_eigenvalues_then_the_distribution() -> None:
    done = call(*SAME)
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].endswith("is this my loss?")
    assert lines[2].split() == ["single", "eigenvalue", "±", "share", "of", "all"]
    labels = [line.split()[0] for line in lines if line]
    for label in ("trace", "λmax", "λmin", "negative", "moments", "W1", "method", "noise", "cost"):
        assert label in labels
    assert "stochastic Lanczos quadrature, 2 × 12 steps" in done.stdout
    assert "24 products, 24 passes" in done.stdout
    assert "by its own run" not in done.stdout
    assert lines[-1].startswith("to see it: landscape plot ")


def test_it_is_compared_with_runs_of_its_own() -> None:
    assert call("trace", "ckpt.pt", "--seed", "0").exit_code == 0
    assert call("eigen", "ckpt.pt", "--seed", "0").exit_code == 0
    done = call(*SAME)
    assert done.stdout.count("; by its own run ") == 2
    assert "uses the stored trace run trace-" in done.stderr
    alone = call(*SAME, "--no-compare")
    assert "by its own run" not in alone.stdout


def test_json_is_one_object_with_the_stored_figures() -> None:
    done = call(*SAME, "--per-layer", "--effective-dimension", "0.1", "--json")
    printed = json.loads(done.stdout)
    (run,) = printed["runs"]
    stored = ResultFile(run["file"]).read(run["id"])
    assert isinstance(stored, DensityResult)
    assert (printed["command"], run["kind"], run["status"]) == ("density", "density", "complete")
    found = np.array(run["result"]["nodes"], dtype=float)
    np.testing.assert_array_equal(found, np.ma.filled(stored.nodes, np.nan))
    assert run["result"]["layers"] == ["0", "3"]
    assert run["result"]["effective_dimension_z"] == 0.1


def test_a_time_limit_before_anything_is_there() -> None:
    done = call(*SAME, "--time-limit", "0")
    assert done.exit_code == 4, done.stderr
    assert "no density yet" in done.stdout

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    again = call(*SAME, "--time-limit", "0", "--json")
    (run,) = json.loads(again.stdout, parse_constant=refuse)["runs"]
    assert run["status"] == "partial"
    assert (run["result"]["trace"], run["result"]["trace_interval"]) == (None, [None, None])
    assert run["result"]["nodes"] == []
    shown = call("show", run["file"], run["id"])
    assert (shown.exit_code, "no density yet" in shown.stdout) == (0, True)
    whole = call(*SAME)
    assert (whole.exit_code, "resumed" in whole.stderr) == (0, True)


def test_one_step_shows_no_error_that_it_does_not_know() -> None:
    done = call("density", "ckpt.pt", "--seed", "1", "--steps", "1")
    assert done.exit_code == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("trace ")]
    assert "± ? (95 %)" in line
    assert "between 0 and 100 %" in done.stdout
    assert "2 × 1 step\n" in done.stdout


def test_the_configuration_has_a_table_of_its_own() -> None:
    with Path("landscape.toml").open("a") as file:
        file.write("\n[density]\nprobes = 1\nsteps = 7\nper_layer = true\nseed = 5\n")
    (run,) = json.loads(call("density", "ckpt.pt", "--json").stdout)["runs"]
    assert (run["seed"], run["result"]["products"]) == (5, 21)
    (run,) = json.loads(call("density", "ckpt.pt", "--steps", "5", "--no-per-layer", "--json").stdout)["runs"]
    assert run["result"]["products"] == 5


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--probes", "0"], "at least 1"),
        (["--steps", "0"], "at least 1"),
        (["--steps", "many"], "--steps"),
        (["--effective-dimension", "0"], "positive"),
        (["--tol", "0.1"], "--tol"),
        (["--difference", "central"], "--operator finite-difference"),
        (["--operator", "fischer"], "fisher"),
    ],
)
def test_bad_input_is_a_short_error(args: list[str], words: str) -> None:
    done = call("density", "ckpt.pt", *args)
    assert (done.exit_code, done.stdout) == (2, "")
    message = done.stderr[done.stderr.index("error: ") :]
    assert words in message
    assert 1 <= len(message.splitlines()) <= 5


def test_a_loss_that_is_not_finite_is_exit_code_3() -> None:
    Path("train.py").write_text(
        Path("train.py").read_text().replace("        return x\n", "        return x / 0\n")
    )
    done = call(*SAME)
    assert (done.exit_code, done.stdout) == (3, "")
    assert "Traceback" not in done.stderr


def test_dry_run_computes_and_stores_nothing() -> None:
    done = call(*SAME, "--dry-run")
    assert done.exit_code == 0, done.stderr
    assert "24" in done.stdout
    assert not Path("landscape-results").exists()


def test_help_shows_the_panels_and_the_defaults() -> None:
    text = call("density", "--help").stdout
    for part in (
        "The problem",
        "The run",
        "The density",
        "The matrix",
        "--probes",
        "--per-layer",
        "--no-compare",
    ):
        assert part in text
    assert "[default: 50]" in text


def test_show_and_plot_of_what_was_stored() -> None:
    printed = call(*SAME).stdout
    file = next(Path("landscape-results").glob("ckpt-*.h5"))
    shown = call("show", file, "density-").stdout
    for line in printed.splitlines():
        if not line.startswith(("seed", "stored", "to see")):
            assert line in shown
    picture = call("plot", file).stdout.strip().splitlines()[0]
    assert Path(picture).stat().st_size > 1000
