"""Figures by kind, and what their files hold."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure
from PIL import Image

from landscape.errors import InputError
from landscape.plots import figure_for, save
from landscape.results import Result
from tests.results.samples import eigen_result, provenance

ROOT = Path(__file__).parents[2]
SOURCE = f"run 20250102-eigen-0a1b; checkpoint runs/mlp-sgd.pt; SHA-256 {'5e' * 32}"


@dataclass(frozen=True, kw_only=True, eq=False)
class _Other(Result):
    kind: ClassVar[str] = "other"


def _other() -> Result:
    return _Other(status="complete", loss=1.0, gradient_norm=1.0, examples=1, terms=1, parameters=1)


def test_figure_by_kind() -> None:
    figure = figure_for(eigen_result(), learning_rate=None)
    assert isinstance(figure, Figure)
    assert len(figure.axes) == 1
    lines = figure_for(eigen_result(), learning_rate=0.1).axes[0].get_lines()
    assert any(str(line.get_label()).startswith("2/η = 20") for line in lines)
    with pytest.raises(InputError, match="no picture of a other result"):
        figure_for(_other())
    with pytest.raises(InputError, match=r"(?s)no option ax, bins.*learning_rate"):
        figure_for(eigen_result(), bins=3, ax=figure.axes[0])


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
from landscape.plots import figure_for, save
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
