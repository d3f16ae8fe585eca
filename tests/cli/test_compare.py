"""``landscape compare``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from landscape_cli.views.compare import _with
from tests.cli.support import call
from tests.support.training_results import eigen_at, store, trace_at, trainings


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two training runs of five checkpoints, not to be changed."""
    place = tmp_path_factory.mktemp("study") / "results"
    store(place, trainings(5))
    return place


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two checkpoints in the current folder, and vectors beside them."""
    monkeypatch.chdir(tmp_path)
    results = [
        eigen_at("a.pt", 5, 8.0),
        trace_at("a.pt", 5, 40.0),
        eigen_at("b.pt", 7, 5.0),
        trace_at("b.pt", 7, 39.5),
    ]
    store(Path(), results)
    Path(f"a-{'0' * 16}.h5").write_bytes(b"vectors")
    return sorted(Path().glob("*.h5"))


def test_figures_side_by_side(pair: list[Path]) -> None:
    done = call("compare", *pair)
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("eigen (eigen-")
    assert lines[1].split() == ["measure", "a", "b", "difference", "differs", "beyond", "sampling", "ratio"]
    row = next(line for line in lines if line.startswith("lambda_max"))
    assert "8.0000 ± 0.0010 (se 0.5)" in row
    assert "-3.0000 ± 0.0020 (se 0.71)" in row
    assert "yes (z = -4.2)" in row
    trace = next(line for line in lines if line.startswith("trace  "))
    assert [part.strip() for part in trace.split("  ") if part][3:6] == ["-0.50 ± 0.36", "yes", "?"]
    assert "beyond sampling: at 95 %" in done.stdout
    assert "Bonferroni" in done.stdout
    assert "Note: all are of the same examples" in done.stderr
    assert call("compare", *pair, "-q").stderr == ""


def test_what_is_shown_of_tiny_errors_is_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    values = (2.469987654321, 0.123456789)
    store(Path(), [eigen_at(f"{name}.pt", 5, x) for name, x in zip("ab", values, strict=True)])
    done = call("compare", *sorted(Path().glob("*.h5")), "--json")
    exact = {row["measure"]: row for row in json.loads(done.stdout)["comparison"]["rows"]}["lambda_max"]
    for error in (1e-15, 1e-9, 3e-6):
        for reading in exact["readings"]:
            value, half = map(float, _with(reading["value"], error, None).split(" ± "))
            assert abs(reading["value"] - value) <= half < 1.1 * error + 1e-4 * value


def test_more_than_two_are_held_against_the_first(pair: list[Path], tmp_path: Path) -> None:
    third = store(tmp_path, [eigen_at("c.pt", 9, 8.001)])
    done = call("compare", *pair, *third, "--kind", "eigen", "--measure", "lambda_max")
    assert done.exit_code == 0, done.stderr
    header, row = done.stdout.splitlines()[1:3]
    assert header.split()[:8] == ["measure", "a", "b", "−", "a", "c", "−", "a"]
    assert "yes, yes (z = -4.2)" in row
    assert "no, no (z = 0.0)" in row


def test_training_runs_by_step(folder: Path) -> None:
    done = call("compare", folder, "--kind", "eigen")
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "eigen: lambda_max, loss / weight²"
    assert lines[1].split()[:3] == ["step", "sam", "sgd"]
    assert [line.split()[0] for line in lines[2:7]] == ["0", "10", "20", "30", "40"]


def test_json_is_one_object(pair: list[Path], folder: Path) -> None:
    read = json.loads(call("compare", *pair, "--json").stdout)
    assert (read["command"], read["format_version"], read["picture"]) == ("compare", 1, None)
    rows = {row["measure"]: row for row in read["comparison"]["rows"]}
    assert rows["lambda_max"]["differences"][0]["value"] == -3.0
    assert rows["trace"]["differences"][0]["differs_beyond_sampling"] is None
    found = json.loads(call("compare", folder, "--correlate", "lambda_max", "trace", "--json").stdout)
    assert [one["name"] for one in found["correlations"]] == ["sam", "sgd", "all together"]
    assert found["correlations"][0]["spearman"]["value"] == pytest.approx(-1)


@pytest.mark.parametrize("options", [[], ["--measure", "trace"], ["--correlate", "trace", "lambda_max"]])
def test_a_picture_names_the_runs(folder: Path, tmp_path: Path, options: list[str]) -> None:
    path = tmp_path / "sides.png"
    done = call("compare", folder, *options, "-o", path)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(path)
    with Image.open(path) as image:
        image.load()
        assert "checkpoint runs/sgd-epoch004.pt" in image.info["Description"]


def test_rank_correlations_with_intervals_and_their_limits(folder: Path) -> None:
    done = call("compare", folder, "--correlate", "lambda_max", "trace")
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "eigen.lambda_max and trace.trace"
    assert lines[2].split()[:3] == ["sam", "5", "-1.00"]
    assert "follow from each other" in done.stdout
    assert "a difference between the runs is correlation too" in done.stdout


def test_what_is_not_alike_is_said_or_refused(tmp_path: Path) -> None:
    files = store(
        tmp_path,
        [
            eigen_at("a.pt", 1, 8.0, settings={"k": 2}),
            eigen_at("b.pt", 1, 5.0, settings={"k": 3, "which": "both"}),
        ],
    )
    done = call("compare", *files, "-q")
    assert done.exit_code == 0
    assert done.stderr == "Not alike: eigen: k = 2 / 3.\nNot alike: eigen: which = None / both.\n"
    other = store(tmp_path, [eigen_at("c.pt", 1, 8.0, data_fingerprint="other")])
    refused = call("compare", files[0], *other)
    assert refused.exit_code == 2
    assert "--mixed" in refused.stderr
    mixed = call("compare", files[0], *other, "--mixed")
    assert mixed.exit_code == 0
    assert "Not alike: eigen: data = c0ffee / other." in mixed.stderr


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["a.h5"], ["two checkpoints or two training runs"]),
        (["a.h5", "none.h5"], ["no results at none.h5"]),
        (["a.h5", "b.h5", "--kind", "overlap"], ["kind 'overlap'"]),
        (["a.h5", "b.h5", "-o", "a.jpg"], ["cannot write a picture as a.jpg"]),
        (["a.h5", "b.h5", "--correlate", "trace", "nothing"], ["no measure 'nothing'", "lambda_max"]),
        (["a.h5", "b.h5", "--correlate", "trace", "loss"], ["needs 4 checkpoints", "found: 2"]),
        (["a.h5", "--correlate", "trace", "loss", "--kind", "eigen"], ["--kind is for comparing"]),
        ([], ["Missing argument"]),
    ],
)
def test_what_cannot_be_compared(pair: list[Path], args: list[str], words: list[str]) -> None:
    done = call("compare", *args)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert all(word in done.stderr for word in words), done.stderr


def test_names_are_harmless(tmp_path: Path) -> None:
    files = store(tmp_path, [eigen_at(f"{n}\x1b[31m.pt", 1, 8.0) for n in "ab"])
    done = call("compare", *files)
    assert done.exit_code == 0
    assert "\x1b" not in done.stdout + done.stderr
