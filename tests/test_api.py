"""The verbs as Python functions: what they take, give and refuse."""

from __future__ import annotations

from pathlib import Path

import pytest

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
