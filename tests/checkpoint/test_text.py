"""Text from files does nothing to a terminal."""

from __future__ import annotations

import pytest

from landscape.checkpoint.text import listing, plural, shown
from landscape.files import printable


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("layers.0.weight", "layers.0.weight"),
        ("größe 重み", "größe 重み"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\u202eabc\u2028\u200b", r"\u202eabc\u2028\u200b"),
        ("\x9b2J", r"\x9b2J"),
        ("\udc80", r"\udc80"),
    ],
)
def test_escape(text: str, escaped: str) -> None:
    assert printable(text) == escaped
    assert printable(text).isprintable()


def test_long_texts_and_lists_are_abridged() -> None:
    assert shown("a" * 500) == "a" * 49 + "…" + "a" * 49
    assert listing("abcdef", 2) == "a, b and 4 more"
    assert [plural(n, w) for n, w in ((1, "key"), (2, "key"), (2, "entry"))] == [
        "1 key",
        "2 keys",
        "2 entries",
    ]
