"""``sharpness`` at its limits, told so in words, and taken up again from any state."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from landscape.analyses import sharpness as analysis
from landscape.analyses.base import Start
from landscape.analyses.sharpness import Settings
from landscape.errors import ComputationError, ConfigurationError, LandscapeError
from landscape.parameters import layers
from landscape.problem import Problem
from landscape.results import SharpnessResult
from landscape.run import RunSettings, execute, exit_code, plan
from landscape.store import ResultFile
from tests.analyses.test_sharpness import INDEFINITE, run
from tests.curvature.naive import case
from tests.problem.test_unchanged import everything, user_model
from tests.run.support import Listener, assert_same_bits, carried_out, small_problem
from tests.sam.surfaces import plane, problem_of, quadratic
from tests.support.closed_form import FLOAT64, classification
from tests.support.spectra import rotated

# --- limits ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rho": 0.0}, "--rho"),
        ({"rho": math.inf}, "--rho"),
        ({"rho": math.nan}, "--rho"),
        ({"p": 0.5}, "at least 1"),
        ({"p": math.nan}, "at least 1"),
        ({"kind": "keskar", "p": 1.0}, "--p belongs to --kind sam or --kind asam"),
        ({"kind": "keskar", "relative": True}, "--relative"),
        ({"kind": "average", "steps": 3}, "--steps"),
        ({"kind": "average", "m": 3}, "-m"),
        ({"eta": 0.1}, "--eta belongs to --kind asam"),
        ({"kind": "asam", "eta": math.inf}, "--eta must be finite"),
        ({"tol": 0.1}, "--tol belongs to --kind average"),
        ({"expansion": False, "max_directions": 3}, "--no-expansion"),
    ],
)
def test_settings_that_do_not_belong_together(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Settings(**settings)


def test_groups_larger_than_the_data() -> None:
    with pytest.raises(ConfigurationError, match="50 examples"):
        run(small_problem(), m=51)


@pytest.mark.parametrize("options", [{}, {"m": 2}, {"kind": "asam"}, {"p": 1.0}, {"p": math.inf}])
def test_at_a_critical_point_there_is_no_steepest_direction(options: dict[str, Any]) -> None:
    matrix = rotated(INDEFINITE, 2)
    problem = quadratic(matrix, torch.zeros(7, dtype=FLOAT64))
    with pytest.raises(ComputationError, match="no direction is the steepest"):
        run(problem, **options)
    with pytest.raises(ComputationError, match="--relative"):
        run(problem, relative=True)
    climbed = run(problem, rho=0.1, steps=200, max_directions=4)
    assert climbed.increase == pytest.approx(0.005 * 5.0, rel=1e-6)
    assert climbed.first_order == 0
    mean = run(problem, kind="average", rho=0.1, tol=0.5)
    assert mean.increase == pytest.approx(0.01 * float(matrix.trace()) / 14, rel=1.0)


def wall(**options: Any) -> Problem:
    """exp of 50 times the sum of the weights: it overflows at a distance of a few."""
    return problem_of(lambda w: torch.exp(50 * w.sum()), torch.zeros(4, dtype=FLOAT64), **options)


@pytest.mark.parametrize("options", [{}, {"steps": 3}, {"m": 2}, {"kind": "keskar"}, {"kind": "average"}])
def test_a_loss_that_overflows_is_said_so(options: dict[str, Any]) -> None:
    with pytest.raises(ComputationError) as caught:
        run(wall(), rho=100.0, **options)
    assert "smaller --rho" in str(caught.value)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("kind", ["sam", "average"])
def test_a_sweep_goes_on_where_the_loss_overflows(kind: Any) -> None:
    result = run(wall(), kind=kind, rho=1.0, rho_sweep=True, max_directions=4)
    assert result.sweep_increases is not None
    assert np.isfinite(result.sweep_increases[:-1]).all()
    assert math.isnan(result.sweep_increases[-1])
    assert np.ma.getmaskarray(result.sweep_errors)[-1]
    told = json.dumps(result.to_json(), allow_nan=False)
    assert '"sweep_increases"' in told


def test_a_loss_that_is_linear_has_no_curvature() -> None:
    result = run(plane(torch.ones(5, dtype=FLOAT64)), rho=0.1)
    assert (result.second_order, result.hessian_trace) == (0, 0)
    assert result.random_mean == pytest.approx(0.0, abs=1e-14)


def test_frozen_unused_and_chosen_parameters() -> None:
    result = run(case("unused and frozen").problem, rho=0.1, expansion=False)
    assert (result.frozen_parameters, result.unused_parameters) == (20, 6)
    part = run(small_problem(params=["2.*"]), rho=0.1)
    assert part.parameters == sum(
        small_problem().selection.layout.count(names)
        for name, names in layers(small_problem().selection.layout).items()
        if name == "2"
    )


def test_in_train_mode_statistics_are_frozen_and_errors_not_made_up() -> None:
    x, y = classification(24, 5, 3)
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).double()
    before = {name: tensor.clone() for name, tensor in model.named_buffers()}
    problem = Problem(model, "cross_entropy", (x, y), train_mode=True)
    result = run(problem, rho=0.01)
    assert result.increase == pytest.approx(result.first_order + result.second_order, rel=1e-3)
    assert "train mode" in result.error_method
    after = dict(problem.model.named_buffers())
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("fatal", [0, 3, 6, 9, 14, 20])
def test_nothing_of_the_users_changes_whatever_happens(fatal: int) -> None:
    model = user_model(fatal)
    x, y = classification(20, 4, 3)
    before = everything(model)
    try:
        problem = Problem(model, "cross_entropy", (x.float(), y), batch_size=8)
        run(problem, rho=0.01, m=8, rho_sweep=True, steps=1, max_directions=2)
        run(problem, rho=0.01, kind="average", max_directions=2)
        assert not fatal
    except LandscapeError:
        assert fatal
    assert everything(model) == before


def test_a_plan_says_what_it_would_take() -> None:
    problem = small_problem()
    told = plan("sharpness", problem, Settings(), RunSettings())
    result = run(problem)
    assert (told.products, told.at_most) == (result.products, result.products)
    bare = plan("sharpness", problem, Settings(expansion=False), RunSettings())
    assert (bare.products, bare.notes) == (0, ())
    assert bare.gradients < told.gradients


# --- going on --------------------------------------------------------------------------------------------

RESUMED: dict[str, dict[str, Any]] = {
    "sweep": {"rho_sweep": True, "max_directions": 3},
    "ascent": {"steps": 3, "rho_sweep": True, "max_directions": 2},
    "groups": {"m": 16, "rho_sweep": True, "max_directions": 2},
    "asam": {"kind": "asam", "m": 25, "steps": 2, "p": 4.0, "max_directions": 2},
    "keskar": {"kind": "keskar", "expansion": False, "m": 20},
    "average": {"kind": "average", "max_directions": 12, "rho_sweep": True},
    "average, no products": {"kind": "average", "tol": 0.9, "expansion": False},
}


@pytest.mark.parametrize("name", RESUMED)
def test_every_state_goes_on_to_the_same_bits(name: str) -> None:
    settings = Settings(**RESUMED[name])
    whole, states = carried_out("sharpness", small_problem(batch_size=16), settings, Start(7))
    assert len(states) > 3
    for start in states[:-1]:
        again, _ = carried_out("sharpness", small_problem(batch_size=16), settings, start)
        assert_same_bits(again, whole)


def test_empty_groups_are_remembered() -> None:
    settings = Settings(m=1, rho_sweep=True, expansion=False)
    whole, states = carried_out("sharpness", case("masked tokens, tied").problem, settings, Start(7))
    assert (whole.groups, whole.empty_groups) == (5, 1)
    for start in states[:-1]:
        assert_same_bits(
            carried_out("sharpness", case("masked tokens, tied").problem, settings, start)[0], whole
        )


def test_any_state_has_a_result() -> None:
    for options in RESUMED.values():
        settings, problem = Settings(**options), small_problem(batch_size=16)
        _, states = carried_out("sharpness", problem, settings, Start(7))
        for start in states:
            assert start.saved is not None
            result = analysis.finish(problem, settings, start.saved)
            json.dumps(result.to_json(), allow_nan=False)


def test_a_time_limit_keeps_what_there_is_and_the_file_holds_it_all(tmp_path: Path) -> None:
    path, settings = tmp_path / "a.h5", Settings(m=16, rho_sweep=True, max_directions=2)
    options = RunSettings(seed=3, output=str(path), time_limit=0.0)
    limited = execute("sharpness", small_problem(batch_size=16), settings, options)
    assert isinstance(limited, SharpnessResult)
    assert (limited.status, exit_code(limited)) == ("partial", 4)
    assert math.isnan(limited.increase)
    listener = Listener()
    options = dataclasses.replace(options, time_limit=None)
    whole = execute("sharpness", small_problem(batch_size=16), settings, options, observer=listener)
    assert any("resumed" in note for note in listener.notes)
    assert whole.provenance is not None
    assert_same_bits(ResultFile(path).read(whole.provenance.id), whole)
    fresh = execute("sharpness", small_problem(batch_size=16), settings, RunSettings(seed=3), store=False)
    assert_same_bits(fresh, whole)
