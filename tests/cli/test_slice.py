"""``landscape slice`` from a checkpoint to figures, with everything real."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from landscape.results import SliceResult
from landscape.store import ResultFile
from landscape_cli.console import Console
from landscape_cli.views import drawable
from landscape_cli.views.slice import print_result
from tests.cli.support import call
from tests.support.slice_results import barrier_result, line_result, plane_result, with_trajectory

pytestmark = pytest.mark.usefixtures("project")

SAME = ("slice", "ckpt.pt", "--seed", "1")
LINE = (*SAME, "--along", "random", "--range=-1:1:5")

MORE = """
def test_data():
    generator = torch.Generator().manual_seed(5)
    return torch.randn(20, 4, generator=generator), torch.arange(20) % 3


def size(outputs, targets):
    return outputs.square().mean()


def sure(outputs, targets):
    return outputs.softmax(1).max(1).values


def broken(outputs, targets):
    raise ValueError("no such figure")
"""


@pytest.fixture
def others(project: Path) -> None:
    """b.pt, c.pt and runs/*.pt beside ckpt.pt, and more in train.py."""
    with open("train.py", "a") as file:
        file.write(MORE)
    state = torch.load("ckpt.pt")["model_state_dict"]
    Path("runs").mkdir()
    for seed, name in enumerate(["b", "c", "runs/1", "runs/2", "runs/10"]):
        generator = torch.Generator().manual_seed(seed)
        moved = {key: w + torch.randn(w.shape, generator=generator) for key, w in state.items()}
        torch.save({"model_state_dict": moved, "epoch": seed}, f"{name}.pt")
    torch.save({"0.weight": torch.zeros(2, 2)}, "odd.pt")


def labels(text: str) -> list[str]:
    return [re.split(r"\s{2,}", line)[0] for line in text.splitlines() if "  " in line]


def run_of(*args: str) -> SliceResult:
    """The stored result of a command."""
    done = call(*args, "--json")
    assert done.exit_code == 0, done.stderr
    (run,) = json.loads(done.stdout)["runs"]
    found = ResultFile(run["file"]).read(run["id"])
    assert isinstance(found, SliceResult)
    return found


# --- words -----------------------------------------------------------------------------------------------


def test_the_loss_then_the_axes_then_the_grid() -> None:
    done = call(*SAME, "--range=-1:1:3")
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].endswith("is this my loss?")
    assert lines[2].endswith("random direction 1, filter normalised, from -1 to 1 in 3 points")
    assert labels(done.stdout)[:9] == [
        *("x", "y", "unit", "slope", "centre", "lowest", "highest", "angle", "±"),
    ]
    assert "then made orthogonal" in done.stdout
    assert "a plane through 43 dimensions: what is flat here may be steep elsewhere" in done.stdout
    assert "9 losses, on all data each" in done.stdout
    assert "nan" not in done.stdout
    assert lines[-1].startswith("to see it: landscape plot ")


@pytest.mark.usefixtures("others")
@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--along", "eigen"], ["eigenvector 1, λ = ", "curvature x", "they agree"]),
        (["--along", "eigen:-1"], ["eigenvector 1 from the smallest, λ = -"]),
        (["--along", "gradient"], ["x            gradient", "slope"]),
        (["--along", "sam", "--rho", "0.2"], ["SAM's perturbation, ρ = 0.2", "0.2 long"]),
        (["--along", "to:b.pt"], ["to b.pt", "barrier", "own loss", "loss on the slice"]),
        (["--along", "to:b.pt", "--along", "to:c.pt"], ["b.pt", "c.pt", "angle"]),
        (
            ["--along", "pca", "--along", "pca", "--trajectory", "runs/*.pt"],
            ["principal direction 2 of the trajectory", "% along x", "% along y", "10.pt"],
        ),
        (["--along", "saved:b.pt"], ["b.pt, row 1"]),
        (["--along", "random", "--no-orthogonalize", "--along", "gradient"], ["left as it is"]),
        (
            ["--along", "random", "--test-data", "train.py:test_data"],
            ["test data", "20 examples", "test lowest"],
        ),
        (
            ["--along", "random", "--metric", "train.py:size", "--metric", "train.py:sure"],
            ["metric size  from", "metric sure  from"],
        ),
        (["--along", "random", "--gradient-norm"], ["gradient  norm from"]),
        (["--along", "random", "--refine", "--range=-1:1:81"], ["of 81 points evaluated; the others"]),
    ],
)
def test_every_direction_and_what_is_said_of_it(args: list[str], words: list[str]) -> None:
    ranged = [] if any("--range" in arg for arg in args) else ["--range=-1:1:3"]
    done = call(*SAME, *args, *ranged)
    assert done.exit_code == 0, done.stderr
    for word in words:
        assert re.sub(r"\s+", " ", word) in re.sub(r"\s+", " ", done.stdout), done.stdout
    assert "nan" not in done.stdout


def words_of(result: SliceResult, capsys: pytest.CaptureFixture[str]) -> str:
    print_result(Console("slice"), result)
    found = capsys.readouterr()
    return found.out + found.err


def test_a_barrier_and_none(capsys: pytest.CaptureFixture[str]) -> None:
    text = words_of(
        barrier_result(barrier=0.8, barrier_error=0.05, barrier_at=0.5, saved_barrier=1.4), capsys
    )
    assert "barrier    0.800 ± 0.050 above the straight line from end to end, at 0.5; 1.4 with" in text
    none = words_of(
        barrier_result(barrier=0.0, barrier_error=0.0, barrier_at=0.0, saved_barrier=None), capsys
    )
    assert "barrier    none: between 0 and 1 the loss is nowhere above the straight line" in none
    unknown = words_of(barrier_result(barrier=None, barrier_error=None, barrier_at=None), capsys)
    assert "barrier    not known: a loss on the way is not finite" in unknown
    x = np.linspace(0, 0.9, 41)
    half = barrier_result(barrier=None, barrier_error=None, barrier_at=None, x=x)
    assert "not known: the range does not hold both ends, 0 and 1" in words_of(half, capsys)


def test_what_is_not_known_is_not_printed_as_a_number(capsys: pytest.CaptureFixture[str]) -> None:
    odd = line_result(loss=lambda t: np.where(t > 0.5, np.nan, np.where(t < -0.5, np.inf, 0.2)))
    text = words_of(odd, capsys)
    assert "nan" not in text
    assert "inf" not in text
    assert "not finite   the loss at 10 of 21 points, kept as it came out" in text
    plane = plane_result()
    mask = np.zeros(plane.loss.shape, bool)
    mask[5:] = True
    masked = dataclasses.replace(plane, status="partial", loss=np.ma.array(plane.loss, mask=mask))
    words = words_of(masked, capsys)
    assert f"{mask.sum()} of {mask.size} points not reached" in words
    assert "missing" in labels(words)
    unknown = dataclasses.replace(
        plane, errors_method="not computed: a single example", centre_error=float("nan"),
        standard_errors=np.full(plane.loss.shape, np.nan), test_centre_error=None,
    )  # fmt: skip
    text = words_of(unknown, capsys)
    assert "nan" not in text
    assert "errors" in labels(text)
    assert "not computed: a single example" in text
    assert "±" not in text
    nothing = dataclasses.replace(plane, loss=np.full(plane.loss.shape, np.nan))
    assert "lowest" not in words_of(nothing, capsys).replace("test lowest", "")
    assert not drawable(nothing)
    assert drawable(plane)


def test_curvature_that_disagrees_is_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    apart = {"differences": np.array([2.0]), "difference_errors": np.array([0.1])}
    text = words_of(line_result(**apart, disagreeing=np.array([True])), capsys)
    assert "they disagree, see the warning" in text
    assert "warning: along an eigenvector the loss does not curve as the eigenvalue says" in text
    text = words_of(line_result(**apart, disagreeing=np.array([False])), capsys)
    assert "curvature x  eigenvalue 3.00 ± 0.20; the loss itself curves by 2.00 ± 0.10: they agree" in text
    assert "warning" not in text


def test_a_trajectory_is_a_table_of_twenty_rows_at_most(capsys: pytest.CaptureFixture[str]) -> None:
    text = words_of(with_trajectory(plane_result(), 30), capsys)
    assert "of its squared distances from the centre 71 % along x, 18 % along y" in text
    assert "the first 20 of 30; --json has them all" in text
    assert text.count("runs/epoch") == 20


@pytest.mark.parametrize("result", [line_result(), barrier_result(), with_trajectory(plane_result())])
def test_words_fit_a_terminal_of_eighty_columns(
    result: SliceResult, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Console, "width", property(lambda self: 80))
    print_result(Console("slice"), result)
    lines = capsys.readouterr().out.splitlines()[1:]  # the first one is every command's
    assert max(len(line) for line in lines) <= 80


# --- what is stored --------------------------------------------------------------------------------------


def test_json_is_one_object_with_the_stored_figures() -> None:
    done = call(*LINE, "--json")
    (run,) = json.loads(done.stdout)["runs"]
    stored = ResultFile(run["file"]).read(run["id"])
    assert isinstance(stored, SliceResult)
    assert (run["kind"], run["status"]) == ("slice", "complete")
    assert run["result"]["coordinates"] == [stored.x.tolist()] == [[-1.0, -0.5, 0.0, 0.5, 1.0]]
    np.testing.assert_array_equal(run["result"]["loss"], stored.loss)
    assert run["result"]["directions_file"].startswith("ckpt-")


def test_show_plot_and_rm_of_what_was_stored() -> None:
    printed = call(*LINE).stdout
    file = next(path for path in Path("landscape-results").glob("ckpt-*.h5") if len(path.stem) == 13)
    shown = call("show", file, "slice-").stdout
    for line in printed.splitlines():
        if not line.startswith(("seed", "stored", "to see")):
            assert line in shown
    picture = call("plot", file).stdout.strip().splitlines()[0]
    assert Path(picture).stat().st_size > 1000
    assert len(list(Path("landscape-results").glob("ckpt-*-*.h5"))) == 1
    assert call("rm", file, "slice-", "--yes").exit_code == 0
    assert not list(Path("landscape-results").glob("ckpt-*-*.h5"))


def test_a_stored_eigen_run_is_used_also_with_test_data(others: None) -> None:
    assert call("eigen", "ckpt.pt", "--seed", "3", "--eigenvectors").exit_code == 0
    done = call(*SAME, "--along", "eigen", "--range=-1:1:3", "--test-data", "train.py:test_data")
    assert done.exit_code == 0, done.stderr
    assert "uses the stored eigen run eigen-" in done.stderr
    plain = call(*SAME, "--along", "eigen", "--range=-1:1:3")
    assert "uses the stored eigen run eigen-" in plain.stderr
    assert "the same run is stored" not in plain.stderr


def test_the_table_of_the_configuration(others: None) -> None:
    with open("landscape.toml", "a") as file:
        file.write('\n[slice]\nalong = ["random"]\nrange = "-1:1:11"\n')
    config = Path("landscape.toml").read_text()
    Path("landscape.toml").write_text(
        'test-data = "train.py:test_data"\nmetric = ["train.py:size"]\n' + config
    )
    result = run_of(*SAME)
    assert result.x.tolist() == np.linspace(-1, 1, 11).tolist()
    assert result.y is None
    assert result.test_examples == 20
    assert list(result.metric_names) == ["size"]
    assert run_of(*SAME, "--along", "gradient", "--range=-1:1:3").along.tolist() == ["gradient"]
    assert call("eigen", "ckpt.pt", "--seed", "1").exit_code == 0  # which has no use for test data


def test_a_result_file_names_the_files_of_its_directions(others: None) -> None:
    assert call(*LINE, "-o", "r.h5").exit_code == 0
    done = call(*SAME, "--along", "saved:r.h5")
    assert done.exit_code == 2
    assert "r.h5 holds results, not vectors" in done.stderr
    assert re.search(r"its vectors are in r-[0-9a-f]{16}\.h5 \(directions of slice-", done.stderr)


def test_files_in_the_table_are_beside_the_configuration(
    others: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open("landscape.toml", "a") as file:
        file.write('\n[slice]\nalong = "to:b.pt"\ntrajectory = "runs/*.pt"\nrange = "0:1:3"\n')
    here = run_of(*SAME)
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    there = run_of("slice", "../ckpt.pt", "--config", "../landscape.toml", "--seed", "1")
    assert there.point_names.tolist() == here.point_names.tolist() == ["b.pt", "1.pt", "2.pt", "10.pt"]
    assert (there.loss == here.loss).all()


def test_dry_run_computes_and_stores_nothing() -> None:
    done = call(*SAME, "--dry-run")
    assert done.exit_code == 0, done.stderr
    assert "625 points" in done.stderr
    assert "products" not in done.stdout
    assert not Path("landscape-results").exists()
    plan = json.loads(call(*SAME, "--along", "eigen", "--dry-run", "--json").stdout)["plan"]
    assert plan["products"] > 0


def test_help_shows_the_options() -> None:
    text = call("slice", "--help").stdout
    for part in ("--along", "--range", "--no-orthogonalize", "--test-data", "--metric", "--jobs", "--refine"):
        assert part in text
    assert "--test-data" not in call("eigen", "--help").stdout


# --- limits and interruptions ----------------------------------------------------------------------------


@pytest.mark.usefixtures("others")
@pytest.mark.parametrize("along", ["random", "eigen", "to:b.pt"])
def test_a_time_limit_before_the_first_point(along: str) -> None:
    args = (*SAME, "--along", along, "--range=0:1:3")
    done = call(*args, "--time-limit", "0")
    assert done.exit_code == 4, done.stderr
    assert "no figure yet: the same command goes on" in done.stdout
    assert "to see it" not in done.stdout
    assert "give the same command again without the limit" in done.stderr
    file = next(path for path in Path("landscape-results").glob("ckpt-*.h5") if len(path.stem) == 13)
    assert "no figure yet" in call("show", file, "slice-").stdout
    again = call(*args)
    assert (again.exit_code, "resumed" in again.stderr) == (0, True)
    assert "in 3 points" in again.stdout


def test_an_interrupted_search_for_eigenvectors_goes_on() -> None:
    code = "from landscape_cli.app import main; main()"
    args = (*SAME, "--along", "eigen:3", "--range=-1:1:3", "--batch-size", "50", "--json")
    line = [sys.executable, "-c", code, *args]
    slow = os.environ | {"SLOW": "0.05", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(line, env=slow, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(Path().glob("landscape-results/*.partial")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, ""), err
    assert "the same command" in err
    assert "Traceback" not in err
    assert not list(Path("landscape-results").glob("*.h5"))
    resumed = call(*args)
    assert resumed.exit_code == 0, resumed.stderr
    assert "resumed at step" in resumed.stderr
    undisturbed = call(*args, "-o", "other.h5")
    (one,), (other,) = (json.loads(text)["runs"] for text in (resumed.stdout, undisturbed.stdout))
    changing: dict[str, Any] = {"seconds": 0, "directions_file": ""}
    assert one["result"] | changing == other["result"] | changing


# --- misuse ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("others")
@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--along", "to:odd.pt"], "odd.pt"),
        (["--along", "to:missing.pt"], "missing.pt"),
        (["--along", "to:ckpt.pt"], "ckpt.pt holds the same weights"),
        (["--along", "gradient", "--along", "sam"], "the two directions lie on one line"),
        (["--along", "to:b.pt", "--along", "to:b.pt"], "both directions are the same"),
        (["--along", "random", "--range=1:1:5"], "the --range is empty"),
        (["--along", "random", "--range=1:0:5"], "write 0:1:5"),
        (["--along", "random", "--range=nan:1:5"], "finite"),
        (["--along", "random", "--range=0:1:1"], "has 2 to 100000 coordinates"),
        (["--along", "random", "--range=0:1:3", "--range=0:1:3"], "more --range than --along"),
        (["--along", "random"] * 3, "one --along (a line) or two (a plane)"),
        (["--along", "pca"], "--trajectory"),
        (["--along", "pca", "--trajectory", "none*.pt"], "no file matches --trajectory"),
        (["--along", "pca", "--trajectory", "ckpt.pt"], "equal the one at the centre"),
        (["--along", "pca:2", "--trajectory", "b.pt"], "too few directions"),
        (["--along", "eigen:44"], "43 parameters are measured"),
        (["--along", "eigen:0"], "numbered from 1"),
        (["--along", "steepest"], "choose random"),
        (["--along", "random random"], "choose random"),
        (["--along", "to"], "needs a file"),
        (["--along", "saved:abcdef01"], "no stored vectors"),
        (["--along", "saved:train.py"], "is not a checkpoint"),
        (["--along", "sam", "--rho", "0"], "--rho must be positive"),
        (["--along", "random", "--range", "auto", "--rise", "1"], "--rise must be above 1"),
        (["--along", "random", "--metric", "train.py:broken"], "the metric broken failed"),
        (["--along", "random", "--metric", "train.py:nothing"], "train.py:nothing"),
        (["--along", "random", "--test-data", "none.npz"], "none.npz"),
        (["--along", "random", "--jobs", "2", "--threads", "2"], "one thread each"),
        (["--train-mode", "--batchnorm", "recalibrated"], "nothing to recalibrate"),
    ],
)
def test_bad_input_is_a_short_error(args: list[str], words: str) -> None:
    done = call(*SAME, *args)
    assert (done.exit_code, done.stdout) == (2, ""), done.stderr
    message = done.stderr[done.stderr.index("error: ") :]
    assert words in message
    assert 1 <= len(message.splitlines()) <= 5


def test_what_only_slices_show_belongs_to_no_other_command() -> None:
    done = call("eigen", "ckpt.pt", "--test-data", "train.py:test_data")
    assert done.exit_code == 2
    assert "--test-data" in done.stderr


def test_a_range_that_begins_with_a_minus_or_holds_no_zero(others: None) -> None:
    assert run_of(*SAME, "--along", "random", "--range", "-1:1:3").x.tolist() == [-1.0, 0.0, 1.0]
    beside = run_of(*SAME, "--along", "random", "--range", "0.5:1:3")
    assert beside.x.tolist() == [0.5, 0.75, 1.0]
    assert np.isfinite(beside.loss).all()


def test_a_centre_that_is_not_finite_is_compared_with_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    text = words_of(line_result(centre_loss=float("nan"), centre_error=float("nan")), capsys)
    assert "nan" not in text
    assert "centre       loss not finite" in text
