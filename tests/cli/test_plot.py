"""``landscape plot`` on runs of every kind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from landscape.store import ResultFile
from tests.cli.support import call, provenance
from tests.plots.support import per_layer, trace_result
from tests.plots.test_density import density_result
from tests.results.samples import eigen_result


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


def test_a_run_without_any_eigenvalue_says_so(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    ResultFile(path).add(eigen_result([], status="not_converged", provenance=provenance("eigen-a")))
    done = call("plot", path)
    assert done.exit_code == 2
    assert "no eigenvalue yet" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["x.h5"]
