"""Words for messages: text from files made safe to show, and the nearest of known names."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["nearest", "shown"]


def shown(text: object, limit: int = 200) -> str:
    """``text`` on one line, escaped for the terminal and cut to ``limit`` characters."""
    from landscape.files import printable

    line = printable(" ".join(str(text).split()))
    return line if len(line) <= limit else line[: limit - 1] + "…"


def nearest(name: str, known: Iterable[str], limit: int = 30) -> str:
    """``"did you mean model? (known: …)"``: what to write instead of ``name``; "" if nothing is known."""
    names = sorted(known)
    if not names:
        return ""
    close = get_close_matches(name, names, n=3, cutoff=0.6)
    listed = ", ".join(shown(n, 60) for n in names[:limit]) + (", …" if len(names) > limit else "")
    if not close:
        return f"known: {listed}"
    return f"did you mean {' or '.join(shown(n, 60) for n in close)}? (known: {listed})"
