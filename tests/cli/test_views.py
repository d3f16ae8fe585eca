from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from landscape_cli.console import Console
from landscape_cli.views import print_provenance, print_result, run_object
from tests.cli.support import eigen_result, provenance


def printed(capsys: pytest.CaptureFixture[str], **changes: Any) -> str:
    print_result(Console("eigen"), eigen_result(**changes))
    return capsys.readouterr().out


def test_the_loss_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    first = printed(capsys).splitlines()[0]
    assert first == (
        "loss 0.0123 (accuracy 99.8 %, 1797 examples, 6570 parameters, gradient norm 0.00456): "
        "is this my loss?"
    )


def test_terms_are_said_where_they_are_not_the_examples(capsys: pytest.CaptureFixture[str]) -> None:
    first = printed(capsys, terms=9000, accuracy=None).splitlines()[0]
    assert first.startswith("loss 0.0123 (1797 examples, 9000 loss terms, 6570 parameters")


def test_the_table_shows_digits_that_the_interval_supports(capsys: pytest.CaptureFixture[str]) -> None:
    rows = printed(capsys).splitlines()[3:8]
    assert rows[0].split() == ["1", "12.3456", "0.0021", "0.41", "yes"]
    assert rows[1].split()[:3] == ["2", "3.0000", "0.0021"]
    assert rows[4].split() == ["5", "1.0000", "0.0021", "not", "computed", "NO"]


def test_bounds_rates_and_ratio(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys)
    assert "λmax         12.3456 ± 0.0021, the largest Ritz value: λmax is at least 12.34\n" in text
    assert "λmin         not looked for; λmin is at most -0.2399 (--which smallest finds it)\n" in text
    both = printed(capsys, which="both")
    assert "λmin         -0.250 ± 0.011, the smallest Ritz value: λmin is at most -0.2399\n" in both
    assert "1/λmax       0.081001 ± 0.000015" in text
    assert "2/λmax       0.162001 ± 0.000028" in text
    assert "λ1/λ5        12.346 ± 0.028 (of the pairs above)" in text
    assert "21 products, 21 passes, 1.5 s" in text


def test_the_ratio_interval_contains_all_quotients(capsys: pytest.CaptureFixture[str]) -> None:
    line = next(line for line in printed(capsys).splitlines() if line.startswith("λ1/λ5"))
    value, error = map(float, line.split()[1:4:2])
    assert value - error <= (12.3456 - 0.00205) / 1.00205
    assert value + error >= (12.3456 + 0.00205) / 0.99795


def test_no_ratio_when_the_fifth_may_be_zero(capsys: pytest.CaptureFixture[str]) -> None:
    assert "not available: the interval of λ5 holds zero" in printed(capsys, values=(4, 3, 2, 1, 0.001))
    assert "λ1/λ5" not in printed(capsys, values=(4, 3))


def test_no_ratio_when_the_fifth_largest_was_not_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert "λ1/λ5" not in printed(capsys, values=(4, 3, 2, -1, -2, -3), which="both")
    assert "λ1/λ5" not in printed(capsys, which="smallest")
    assert "λ1/λ5" not in printed(capsys, which="magnitude")


def test_learning_rates_need_a_positive_eigenvalue(capsys: pytest.CaptureFixture[str]) -> None:
    assert "not available: no positive eigenvalue" in printed(capsys, values=(-1.0,))
    assert "about" in printed(capsys, values=(0.001,))


def test_the_missed_eigenvalue_statement(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys)
    assert "λmax above 12.51 has probability at most 5 %; ε = 1.3 %" in text
    assert "--verify N" in text
    both = printed(capsys, missed_below=-0.30001)
    assert "λmin below -0.3001 has probability at most 5 %; ε" in both
    absent = printed(
        capsys, missed_epsilon=None, missed_above=None, missed_reason="too few products", verified=20
    )
    assert "not available: too few products" in absent
    assert "20 products spent" in absent


def test_non_finite_numbers_are_null_in_json() -> None:
    run = run_object(eigen_result(values=(np.nan, 1.0), status="failed"))
    assert run["result"]["eigenvalues"] == [None, 1.0]
    assert run["status"] == "failed"
    assert run["checkpoint"]["step"] == 40
    json.dumps(run, allow_nan=False)


def test_a_run_without_a_checkpoint_has_none() -> None:
    run = run_object(eigen_result(provenance=provenance(checkpoint=None)))
    assert run["checkpoint"] is None
    assert run["id"] == "eigen-aaaa1111"


def test_provenance_is_shown_in_full_and_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    print_provenance(Console("show"), provenance(command="landscape eigen 'a\x1b[31m.pt'", versions={}))
    text = capsys.readouterr().out
    assert r"a\x1b[31m.pt" in text
    for words in ("step 40", "k = 5", "7 (drawn)", "on cpu in float32", "micro_batch = 256", "not recorded"):
        assert words in text
