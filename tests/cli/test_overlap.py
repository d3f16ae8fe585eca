"""``landscape overlap`` from result files to figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from landscape.results import OverlapResult
from landscape.store import ResultFile
from landscape_cli.views.overlap import MOST
from tests.cli.support import call
from tests.cli.test_app import heavy
from tests.support.ratio_runs import random_runs, ratios_run, stored

N = 6571


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def files(count: int = 3) -> list[Path]:
    return [stored(Path(f"r/{i}.h5"), run) for i, run in enumerate(random_runs(N, range(10, 10 + count)))]


def result_in(path: str | Path, run: str = "overlap") -> OverlapResult:
    result = ResultFile(path).read(run)
    assert isinstance(result, OverlapResult)
    return result


def blocks(text: str) -> list[list[str]]:
    return [block.splitlines() for block in text.split("\n\n")]


def test_sets_lifts_pairs_and_what_stays() -> None:
    done = call("overlap", *files(), "-o", "x.h5")
    assert done.exit_code == 0, done.stderr
    result = result_in("x.h5")
    title, sets, lifts, pairs, common, rest = blocks(done.stdout)
    assert title == ["overlap of ckpt1 (r > 1), 6571 parameters"]
    assert sets[0].split() == ["step", "checkpoint", "ckpt1", "share", "of", "all", "run"]
    assert sets[1].split()[:3] == ["10", "net-10.pt", str(result.sizes[0])]
    assert lifts[1].split() == ["step", "10", "11", "12"]
    assert lifts[2].split()[1] == "—"
    np.testing.assert_allclose([float(v) for v in lifts[2].split()[2:]], result.lifts[0, 1:], atol=1e-3)
    assert [line.split()[:3] for line in pairs[1:]] == [
        ["10", "→", "11"],
        ["10", "→", "12"],
        ["11", "→", "12"],
    ]
    both, expected, sign, deviation = pairs[1].split()[3:7]
    assert int(both) == result.counts[0, 1]
    assert float(expected) == pytest.approx(result.expected[0, 1], abs=1)
    assert sign == "±"
    assert 0 <= float(deviation) - result.deviations[0, 1] < 2
    assert common[0] == "in ckpt1 at every saved step from 10 on"
    assert [line.split()[:2] for line in common[2:]] == [["11", "2"], ["12", "3"]]
    assert rest[0].split() == ["classes", "of", "g'/g,", "gradient,", "ρ", "=", "0.05,", "p", "=", "2"]
    assert any(line.startswith("z ") and "lift" in line for line in rest)
    run = result.provenance.id if result.provenance else ""
    assert rest[-2:] == [f"stored in x.h5 as run {run}", f"to see it: landscape plot x.h5 {run}"]


def test_two_steps_need_no_matrix() -> None:
    done = call("overlap", *files(2))
    assert done.exit_code == 0, done.stderr
    assert "lift from row to column" not in done.stdout
    assert "every saved step" not in done.stdout
    assert done.stdout.count("→ 11") == 1


def test_many_steps_list_neighbours_and_the_first_with_all() -> None:
    count = MOST + 2
    done = call("overlap", *files(count))
    shown = [line.split()[:3] for line in done.stdout.splitlines() if "→" in line and line[0] != "f"]
    pairs = {(int(a), int(b)) for a, _, b in shown}
    first = {(10, 10 + i) for i in range(1, count)}
    assert pairs == first | {(10 + i, 11 + i) for i in range(count - 1)}
    assert "--json has all pairs" in done.stdout
    assert "lift from row to column" not in done.stdout


def test_another_class_is_compared_both_ways() -> None:
    done = call("overlap", *files(2), "--class", "ckpt2", "--with", "ckpt3")
    assert "ckpt2 (0 < r < 1) with ckpt3 (r < −1) at other steps" in done.stdout
    assert "10 → 11" in done.stdout
    assert "11 → 10" in done.stdout
    assert done.stdout == call("overlap", *files(2), "--ratio-class", "ckpt2", "--with-class", "ckpt3").stdout


def test_json_is_one_object_with_the_stored_figures() -> None:
    done = call("overlap", *files(), "--json", "-q")
    assert done.stderr == ""
    printed = json.loads(done.stdout)
    (run,) = printed["runs"]
    result = result_in(run["file"], run["id"])
    assert (printed["command"], run["kind"], run["status"]) == ("overlap", "overlap", "complete")
    assert run["checkpoint"] is None
    assert run["result"]["counts"] == result.counts.tolist()
    assert run["result"]["lifts"][0][0] is None
    assert Path(run["file"]).parent == Path("landscape-results")


def test_an_empty_class_is_a_dash_and_never_nan() -> None:
    for step, classes in enumerate(([0] * 90, [1] * 90, [0] * 50 + [1] * 40)):
        stored(Path(f"r/{step}.h5"), ratios_run(classes, step=step))
    for name in ("ckpt1", "born"):
        done = call("overlap", *sorted(Path("r").glob("?.h5")), "--class", name, "-o", "x.h5")
        assert done.exit_code == 0, done.stderr
        assert "nan" not in done.stdout.lower()
        assert "inf" not in done.stdout.lower()
        (line,) = [line for line in done.stdout.splitlines() if line.startswith("1 → 2")]
        assert line.split()[3:] == [
            "0",
            "0",
            "±",
            "0",
            *["—"] * 3,
            *(["0", "0", "—"] if name == "ckpt1" else ["—"] * 3),
        ]
    assert "NaN" not in call("show", "x.h5", "--json").stdout
    assert call("plot", "x.h5").exit_code == 0


def test_what_rounding_may_have_done_is_said() -> None:
    runs = [ratios_run([0, 0, 1, 1] * 50, step=s, uncertain={"ckpt1": 0.01}) for s in (1, 2)]
    done = call("overlap", stored(Path("a.h5"), *runs))
    assert "100 ± 2" in done.stdout
    assert "100 ± 4" in done.stdout
    assert "rounding of the gradients" in done.stdout


def test_a_second_time_it_is_shown_from_the_file() -> None:
    given = files()
    first = call("overlap", *given)
    again = call("overlap", *given)
    assert again.stdout == first.stdout
    assert "the same run is stored" in again.stderr
    assert "the same run is stored" not in call("overlap", *given, "--fresh").stderr


def test_show_plot_and_rm() -> None:
    printed = call("overlap", *files(), "-o", "x.h5").stdout
    shown = call("show", "x.h5", "overlap").stdout
    for line in printed.splitlines():
        if not line.startswith(("stored", "to see")):
            assert line in shown
    listed = call("show", "x.h5").stdout.splitlines()[1].split()
    assert listed[1:3] == ["overlap", "complete"]
    for options in ([], ["--view", "distance"], ["--view", "matrix"]):
        done = call("plot", "x.h5", *options)
        assert done.exit_code == 0, done.stderr
        assert Path(done.stdout.strip()).read_bytes().startswith(b"\x89PNG")
    assert call("rm", "x.h5", "overlap", "--yes").exit_code == 0
    assert ResultFile("x.h5").runs() == ()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "Missing argument"),
        (["r/0.h5"], "at least"),
        (["no.h5", "r/0.h5"], "no.h5"),
        (["r"], "is a folder"),
        (["r/0.h5", "r/1.h5", "--class", "ckpt9"], "ckpt1, ckpt2, ckpt3"),
        (["r/0.h5", "r/1.h5", "--with", "all"], "ckpt1, ckpt2, ckpt3"),
        (["r/0.h5", "r/1.h5", "--run", "eigen"], "none of the files"),
        (["r/0.h5", "other.h5"], "different models"),
        (["r/0.h5", "r/1.h5", "-o", "r/text.h5"], "not a landscape file"),
    ],
)
def test_bad_input_is_a_short_error(args: list[str], words: str) -> None:
    files(2)
    stored(Path("other.h5"), ratios_run([0] * 20, step=30))
    Path("r/text.h5").write_text("hello")
    done = call("overlap", *args)
    assert (done.exit_code, done.stdout) == (2, "")
    assert words in done.stderr
    assert len(done.stderr[done.stderr.index("error: ") :].splitlines()) <= 5


def test_mixed_runs_are_refused_and_marked() -> None:
    runs = [ratios_run([0, 1] * 9, step=s, rho=r) for s, r in ((1, 0.05), (2, 0.1))]
    path = stored(Path("a.h5"), *runs)
    refused = call("overlap", path)
    assert refused.exit_code == 2
    assert "rho: 0.05, 0.1" in refused.stderr
    done = call("overlap", path, "--mixed")
    assert done.exit_code == 0, done.stderr
    assert "differing  rho: 0.05, 0.1: these are not steps of one measurement" in done.stdout


def test_two_trainings_in_one_are_told_apart_and_said() -> None:
    trainings = [
        [ratios_run([0, 1] * 9, step=step, run=f"ratios-{name}{step}") for step in (1, 2)] for name in "ab"
    ]
    done = call("overlap", *(stored(Path(f"{i}.h5"), *runs) for i, runs in enumerate(trainings)))
    assert done.exit_code == 0, done.stderr
    assert "ratios-a1 → ratios-b1" in done.stdout
    assert "several checkpoints are of the same one" in done.stdout


def test_text_from_files_is_harmless() -> None:
    runs = [ratios_run([0, 1] * 9, step=s, perturb="\x1b[2J") for s in (1, 2)]
    done = call("overlap", stored(Path("a.h5"), *runs))
    assert done.exit_code == 0
    assert "\x1b" not in done.stdout


def test_neither_torch_nor_scipy_is_loaded() -> None:
    assert heavy("overlap", *map(str, files(2))) == set()


def test_help_shows_both_spellings_and_the_seed() -> None:
    text = " ".join(call("overlap", "--help").stdout.split())
    for part in ("--class", "--with", "--mixed", "--run", "3.6e6", "FILE..."):
        assert part in text


@pytest.mark.usefixtures("project")
def test_with_everything_real(monkeypatch: pytest.MonkeyPatch) -> None:
    """From checkpoints over ratios to overlaps."""
    state: Any = torch.load("ckpt.pt", weights_only=True)
    noise = torch.Generator().manual_seed(3)
    for step in (1, 2, 3):
        state["model_state_dict"] = {
            name: value + 0.1 * torch.randn(value.shape, generator=noise)
            for name, value in state["model_state_dict"].items()
        }
        torch.save({**state, "step": step}, f"step{step}.pt")
        made = call("ratios", f"step{step}.pt", "--seed", "0")
        assert made.exit_code == 0, made.stderr
    done = call("overlap", *sorted(Path("landscape-results").glob("*.h5")), "-o", "x.h5")
    assert done.exit_code == 0, done.stderr
    result = result_in("x.h5")
    assert result.places.tolist() == [1, 2, 3]
    assert result.parameters == 43
    assert (np.diag(result.counts) == result.sizes).all()
