"""Figures by kind, and what their files hold."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from landscape.errors import InputError
from landscape.plots import figure_for, figure_of_series, save, series_views
from landscape.results import Result
from tests.plots.ratios_support import over_training, ratios_result, swept
from tests.plots.support import per_layer, trace_result
from tests.plots.test_density import density_result
from tests.plots.test_density import per_layer as layered_density
from tests.results.samples import eigen_result, provenance

ROOT = Path(__file__).parents[2]
SOURCE = f"run 20250102-eigen-0a1b; checkpoint runs/mlp-sgd.pt; SHA-256 {'5e' * 32}"


@dataclass(frozen=True, kw_only=True, eq=False)
class _Other(Result):
    kind: ClassVar[str] = "other"


def _other() -> Result:
    return _Other(status="complete")


def test_figure_by_kind() -> None:
    figure = figure_for(eigen_result(), learning_rate=None)
    assert isinstance(figure, Figure)
    assert len(figure.axes) == 1
    lines = figure_for(eigen_result(), learning_rate=0.1).axes[0].get_lines()
    assert any(str(line.get_label()).startswith("2/η = 20") for line in lines)
    with pytest.raises(InputError, match="no picture of other results"):
        figure_for(_other())
    with pytest.raises(InputError, match=r"(?s)no option ax, bins.*learning_rate"):
        figure_for(eigen_result(), bins=3, ax=figure.axes[0])


def _swept() -> dict[str, Any]:
    return {"rho_sweep": np.array([1e-3, 1e-2]), "rho_errors": np.array([0.1, 0.2])}


def _averaged(**changes: Any) -> Result:
    return eigen_result(history=np.array([1.0, 2.0, 2.5]), method="running-average", **changes)


@pytest.mark.parametrize(
    ("result", "view", "words"),
    [
        (eigen_result(), None, "Index, largest eigenvalue first"),
        (_averaged(), None, "Iteration"),
        (_averaged(), "spectrum", "Index, largest eigenvalue first"),
        (per_layer(), None, "Index, largest eigenvalue first"),
        (per_layer(), "layers", "Extreme eigenvalues of the block (loss / weight²)"),
        (eigen_result(**_swept()), None, "Index, largest eigenvalue first"),
        (eigen_result(**_swept()), "sweep", "Step ρ along a direction of large curvature (weight)"),
        (eigen_result([], **_swept()), None, "Step ρ along a direction of large curvature (weight)"),
        (trace_result(), None, "Products with the matrix (method: krylov)"),
        (trace_result(**_swept()), "sweep", "Step ρ along a direction of large curvature (weight)"),
        (density_result(), None, "Hessian eigenvalue λ (loss / weight²)"),
        (layered_density(), None, "Hessian eigenvalue λ (loss / weight²)"),
        (swept(), None, "Ratio r = g'/g of the gradient after and before the perturbation (a bar an octave)"),
        (swept(), "layers", "Share of the layer's parameters (%); at the right, their number"),
        (swept(), "sweep", "Length ρ of the perturbation (weight)"),
    ],
)
def test_views(result: Result, view: str | None, words: str) -> None:
    assert figure_for(result, view).axes[0].get_xlabel() == words


def test_layers_are_below_the_spectrum_and_the_trace() -> None:
    for result in (per_layer(), trace_result()):
        assert [ax.get_ylabel() for ax in figure_for(result).axes][1:] == ["Layer"]


def test_a_density_with_layers_can_be_drawn_whole() -> None:
    def labels(view: str | None) -> list[str]:
        legend = figure_for(layered_density(), view, bandwidth=0.1).axes[0].get_legend()
        assert legend is not None
        return [text.get_text() for text in legend.get_texts()]

    assert "0.weight" in labels(None)
    assert labels("layers") == labels(None)
    assert "2 eigenvalues found, exact share" in labels("density")


@pytest.mark.parametrize(
    ("result", "view", "message"),
    [
        (eigen_result(), "sweep", r"(?s)this run has no sweep to draw.*it has: spectrum$"),
        (per_layer(), "history", r"(?s)this run has no history to draw.*it has: spectrum, layers$"),
        (trace_result(), "layers", r"(?s)trace runs have no view 'layers'.*it has: trace$"),
        (ratios_result(), "sweep", r"(?s)this run has no sweep to draw.*it has: histogram, layers$"),
        (density_result(), "nonsense\x1b", r"(?s)density runs have no view 'nonsense.*it has: density$"),
    ],
)
def test_a_view_that_there_is_not(result: Result, view: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        figure_for(result, view)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    ("result", "view", "options", "message"),
    [
        (
            density_result(),
            None,
            {"learning_rate": 0.1},
            r"(?s)the density .* no option learning_rate.*: bandwidth$",
        ),
        (
            eigen_result(),
            None,
            {"bandwidth": 0.1},
            r"(?s)the spectrum .* no option bandwidth.*: learning_rate$",
        ),
        (trace_result(), None, {"bandwidth": 0.1}, r"(?s)the trace .* no option bandwidth.*it has none$"),
        (
            per_layer(),
            "layers",
            {"learning_rate": 0.1},
            r"(?s)the layers .*learning_rate.*none; spectrum has it$",
        ),
        (
            _averaged(),
            "history",
            {"learning_rate": 0.1},
            r"(?s)the history .*learning_rate.*none; spectrum has it$",
        ),
    ],
)
def test_an_option_that_the_picture_does_not_have(
    result: Result, view: str | None, options: dict[str, float], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        figure_for(result, view, **options)


def test_an_option_chooses_the_first_picture_that_has_it() -> None:
    axes = figure_for(_averaged(), learning_rate=0.1).axes
    drawn = figure_for(_averaged(), "spectrum", learning_rate=0.1).axes
    assert [ax.get_xlabel() for ax in axes] == [ax.get_xlabel() for ax in drawn]


def _no_density() -> Result:
    empty = np.ma.MaskedArray(np.zeros((0, 0)), mask=True)
    names = ("nodes", "weights", "measured_weights", "residuals", "converged")
    return density_result(status="not_converged", **dict.fromkeys(names, empty))


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (eigen_result([], status="not_converged"), "there is no eigenvalue yet"),
        (
            trace_result(looks=(), status="not_converged"),
            "there is no estimate yet",
        ),
        (_no_density(), "there is no density yet"),
    ],
)
def test_a_run_stopped_before_there_was_anything_says_so(result: Result, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        figure_for(result)
    assert "not converged" in str(caught.value)


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
@pytest.mark.parametrize("result", [trace_result(), per_layer(), density_result()])
def test_every_kind_in_every_format_and_always_the_same(result: Result, suffix: str, tmp_path: Path) -> None:
    for name in "ab":
        save(figure_for(result), tmp_path / f"{name}.{suffix}", result)
    content = (tmp_path / f"a.{suffix}").read_bytes()
    assert content == (tmp_path / f"b.{suffix}").read_bytes()
    assert result.provenance is not None
    assert f"landscape {result.kind}".encode() in content


def test_png(tmp_path: Path) -> None:
    result = eigen_result()
    save(figure_for(result), tmp_path / "new" / "a.PNG", result)
    with Image.open(tmp_path / "new" / "a.PNG") as image:
        image.load()
        assert image.size == (960, 640)
        assert image.info["Title"] == "landscape eigen"
        assert image.info["Description"] == SOURCE
        assert image.info["dpi"] == pytest.approx((160, 160), abs=0.1)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.PNG"]


def test_svg(tmp_path: Path) -> None:
    result = eigen_result()
    save(figure_for(result), tmp_path / "a.svg", result)
    tree = ElementTree.parse(tmp_path / "a.svg")
    dublin_core = "{http://purl.org/dc/elements/1.1/}"
    found = {name: [e.text for e in tree.iter(dublin_core + name)] for name in ("title", "description")}
    assert "landscape eigen" in found["title"]
    assert found["description"] == [SOURCE]


def test_pdf(tmp_path: Path) -> None:
    result = eigen_result()
    save(figure_for(result), tmp_path / "a.pdf", result)
    content = (tmp_path / "a.pdf").read_bytes()
    assert content.startswith(b"%PDF")
    assert re.search(rb"/Subject \(" + re.escape(SOURCE.encode()) + rb"\)", content)
    assert b"/Title (landscape eigen)" in content


def test_several_results_in_one_figure() -> None:
    results = over_training(3)
    assert list(series_views("ratios")) == ["training", "measures"]
    assert list(series_views("eigen")) == ["training", "eigenvalues"]
    assert not series_views("overlap")
    assert not series_views("other")
    for view in (None, "training"):
        assert figure_of_series(results, view, per_layer=None).axes[2].get_xlabel() == "Training step"
    assert len(figure_of_series(results, per_layer=True).axes) == 3


@pytest.mark.parametrize(
    ("results", "options", "message"),
    [
        ([], {}, r"(?s)runs of one kind.*no runs"),
        ([ratios_result(), eigen_result()], {}, r"(?s)runs of one kind.*ratios, eigen"),
        ([_other(), _other()], {}, r"(?s)no picture of several other runs.*one by one"),
        (over_training(2), {"view": "layers\x1b"}, r"(?s)no picture 'layers.*there is: training, measures$"),
        (over_training(2), {"bandwidth": 1.0}, r"(?s)the training .* no option bandwidth.*: per_layer$"),
        (over_training(1), {}, r"(?s)two checkpoints or more"),
    ],
)
def test_what_no_series_picture_can_show(
    results: list[Result], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        figure_of_series(results, **options)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_a_picture_of_several_runs_names_all_of_them(suffix: str, tmp_path: Path) -> None:
    results = over_training(3)
    for name in "ab":
        save(figure_of_series(results), tmp_path / f"{name}.{suffix}", results)
    content = (tmp_path / f"a.{suffix}").read_bytes()
    assert content == (tmp_path / f"b.{suffix}").read_bytes()
    assert b"landscape ratios" in content
    if suffix == "svg":
        assert all(f"run ratios-{i:04}; checkpoint runs/mlp-sgd-" in content.decode() for i in range(3))


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_the_same_result_gives_the_same_bytes(suffix: str, tmp_path: Path) -> None:
    result = eigen_result()
    for name in "ab":
        save(figure_for(result), tmp_path / f"{name}.{suffix}", result)
    assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_any_name_can_be_written(suffix: str, tmp_path: Path) -> None:
    from landscape.results import CheckpointReference

    odd = CheckpointReference(path="λ\x1b\x00\ud800<&>(é.pt", sha256="0" * 64)
    for reference in (odd, None):
        result = eigen_result(provenance=provenance(checkpoint=reference))
        save(figure_for(result), tmp_path / f"a.{suffix}", result)
        assert (tmp_path / f"a.{suffix}").stat().st_size > 1000
    if suffix == "svg":
        ElementTree.parse(tmp_path / "a.svg")
    save(figure_for(eigen_result(provenance=None)), tmp_path / f"b.{suffix}", eigen_result(provenance=None))


@pytest.mark.parametrize("name", ["a", "a.jpg", "a.h5", ".png"])
def test_unknown_suffix(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.png, \.pdf or \.svg"):
        save(figure_for(eigen_result()), tmp_path / name, eigen_result())
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = eigen_result()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        save(figure_for(result), tmp_path / "file" / "a.png", result)
    (tmp_path / "file").unlink()
    save(figure_for(result), tmp_path / "a.png", result)
    before = (tmp_path / "a.png").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match="No space left"):
        save(figure_for(result, learning_rate=0.1), tmp_path / "a.png", result)
    assert (tmp_path / "a.png").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


USE = """
import sys
from tests.results.samples import eigen_result
from landscape.plots import figure_for, figure_of_series, save, series_views
from landscape.store import ResultFile
ResultFile(sys.argv[1] + "/r.h5").add(eigen_result())
result = ResultFile(sys.argv[1] + "/r.h5").read("2025")
save(figure_for(result, learning_rate=0.1), sys.argv[1] + "/a.png", result)
print([name for name in ("torch", "matplotlib.pyplot", "scipy") if name in sys.modules])
"""


def test_store_and_plots_import_neither_torch_nor_pyplot(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", USE, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "[]"
