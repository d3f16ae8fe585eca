"""What each kind of run measures, how its figures are read, and what they do not say: ``words.toml``."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

__all__ = ["Guide", "Words", "guide"]


@dataclass(frozen=True)
class Words:
    """About one kind of run.

    Attributes:
        title: as a heading.
        what: what is measured.
        read: how to read its numbers.
        cautions: what they do not mean.
        views: how to look at each of its pictures, by name.
        series: the same of its pictures over training.
    """

    title: str
    what: str = ""
    read: str = ""
    cautions: tuple[str, ...] = ()
    views: Mapping[str, str] = field(default_factory=dict)
    series: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Guide:
    """All that a page explains.

    Attributes:
        general: heading and text of what holds for all figures.
        statuses: what each status means for whoever reads the numbers.
        series: what holds for all pictures over training.
        training: how to look at one of them whose kind does not say.
        kinds: about each kind of run.
    """

    general: tuple[tuple[str, str], ...]
    statuses: Mapping[str, str]
    series: str
    training: str
    kinds: Mapping[str, Words]

    def of(self, kind: str) -> Words:
        """About a kind; of one that has no words here, its name."""
        return self.kinds.get(kind, Words(kind))


@functools.cache
def guide() -> Guide:
    """The guide as it is written in ``words.toml``."""
    text = resources.files("landscape.reports").joinpath("words.toml").read_text(encoding="utf-8")
    told = _plain(tomllib.loads(text))
    return Guide(
        tuple((one["title"], one["text"]) for one in told["general"]),
        told["statuses"],
        told["series"],
        told["training"],
        {kind: Words(**{**one, "cautions": tuple(one["cautions"])}) for kind, one in told["kinds"].items()},
    )


def _plain(value: Any) -> Any:
    """The same with every text on one line."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return " ".join(value.split())
