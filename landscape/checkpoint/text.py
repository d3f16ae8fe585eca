"""Text that comes from files, made harmless and short enough to show."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["escape_text", "listing", "plural", "shown"]


def escape_text(text: object) -> str:
    """``text`` with every character that a terminal would not simply print written as a backslash escape.

    Covers control and terminal escape codes, line and paragraph separators, bidirectional overrides and
    lone surrogates. Letters of all scripts stay as they are.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(text))


def shown(text: object, limit: int = 100) -> str:
    """``text`` escaped, with the middle left out where it is longer than ``limit`` characters."""
    line = escape_text(text)
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
