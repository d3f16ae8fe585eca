"""The verbs as Python functions: what they take, give and refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import landscape
from landscape.errors import ConfigurationError, InputError
from landscape.results import (
    NoiseResult,
    OverlapResult,
    RatiosResult,
    ReweightResult,
    SharpnessResult,
)
from tests.run.support import small_problem


def test_the_verbs_of_sam_give_their_results() -> None:
    problem = small_problem()
    assert isinstance(landscape.ratios(problem, rho=0.1, seed=0), RatiosResult)
    assert isinstance(landscape.sharpness(problem, expansion=False, seed=0), SharpnessResult)
    assert isinstance(landscape.reweight(problem, rho=0.1, seed=0), ReweightResult)
    assert isinstance(landscape.noise(problem, k=2, seed=0), NoiseResult)


def test_an_overlap_of_results_and_of_files(tmp_path: Path) -> None:
    files = [tmp_path / "a.h5", tmp_path / "b.h5"]
    results = [
        landscape.ratios(small_problem(), rho=rho, seed=0, output=str(file))
        for rho, file in zip((0.1, 0.3), files, strict=True)
    ]
    found = [landscape.overlap(results, mixed=True), landscape.overlap(files, mixed=True)]
    for one in found:
        assert isinstance(one, OverlapResult)
        assert one.counts.tolist() == found[0].counts.tolist()
    read = [landscape.open(file).read(landscape.open(file).runs()[0]) for file in files]
    with pytest.raises(InputError, match="the masks lie beside it"):
        landscape.overlap(read, mixed=True)


def test_a_result_is_one_line() -> None:
    assert repr(landscape.ratios(small_problem(), seed=0)) == "<RatiosResult ratios-unstored: complete>"


@pytest.mark.parametrize("verb", ["eigen", "trace", "ratios", "noise"])
def test_a_path_is_no_problem(verb: str) -> None:
    with pytest.raises(ConfigurationError, match=r"takes a landscape\.Problem") as caught:
        getattr(landscape, verb)("ckpt.pt")
    assert "load_problem" in str(caught.value)
    with pytest.raises(ConfigurationError, match="does not know 'rhoo'"):
        getattr(landscape, verb)(small_problem(), rhoo=1)


def test_a_slice_of_arrays_names_and_numbers() -> None:
    problem = small_problem()
    row = np.arange(float(problem.size))
    line = landscape.loss_slice(problem, along=row, range=(-0.01, 0.02, 4), seed=0)
    assert line.x.tolist() == [-0.01, 0.0, 0.01, 0.02]
    assert line.direction_norms[0] == pytest.approx(np.linalg.norm(row), rel=1e-6)
    named = {name: 0 * w for name, w in zip(*_named(problem), strict=True)}
    (first, *_), weights = _named(problem)
    plane = landscape.loss_slice(
        problem, along=["random", {**named, first: weights[0]}], range=[(-1, 1, 3), "0:1:2"], seed=0
    )
    assert plane.loss.shape == (3, 2)
    assert plane.axes.tolist()[1] == "direction given"
    with pytest.raises(ConfigurationError, match="not measured: 'nowhere'"):
        landscape.loss_slice(problem, along={"nowhere": weights[0]})
    with pytest.raises(ConfigurationError, match="there is no such direction"):
        landscape.loss_slice(problem, along=row[:-1])
    for wrong, words in (
        ({first: weights[0].T}, "not shaped as the parameter"),
        ({first: "text"}, "is not"),
        (None, "is not"),
        (object(), "is not"),
        (row * 1j, "is complex"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            landscape.loss_slice(problem, along=wrong)
    with pytest.raises(ConfigurationError, match="functions by name"):
        small_problem(metrics=[lambda outputs, targets: 0.0])


def _named(problem: landscape.Problem) -> tuple[tuple[str, ...], tuple[torch.Tensor, ...]]:
    return problem.selection.layout.names, tuple(w.detach() for w in problem.selection.tensors)
