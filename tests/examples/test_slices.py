"""What the digits example's README says about loss surfaces, measured again by its own commands."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import landscape
from landscape.results import SliceResult

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits"
SECTION = (EXAMPLE / "README.md").read_text().partition("## Loss surfaces")[2].partition("\n## ")[0]
#: Errors are shown in two digits, rounded up.
ROUNDED = 0.1
COMMAND = Path(sys.executable).with_name("landscape")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example in which the README's commands were run."""
    there = Path(shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("slices") / "digits"))
    for name in ("barrier.png", "trajectory.png"):
        (there / name).unlink()
    (block,) = re.findall(r"^```\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)
    for line in block.splitlines():
        done = subprocess.run(
            [COMMAND, *shlex.split(line)[1:]], cwd=there, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return there


def runs(folder: Path, file: str) -> list[SliceResult]:
    stored = landscape.open(folder / file)
    return [one for run in stored.runs() if isinstance(one := stored.read(run.id), SliceResult)]


def told(pattern: str) -> list[float]:
    """The figures that the README gives, the groups of a pattern in its text."""
    match = re.search(pattern, " ".join(SECTION.split()))
    assert match is not None, pattern
    return [float(text) for text in match.groups()]


def test_barriers(folder: Path) -> None:
    line, same = runs(folder, "lines.h5")
    (net,) = runs(folder, "convnet.h5")
    figures = told(r"other first weights\) \| ([\d.]+) ± ([\d.]+) \| ([\d.]+)")
    np.testing.assert_allclose([line.barrier, line.barrier_error, line.barrier_at], figures, rtol=ROUNDED)
    assert same.barrier == 0
    assert "(the same first weights) | none |" in SECTION
    figures = told(r"convnet-sgd-seed1.pt` \| ([\d.]+) ± ([\d.]+) \| ([\d.]+) \| ([\d.]+)")
    measured: list[Any] = [net.barrier, net.barrier_error, net.barrier_at, net.saved_barrier]
    np.testing.assert_allclose(measured, figures, rtol=ROUNDED)
    (batchnorm,) = told(r"net's, ([\d.]+) are BatchNorm's")
    assert net.saved_barrier is not None
    assert net.barrier is not None
    assert net.saved_barrier - net.barrier == pytest.approx(batchnorm, abs=0.02)


def test_the_plane_of_the_trajectory(folder: Path) -> None:
    (plane,) = runs(folder, "trajectory.h5")
    assert plane.explained_variance is not None
    assert plane.point_distances is not None
    assert plane.point_losses is not None
    assert plane.point_slice_losses is not None
    shares = told(r"holds ([\d.]+) % and ([\d.]+) % of the squared distances")
    np.testing.assert_allclose(100 * plane.explained_variance, shares, atol=0.5)
    assert plane.evaluated.mean() < 0.3
    distance, off = told(r"at most ([\d.]+) ‖w‖ away, its own loss is up to ([\d.]+) off")
    assert plane.point_distances.max() / plane.weights_norm == pytest.approx(distance, rel=0.02)
    assert np.abs(plane.point_losses - plane.point_slice_losses).max() == pytest.approx(off, abs=0.01)


def test_pictures_are_drawn(folder: Path) -> None:
    for name in ("barrier.png", "trajectory.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
        assert f"({name})" in SECTION


def test_random_lines_do_not_tell_sam_from_sgd(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    rises: dict[str, np.ndarray] = {}
    for name in ("sgd", "sam"):
        problem = landscape.load_problem(checkpoint=f"runs/mlp-{name}-epoch300.pt")
        lines = [
            landscape.loss_slice(problem, along="random", range="-1:1:5", seed=seed) for seed in range(20)
        ]
        rises[name] = np.array([(line.loss - line.centre_loss)[[0, 1, 3, 4]] for line in lines])
    half = {name: rise[:, 1:3].mean(1) for name, rise in rises.items()}
    whole = {name: rise[:, [0, 3]].mean() for name, rise in rises.items()}
    figures = told(
        r"rises by ([\d.]+) ± ([\d.]+) around .* by ([\d.]+) ± ([\d.]+) around .* by ([\d.]+) ± ([\d.]+) more"
    )
    measured = [
        part
        for values in (half["sgd"], half["sam"], half["sgd"] - half["sam"])
        for part in (values.mean(), values.std(ddof=1) / np.sqrt(len(values)))
    ]
    np.testing.assert_allclose(measured, figures, rtol=0.03)
    assert whole["sgd"] < whole["sam"]
