"""``landscape export``, and ``landscape show`` of a folder."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import Result

from landscape.results.measures import readings
from landscape.store import ResultFile
from landscape.study import open_runs
from landscape.study.export import csv_text, json_text, npz_bytes
from landscape_cli.numbers import with_error
from tests.cli.support import call
from tests.cli.test_app import heavy
from tests.study.folder import put, study


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """./landscape-results with twelve runs."""
    monkeypatch.chdir(tmp_path)
    Path("landscape-results").mkdir()
    return study(Path("landscape-results"))


def measured(done: Result) -> set[tuple[str, str]]:
    """Of a printed CSV: kinds and trainings."""
    assert done.exit_code == 0, done.stderr
    return {(row["kind"], row["training"]) for row in csv.DictReader(io.StringIO(done.stdout))}


def test_csv_of_everything_is_the_default(folder: Path) -> None:
    done = call("export")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == csv_text(open_runs(folder))
    assert call("export", folder, "-o", "-").stdout == done.stdout


def test_runs_are_chosen_by_files_and_the_beginning_of_their_ids(folder: Path) -> None:
    assert measured(call("export", "trace")) == {("trace", "sgd"), ("trace", "sam")}
    assert measured(call("export", folder, "eigen-sam")) == {("eigen", "sam")}
    files = [folder / "sgd-step0.h5", folder / "sgd-step9.h5"]
    assert measured(call("export", *files)) == {("eigen", "sgd"), ("trace", "sgd")}
    assert measured(call("export", *files, folder, "eigen")) == {("eigen", "sgd"), ("eigen", "sam")}
    once, twice = call("export", files[0]).stdout, call("export", files[0], files[0]).stdout
    assert once == twice


def test_formats(folder: Path) -> None:
    runs = open_runs(folder).where(id="eigen-sam")
    text = json_text(runs)
    assert call("export", "eigen-sam", "--format", "json").stdout == text
    assert call("export", "eigen-sam", "--json").stdout == text
    for name, contents in (("a.json", text.encode()), ("a.npz", npz_bytes(runs))):
        done = call("export", "eigen-sam", "-o", name)
        assert (done.stdout, done.exit_code) == (f"{name}\n", 0)
        assert Path(name).read_bytes() == contents
    done = call("export", "eigen-sam", "--format", "npz")
    with np.load(io.BytesIO(done.stdout_bytes)) as found:
        assert found["eigen-sam-step9/lambda_max"] == 109.0


def test_neither_torch_nor_matplotlib_is_imported(folder: Path) -> None:
    for args in (["export", "eigen-sam", "-o", "x.npz"], ["show", str(folder)]):
        assert not heavy(*args) & {"torch", "matplotlib"}, args


def test_quantities(folder: Path) -> None:
    shown = call("export", "--quantity", "eigenvalues").stdout
    assert shown == csv_text(open_runs(folder), "eigenvalues")
    done = call("export", "--quantity", "eigenvalues", "--quantity", "layer_traces", "-o", "tables", "--json")
    printed = json.loads(done.stdout)
    assert printed["files"] == ["tables/eigenvalues.csv", "tables/layer_traces.csv"]
    assert len(printed["exported"]) == 12
    assert Path("tables/eigenvalues.csv").read_text() == shown


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["nothing"], "no run whose id begins with 'nothing'"),
        (["eigen", "trace"], "one run can be named"),
        (["no.h5"], "there are no results at no.h5"),
        (["--format", "xlsx"], "cannot export as 'xlsx'"),
        (["-o", "x.xlsx"], "cannot export as 'xlsx'"),
        (["--json", "--format", "csv"], "add -o FILE"),
        (["--quantity", "all"], "name a folder"),
        (["--quantity", "eigenvalue"], "near it: eigenvalues"),
        (["-o", "landscape-results/sgd-step9.h5"], "cannot export as 'h5'"),
        (["--format", "csv", "-o", "landscape-results/sgd-step9.h5"], "ends in .csv"),
    ],
)
def test_what_cannot_be_exported(folder: Path, args: list[str], words: str) -> None:
    done = call("export", *args)
    assert done.exit_code == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) <= 5
    assert done.stdout == ""
    assert len(ResultFile(folder / "sgd-step9.h5").runs()) == 2


def test_no_results_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "landscape eigen CHECKPOINT makes some" in call("export").stderr
    Path("landscape-results").mkdir()
    assert "no runs to export" in call("export").stderr
    shown = call("show", "landscape-results")
    assert (shown.exit_code, shown.stdout) == (0, "")


def test_a_file_that_cannot_be_read_is_said(folder: Path) -> None:
    (folder / "broken.h5").write_bytes(b"no HDF5")
    for args in (["export", "-q"], ["show", "landscape-results", "-q"]):
        done = call(*args)
        assert done.exit_code == 0
        assert "broken.h5" in done.stderr
        assert "sgd" in done.stdout


def test_show_of_a_folder_has_a_line_for_each_checkpoint(folder: Path) -> None:
    lines = call("show", folder).stdout.splitlines()
    assert re.split("  +", lines[0]) == ["checkpoint", "step", "epoch", "λmax", "Tr"]
    rows = [re.split("  +", line) for line in lines[1:7]]
    assert [row[0] for row in rows] == [f"{name}-step{i}.pt" for name in ("sam", "sgd") for i in (0, 9, 10)]
    runs = open_runs(folder)
    for row, *entries in zip(rows, runs.where(kind="eigen"), runs.where(kind="trace"), strict=True):
        found = {name: reading for entry in entries for name, reading in readings(entry.read()).items()}
        for text, name in zip(row[-2:], ("lambda_max", "trace"), strict=True):
            reading = found[name]
            assert reading.error is not None
            assert text == with_error(reading.value, reading.error)
    assert "± is residual and noise floor" in lines[8]


def test_show_of_a_folder_takes_runs_that_ask_the_same(folder: Path) -> None:
    later = "2027-01-01T00:00:00+00:00"
    put(
        folder,
        "runs/sgd-step9.pt",
        "eigen",
        step=9,
        run="again",
        started=later,
        lambda_max=5.0,
        status="partial",
    )
    put(folder, "runs/sgd-step0.pt", "eigen", step=0, run="other", started=later, settings={"k": 3})
    done = call("show", folder)
    assert "Left out of eigen: 1 run on a checkpoint of which there is a later one." in done.stderr
    assert "Left out of eigen: 1 run with k = 3 instead of None." in done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("sgd-step9"))
    assert "(partial)" in line
    assert "5.0" in line


def test_show_of_a_run_in_a_folder(folder: Path) -> None:
    assert (
        call("show", folder, "eigen-sam-step9").stdout
        == call("show", folder / "sam-step9.h5", "eigen").stdout
    )
    several = call("show", folder, "eigen-sam")
    assert several.exit_code == 2
    assert "give more of the id" in several.stderr


def test_show_of_a_folder_as_json(folder: Path) -> None:
    printed = json.loads(call("show", folder, "--json").stdout)
    assert [run["id"] for run in printed["runs"]] == [header.id for header in open_runs(folder).runs()]
    assert printed["unreadable"] == []
