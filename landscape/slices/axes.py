"""What an axis of a slice may be, as written: ``random``, ``eigen:2``, ``to:other.pt``. Free of torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from landscape.errors import ConfigurationError

__all__ = ["AxisChoice", "parse_axis"]

_PLAIN = ("random", "gradient", "sam")
_NUMBERED = ("eigen", "pca")
_FILES = ("to", "saved")
#: Of directions given as arrays in Python, by the hash of their contents.
_GIVEN = "given"

_FORMS = "choose random, eigen[:K], gradient, sam, to:CHECKPOINT, pca[:K] or saved:FILE[:K]"


@dataclass(frozen=True)
class AxisChoice:
    """A direction to be made.

    Attributes:
        name: its kind.
        file: of ``to`` and ``saved``, as written; the hash of ``given``.
        number: which one of its kind, from 1; negative ones of ``eigen`` count from the smallest. None where
            it is to be counted on.
    """

    name: str
    file: str = ""
    number: int | None = None

    @property
    def text(self) -> str:
        """As it is written."""
        parts = [self.name, self.file, "" if self.number is None else str(self.number)]
        return ":".join(part for part in parts if part)

    def numbered(self, before: Sequence[AxisChoice]) -> AxisChoice:
        """With a number: the next one after those of its kind before it, unless it has one."""
        if self.number is not None or self.name in ("to", "gradient", "sam"):
            return self
        taken = {one.number for one in before if one.file == self.file}
        return replace(self, number=next(n for n in range(1, len(before) + 2) if n not in taken))

    def default_range(self, normalize: str) -> str:
        """The range where none is given: what directions are scaled for, else until the loss has risen."""
        if self.name == "to":
            return "-0.5:1.5"
        if self.name == "random" and normalize != "none":
            return "-1:1"
        return "auto"


def parse_axis(text: str) -> AxisChoice:
    """A direction as written on the command line.

    >>> parse_axis("eigen:2")
    AxisChoice(name='eigen', file='', number=2)

    Raises:
        ConfigurationError: no such direction.
    """
    name, colon, rest = text.strip().partition(":")
    if name in _PLAIN and not colon:
        return AxisChoice(name)
    if name in _NUMBERED:
        return AxisChoice(name, number=_number(rest, text, negative=name == "eigen") if colon else None)
    if name in _FILES and rest:
        file, _, last = rest.rpartition(":")
        if name == "saved" and file and last.isdecimal():
            return AxisChoice(name, file, _number(last, text))
        return AxisChoice(name, rest)
    if name == _GIVEN and rest:
        return AxisChoice(name, rest)
    if name in _FILES:
        raise ConfigurationError(f"--along {name} needs a file", found=repr(text), do=f"write {name}:FILE")
    near = get_close_matches(name, (*_PLAIN, *_NUMBERED, *_FILES), n=1, cutoff=0.6)
    meant = f"to:{text}" if Path(text).expanduser().exists() else near[0] if near else ""
    raise ConfigurationError(
        "there is no such direction",
        found=f"--along {text}",
        do=f"did you mean {meant}? {_FORMS}" if meant else _FORMS,
    )


def _number(word: str, text: str, negative: bool = False) -> int:
    try:
        number = int(word)
    except ValueError:
        number = 0
    if number == 0 or (number < 0 and not negative):
        raise ConfigurationError(
            "directions are numbered from 1" + (", or from -1 for the smallest" if negative else ""),
            found=f"--along {text}",
        )
    return number
