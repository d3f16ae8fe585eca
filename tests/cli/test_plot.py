"""``landscape plot`` on runs of every kind."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from landscape.results import CheckpointReference, RatiosResult
from landscape.store import ResultFile
from tests.cli.support import call, provenance
from tests.plots.ratios_support import gradients, hash_of, ratios_result
from tests.plots.support import per_layer, trace_result
from tests.plots.test_density import density_result
from tests.results.samples import eigen_result
from tests.support.slice_results import plane_result
from tests.support.training_results import store, trainings


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An eigen run with layers, a trace and a density."""
    monkeypatch.chdir(tmp_path)
    path = Path("landscape-results") / "model-abababab.h5"
    ResultFile(path).add(per_layer(provenance=provenance("eigen-aaaa")))
    ResultFile(path).add(trace_result(provenance=provenance("trace-bbbb")))
    ResultFile(path).add(density_result(provenance=provenance("density-cccc")))
    return path


@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
@pytest.mark.parametrize("run", ["eigen-a", "trace-b", "density-c"])
def test_every_kind(file: Path, run: str, ending: str) -> None:
    done = call("plot", file, run, "-o", f"a.{ending}")
    assert done.exit_code == 0, done.stderr
    assert Path(done.stdout.strip()).stat().st_size > 4000


def test_the_bandwidth_changes_the_picture(file: Path) -> None:
    for name, options in (
        ("a.svg", []),
        ("b.svg", ["--bandwidth", "0.1"]),
        ("c.svg", ["--bandwidth", "0.1"]),
    ):
        assert call("plot", file, "density", "-o", name, *options).exit_code == 0
    first, second, third = (Path(f"{name}.svg").read_text() for name in "abc")
    assert first != second
    assert second == third


def test_a_view_has_a_picture_of_its_own(file: Path) -> None:
    whole, layers = call("plot", file, "eigen"), call("plot", file, "eigen", "--view", "layers")
    assert whole.stdout.strip().endswith("-eigen-aaaa.png")
    assert layers.stdout.strip().endswith("-eigen-aaaa-layers.png")
    assert Path(whole.stdout.strip()).read_bytes() != Path(layers.stdout.strip()).read_bytes()
    printed = json.loads(call("plot", file, "eigen", "--view", "spectrum", "--json").stdout)
    assert printed["picture"].endswith("-eigen-aaaa-spectrum.png")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["eigen", "--bandwidth", "0.1"], ["no option bandwidth", "learning_rate"]),
        (["trace", "--learning-rate", "0.1"], ["no option learning_rate", "it has none"]),
        (["density", "--learning-rate", "0.1"], ["no option learning_rate", "bandwidth"]),
        (["density", "--bandwidth", "-1"], ["--bandwidth is a positive number"]),
        (["density", "--bandwidth", "nan"], ["--bandwidth is a positive number"]),
        (["eigen", "--view", "sweep"], ["no sweep", "spectrum, layers"]),
        (["eigen", "--view", "../../x"], ["no view", "spectrum, layers"]),
    ],
)
def test_what_the_picture_does_not_have(file: Path, args: list[str], words: list[str]) -> None:
    done = call("plot", file, *args)
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ")
    assert all(word in done.stderr for word in words), done.stderr
    assert len(list(file.parent.iterdir())) == 1


def test_a_slice_has_levels_data_and_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("m.h5")
    odd = np.array(["a/b c"], dtype=object)
    ResultFile(path).add(plane_result(metric_names=odd, provenance=provenance("slice-dddd")))
    ResultFile(path).add(trace_result(provenance=provenance("trace-bbbb")))
    pictures = {}
    for options, name in (
        ([], "m-slice-dddd.png"),
        (["--levels", "quantile"], "m-slice-dddd.png"),
        (["--data", "test"], "m-slice-dddd-test.png"),
        (["--metric", "a/b c"], "m-slice-dddd-a_b_c.png"),
        (["--view", "surface", "--metric", "accuracy"], "m-slice-dddd-surface-accuracy.png"),
    ):
        done = call("plot", path, "slice", *options)
        assert done.exit_code == 0, done.stderr
        assert done.stdout.strip() == name
        pictures[tuple(options)] = Path(name).read_bytes()
    assert len(set(pictures.values())) == len(pictures)
    for args, words in (
        (["slice", "--levels", "even"], "choose one of quantile, log, linear"),
        (["slice", "--metric", "mass"], "no mass on the train data"),
        (["slice", "--data", "valid"], "train or test"),
        (["slice", "--view", "line"], "no line to draw"),
        (["trace", "--levels", "log"], "no option levels"),
    ):
        done = call("plot", path, *args)
        assert done.exit_code == 2
        assert words in done.stderr
    assert len(list(Path().iterdir())) == 5


