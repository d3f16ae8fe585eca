"""The measures of every kind of result: which figure, and which of its errors."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from landscape.results import EigenResult, Result
from landscape.results.measures import COMMON, MEASURES, Reading, measures_of, readings
from landscape.results.reading import within
from tests.plots.ratios_support import ratios_result
from tests.plots.test_noise import noise_result
from tests.plots.test_reweight import result as reweight_result
from tests.plots.test_sharpness import sharpness_result
from tests.results.samples import density_result, eigen_result, trace_result
from tests.support.slice_results import barrier_result, line_result

DATA = "over the data"


def _all() -> list[Result]:
    ratios = ratios_result(error=0.01, directional_curvature_error=0.1)
    return [
        eigen_result(), trace_result(), density_result(), ratios, sharpness_result(), reweight_result(),
        noise_result(), line_result(), barrier_result(),
    ]  # fmt: skip


@pytest.mark.parametrize("result", _all(), ids=lambda result: type(result).__name__)
def test_every_kind_has_measures_with_errors(result: Result) -> None:
    found = readings(result)
    own = {measure.name for measure in MEASURES[result.kind]}
    assert own & set(found)
    assert list(found) == [m.name for m in measures_of(result.kind) if m.name in found]
    assert {"loss", "gradient_norm"} <= set(found)
    for name in own & set(found):
        reading = found[name]
        assert math.isfinite(reading.value)
        if name not in ("weights_norm", "running_average"):
            assert (reading.error, reading.standard_error) != (None, None), name
        assert (reading.error is None) or reading.error >= 0
        assert (reading.error is None) or reading.meaning


def test_names_are_told_apart_and_some_are_main() -> None:
    for kind, measures in MEASURES.items():
        names = [measure.name for measure in measures_of(kind)]
        assert len(set(names)) == len(names)
        assert 1 <= sum(measure.main for measure in measures) <= 4
        assert set(COMMON) <= set(names)
    assert [m.name for m in measures_of("overlap")] == list(COMMON)


def test_an_eigenvalue_has_a_bound_and_a_standard_error() -> None:
    found = readings(eigen_result((8.0, 2.0), lambda_max_residual=0.5, noise_floor=0.25))
    assert found["lambda_max"] == Reading(8.0, 0.75, "residual and noise floor", 0.4)
    limit = found["stability_limit"]
    assert (limit.value, limit.standard_error) == (0.25, 2 * 0.4 / 64)
    # the longer side of 2/λ over 8 ± 0.75
    assert limit.error == pytest.approx(2 / 7.25 - 0.25)
    assert limit.error == pytest.approx(max(abs(2 / e - 0.25) for e in (7.25, 8.75)))


def test_the_extreme_value_of_another_pair_has_no_standard_error() -> None:
    found = readings(eigen_result((8.0, 2.0), lambda_max=8.5))
    assert found["lambda_max"].standard_error is None
    assert found["lambda_min"].value == 0.0


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"lambda_max": math.nan}, "lambda_max"),
        ({"lambda_max": -1.0}, "stability_limit"),
        ({"operator": "fisher"}, "stability_limit"),
        ({"history": None}, "running_average"),
        ({"accuracy": None}, "accuracy"),
        ({"loss": math.nan}, "loss"),
    ],
)
def test_what_there_is_not_has_no_reading(changes: dict[str, object], name: str) -> None:
    assert name not in readings(eigen_result(**changes))
    assert "lambda_min" in readings(eigen_result(**changes))


def test_an_eigenvalue_as_large_as_its_error_bounds_no_step() -> None:
    limit = readings(eigen_result((1.0,), lambda_max_residual=2.0))["stability_limit"]
    assert limit.value == 2.0
    assert limit.error is None


def test_the_unit_of_second_moments_is_squared() -> None:
    measure = measures_of("eigen")[0]
    assert measure.unit_of(eigen_result()) == "loss / weight²"
    assert measure.unit_of(eigen_result(operator="fisher")) == "loss² / weight²"
    loss = next(m for m in measures_of("eigen") if m.name == "loss")
    assert loss.unit_of(eigen_result(operator="fisher")) == "loss"


def test_a_running_average_is_its_last_norm() -> None:
    found = readings(eigen_result([], history=np.array([1.0, 3.0]), lambda_max=math.nan))
    assert found["running_average"] == Reading(3.0)
    assert "running_average" not in readings(eigen_result(history=np.array([1.0, math.nan])))


def test_intervals_of_traces_are_random_and_keep_their_sides() -> None:
    result = trace_result(frobenius=9.5, frobenius_interval=np.array([9.0, 10.5]), confidence=0.9)
    found = readings(result)
    assert found["trace"] == Reading(12.0, 0.25, "90 % interval", random=True)
    assert found["frobenius"].error == 1.0
    assert found["frobenius"].sides == (0.5, 1.0)
    assert found["frobenius"].random
    unknown = readings(trace_result(half_width=math.nan, interval=np.full(2, math.nan)))["trace"]
    assert (unknown.error, unknown.sides) == (None, None)
    assert "trace" not in readings(trace_result(trace=math.nan))


def test_bounds_of_a_density_are_not_random() -> None:
    found = readings(density_result())
    assert found["negative_share"].interval == (0.0, 0.125)
    assert not found["negative_share"].random
    assert found["trace"].random
    assert found["lambda_max"] == Reading(9.5, 1e-6 + 1e-6, "residual and noise floor")


def test_shares_have_rounding_or_a_spread_over_batches() -> None:
    whole, batches = readings(ratios_result()), readings(ratios_result(error=0.01))
    assert whole["ckpt1"].error == pytest.approx(5 * 0.0003)  # what may be missing was counted in the others
    assert whole["ckpt1"].standard_error is None
    assert batches["ckpt1"].standard_error == 0.01
    assert batches["ckpt1"].sampling == "over mini-batches"
    assert batches["cosine"].error is None
    assert (batches["cosine"].standard_error, batches["cosine"].sampling) == (0.01, "over mini-batches")
    assert sum(whole[name].value for name in list(whole)[:10]) == pytest.approx(1)


def test_the_error_of_a_share_holds_what_rounding_put_elsewhere() -> None:
    """Gradients with r around 1 and around 0, both moved by rounding: what was lost is in other classes."""
    generator = np.random.default_rng(3)
    rounding = 0.01
    g = generator.normal(size=4000)
    h = g * np.where(generator.random(4000) < 0.5, 1.003, 0.003)
    g, h = np.append(g, 0.0), np.append(h, 0.0)
    truth = readings(ratios_result(g, h, layers=1))
    moved = np.sign(g) * np.where(np.abs(h) > 0.02, h * np.sign(g) - 0.9 * rounding, -0.5 * rounding)
    near = ((np.abs(np.abs(g) - np.abs(moved)) <= 2 * rounding) | (np.abs(moved) <= rounding)) & (g != 0)
    found = readings(
        ratios_result(g, moved, layers=1, uncertain=ratios_result(g[near], moved[near]).counts / len(g))
    )
    for name in ("ckpt1", "ckpt2", "ckpt3", "ckpt4", "dead"):
        reading, true = found[name], truth[name].value
        assert reading.interval is not None
        assert reading.error is not None
        assert reading.interval[0] <= true <= reading.interval[1]
        assert abs(true - reading.value) <= reading.error
    assert found["ckpt1"].sides is not None
    upwards = truth["ckpt1"].value - found["ckpt1"].value
    assert upwards > found["ckpt1"].sides[0]  # what was counted there as uncertain is not enough
    assert found["dead"].error == 0


def test_a_rise_has_rounding_and_data_errors_or_groups_or_directions() -> None:
    whole = readings(sharpness_result())["increase"]
    assert (whole.error, whole.standard_error, whole.random) == (1e-16, 0.001, False)
    groups = readings(sharpness_result(m=64))
    assert (groups["increase"].error, groups["increase"].standard_error) == (None, 0.001)
    assert groups["increase"].sampling == groups["first_order"].sampling == "over groups"
    assert groups["first_order"].standard_error == 1e-10
    average = readings(sharpness_result(measure="average"))["increase"]
    assert (average.error, average.standard_error, average.random) == (0.001, None, True)


def test_the_share_of_the_noise_needs_a_gap_to_tell_its_space_by() -> None:
    found = readings(noise_result(share_space_errors=np.array([0.005, 1.0])))
    assert found["share_gauss_newton"] == Reading(0.7, 0.005, "error of the eigenvectors", 0.01)
    assert "share_hessian" not in found
    assert found["cosine_hessian"].value == -0.3
    assert found["cosine_gauss_newton"].sides == pytest.approx((0.02, 0.01))
    assert found["noise_scale"].standard_error == 12.0
    one = noise_result(matrices=np.array(["gauss-newton"], dtype=object))
    assert "cosine_hessian" not in readings(one)


def test_intervals_over_examples_are_standard_errors() -> None:
    intervals = np.array([[0.9, 1.1], [0.8, 1.2], [0.5, 1.5]])
    found = readings(reweight_result(median_weight_intervals=intervals, rounding=0.01))
    assert found["rank_correlation"].standard_error == pytest.approx(0.1 / (2 * 1.959964))
    assert found["median_weight"].standard_error == pytest.approx(0.2 / (2 * 1.959964))
    assert found["median_weight"].error == pytest.approx(0.01)
    assert found["median_weight_noisy"].standard_error == pytest.approx(1.0 / (2 * 1.959964))
    assert "weight_area" not in found


def test_the_gap_is_test_loss_less_training_loss() -> None:
    found = readings(line_result())
    assert found["gap"].value == pytest.approx(0.1)
    assert found["gap"].standard_error == pytest.approx(math.hypot(0.02, 0.01))
    assert found["loss"] == Reading(0.2, standard_error=0.01)
    assert {"gap", "test_loss", "test_accuracy"}.isdisjoint(
        readings(line_result(test_centre_loss=None, test_accuracy=None))
    )
    assert "barrier" not in found
    assert readings(barrier_result())["barrier"].standard_error is not None


@pytest.mark.parametrize(("share", "count"), [(1.0, 1797), (0.0, 50), (0.75, 400)])
def test_the_error_of_an_accuracy_covers_it(share: float, count: int) -> None:
    found = readings(eigen_result(accuracy=share, examples=count, terms=float(count)))["accuracy"]
    assert found.standard_error is not None
    assert found.standard_error > 0
    assert found.standard_error == pytest.approx(math.sqrt(share * (1 - share) / count), abs=2 / count)


def test_labels_that_are_not_one_an_example_have_no_error() -> None:
    assert readings(eigen_result(terms=5000.0))["accuracy"].standard_error is None


@pytest.mark.parametrize("ends", [None, np.array([math.nan, 1.0]), np.ma.masked_all(2)])
def test_an_interval_that_is_not_known(ends: np.ndarray | None) -> None:
    assert within(1.0, ends).sides is None


def test_a_failed_run_has_no_figures_that_are_not_finite() -> None:
    nothing = {"lambda_max": math.nan, "lambda_min": math.nan, "loss": math.inf, "gradient_norm": math.nan}
    result: EigenResult = eigen_result([], status="failed", **nothing)
    assert list(readings(result)) == ["accuracy"]
    assert readings(dataclasses.replace(result, accuracy=None)) == {}
