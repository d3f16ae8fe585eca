"""What a slice between checkpoints shows without being told: its range, its statistics, its names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from landscape.analyses.slice import Settings
from landscape.errors import ConfigurationError
from tests.analyses.slice_support import checkpoint, near, normalised, sliced, small


def test_a_plane_of_three_checkpoints_holds_them_all(tmp_path: Path) -> None:
    """Made orthogonal, the third one lies wherever it lies; on the grid, as the second does."""
    problem = small()
    first = near(problem, 1)
    own = problem.selection.flat().detach()
    second = own - 2 * (first - own) + 0.5 * (near(problem, 2) - own)
    b, c = checkpoint(problem, tmp_path / "b.pt", first), checkpoint(problem, tmp_path / "c.pt", second)
    result = sliced(problem, f"to:{b}", f"to:{c}")
    assert result.point_coordinates is not None
    assert result.point_coordinates[1, 0] < -1
    for coordinates, places in zip(result.coordinates, result.point_coordinates.T, strict=True):
        assert coordinates[0] < places.min() < places.max() < coordinates[-1]
        assert np.abs(coordinates[:, None] - places).min(0).max() < 1e-6
        assert 0 in coordinates


@pytest.mark.parametrize(
    ("along", "expected"), [("to", True), ("pca", True), ("random", False), ("gradient", False)]
)
def test_statistics_are_measured_anew_between_checkpoints(along: str, expected: bool) -> None:
    text = {"to": "to:b.pt"}.get(along, along)
    assert Settings(along=(text,), trajectory=("runs/*.pt",)).recalibrated is expected
    assert Settings(along=(text,), trajectory=("x.pt",), batchnorm="saved").recalibrated is False


def test_statistics_are_interpolated_from_end_to_end_only(tmp_path: Path) -> None:
    problem = normalised()
    path = checkpoint(problem, tmp_path / "b.pt", near(problem, 2))
    result = sliced(problem, f"to:{path}", range=("-0.5:1.5:9",))
    assert result.saved_loss is not None
    between = (result.x >= 0) & (result.x <= 1)
    np.testing.assert_array_equal(np.ma.getmaskarray(result.saved_loss), ~between)
    assert result.evaluations == len(result.x) - 1 + between.sum() + 3 + 2 + 1


def test_checkpoints_of_one_name_are_told_apart(tmp_path: Path) -> None:
    problem = small()
    paths = []
    for k, folder in enumerate(("one", "two")):
        (tmp_path / folder).mkdir()
        paths.append(checkpoint(problem, tmp_path / folder / "net.pt", near(problem, k + 1)))
    result = sliced(problem, *(f"to:{path}" for path in paths), range=("0:1:2",))
    assert result.point_names is not None
    assert result.point_names.tolist() == ["one/net.pt", "two/net.pt"]
    assert result.axes.tolist() == ["to one/net.pt", "to two/net.pt"]


def test_a_range_that_the_arithmetic_cannot_hold() -> None:
    with pytest.raises(ConfigurationError, match="too wide for the arithmetic"):
        sliced(small(dtype="float32"), "random", range=("-1e39:1e39:3",))


def test_slips_are_answered_with_what_was_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("other.pt").touch()
    for text, meant in (("radnom", "random"), ("gradeint", "gradient"), ("other.pt", "to:other.pt")):
        with pytest.raises(ConfigurationError) as caught:
            Settings(along=(text,))
        assert f"did you mean {meant}?" in caught.value.do


@pytest.mark.parametrize(
    ("along", "options", "words"),
    [
        (("random",), {"rho": 0.1}, "--rho belongs to --along sam"),
        (("gradient",), {"normalize": "layer"}, "--normalize belongs to --along random"),
        (("gradient",), {"biases": "keep"}, "--biases belongs to --along random"),
        (("random",), {"rise": 2.0}, "--rise belongs to --range auto"),
        (("random",), {"orthogonalize": False}, "--no-orthogonalize belongs to a plane"),
    ],
)
def test_options_without_use_are_refused(along: tuple[str, ...], options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Settings(along=along, **options)


def test_options_with_a_use_are_not() -> None:
    Settings(along=("sam", "gradient"), rho=0.1, rise=2.0, orthogonalize=False)
    Settings(along=("random",), normalize="none", biases="keep", range=("auto",), rise=2.0)