def test_a_run_without_any_eigenvalue_says_so(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    ResultFile(path).add(eigen_result([], status="not_converged", provenance=provenance("eigen-a")))
    done = call("plot", path)
    assert done.exit_code == 2
    assert "no eigenvalue yet" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["x.h5"]


def _ratios(
    run: str,
    name: str,
    step: int | None,
    day: int = 1,
    settings: dict[str, Any] | None = None,
    **changes: Any,
) -> RatiosResult:
    result = ratios_result(*gradients(300, seed=day), error=0.01, **changes)
    reference = CheckpointReference(path=name, sha256=hash_of(name), step=step)
    kept = provenance(
        f"ratios-{run}",
        checkpoint=reference,
        settings={"rho": 0.05, "masks": True} | (settings or {}),
        started=f"2026-01-{day:02}T00:00:00+00:00",
    )
    return dataclasses.replace(result, provenance=kept)


@pytest.fixture
def training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Three checkpoints, each with a file that holds an eigen run and ratios, and masks beside them."""
    monkeypatch.chdir(tmp_path)
    folder = Path("landscape-results")
    files = []
    for i, step in enumerate((100, 0, 200)):
        path = folder / f"mlp-{i}-abababab.h5"
        ResultFile(path).add(per_layer(provenance=provenance(f"eigen-{i}")))
        ResultFile(path).add(_ratios(f"old{i}", f"mlp-{i}.pt", step, day=1))
        ResultFile(path).add(_ratios(f"new{i}", f"mlp-{i}.pt", step, day=2, settings={"masks": bool(i)}))
        files.append(path)
    ResultFile(files[1]).add(_ratios("other", "mlp-1.pt", 0, day=3, settings={"rho": 0.1}))
    (folder / f"mlp-0-{'0' * 16}.h5").write_bytes(b"masks")
    return files


def test_several_files_are_one_picture_over_training(training: list[Path]) -> None:
    done = call("plot", *training)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.strip() == "landscape-results/ratios-training.png"
    assert Path(done.stdout.strip()).stat().st_size > 4000
    notes = done.stderr.splitlines()
    assert notes == [
        "Left out: 3 runs on a checkpoint of which there is a later one.",
        "Left out: 1 run with rho = 0.1 instead of 0.05.",
        "Left out: 3 runs of other kinds (eigen).",
    ]


def test_the_runs_drawn_are_the_latest_of_each_checkpoint(training: list[Path]) -> None:
    printed = json.loads(call("plot", *training, "--json").stdout)
    assert [(run["id"], run["file"]) for run in printed["runs"]] == [
        (f"ratios-new{i}", str(file)) for i, file in enumerate(training)
    ]
    assert call("plot", *training, "-q").stderr == ""


def test_a_pattern_finds_masks_too(training: list[Path]) -> None:
    every = sorted(training[0].parent.glob("mlp-*.h5"))
    assert len(every) == 4
    assert call("plot", *every).exit_code == 0
    one = call("plot", *[path for path in every if path.name.startswith("mlp-0")])
    assert one.exit_code == 0
    assert "-ratios-new0" in one.stdout


def test_the_run_chooses_among_several_kinds_and_may_stand_anywhere(training: list[Path]) -> None:
    wanted = call("plot", *training, "-o", "a.svg").stdout, Path("a.svg").read_text()
    for args in (["ratios", *training], [training[0], "ratios-", *training[1:], training[0]]):
        done = call("plot", *args, "-o", "a.svg")
        assert (done.stdout, Path("a.svg").read_text()) == wanted
        assert "eigen" not in done.stderr
    old = json.loads(call("plot", *training, "ratios-old", "--json").stdout)
    assert [run["id"] for run in old["runs"]] == ["ratios-old0", "ratios-old1", "ratios-old2"]


def test_a_panel_for_each_layer_has_a_name_of_its_own(training: list[Path]) -> None:
    done = call("plot", *training, "--per-layer")
    assert done.stdout.strip().endswith("ratios-training-layers.png")
    assert Path(done.stdout.strip()).is_file()


def test_one_file_of_several_checkpoints(training: list[Path]) -> None:
    path = Path("all.h5")
    for i in range(3):
        ResultFile(path).add(_ratios(f"r{i}", f"mlp-{i}.pt", 10 * i, day=i + 1))
    done = call("plot", path, "--view", "training")
    assert done.stdout.strip() == "all-ratios-training.png"
    assert "-ratios-r2.png" in call("plot", path).stdout  # the latest run, as ever


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["eigen"], ["eigen runs of two checkpoints or more", "1 run on model.pt"]),
        (["nothing"], ["no run whose id begins with 'nothing'"]),
        ([""], ["no run whose id begins with ''"]),
        (["ratios", "eigen"], ["more than one argument is no result file", "ratios, eigen"]),
        (["--view", "histogram"], ["no picture 'histogram' of several", "training of ratios"]),
        (["ratios", "--bandwidth", "1"], ["the training picture has no option bandwidth"]),
        (["ratios-new0"], ["two checkpoints or more", "1 run on mlp-0.pt"]),
        (["no.h5"], ["no result file no.h5"]),
    ],
)
def test_what_several_files_do_not_have(training: list[Path], args: list[str], words: list[str]) -> None:
    before = sorted(Path().rglob("*"))
    done = call("plot", *training, *args)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert all(word in done.stderr for word in words), done.stderr
    assert sorted(Path().rglob("*")) == before


def test_one_run_is_no_series(training: list[Path]) -> None:
    done = call("plot", training[0], "--view", "training")
    assert done.exit_code == 2
    assert "found: 1 run on mlp-0.pt; 1 run on a checkpoint of which there is a later one" in done.stderr
    single = call("plot", training[0], "ratios-new0", "--per-layer")
    assert single.exit_code == 2
    assert "the histogram picture has no option per_layer" in single.stderr


def test_runs_of_other_problems_and_failed_ones_are_left_out(training: list[Path]) -> None:
    path = Path("conv.h5")
    ResultFile(path).add(_ratios("conv", "conv.pt", 300, layers=2, examples=5, parameters=9))
    failed = dataclasses.replace(_ratios("bad", "mlp-9.pt", 900), status="failed")
    ResultFile(path).add(failed)
    done = call("plot", *training, path, "ratios")
    assert done.exit_code == 0
    assert "Left out: 1 run with parameters = 9 instead of 300." in done.stderr
    assert "Left out: 1 run that failed." in done.stderr


def test_checkpoints_of_one_step_are_not_joined(training: list[Path]) -> None:
    path = Path("twin.h5")
    ResultFile(path).add(_ratios("twin", "mlp-7.pt", 200))
    done = call("plot", *training, path, "ratios")
    assert done.exit_code == 2
    assert "several checkpoints are of step 200" in done.stderr
    assert "mlp-2.pt, mlp-7.pt" in done.stderr


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Eigenvalues and traces of two training runs, a file for each checkpoint; not to be changed."""
    return store(tmp_path_factory.mktemp("study"), trainings(3))


def test_several_kinds_are_one_picture_of_all(study: list[Path]) -> None:
    for args in ([], ["--view", "study"]):
        done = call("plot", *study, *args, "--json")
        assert done.exit_code == 0, done.stderr
        printed = json.loads(done.stdout)
        assert printed["picture"] == str(study[0].with_name("study.png"))
        assert [run["kind"] for run in printed["runs"]] == ["eigen"] * 6 + ["trace"] * 6


@pytest.mark.parametrize(
    ("args", "name"),
    [
        (["eigen"], "eigen-training.png"),
        (["eigen", "--learning-rate", "0.1"], "eigen-training.png"),
        (["--view", "eigenvalues"], "eigen-eigenvalues.png"),
        (["trace", "--per-layer"], "trace-training-layers.png"),
        (["trace", "--measure", "frobenius"], "trace-training-frobenius.png"),
        (["--measure", "trace", "--measure", "eigen.loss"], "study-trace-eigen.loss.png"),
    ],
)
def test_time_series_have_names_of_their_own(study: list[Path], args: list[str], name: str) -> None:
    done = call("plot", *study, *args)
    assert done.exit_code == 0, done.stderr
    path = Path(done.stdout.strip())
    assert path == study[0].with_name(name)
    assert path.stat().st_size > 4000


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--view", "training"], ["runs of one kind", "found: eigen, trace"]),
        (["--per-layer"], ["runs of one kind", "such as eigen"]),
        (["--measure", "nothing"], ["no measure nothing", "lambda_max"]),
        (["trace", "--measure", "lambda_max"], ["trace runs have no measure 'lambda_max'", "frobenius"]),
        (["--bandwidth", "1"], ["the study picture has no option bandwidth"]),
    ],
)
def test_what_time_series_do_not_have(study: list[Path], args: list[str], words: list[str]) -> None:
    done = call("plot", *study, *args)
    assert done.exit_code == 2
    assert all(word in done.stderr for word in words), done.stderr


def test_one_checkpoint_is_no_study(study: list[Path]) -> None:
    done = call("plot", study[0], "--view", "study")
    assert done.exit_code == 2
    assert "two checkpoints or more" in done.stderr
