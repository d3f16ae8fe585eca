"""``show``, ``rm`` and ``plot`` on real result files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from landscape.store import ResultFile
from landscape_cli.commands import rm
from tests.cli.support import call, eigen_result, provenance, stored


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of three runs in ./landscape-results, the current folder being a fresh one."""
    monkeypatch.chdir(tmp_path)
    return stored(Path("landscape-results"), "eigen-aaaa", "eigen-abbb", "eigen-cccc")


def test_show_lists_files(file: Path) -> None:
    shown = call("show")
    assert shown.exit_code == 0
    assert shown.stdout.splitlines()[1].split() == [str(file), "3"]
    listed = json.loads(call("show", "--json").stdout)
    assert listed == {
        "format_version": 1,
        "command": "show",
        "runs": [],
        "files": [{"path": str(file), "runs": 3, "error": None}],
    }


def test_show_lists_a_broken_file_as_such(file: Path) -> None:
    (file.parent / "broken.h5").write_bytes(b"no HDF5")
    shown = call("show")
    assert shown.exit_code == 0
    line = next(line for line in shown.stdout.splitlines() if "broken.h5" in line)
    assert len(line.split()) > 2  # says why
    assert str(file) in shown.stdout


def test_show_without_results_says_how_to_get_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown = call("show")
    assert (shown.exit_code, shown.stdout) == (0, "")
    assert "landscape eigen" in shown.stderr


def test_show_file_lists_runs(file: Path) -> None:
    lines = call("show", file).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["run", "eigen-aaaa", "eigen-abbb", "eigen-cccc"]
    assert lines[1].split()[1:4] == ["eigen", "complete", "2026-01-01T00:00:00+00:00"]
    runs = json.loads(call("show", file, "--json").stdout)["runs"]
    assert [run["id"] for run in runs] == ["eigen-aaaa", "eigen-abbb", "eigen-cccc"]
    np.testing.assert_array_equal(runs[0]["result"]["eigenvalues"], eigen_result().eigenvalues)


def test_show_run_in_full(file: Path) -> None:
    text = call("show", file, "eigen-c").stdout
    for words in ("eigen-cccc", "k = 5", "cross_entropy", "status", "is this my loss?", "12.3456     0.0021"):
        assert words in text
    run = json.loads(call("show", file, "eigen-c", "--json").stdout)["runs"]
    assert [r["id"] for r in run] == ["eigen-cccc"]
    assert set(run[0]) >= {"id", "kind", "status", "checkpoint", "settings", "result"}


@pytest.mark.parametrize(
    ("run", "found"),
    [
        ("eigen-a", "eigen-aaaa, eigen-abbb"),
        ("nothing", "eigen-aaaa, eigen-abbb, eigen-cccc"),
        ("", "eigen-aaaa, eigen-abbb, eigen-cccc"),
    ],
)
def test_a_run_that_is_none_or_several(file: Path, run: str, found: str) -> None:
    for command in ("show", "plot"):
        shown = call(command, file, run)
        assert shown.exit_code == 2
        assert f"found: {found}\n" in shown.stderr
        assert shown.stdout == ""
    assert call("rm", file, run, "--yes").exit_code == 2
    assert len(ResultFile(file).runs()) == 3


def test_no_such_file_names_those_that_exist(file: Path) -> None:
    for args in (["show", "no.h5"], ["plot", "no.h5"], ["rm", "no.h5", "x", "--yes"]):
        shown = call(*args)
        assert shown.exit_code == 2
        assert f"found: {file}\n" in shown.stderr
    assert "a folder" in call("show", file.parent).stderr


def test_rm_deletes_what_was_named_and_nothing_else(file: Path) -> None:
    done = call("rm", file, "eigen-aa", "eigen-aaaa", "--yes", "--json")
    assert json.loads(done.stdout)["deleted"] == ["eigen-aaaa"]
    assert [run.id for run in ResultFile(file).runs()] == ["eigen-abbb", "eigen-cccc"]


