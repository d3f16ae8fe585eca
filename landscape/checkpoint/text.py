"""Text that comes from files, made harmless and short enough to show."""

from __future__ import annotations

from collections.abc import Iterable

from landscape.files import printable

__all__ = ["listing", "plural", "shown"]


def shown(text: object, limit: int = 100) -> str:
    """``text`` escaped, with the middle left out where it is longer than ``limit`` characters."""
    line = printable(text)
    if len(line) <= limit:
        return line
    half = (limit - 1) // 2
    return f"{line[:half]}…{line[-half:]}"


def listing(items: Iterable[object], limit: int = 4) -> str:
    """``"a, b, c and 12 more"``, each item escaped."""
    everything = [shown(item) for item in items]
    head, rest = everything[:limit], len(everything) - limit
    return ", ".join(head) + (f" and {rest} more" if rest > 0 else "")


def plural(count: int, word: str) -> str:
    """``"1 key"``, ``"2 keys"``, ``"2 entries"``."""
    if count == 1:
        return f"1 {word}"
    return f"{count} {word[:-1]}ies" if word.endswith("y") and word[-2] not in "aeo" else f"{count} {word}s"
