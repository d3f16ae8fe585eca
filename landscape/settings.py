"""Options described once: the command line, Python keywords and ``landscape.toml`` all read these.

A group of options is a frozen dataclass whose fields are made with :func:`option`.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from landscape.errors import ConfigurationError

__all__ = ["Option", "from_mapping", "option", "options_of"]


@dataclass(frozen=True)
class Option:
    """One option: its Python name, type, default, help sentence and how the command line spells it.

    ``type`` is the bare type (``int``, ``float``, ``str``, ``bool``); ``many`` says that it may be given
    several times (a tuple in Python); ``optional`` that ``None`` is allowed; ``choices`` the allowed words.
    ``identity`` says whether another value makes it another run (False: it changes no figure). ``panel`` is
    the heading of the help page it stands under, if it is not that of its group. ``number`` says that a text
    may also be given as a whole number, as in ``minibatch = 128``. ``special`` options belong to some
    commands only. ``files`` are the beginnings after which a text names files ("" if it does as a whole),
    which in a configuration file are relative to it.
    """

    name: str
    type: type
    default: Any
    help: str
    short: str = ""
    metavar: str = ""
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    many: bool = False
    optional: bool = False
    identity: bool = True
    panel: str = ""
    number: bool = False
    special: bool = False
    files: tuple[str, ...] = ()

    @property
    def flag(self) -> str:
        """The long spelling on the command line, such as ``--max-products``."""
        return "--" + self.name.replace("_", "-")

    def check(self, value: Any, where: str = "") -> Any:
        """``value`` as this option's type, or an error that says what was expected."""
        if value is None and self.optional:
            return None
        if self.many:
            items = value if isinstance(value, list | tuple) else [value]
            return tuple(self._check_one(item, where) for item in items)
        return self._check_one(value, where)

    def _check_one(self, value: Any, where: str) -> Any:
        label = where + (self.flag if not where else self.name)
        whole = isinstance(value, int) and not isinstance(value, bool)
        fits = {
            bool: isinstance(value, bool),
            int: whole,
            float: whole or isinstance(value, float),
            str: isinstance(value, str) or (self.number and whole),
        }[self.type]
        if not fits:
            article = "an" if self.type is int else "a"
            raise ConfigurationError(f"{label} takes {article} {self.type.__name__}", found=repr(value))
        value = self.type(value)
        if self.choices and value not in self.choices:
            raise ConfigurationError(
                f"{label} does not know {value!r}", do=f"choose one of {', '.join(self.choices)}"
            )
        if self.minimum is not None and not value >= self.minimum:
            raise ConfigurationError(f"{label} must be at least {self.minimum:g}", found=repr(value))
        return value


def option(
    default: Any,
    help: str,
    *,
    short: str = "",
    metavar: str = "",
    minimum: float | None = None,
    identity: bool = True,
    panel: str = "",
    number: bool = False,
    special: bool = False,
    files: tuple[str, ...] = (),
) -> Any:
    """A settings field. Choices are declared by the field's type: ``Literal["a", "b"]``."""
    return dataclasses.field(
        default=default,
        metadata={
            "help": help,
            "short": short,
            "metavar": metavar,
            "minimum": minimum,
            "identity": identity,
            "panel": panel,
            "number": number,
            "special": special,
            "files": files,
        },
    )


def options_of(settings: type) -> tuple[Option, ...]:
    """The options of a settings class, in order of declaration.

    >>> from landscape.analyses.eigen import Settings
    >>> [(o.flag, o.default) for o in options_of(Settings) if o.name in ("k", "which", "verify")]
    [('--k', 5), ('--which', 'largest'), ('--verify', 0)]
    """
    hints = typing.get_type_hints(settings)
    found = []
    for field in dataclasses.fields(settings):
        if "help" not in field.metadata:
            continue
        hint, optional, many, choices = hints[field.name], False, False, ()
        if get_origin(hint) in (Union, types.UnionType):
            optional = type(None) in get_args(hint)
            hint = next(arg for arg in get_args(hint) if arg is not type(None))
        if get_origin(hint) is tuple:
            many, hint = True, get_args(hint)[0]
        if get_origin(hint) is Literal:
            choices, hint = get_args(hint), str
        found.append(
            Option(
                name=field.name,
                type=hint,
                default=field.default,
                choices=choices,
                many=many,
                optional=optional,
                **field.metadata,
            )
        )
    return tuple(found)


S = TypeVar("S")


def from_mapping(settings: type[S], values: Mapping[str, Any], where: str = "") -> S:
    """Build ``settings`` from names and values, each checked; unknown names are errors that say which exist.

    Raises:
        ConfigurationError: an unknown name, a wrong type, or a value out of range.
    """
    known = {o.name: o for o in options_of(settings)}
    checked = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        if name not in known:
            who = where.rstrip(": ") or settings.__name__
            raise ConfigurationError(f"{who} does not know {key!r}", do=f"it knows {', '.join(known)}")
        checked[name] = known[name].check(value, where)
    return settings(**checked)
