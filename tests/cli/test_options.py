from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
import typer
from typer.testing import CliRunner, Result

from landscape.errors import ConfigurationError
from landscape.settings import option
from landscape_cli.options import Given, Group, Json, with_options


@dataclass(frozen=True, kw_only=True)
class What:
    k: int = option(5, "How many.", short="-k", minimum=1)
    which: Literal["largest", "smallest"] = option("largest", "Which end.")
    params: tuple[str, ...] = option((), "Patterns such as 'a[0]' (repeatable).", metavar="PATTERN")
    tol: float | None = option(None, "Tolerance.")
    errors: bool = option(True, "Estimate the errors.")
    vectors: bool = option(False, "Keep the vectors.")


@dataclass(frozen=True, kw_only=True)
class How:
    seed: int | None = option(None, "Seed.")
    output: str | None = option(None, "File.", short="-o")


class Calls:
    """A program with one command that records what it was given."""

    def __init__(self) -> None:
        self.seen: list[Given] = []
        self.app = typer.Typer(rich_markup_mode="rich")
        calls = self

        @self.app.command()
        @with_options(Group(What, "What"), Group(How, "How"))
        def measure(
            file: Annotated[str, typer.Argument(help="A file.")], given: Given, json: Json = False
        ) -> None:
            """Measure it."""
            assert file == "f"
            calls.seen.append(given)

    def __call__(self, *args: str) -> Result:
        return CliRunner().invoke(self.app, list(args))

    def given(self, *args: str) -> Given:
        result = self(*args)
        assert result.exit_code == 0, result.output
        return self.seen[-1]


@pytest.fixture
def measure() -> Calls:
    return Calls()


def test_nothing_given_is_nothing_given(measure: Calls) -> None:
    assert measure.given("f").values == {}
    assert measure.given("f", "--json").values == {}


def test_values_get_their_types(measure: Calls) -> None:
    given = measure.given("f", "-k", "3", "--which", "smallest", "--tol", "1e-4", "-o", "x.h5")
    assert given.of(What) == {"k": 3, "which": "smallest", "tol": 1e-4}
    assert given.of(How) == {"output": "x.h5"}
    given = measure.given("f", "--k", "3", "--params", "a", "--params", "b", "--seed", "0")
    assert given.build(What, {}) == What(k=3, params=("a", "b"))
    assert given.build(How, {}) == How(seed=0)


def test_flags_can_be_set_either_way(measure: Calls) -> None:
    assert measure.given("f", "--vectors", "--no-errors").values == {"vectors": True, "errors": False}
    assert measure.given("f", "--no-vectors", "--errors").values == {"vectors": False, "errors": True}


def test_both_ways_at_once_is_an_error(measure: Calls) -> None:
    assert isinstance(measure("f", "--vectors", "--no-vectors").exception, ConfigurationError)


def test_option_wins_over_configuration_over_default(measure: Calls) -> None:
    configured = {"k": 9, "errors": False, "vectors": True, "seed": 4}
    assert measure.given("f").build(What, configured) == What(k=9, errors=False, vectors=True)
    given = measure.given("f", "-k", "2", "--no-vectors")
    assert given.build(What, configured) == What(k=2, errors=False, vectors=False)
    assert given.build(How, configured) == How(seed=4)


def test_a_default_given_explicitly_still_wins(measure: Calls) -> None:
    assert measure.given("f", "-k", "5").build(What, {"k": 9}) == What(k=5)


def test_choices_and_minima_are_checked_with_the_settings(measure: Calls) -> None:
    with pytest.raises(ConfigurationError, match="choose one of largest, smallest"):
        measure.given("f", "--which", "middle").build(What, {})
    with pytest.raises(ConfigurationError, match="at least 1"):
        measure.given("f", "-k", "0").build(What, {})
    assert measure("f", "-k", "many").exit_code == 2


def test_help_shows_panels_defaults_and_brackets(measure: Calls) -> None:
    text = measure("--help").output
    for part in ("What", "How", "[default: 5]", "[default: largest]", "'a[0]'", "largest|smallest"):
        assert part in text
    assert "Do not estimate the errors." in text
    assert "--no-errors" in text
    assert "--no-vectors" not in text
