from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from landscape.files import printable
from landscape.reports.markup import Html, element, join, tag


class Reader(HTMLParser):
    """What a parser makes of markup: elements with their attributes, and the text between."""

    def __init__(self, markup: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@given(st.text(), st.text())
def test_any_text_is_read_back_as_text_and_as_an_attribute(text: str, value: str) -> None:
    read = Reader(tag("p", text, title=value))
    assert read.elements == [("p", {"title": printable(value)})]
    assert read.text == printable(text)


def test_markup_is_kept_and_text_is_not_taken_for_it() -> None:
    made = tag("ul", tag("li", "a < b"), Html("<li>c</li>"))
    assert made == "<ul><li>a &lt; b</li><li>c</li></ul>"
    assert join(["&", made], "<") == f"&amp;&lt;{made}"
    assert isinstance(join([]), Html)


def test_attributes_without_a_value_and_those_left_out() -> None:
    assert tag("input", hidden=True, title=None, disabled=False) == "<input hidden>"
    assert element("meta", {"http-equiv": "x"}) == '<meta http-equiv="x">'
    assert tag("td", data_v=0.0, class_="n") == '<td data-v="0.0" class="n"></td>'


def test_control_and_direction_characters_are_spelt_out() -> None:
    shown = tag("p", "a\x1b[31m\u202eb\n")
    assert shown == "<p>a\\x1b[31m\\u202eb\\n</p>"
