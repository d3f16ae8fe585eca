"""Rank correlations: the coefficients against SciPy, the intervals against how often they hold the truth."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr

from landscape.errors import InputError
from landscape.results.comparison import Coefficient
from landscape.study.correlation import correlate, correlated, kendall, spearman
from tests.support.training_results import eigen_at, store, trace_at, trainings

Coefficients = Callable[[np.ndarray, np.ndarray], Coefficient]


def _normal(draw: np.random.Generator, n: int, r: float, step: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """A sample of a binormal distribution with this correlation; rounded to ``step`` for ties."""
    x, other = draw.standard_normal((2, n))
    y = r * x + math.sqrt(1 - r**2) * other
    return (np.round(x / step), np.round(y / step)) if step else (x, y)


@pytest.mark.parametrize("step", [0.0, 0.7])
@pytest.mark.parametrize("n", [4, 5, 9, 40])
def test_coefficients_are_those_of_scipy(n: int, step: float) -> None:
    x, y = _normal(np.random.default_rng(n), n, 0.6, step)
    assert spearman(x, y).value == pytest.approx(float(spearmanr(x, y).statistic))
    assert kendall(x, y).value == pytest.approx(float(kendalltau(x, y).statistic))


@pytest.mark.parametrize("of", [spearman, kendall])
def test_only_the_order_matters(of: Coefficients) -> None:
    x, y = _normal(np.random.default_rng(1), 15, 0.5, 0.5)
    found = of(x, y)
    same = of(np.exp(3 * x), y**3 + y)
    assert (same.value, same.interval) == (found.value, found.interval)
    mirrored = of(-x, y)
    assert mirrored.value == pytest.approx(-found.value)
    assert mirrored.interval is not None
    assert found.interval is not None
    np.testing.assert_allclose(mirrored.interval, [-found.interval[1], -found.interval[0]])


def test_the_interval_is_that_of_bonett_and_wright() -> None:
    """n = 20, r = 0.5: tanh(atanh 0.5 ± 1.96 √((1 + 0.125)/17))."""
    draw = np.random.default_rng(0)
    x, y = _normal(draw, 20, 0.5)
    found = spearman(x, y)
    half = 1.959963985 * math.sqrt((1 + found.value**2 / 2) / 17)
    assert found.interval == pytest.approx(
        (math.tanh(math.atanh(found.value) - half), math.tanh(math.atanh(found.value) + half))
    )


@pytest.mark.parametrize("of", [spearman, kendall])
def test_few_pairs_have_no_interval_and_fewer_no_coefficient(of: Coefficients) -> None:
    x = np.arange(6.0)
    y = np.array([1.0, 0.0, 2.0, 4.0, 3.0, 5.0])
    assert math.isnan(of(x[:3], y[:3]).value)
    assert of(x[:4], y[:4]) == Coefficient(pytest.approx(of(x[:4], y[:4]).value), None)
    assert of(x[:5], y[:5]).interval is not None
    constant = of(x, np.ones(6))
    assert math.isnan(constant.value)
    assert constant.interval is None


@pytest.mark.parametrize("of", [spearman, kendall])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_perfect_order_is_not_certain(of: Coefficients, sign: int) -> None:
    x = np.arange(8.0)
    found = of(x, sign * x)
    assert found.value == pytest.approx(sign)
    assert found.interval is not None
    low, high = found.interval if sign > 0 else (-found.interval[1], -found.interval[0])
    assert 0 < low < 0.9
    assert high == pytest.approx(1)
    longer = of(np.arange(30.0), sign * np.arange(30.0)).interval
    assert longer is not None
    assert abs(longer[0] - longer[1]) < high - low


@pytest.mark.parametrize("n", [10, 20, 60])
@pytest.mark.parametrize("r", [0.0, 0.6, 0.9])
@pytest.mark.parametrize("step", [0.0, 0.7])
def test_intervals_hold_the_truth_as_often_as_they_say(n: int, r: float, step: float) -> None:
    _check_coverage(n, r, step, repetitions=200, slack=0.046)  # three deviations of 200 at 95 %


@pytest.mark.long
@pytest.mark.parametrize("n", [6, 10, 20, 60])
@pytest.mark.parametrize("r", [0.0, 0.3, 0.6, 0.8, 0.9, 0.95])
@pytest.mark.parametrize("step", [0.0, 0.7])
def test_intervals_hold_the_truth_as_often_as_they_say_measured(n: int, r: float, step: float) -> None:
    _check_coverage(n, r, step, repetitions=3000, slack=0.025)


def _check_coverage(n: int, r: float, step: float, repetitions: int, slack: float) -> None:
    """Against the coefficients of the distribution: in closed form, or with ties those of a large sample."""
    truth = 6 / math.pi * math.asin(r / 2), 2 / math.pi * math.asin(r)
    if step:
        large = _normal(np.random.default_rng(99), 40000, r, step)
        truth = float(spearmanr(*large).statistic), float(kendalltau(*large).statistic)
    draw = np.random.default_rng([n, round(100 * r), round(10 * step)])
    hits = np.zeros(2)
    for _ in range(repetitions):
        x, y = _normal(draw, n, r, step)
        for i, of in enumerate((spearman, kendall)):
            interval = of(x, y).interval
            hits[i] += interval is not None and interval[0] <= truth[i] <= interval[1]
    assert (hits / repetitions >= 0.95 - slack).all(), hits / repetitions


# -- of stored runs ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """λmax rises and the trace falls over six checkpoints of two training runs."""
    place = tmp_path_factory.mktemp("trainings")
    store(place, trainings(6))
    return place


def test_each_training_run_and_all_together(folder: Path) -> None:
    sam, sgd, both = correlate(folder, x="lambda_max", y="trace")
    assert [one.name for one in (sam, sgd, both)] == ["sam", "sgd", "all together"]
    assert (sgd.x, sgd.y, sgd.labels) == ("eigen.lambda_max", "trace.trace", ("λmax", "Tr"))
    assert (sgd.count, both.count) == (6, 12)
    assert sgd.at == (0, 10, 20, 30, 40, 50)
    assert [(x.value, y.value) for x, y in sgd.readings] == [(8.0 + k, 40.0 - k) for k in range(6)]
    assert sgd.spearman.value == pytest.approx(-1)
    assert both.spearman.value > 0  # the difference between the runs outweighs what is in them
    assert both.steps is None
    assert any("several training runs" in note for note in both.notes)
    assert any("follow from each other" in note for note in sgd.notes)


def test_changes_from_step_to_step(tmp_path: Path) -> None:
    """Both rise throughout, and rise fast together or in turn."""
    rising = np.cumsum([0, 1, 3, 2, 5, 4, 7])
    slowing = np.cumsum([0, 7, 4, 5, 2, 3, 1])
    results = [eigen_at(f"a{k}.pt", k, 1.0 + rising[k]) for k in range(7)]
    store(tmp_path, [*results, *(trace_at(f"a{k}.pt", k, 1.0 + slowing[k]) for k in range(7))])
    (found,) = correlate(tmp_path, x="lambda_max", y="trace")
    assert found.spearman.value == pytest.approx(1)
    assert found.steps is not None
    assert found.steps.value == pytest.approx(float(spearmanr(np.diff(rising), np.diff(slowing)).statistic))
    assert found.steps.value < -0.7


def test_checkpoints_with_one_measure_alone_are_left_out(tmp_path: Path) -> None:
    results = [eigen_at(f"a{k}.pt", k, 1.0 + k) for k in range(6)]
    traces = [trace_at(f"a{k}.pt", k, float("nan") if k == 5 else 1.0 + k) for k in range(1, 6)]
    store(tmp_path, [*results, *traces])
    found, used = correlated([tmp_path], "lambda_max", "trace")
    assert found[0].checkpoints == ("a1.pt", "a2.pt", "a3.pt", "a4.pt")
    assert found[0].spearman.interval is None
    assert {result.kind for result in used} == {"eigen", "trace"}


def test_single_files_are_one_group(tmp_path: Path) -> None:
    names = ["x.pt", "y.pt", "z.pt", "u.pt", "v.pt"]
    files = store(tmp_path, [eigen_at(name, None, 1.0 + i) for i, name in enumerate(names)])
    (found,) = correlate(*files, x="lambda_max", y="loss")
    assert (found.name, found.count, found.at[0]) == ("checkpoints", 5, None)
    assert found.spearman.value == pytest.approx(-1)  # the loss is 1/λmax


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ("nothing", "trace", r"(?s)no measure 'nothing'.*lambda_max"),
        ("lambda_max", "running_average", "no measure"),
        ("trace", "trace.trace", "not with itself"),
    ],
)
def test_measures_that_there_are_not(folder: Path, x: str, y: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        correlate(folder, x=x, y=y)


def test_too_few_checkpoints(folder: Path) -> None:
    with pytest.raises(InputError, match=r"(?s)needs 4 checkpoints with both.*found: 3"):
        correlate(*sorted(folder.glob("sgd*.h5"))[:3], x="lambda_max", y="trace")


def test_other_questions_are_refused(tmp_path: Path) -> None:
    results = [eigen_at(f"{n}{k}.pt", k, 1.0 + k, data_fingerprint=n) for n in "ab" for k in range(5)]
    store(tmp_path, results)
    with pytest.raises(InputError, match="not measured alike"):
        correlate(tmp_path, x="lambda_max", y="loss")
    assert len(correlate(tmp_path, x="lambda_max", y="loss", mixed=True)) == 3


def test_json(folder: Path) -> None:
    (first, *_) = correlate(folder, x="lambda_max", y="accuracy")  # which does not vary
    read = json.loads(json.dumps(first.to_json(), allow_nan=False))
    assert read["spearman"] == {"value": None, "interval": None}
    assert len(read["readings"]) == 6
