"""Markup in which every text is escaped unless it is markup already."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping

from landscape.files import printable

__all__ = ["Html", "element", "join", "tag"]

#: Elements that have no content and no end.
_VOID = frozenset({"br", "col", "input", "meta"})


class Html(str):
    """Markup. A plain ``str`` is text, and is escaped wherever it goes into markup."""

    __slots__ = ()


def _safe(text: str) -> Html:
    return text if isinstance(text, Html) else Html(html.escape(printable(text)))


def join(parts: Iterable[str], between: str = "") -> Html:
    """The parts one after another, each escaped unless it is markup.

    >>> join([Html("<br>"), "<br>"], " & ")
    '<br> &amp; &lt;br&gt;'
    """
    return Html(_safe(between).join(map(_safe, parts)))


def element(name: str, attributes: Mapping[str, object], *children: str) -> Html:
    """An element with these attributes: True is one without a value, None and False are left out."""
    given = "".join(
        f" {key}" if value is True else f' {key}="{html.escape(printable(value))}"'
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    start = f"<{name}{given}>"
    return Html(start if name in _VOID else f"{start}{join(children)}</{name}>")


def tag(name: str, /, *children: str, **attributes: object) -> Html:
    """The same with attributes as keywords: ``class_="wide"``, ``aria_label="Runs"``.

    >>> tag("b", "a < b", class_="x", data_v=3)
    '<b class="x" data-v="3">a &lt; b</b>'
    """
    return element(name, {k.rstrip("_").replace("_", "-"): v for k, v in attributes.items()}, *children)
