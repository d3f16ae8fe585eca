"""A picture of a kind of result, and which results have it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

__all__ = ["View", "has"]


@dataclass(frozen=True)
class View:
    """A picture, called as ``draw(result, **options)``, and the results that have it."""

    draw: Callable[..., Axes]
    of: Callable[[Any], bool]


def has(field: str) -> Callable[[Any], bool]:
    """Whether a result has that array, and something in it."""
    return lambda result: getattr(result, field) is not None and len(getattr(result, field)) > 0
