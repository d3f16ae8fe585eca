"""Command-line options made from the settings classes, so that names, help and defaults are written once.

A generated option is ``None`` when it was not given; defaults are shown but not filled in, so that the order
"option, then configuration file, then default" can be kept.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import typer

from landscape.errors import ConfigurationError
from landscape.settings import Option, from_mapping, options_of

__all__ = ["Given", "Group", "Json", "Quiet", "Debug", "DryRun", "with_options"]

COMMON = "Common"

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout.", rich_help_panel=COMMON)
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="No notes and no progress on stderr.", rich_help_panel=COMMON),
]
Debug = Annotated[
    bool, typer.Option("--debug", help="Show the whole traceback of an error.", rich_help_panel=COMMON)
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Say what it would cost, and stop.", rich_help_panel=COMMON),
]

S = TypeVar("S")


@dataclass(frozen=True)
class Group:
    """A settings class and the help panel its options appear in; with its ``special`` options or without."""

    settings: type
    panel: str
    special: bool = False

    @property
    def options(self) -> tuple[Option, ...]:
        """The options that the command has."""
        return tuple(o for o in options_of(self.settings) if self.special or not o.special)


@dataclass(frozen=True)
class Given:
    """What was given on the command line, by option name."""

    values: Mapping[str, Any]

    def of(self, settings: type) -> dict[str, Any]:
        """The given values that belong to ``settings``."""
        return _of(self.values, settings)

    def build(self, settings: type[S], configured: Mapping[str, Any]) -> S:
        """``settings`` from what was given, then from ``configured``, then from the defaults.

        ``configured`` holds checked values by Python name; those of other settings are left out.

        Raises:
            ConfigurationError: a value that does not fit.
        """
        return from_mapping(settings, {**_of(configured, settings), **self.of(settings)})


def _of(values: Mapping[str, Any], settings: type) -> dict[str, Any]:
    return {o.name: values[o.name] for o in options_of(settings) if o.name in values}


def with_options(*groups: Group) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator: add the options of ``groups`` to a command; the function gets them as ``given: Given``."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(function, eval_str=True)
        fixed = [p for p in own.parameters.values() if p.name != "given"]
        generated = list(_parameters(groups))
        names = {p.name for p in generated}

        @functools.wraps(function)
        def command(**values: Any) -> None:
            rest = {n: v for n, v in values.items() if n not in names}
            function(given=_given({n: values[n] for n in names}, groups), **rest)

        parameters = [
            p.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for p in sorted([*fixed, *generated], key=lambda p: _panel_order(p, fixed))
        ]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        return command

    return decorate


def _panel_order(parameter: inspect.Parameter, fixed: Sequence[inspect.Parameter]) -> int:
    """Arguments first, then the generated options, then the common ones: the order of the help page."""
    if parameter not in fixed:
        return 1
    return 0 if parameter.default is inspect.Parameter.empty else 2


def _given(values: Mapping[str, Any], groups: Sequence[Group]) -> Given:
    """The values that were given, with ``--no-x`` as x = False."""
    given = {}
    for option in (o for group in groups for o in group.options):
        value = values[option.name]
        if values.get(_opposite(option)):
            if value:
                raise ConfigurationError(f"{option.flag} and --no-{option.flag[2:]} exclude each other")
            value = False
        if value not in (None, []):
            given[option.name] = value
    return Given(given)


def _opposite(option: Option) -> str:
    return f"no_{option.name}"


def _parameters(groups: Sequence[Group]) -> Iterator[inspect.Parameter]:
    """One parameter per option; two per flag, so that either setting can overrule a configuration file.

    The help page shows the one of the two that changes the default.
    """
    for group in groups:
        for option in group.options:
            kind: Any = option.type
            yield _parameter(option.name, list[kind] if option.many else kind, _info(option, group))
            if option.type is bool:
                yield _parameter(_opposite(option), bool, _opposite_info(option, group))


def _parameter(name: str, kind: Any, info: Any) -> inspect.Parameter:
    annotation = Annotated[kind | None, info]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _info(option: Option, group: Group) -> Any:
    metavar = option.metavar or "|".join(option.choices) or option.type.__name__.upper()
    return typer.Option(
        *_spellings(option),
        help=_help(option),
        show_default=False,
        metavar=None if option.type is bool else metavar,
        autocompletion=_completion(option),
        rich_help_panel=option.panel or group.panel,
        hidden=option.default is True,
    )


def _opposite_info(option: Option, group: Group) -> Any:
    text = option.help
    return typer.Option(
        f"--no-{option.flag[2:]}",
        help=f"Do not {text[0].lower()}{text[1:]}",
        rich_help_panel=option.panel or group.panel,
        hidden=option.default is not True,
    )


def _spellings(option: Option) -> list[str]:
    if len(option.name) == 1:
        return [f"-{option.name}", option.flag]
    return [option.flag, option.short] if option.short else [option.flag]


def _help(option: Option) -> str:
    """The help sentence with its default; brackets are escaped, since Typer reads help as markup."""
    text = option.help.replace("[", "\\[")
    if option.default in (None, (), False):
        return text
    default = ",".join(map(str, option.default)) if option.many else option.default
    return f"{text} [dim]\\[default: {default}][/dim]"


def _completion(option: Option) -> Callable[[str], list[str]] | None:
    if not option.choices:
        return None

    def complete(incomplete: str) -> list[str]:
        return [choice for choice in option.choices if choice.startswith(incomplete)]

    return complete
