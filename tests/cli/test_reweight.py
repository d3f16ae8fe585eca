"""``landscape reweight`` from a checkpoint to figures, with everything real."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from landscape.results import ReweightResult
from landscape.store import ResultFile
from tests.cli.support import call

pytestmark = pytest.mark.usefixtures("project")

SAME = ("reweight", "ckpt.pt", "--seed", "1")
MARKED = (*SAME, "--noisy", "train.py:marks")


@pytest.fixture(autouse=True)
def marks(project: Path) -> None:
    with (project / "train.py").open("a") as file:
        file.write("\n\ndef marks():\n    return torch.arange(50) % 5 == 0\n")


def lines_of(text: str) -> dict[str, str]:
    """The summary by its labels."""
    rows = [line.split(None, 1) for line in text.splitlines() if len(line.split(None, 1)) == 2]
    return dict(rows)


def test_the_loss_then_the_groups_then_what_they_mean() -> None:
    done = call(*MARKED)
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].endswith("is this my loss?")
    for heading in ("labels", "examples", "median loss", "median weight", "logit part", "Jacobian part"):
        assert heading in lines[2]
    assert [line.split()[:2] for line in lines[3:6]] == [["all", "50"], ["clean", "40"], ["noisy", "10"]]
    said = lines_of(done.stdout)
    assert "ρ = 0.05" in said["weight"]
    assert "Spearman" in said["rank"]
    assert "10 labels marked as noisy (20 %)" in said["noisy"]
    assert "a clean example weighs more than a noisy one" in said["AUC"]
    assert "on 16 examples of low to high loss, against float64, one by one" in said["rounding"]
    assert said["method"] == "vectorised, 50 examples at once"
    file = next(Path("landscape-results").glob("ckpt-*.h5"))
    run = ResultFile(file).runs()[0].id
    assert lines[-1].endswith(f"landscape plot {file} {run}")
    assert "nan" not in done.stdout


def test_without_marks_that_is_said_and_no_more() -> None:
    done = call(*SAME)
    assert done.exit_code == 0, done.stderr
    assert "no labels are marked as wrong: --noisy does" in done.stdout
    assert "AUC" not in done.stdout


def test_json_is_one_object_with_the_stored_figures() -> None:
    printed = json.loads(call(*MARKED, "--json").stdout)
    (run,) = printed["runs"]
    stored = ResultFile(run["file"]).read(run["id"])
    assert isinstance(stored, ReweightResult)
    assert (printed["command"], run["kind"], run["status"], run["seed"]) == (
        "reweight",
        "reweight",
        "complete",
        1,
    )
    np.testing.assert_array_equal(run["result"]["weight"], stored.weight)
    assert run["result"]["groups"] == ["all", "clean", "noisy"]
    assert run["settings"] == {"rho": 0.05, "relative": False, "p": 2.0}


def test_the_configuration_has_a_table_and_names_the_marks() -> None:
    path = Path("landscape.toml")
    path.write_text('noisy = "train.py:marks"\n' + path.read_text() + "\n[reweight]\nrho = 0.3\n")
    done = call("reweight", "ckpt.pt")
    assert done.exit_code == 0, done.stderr
    assert "ρ = 0.3" in done.stdout
    assert "noisy train.py:marks" in done.stderr
    assert "ρ = 0.4 ‖∇l‖" in call("reweight", "ckpt.pt", "--rho", "0.4", "--relative").stdout


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--rho", "0"], "1 (1 … 1)"),
        (["--p", "inf"], "in the ∞-norm"),
        (["--samples", "3"], "fewer than 4 examples"),
        (["--samples", "4"], "none of a median of fewer than 6"),
        (["--weight-decay", "0.1"], "weight decay belongs to no example"),
    ],
)
def test_what_is_special_is_said(extra: list[str], words: str) -> None:
    done = call(*SAME, *extra)
    assert done.exit_code == 0, done.stderr
    assert words in done.stdout
    assert "nan" not in done.stdout


def test_no_weight_at_all_is_said_and_not_drawn() -> None:
    source = Path("train.py").read_text()
    Path("train.py").write_text(
        source.replace("        return x\n", "        return x * 0\n").replace(
            "return x, (x @", "return 0 * x, (x @"
        )
    )
    done = call(*SAME, "--params", "0.*")
    assert done.exit_code == 0, done.stderr
    assert "no example has a weight" in done.stdout
    assert "50 examples whose gradient is zero" in done.stdout
    assert "nan" not in done.stdout
    drawn = call("plot", next(Path("landscape-results").glob("ckpt-*.h5")))
    assert drawn.exit_code == 2
    assert "Traceback" not in drawn.stderr


def test_lengths_that_overflow_are_counted() -> None:
    source = Path("train.py").read_text()
    Path("train.py").write_text(source.replace("        return x\n", "        return x.exp()\n"))
    done = call(*SAME, "--rho", "1e4")
    assert done.exit_code == 0, done.stderr
    assert "whose gradient at w + ε is not finite: use a smaller --rho" in done.stdout
    assert "nan" not in done.stdout


def test_a_time_limit_is_exit_code_4_and_the_run_goes_on() -> None:
    done = call(*MARKED, "--time-limit", "0", "--batch-size", "20")
    assert done.exit_code == 4, done.stderr
    assert "50 examples that a limit came before" in done.stdout
    assert "nan" not in done.stdout
    assert call(*MARKED, "--time-limit", "0", "--batch-size", "20", "--json").exit_code == 4
    whole = call(*MARKED, "--batch-size", "20")
    assert whole.exit_code == 0, whole.stderr
    assert "resumed" in whole.stderr
    assert "a limit came before" not in whole.stdout


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--rho", "-1"], "at least 0"),
        (["--rho", "nan"], "at least 0"),
        (["--rho", "inf"], "finite"),
        (["--p", "0.5"], "at least 1"),
        (["--train-mode"], "no gradient of its own"),
        (["--noisy", "train.py:build_model"], "true or false"),
        (["--noisy", "train.py:nothing"], "nothing"),
        (["--eta", "0.1"], "--eta"),
    ],
)
def test_bad_input_is_a_short_error(args: list[str], words: str) -> None:
    done = call(*SAME, *args)
    assert (done.exit_code, done.stdout) == (2, "")
    message = done.stderr[done.stderr.index("error: ") :]
    assert words in message
    assert 1 <= len(message.splitlines()) <= 5


def test_marks_of_other_data_are_an_error_with_both_lengths() -> None:
    with Path("train.py").open("a") as file:
        file.write("\n\ndef few():\n    return [0, 1, 1]\n")
    done = call(*SAME, "--noisy", "train.py:few")
    assert done.exit_code == 2
    assert "3 marks, 50 examples" in done.stderr


def test_dry_run_and_help() -> None:
    done = call(*SAME, "--dry-run")
    assert done.exit_code == 0, done.stderr
    assert "gradients over the data" in done.stdout
    assert not Path("landscape-results").exists()
    text = call("reweight", "--help").stdout
    for part in ("The weights", "--rho", "--relative", "--noisy", "[default: 0.05]", "J-SAM"):
        assert part in text


def test_show_and_plot_of_what_was_stored() -> None:
    printed = call(*MARKED).stdout
    file = next(Path("landscape-results").glob("ckpt-*.h5"))
    shown = call("show", file, "reweight-").stdout
    for line in printed.splitlines():
        if not line.startswith(("seed", "stored", "to see")):
            assert line in shown
    for view in ("weights", "parts"):
        picture = call("plot", file, "--view", view, "-o", f"{view}.png")
        assert picture.exit_code == 0, picture.stderr
        assert Path(f"{view}.png").stat().st_size > 1000