def test_rm_asks_nobody_off_a_terminal(file: Path) -> None:
    done = call("rm", file, "eigen-c", stdin="y\n")
    assert done.exit_code == 2
    assert "--yes" in done.stderr
    assert len(ResultFile(file).runs()) == 3


@pytest.mark.parametrize(("answer", "left"), [("y", 2), ("yes", 2), ("n", 3), ("", 3)])
def test_rm_asks_on_a_terminal(file: Path, answer: str, left: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        stdin = type("In", (), {"isatty": lambda _: True, "readline": lambda _: answer + "\n"})()

    monkeypatch.setattr(rm, "sys", Terminal)
    done = call("rm", file, "eigen-c")
    assert "Delete eigen-cccc?" in done.stderr
    assert len(ResultFile(file).runs()) == left
    assert done.exit_code == (0 if left == 2 else 2)


def test_plot_writes_a_picture_beside_the_file_and_prints_its_path(file: Path) -> None:
    done = call("plot", file, "eigen-aaaa")
    assert done.exit_code == 0, done.stderr
    path = Path(done.stdout.strip())
    assert path == file.with_name(f"{file.stem}-eigen-aaaa.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert done.stderr == ""


def test_plot_takes_the_latest_run_and_says_so(file: Path) -> None:
    done = call("plot", file)
    assert "3 runs" in done.stderr
    assert "eigen-cccc" in done.stderr
    assert done.stdout.strip().endswith("eigen-cccc.png")
    assert call("plot", file, "--quiet").stderr == ""


@pytest.mark.parametrize(("ending", "begin"), [("svg", b"<?xml"), ("pdf", b"%PDF"), ("PNG", b"\x89PNG")])
def test_plot_formats(file: Path, ending: str, begin: bytes) -> None:
    picture = f"pictures/spectrum.{ending}"
    done = call("plot", file, "eigen-c", "-o", picture, "--learning-rate", "0.1", "--json")
    assert done.exit_code == 0, done.stderr
    assert Path(picture).read_bytes().startswith(begin)
    printed = json.loads(done.stdout)
    assert printed["picture"] == picture
    assert printed["runs"][0]["id"] == "eigen-cccc"


def test_the_learning_rate_changes_the_picture(file: Path) -> None:
    for name, rate in (("a.svg", []), ("b.svg", ["--learning-rate", "0.1"])):
        assert call("plot", file, "eigen-c", "-o", name, *rate).exit_code == 0
    assert Path("a.svg").read_text().count("<path") < Path("b.svg").read_text().count("<path")


@pytest.mark.parametrize(
    "args", [["-o", "x.jpeg"], ["-o", "noending"], ["--learning-rate", "0"], ["--learning-rate", "nan"]]
)
def test_plot_refuses_what_it_cannot_draw(file: Path, args: list[str]) -> None:
    done = call("plot", file, "eigen-c", *args)
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ")
    assert len(list(file.parent.iterdir())) == 1


def test_an_empty_file_of_results(file: Path) -> None:
    assert call("rm", file, "eigen-aaaa", "eigen-abbb", "eigen-cccc", "--yes").exit_code == 0
    shown = call("show", file)
    assert (shown.exit_code, shown.stdout) == (0, "")
    assert call("plot", file).exit_code == 2


def test_text_from_files_is_harmless(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    nasty = provenance("eigen-a", command="landscape \x1b[2J[bold]", data_fingerprint="\u202e")
    ResultFile(path).add(eigen_result(provenance=nasty, standard_error_method="\x1b]0;title\x07"))
    for args in ([], ["eigen-a"], ["--json"]):
        done = call("show", path, *args)
        assert done.exit_code == 0
        assert not {"\x1b", "\x07", "\u202e"} & set(done.stdout)
    assert "[bold]" in call("show", path).stdout
