"""Traces and densities in words, from made-up results."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from landscape.results import Result
from landscape_cli.console import Console
from landscape_cli.views import advice, print_result, run_object
from landscape_cli.views.common import counted, percent
from tests.results.samples import density_result, trace_result

NAN = float("nan")


def printed(capsys: pytest.CaptureFixture[str], result: Result) -> str:
    print_result(Console(result.kind), result)
    return capsys.readouterr().out


def without_interval(**changes: Any) -> Result:
    nothing = {"half_width": NAN, "interval": np.full(2, NAN), "interval_reason": "1 product gave one"}
    others = ("frobenius_interval", "effective_dimension_interval")
    layers = {"layer_intervals": np.full((2, 2), NAN)}
    unknown = {name: np.full(2, NAN) for name in others}
    return trace_result(status="not_converged", **nothing | unknown | layers | changes)


def test_a_trace_with_its_interval_and_its_layers(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, trace_result())
    assert "trace        12.00 ± 0.25 (95 % interval, ± 2.1 %)\n" in text
    assert "Frobenius    9.50 ± 0.25, √Σλ² (95 %)\n" in text
    assert "dimension    1.50 ± 0.11, " in text
    assert (
        "krylov: exact on 15 dimensions (5 of them from a stored run), 15 random vectors for the rest" in text
    )
    rows = [line.split() for line in text.splitlines()[3:5]]
    assert rows == [["0", "2000", "10.00", "0.50", "0.005"], ["2", "410", "2.00", "0.11", "0.00488"]]


def test_a_trace_without_an_interval_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, without_interval())
    assert "trace        12, without an interval: 1 product gave one\n" in text
    assert "Frobenius    9.5, √Σλ²" in text
    assert "± nan" not in text
    assert advice(without_interval()).startswith("there were too few products for an interval")
    assert "the interval is wider" in advice(trace_result(status="not_converged"))


def test_a_trace_of_zero_has_no_share(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, trace_result(trace=0.0, half_width=0.0, interval=np.zeros(2), frobenius=0.0,
                                        frobenius_interval=np.zeros(2), effective_dimension=NAN))  # fmt: skip
    assert "trace        0 ± 0 (95 % interval)\n" in text
    assert "(Σλ)²/Σλ²" not in text


def test_no_estimate_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no estimate yet" in printed(capsys, without_interval(trace=NAN))
    assert "no density yet" in printed(capsys, density_result(trace=NAN))


def test_a_wide_interval_is_no_power_of_ten(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, trace_result(half_width=150.0, interval=np.array([-138.0, 162.0])))
    assert "± 1250 %)" in text


def test_a_density_and_its_comparison(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, density_result())
    assert "(95 %); by its own run 700 ± 10\n" in text
    assert "9.5000000 ± 0.0000020; by its own run 9.500 ± 0.100\n" in text
    assert "± two standard errors" in text
    assert "negative     4 % of the eigenvalues; between 0 and 13 %\n" in text
    assert "50 ± 10, Σ λ/(λ + z) with z = 0.5" in text
    assert "2 × 3 steps" in text


def test_at_most_ten_single_eigenvalues_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    many = np.linspace(9.5, -3.0, 25)
    text = printed(
        capsys,
        density_result(outliers=many, outlier_residuals=np.full(25, 1e-3), outlier_weights=np.full(25, 0.04)),
    )
    assert "and 15 more" in text
    assert len([line for line in text.splitlines() if line.endswith("0.04")]) == 10


def test_the_matrix_is_named_where_it_is_not_the_hessian(capsys: pytest.CaptureFixture[str]) -> None:
    for make in (trace_result, density_result):
        text = printed(capsys, make(operator="fisher", label_samples=4))
        assert "matrix       fisher, 4 labels drawn for each example\n" in text
        assert "matrix " not in printed(capsys, make())


@pytest.mark.parametrize("make", [trace_result, density_result, without_interval])
def test_json_has_null_for_what_is_not_known(make: Any) -> None:
    run = run_object(make())
    text = json.dumps(run, allow_nan=False)
    assert json.loads(text)["kind"] in ("trace", "density")
    if make is without_interval:
        assert run["result"]["interval"] == [None, None]
    if make is density_result:
        assert run["result"]["nodes"][1][3] is None


def test_counts_and_percentages() -> None:
    assert [counted(n, "product") for n in (0, 1, 2)] == ["0 products", "1 product", "2 products"]
    assert counted(1, "pass", "passes") == "1 pass"
    assert [percent(x) for x in (0.0, 0.00123, 0.0345, 0.99, 1.0, 12.5)] == [
        "0", "0.12", "3.5", "99", "100", "1250"
    ]  # fmt: skip
