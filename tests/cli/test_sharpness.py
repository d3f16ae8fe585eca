"""``landscape sharpness`` from a checkpoint to figures, with everything real."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from landscape.results import SharpnessResult
from landscape.store import ResultFile
from landscape_cli.console import Console
from landscape_cli.views.sharpness import print_result
from tests.cli.support import call
from tests.plots.test_sharpness import sharpness_result, swept

pytestmark = pytest.mark.usefixtures("project")

SAME = ("sharpness", "ckpt.pt", "--seed", "1", "--max-directions", "4")


def labels(text: str) -> list[str]:
    return [line.split()[0] for line in text.splitlines() if line]


def test_the_loss_then_the_distance_then_the_terms() -> None:
    done = call(*SAME)
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].endswith("is this my loss?")
    assert lines[2] == "sam: ‖ε‖₂ ≤ ρ, ρ = 0.05, all data at once, first-order point"
    for label in ("rise", "slope", "curvature", "remainder", "random", "difference", "sharpness", "cost"):
        assert label in labels(done.stdout)
    assert "εᵀg = ρ‖g‖₂" in done.stdout
    assert "standard error over the data, ε fixed" in done.stdout
    assert "nothing is claimed from it" in done.stdout
    assert "nan" not in done.stdout
    assert lines[-1].startswith("to see it: landscape plot ")


def test_every_kind_says_its_norm_m_and_steps() -> None:
    for args, words in (
        (["-m", "8"], "m = 8 (7 groups, the last of 2)"),
        (["--steps", "3"], "3 steps of ascent"),
        (["--kind", "asam", "--p", "inf"], "‖ε/T‖∞ ≤ ρ, T = |w| + 0.01 on weights, ρ = 0.05"),
        (["--kind", "keskar", "--rho", "0.001"], "|ε| ≤ ρ(|w| + 1), ρ = 0.001, all data at once, 10 steps"),
        (["--relative", "--rho", "1"], "ρ = 1·‖g‖ = "),
    ):
        done = call(*SAME, *args)
        assert done.exit_code == 0, done.stderr
        assert done.stdout.count(words) == 2, args  # above the terms and beside the figure
    keskar = call(*SAME, "--kind", "keskar", "--rho", "0.001").stdout
    assert "a lower bound" in keskar
    assert "‖w‖²/ρ²" not in keskar


def test_json_is_one_object_with_the_stored_figures() -> None:
    done = call(*SAME, "--rho-sweep", "--p", "inf", "--json")
    printed = json.loads(done.stdout)
    (run,) = printed["runs"]
    stored = ResultFile(run["file"]).read(run["id"])
    assert isinstance(stored, SharpnessResult)
    assert (run["kind"], run["status"]) == ("sharpness", "complete")
    assert run["result"]["increase"] == stored.increase
    np.testing.assert_array_equal(run["result"]["sweep_increases"], stored.sweep_increases)
    assert stored.p == float("inf")


def test_an_average_that_is_too_wide_is_exit_code_4() -> None:
    done = call(*SAME, "--kind", "average", "--tol", "0.001")
    assert (done.exit_code, "loosen --tol" in done.stderr) == (4, True)
    assert "4 random pairs ±ε" in done.stdout
    assert "rise  " not in done.stdout.split("sharpness")[0]


def test_a_stored_trace_is_used() -> None:
    assert call("trace", "ckpt.pt", "--seed", "0").exit_code == 0
    done = call(*SAME)
    assert "uses the stored trace run trace-" in done.stderr
    assert "from the stored trace run trace-" in done.stdout
    assert "1 product over" in done.stdout


def test_a_time_limit_before_anything_is_there() -> None:
    done = call(*SAME, "--time-limit", "0")
    assert done.exit_code == 4, done.stderr
    assert "no figure yet" in done.stdout
    again = call(*SAME)
    assert (again.exit_code, "resumed" in again.stderr) == (0, True)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--rho", "0"], "--rho"),
        (["--p", "0.5"], "at least 1"),
        (["-m", "0"], "at least 1"),
        (["-m", "1000"], "50 examples"),
        (["--kind", "flat"], "keskar"),
        (["--kind", "average", "--steps", "2"], "--steps belongs to"),
        (["--tol", "0.1"], "--kind average"),
    ],
)
def test_bad_input_is_a_short_error(args: list[str], words: str) -> None:
    done = call("sharpness", "ckpt.pt", *args)
    assert (done.exit_code, done.stdout) == (2, "")
    message = done.stderr[done.stderr.index("error: ") :]
    assert words in message
    assert 1 <= len(message.splitlines()) <= 5


def test_dry_run_computes_and_stores_nothing() -> None:
    done = call(*SAME, "--dry-run")
    assert done.exit_code == 0, done.stderr
    assert "about 5, at most 5" in done.stdout
    assert not Path("landscape-results").exists()


def test_help_shows_the_options() -> None:
    text = call("sharpness", "--help").stdout
    for part in ("The sharpness", "--kind", "--steps", "-m", "--rho-sweep", "--no-expansion", "--relative"):
        assert part in text


def test_show_and_plot_of_what_was_stored() -> None:
    printed = call(*SAME, "--rho-sweep").stdout
    file = next(Path("landscape-results").glob("ckpt-*.h5"))
    shown = call("show", file, "sharpness-").stdout
    for line in printed.splitlines():
        if not line.startswith(("seed", "stored", "to see")):
            assert line in shown
    for view in ("sweep", "terms"):
        picture = call("plot", file, "--view", view).stdout.strip().splitlines()[0]
        assert Path(picture).stat().st_size > 1000


def words_of(result: SharpnessResult, capsys: pytest.CaptureFixture[str]) -> str:
    print_result(Console("sharpness"), result)
    return capsys.readouterr().out


def test_what_is_not_resolved_or_falls_is_said_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert "not resolved" in words_of(sharpness_result(noise=0.01), capsys)
    assert "the loss falls" in words_of(sharpness_result(increase=-0.1), capsys)
    assert "caution" not in words_of(sharpness_result(), capsys)


def test_nothing_that_is_not_known_is_printed_as_a_number(capsys: pytest.CaptureFixture[str]) -> None:
    rises = np.full(10, np.nan)
    result = swept(
        sweep_increases=rises, increase_error=None, error_method="not computed: a single example",
        random_interval=np.full(2, np.nan), predicted_interval=np.full(2, np.nan),
        random_difference_interval=np.full(2, np.nan), hessian_trace_interval=np.full(2, np.nan),
        flat_groups=1, empty_groups=2,
    )  # fmt: skip
    text = words_of(result, capsys)
    assert "nan" not in text
    assert "± ?" not in text
    assert "without an interval" in text
    assert text.count("not finite") == 10
    assert "not computed: a single example" in text
    assert "1 group with a gradient of zero" in text
    assert "2 groups without loss terms" in text
    assert "no figure yet" in words_of(sharpness_result(increase=float("nan")), capsys)


def test_keskar_where_it_is_not_defined(capsys: pytest.CaptureFixture[str]) -> None:
    assert "not defined" in words_of(sharpness_result(measure="keskar"), capsys)
    text = words_of(sharpness_result(measure="keskar", keskar=1.0, keskar_error=0.5), capsys)
    assert "1.00 ± 0.50: 100 (max L − L)/(1 + L) in percent, a lower bound" in text
