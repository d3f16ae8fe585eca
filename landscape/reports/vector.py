"""Matplotlib figures as ``<svg>`` elements of a page: small, sharp, nothing but shapes and text."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from xml.etree import ElementTree

from matplotlib.figure import Figure

from landscape.plots import style
from landscape.reports.markup import Html, element

__all__ = ["inline"]

#: What a figure may consist of; nothing else, whatever drew it, reaches the page.
TAGS = frozenset({"svg", "g", "defs", "path", "use", "text", "tspan", "clipPath", "rect", "image", "pattern"})
#: Attributes that are kept as they stand, with numbers rounded.
_GEOMETRY = frozenset(
    {"d", "x", "y", "width", "height", "transform", "viewBox", "patternUnits", "preserveAspectRatio"}
)
#: Style properties, kept as attributes: the page needs no inline styles, and they are shorter.
_PAINT = frozenset(
    {
        "fill", "fill-opacity", "fill-rule", "stroke", "stroke-width", "stroke-opacity", "stroke-linecap",
        "stroke-linejoin", "stroke-miterlimit", "stroke-dasharray", "stroke-dashoffset", "opacity",
        "text-anchor", "font-size", "font-style", "font-weight",
    }
)  # fmt: skip
_NUMBER = re.compile(r"-?\d+\.\d+(?:e[-+]?\d+)?")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
#: The shorthand of older matplotlib: style, weight, then the size, then the families.
_FONT = re.compile(r"(?P<before>.*?)(?P<size>[\d.]+px)")
#: Places after the point, in points of 1/72 inch: exact to the pixel at ten times the size.
_PLACES = 2
_POINT = 4 / 3  # CSS pixels


def inline(figure: Figure, name: str, text: str, *, cut: bool = False) -> Html:
    """The figure as an element of its own.

    Args:
        name: begins all ids in it; one that no other figure of the page has.
        text: what a reader who does not see it is told.
        cut: leave out the margins: what keeps its aspect fills no paper that was foreseen.
    """
    root = ElementTree.fromstring(_saved(figure, cut))
    names = {old: f"{name}-{i}" for i, old in enumerate(dict.fromkeys(_references(root)))}
    width, height = (float(size) for size in root.attrib["viewBox"].split()[2:])
    attributes = {
        "viewBox": root.attrib["viewBox"],
        "width": round(_POINT * width),
        "height": round(_POINT * height),
        "role": "img",
        "aria-label": text,
        "stroke-linejoin": "round",
    }
    return element("svg", attributes, *(_written(child, names) for child in root))


def _saved(figure: Figure, cut: bool) -> bytes:
    picture = io.BytesIO()
    # Text stays text; the salt makes equal figures equal, ids being renamed anyway.
    with style(**{"svg.fonttype": "none", "svg.hashsalt": "landscape"}):
        box = "tight" if cut else None
        figure.savefig(picture, format="svg", dpi=160, bbox_inches=box, metadata={"Date": None})
    return picture.getvalue()


def _references(root: ElementTree.Element) -> Iterator[str]:
    """The ids that something in the picture refers to."""
    for node in root.iter():
        for key, value in node.attrib.items():
            if _local(key) == "href" and value.startswith("#"):
                yield value[1:]
            yield from _REFERENCE.findall(value)


def _local(name: str) -> str:
    """A name without its namespace."""
    return name.rsplit("}", 1)[-1]


def _written(node: ElementTree.Element, names: Mapping[str, str]) -> Html:
    name = _local(node.tag)
    if name not in TAGS:
        return Html()
    attributes = _attributes(node, names)
    inner = Html("".join(_written(child, names) for child in node))
    if name in ("text", "tspan"):
        return element(name, attributes, node.text.strip() if node.text else "", inner)
    if name in ("g", "defs") and not inner:
        return Html()
    if name == "g" and not attributes:  # groups only tell what was drawn together
        return inner
    return element(name, attributes, inner)


def _attributes(node: ElementTree.Element, names: Mapping[str, str]) -> dict[str, str]:
    kept: dict[str, str] = {}
    for key, value in node.attrib.items():
        local = _local(key)
        if local == "id" and value in names:
            kept["id"] = names[value]
        elif local == "href" and (target := _target(value, names)):
            kept["href"] = target
        elif local == "clip-path":
            kept["clip-path"] = _renamed(value, names)
        elif local == "style":
            kept |= {k: _renamed(_rounded(v), names) for k, v in _paint(value)}
        elif local in _GEOMETRY and not value.startswith("rotate(-0 "):
            kept[local] = _rounded(value)
    return kept


def _target(value: str, names: Mapping[str, str]) -> str | None:
    """Where a reference goes: within the picture, or to the pixels that it carries."""
    if value.startswith("#"):
        return f"#{names[value[1:]]}"
    return re.sub(r"\s", "", value) if value.startswith("data:image/png;base64,") else None


def _renamed(value: str, names: Mapping[str, str]) -> str:
    return _REFERENCE.sub(lambda found: f"url(#{names[found[1]]})", value)


def _paint(text: str) -> Iterator[tuple[str, str]]:
    """The properties of a style that say how to paint."""
    for part in text.split(";"):
        name, _, value = (piece.strip() for piece in part.partition(":"))
        if name in _PAINT:
            yield name, value
        elif name == "font" and (found := _FONT.match(value)):
            yield "font-size", found["size"]
            if "bold" in found["before"]:
                yield "font-weight", "bold"


def _rounded(text: str) -> str:
    """Every number to a hundredth of a point, and no more spaces than there must be."""
    text = _NUMBER.sub(_number, " ".join(text.split()))
    return re.sub(r" ?([A-Za-z]) ", r"\1", text) if text[:2] == "M " else text


def _number(found: re.Match[str]) -> str:
    text = f"{float(found[0]):.{_PLACES}f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
