from __future__ import annotations

from typing import Any

import pytest

from landscape.errors import ConfigurationError
from landscape.project import BatchSettings
from landscape.settings import from_mapping


def test_analyses_are_named_with_commas_or_again_each_once() -> None:
    assert BatchSettings(run=("eigen, trace", "ratios,eigen")).kinds == ("eigen", "trace", "ratios")
    assert BatchSettings().kinds == ("eigen", "trace", "ratios")


@pytest.mark.parametrize("run", [(), ("",), (" , ",)])
def test_at_least_one_analysis(run: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError, match="names no analysis"):
        BatchSettings(run=run)


@pytest.mark.parametrize(
    ("text", "share"), [(None, (1, 1)), ("1/1", (1, 1)), ("3/16", (3, 16)), (" 2/2 ", (2, 2))]
)
def test_shares(text: str | None, share: tuple[int, int]) -> None:
    assert BatchSettings(shard=text).share == share


@pytest.mark.parametrize(
    "text", ["0/4", "5/4", "1", "1/", "/4", "-1/4", "1/0", "a/b", "1/4/2", "1.0/4", "", "0/0", "1 / 4"]
)
def test_what_is_no_share(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"(?s)--shard is I/N.*2/4"):
        BatchSettings(shard=text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("eigen.k=10", ("eigen", "k", 10)),
        ("eigen.tol=1e-4", ("eigen", "tol", 1e-4)),
        ("eigen.eigenvectors=true", ("eigen", "eigenvectors", True)),
        ("eigen.which=both", ("eigen", "which", "both")),
        ('eigen.which="both"', ("eigen", "which", "both")),
        ("trace.max-products=80", ("trace", "max_products", 80)),
        (" ratios.rho-sweep = [0.1, 0.2] ", ("ratios", "rho_sweep", [0.1, 0.2])),
        ("slice.directions=a=b", ("slice", "directions", "a=b")),
        ("eigen.operator=", ("eigen", "operator", "")),
    ],
)
def test_assignments(text: str, value: tuple[str, str, Any]) -> None:
    (found,) = BatchSettings(set=(text,)).assignments
    assert found == value
    assert type(found[2]) is type(value[2])


@pytest.mark.parametrize("text", ["k=10", "eigen.k", "eigen", "=3", "eigen.=3", ".k=3", "", "Eigen.k=3"])
def test_what_is_no_assignment(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"(?s)KIND\.OPTION=VALUE.*eigen\.k=10"):
        BatchSettings(set=(text,))


@pytest.mark.parametrize(
    "wrong",
    [
        {"jobs": 0},
        {"jobs": 1.5},
        {"jobs": True},
        {"time_limit": -1.0},
        {"order": "random"},
        {"seed": -1},
        {"job": 2},
    ],
)
def test_wrong_values_and_names(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        from_mapping(BatchSettings, wrong)
