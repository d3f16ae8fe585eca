from __future__ import annotations

import io
import re
from collections.abc import Iterator
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

from landscape.plots import figure_for, style
from landscape.reports.drawing import drawn_views
from landscape.reports.vector import TAGS, inline
from landscape.results import Result
from tests.reports.support import study
from tests.results.samples import density_result, eigen_result
from tests.support.slice_results import barrier_result, line_result, plane_result, with_trajectory

RESULTS = [density_result(), line_result(), barrier_result(), with_trajectory(plane_result())]
RESULTS += [next(iter(study(2).results()))]
PICTURES = [(result, view) for result in RESULTS for view in drawn_views(result)]


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def references(root: ElementTree.Element) -> Iterator[str]:
    for node in root.iter():
        for key, value in node.attrib.items():
            if key == "href" and value.startswith("#"):
                yield value[1:]
            yield from re.findall(r"url\(#(.*?)\)", value)


@pytest.mark.parametrize(("result", "view"), PICTURES, ids=lambda x: x if isinstance(x, str) else x.kind)
def test_pictures_are_plain_shapes_and_nothing_that_was_drawn_is_left_out(result: Result, view: str) -> None:
    figure = figure_for(result, view)
    ours = parsed(inline(figure, "f7", "what it shows"))
    assert {node.tag for node in ours.iter()} <= TAGS
    assert not {key for node in ours.iter() for key in node.attrib} & {"style", "class", "onload"}
    assert (ours.attrib["role"], ours.attrib["aria-label"]) == ("img", "what it shows")
    ids = [node.attrib["id"] for node in ours.iter() if "id" in node.attrib]
    assert len(ids) == len(set(ids))
    assert all(name.startswith("f7-") for name in ids)
    assert set(references(ours)) == set(ids)

    whole = as_matplotlib_writes_it(figure)
    for name in ("path", "use", "text", "tspan", "image", "rect", "clipPath"):
        assert len(list(ours.iter(name))) == len(list(whole.iter(SVG + name))), name
    assert words(ours, "text") == words(whole, SVG + "text")


SVG = "{http://www.w3.org/2000/svg}"


def as_matplotlib_writes_it(figure: Figure) -> ElementTree.Element:
    file = io.BytesIO()
    with style(**{"svg.fonttype": "none"}):
        figure.savefig(file, format="svg", dpi=160)
    return ElementTree.fromstring(file.getvalue())


def words(root: ElementTree.Element, name: str) -> list[str]:
    return ["".join("".join(node.itertext()).split()) for node in root.iter(name)]


def line(x: np.ndarray, y: np.ndarray, title: str = "") -> Figure:
    figure = Figure(figsize=(6, 4))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.plot(x, y, color="#123456", linewidth=1.5)
    axes.set_title(title)
    return figure


def test_points_are_where_they_belong_to_a_hundredth_of_a_point() -> None:
    rng = np.random.default_rng(0)
    x, y = np.linspace(0.1, 0.9, 15), rng.uniform(0.1, 0.9, 15)
    root = parsed(inline(line(x, y), "f", ""))
    path = next(node for node in root.iter("path") if node.attrib.get("stroke") == "#123456")
    assert path.attrib["stroke-width"] == "1.5"
    numbers = np.array([float(n) for n in re.findall(r"-?[\d.]+", path.attrib["d"])]).reshape(-1, 2)
    np.testing.assert_allclose(numbers, np.column_stack([432 * x, 288 * (1 - y)]), atol=0.0051)
    assert root.attrib["viewBox"].split() == ["0", "0", "432", "288"]
    assert (root.attrib["width"], root.attrib["height"]) == ("576", "384")


def test_text_in_a_picture_stays_text() -> None:
    nasty = "<script>alert(1)</script> & <img src=x onerror=alert(1)>"
    svg = inline(line(np.zeros(2), np.ones(2), nasty), "f", nasty)
    assert "<script" not in svg
    assert "<img" not in svg
    root = parsed(svg)
    assert nasty in ["".join(node.itertext()) for node in root.iter("text")]
    assert root.attrib["aria-label"] == nasty


def test_the_same_figure_is_the_same_element_and_smaller_than_the_file() -> None:
    figures = [figure_for(eigen_result()) for _ in range(2)]
    first, second = (inline(figure, "f1", "") for figure in figures)
    assert first == second
    file = io.BytesIO()
    figures[0].savefig(file, format="svg")
    assert len(first) < 0.5 * len(file.getvalue())
