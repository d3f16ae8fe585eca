"""The page in a real Chromium: its console is empty, every picture is drawn, and it does what it offers."""

from __future__ import annotations

import dataclasses
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from landscape.reports import write_report
from landscape.results import CheckpointReference
from landscape.study import Runs
from tests.reports.support import runs_of, study
from tests.results.samples import eigen_result, provenance, trace_result
from tests.support.browser import Page, browser, chromium
from tests.support.slice_results import plane_result

pytestmark = pytest.mark.skipif(chromium() is None, reason="there is no Chromium here")

NASTY = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


def nasty_runs() -> Runs:
    """Runs whose every text is an attempt at being markup or a script."""
    made = provenance(
        "eigen-nasty",
        command=f"landscape eigen {NASTY}",
        checkpoint=CheckpointReference(path=f"runs/{NASTY}.pt", sha256="ab" * 32, step=7),
        settings={NASTY: NASTY},
        problem={"model": NASTY, "loss": NASTY},
        versions={NASTY: NASTY},
        dtype=NASTY,
    )
    layers = {
        "layers": np.array([NASTY], dtype=object),
        "layer_parameters": np.array([30]),
        "layer_eigenvalues": np.array([[9.0]]),
        "layer_intervals": np.array([[[8.9, 9.1]]]),
        "layer_converged": np.array([[True]]),
    }
    return runs_of(eigen_result(provenance=made, method=NASTY, status="not_converged", **layers))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four checkpoints of two training runs, one with an early end, a plane, and one full of markup."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    runs = list(study(4, kinds=["eigen"]))
    partial = dataclasses.replace(trace_result(), status="partial", provenance=runs[-1].read().provenance)
    plane = plane_result(provenance=provenance("slice-aaaa", checkpoint=None))
    entries = (*runs, *runs_of(partial, plane), *nasty_runs())
    write_report(Runs(entries, (f"{NASTY}.h5: torn",)), path, title=NASTY)
    return path


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def page(tab: Page, file: Path) -> Iterator[Page]:
    """The page as it is opened; whatever is done with it, its console stays empty."""
    tab.size(1280, 900)
    tab.dark(False)
    tab.goto(file)
    tab.evaluate("localStorage.clear()")
    tab.goto(file)
    yield tab
    assert tab.problems == []


def names(page: Page) -> list[str]:
    """The checkpoints of the table that can be seen, from top to bottom."""
    rows = "[...document.querySelectorAll('#summary tbody tr:not([hidden]) th')]"
    found: list[str] = page.evaluate(f"{rows}.map((cell) => cell.textContent)")
    return found


def view_box(page: Page) -> list[float]:
    found: list[float] = page.evaluate(
        "document.querySelector('#viewer svg').getAttribute('viewBox').split(' ').map(Number)"
    )
    return found


def picture(page: Page, *, whole: bool = False) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(page.screenshot(whole=whole))).convert("L"), dtype=float)


def test_it_asks_for_nothing_but_itself(page: Page, file: Path) -> None:
    page.click("[data-fold=open]")
    others = [url for url in page.requests if not url.startswith("data:image/png;base64,")]
    assert others == [file.as_uri()]


def test_text_from_files_is_text(page: Page) -> None:
    page.click("[data-fold=open]")
    assert page.evaluate("document.querySelectorAll('img, iframe, object').length") == 0
    assert page.evaluate("document.querySelectorAll('script').length") == 1
    assert page.evaluate("document.title") == NASTY
    assert page.evaluate("document.querySelector('h1').textContent") == NASTY
    assert any("<img src=x onerror=alert(2)>" in name for name in names(page))
    drawn = page.evaluate("[...document.querySelectorAll('svg text')].map((text) => text.textContent)")
    assert any("<img src=x" in text for text in drawn)
    opened = [e for e in page.wire.events if e["method"] == "Page.javascriptDialogOpening"]
    assert opened == []


def test_every_picture_is_drawn_when_its_run_is_open(page: Page) -> None:
    count = page.evaluate("document.querySelectorAll('figure svg').length")
    assert count > 8
    page.click("[data-fold=open]")
    boxes = page.evaluate(
        "[...document.querySelectorAll('figure svg')].map((svg) => {"
        " const box = svg.getBoundingClientRect(), drawn = svg.getBBox();"
        " return [box.width, box.height, drawn.width, drawn.height]; })"
    )
    assert len(boxes) == count
    assert np.min(boxes) > 100
    broken = page.evaluate(
        "[...document.querySelectorAll('svg use')].filter((use) =>"
        " !document.getElementById(use.getAttribute('href').slice(1))).length"
    )
    assert broken == 0
    page.click("[data-fold=close]")
    assert page.evaluate("document.querySelectorAll('.run[open]').length") == 0


def test_columns_are_sorted_by_click_and_by_keyboard(page: Page) -> None:
    before = names(page)
    column = "#summary thead tr:last-child th:nth-child({})"
    number = page.evaluate(
        "[...document.querySelectorAll('#summary thead tr:last-child th')]"
        ".findIndex((head) => head.textContent === 'λmax') + 1"
    )
    page.click(f"{column.format(number)} button")

    def values() -> list[float | None]:
        cells = f"[...document.querySelectorAll('#summary tbody tr > :nth-child({number})')]"
        found: list[float | None] = page.evaluate(
            f"{cells}.map((cell) => cell.dataset.v === undefined ? null : Number(cell.dataset.v))"
        )
        return found

    there = [value for value in values() if value is not None]
    assert there == sorted(there)
    assert len(set(there)) > 2
    assert page.evaluate(f"document.querySelector('{column.format(number)}').ariaSort") == "ascending"
    page.evaluate(f"document.querySelector('{column.format(number)} button').focus()")
    page.key("Enter")
    there = [value for value in values() if value is not None]
    assert there == sorted(there, reverse=True)
    assert values()[len(there) :] == [None] * (len(before) - len(there))  # what is missing stays last
    page.evaluate(f"document.querySelector('{column.format(1)} button').focus()")
    page.key(" ")
    assert names(page) == before  # back in the order of training
    sorts = page.evaluate("[...document.querySelectorAll('[aria-sort]')].map((head) => head.ariaSort)")
    assert sorts.count("none") == len(sorts) - 1


def test_the_filter_hides_checkpoints_and_runs(page: Page) -> None:
    everything = names(page)
    page.evaluate("document.getElementById('filter').focus()")
    for letter in "sam step":
        page.key(letter)
    assert names(page) == [name for name in everything if "sam" in name]
    runs = page.evaluate(
        "[...document.querySelectorAll('.run')].filter((run) => run.checkVisibility()).length"
    )
    assert runs == 3  # two checkpoints with a run, one of them with a trace
    assert (
        page.evaluate("document.getElementById('matches').textContent") == "2 of 5 checkpoints, 3 of 7 runs"
    )
    page.evaluate("document.getElementById('filter').select()")
    for letter in "partial":
        page.key(letter)
    assert len(names(page)) == 1
    page.evaluate("location.hash = '#run-1'")  # a link leads also to what is filtered out
    page.wait("document.getElementById('run-1').open")
    assert page.evaluate("document.getElementById('run-1').checkVisibility()")
    assert names(page) == everything


def test_a_link_into_the_page_opens_the_run(page: Page, file: Path) -> None:
    page.goto(file, "#run-2")
    assert page.evaluate("document.getElementById('run-2').open")
    assert 0 <= page.evaluate("document.getElementById('run-2').getBoundingClientRect().top") < 900


def test_pictures_are_enlarged_by_mouse_wheel_and_keyboard(page: Page) -> None:
    first = "document.querySelector('#training figure')"
    whole = page.evaluate(f"{first}.querySelector('svg').getAttribute('viewBox').split(' ').map(Number)")
    page.click("#training figure svg")
    assert page.evaluate("document.getElementById('viewer').open")
    assert view_box(page) == whole
    page.key("+")
    np.testing.assert_allclose(view_box(page)[2:], np.array(whole[2:]) / 1.25)
    page.key("ArrowRight")
    left = view_box(page)[0]
    page.key("ArrowLeft")
    assert view_box(page)[0] < left
    for _ in range(40):
        page.key("+")
    assert view_box(page)[2] == pytest.approx(whole[2] / 40)
    page.key("-")
    assert view_box(page)[2] == pytest.approx(whole[2] / 40 / 0.8)
    page.key("0")
    assert view_box(page) == whole
    page.wheel(640, 450, -200)
    page.wait(f"document.querySelector('#viewer svg').viewBox.baseVal.width < {whole[2]}")
    for _ in range(20):
        page.key("ArrowDown")
    top, height = view_box(page)[1::2]
    assert top + height == pytest.approx(whole[1] + whole[3])  # not beyond the edge
    page.key("Escape")
    page.wait("!document.querySelector('#viewer svg')")
    assert not page.evaluate("document.getElementById('viewer').open")
    back = page.evaluate(f"{first}.querySelector('svg').getAttribute('viewBox').split(' ').map(Number)")
    assert back == whole


def test_a_picture_is_enlarged_without_a_mouse(page: Page) -> None:
    page.evaluate("document.querySelector('#training figure .enlarge').focus()")
    page.key("Enter")
    assert page.evaluate("document.getElementById('viewer').open")
    page.evaluate("document.querySelector('[data-do=in]').focus()")
    page.key("Enter")
    inner = view_box(page)[2]
    page.evaluate("document.querySelector('[data-do=close]').focus()")
    page.key("Enter")
    page.wait("!document.querySelector('#viewer svg')")
    assert page.evaluate("document.activeElement.className") == "enlarge"  # where one was
    assert inner < page.evaluate(
        "Number(document.querySelector('#training svg').getAttribute('viewBox').split(' ')[2])"
    )


def test_light_and_dark_follow_the_system_or_the_button(page: Page) -> None:
    light = picture(page)
    page.dark(True)
    dark = picture(page)
    assert light.mean() > 220
    assert dark.mean() < 60
    page.click("#theme")  # light
    assert picture(page).mean() > 220
    page.click("#theme")  # dark
    page.dark(False)
    assert picture(page).mean() < 60
    page.reload()
    assert page.evaluate("document.getElementById('theme').textContent") == "Theme: dark"
    page.click("#theme")
    assert picture(page).mean() > 220


def test_pictures_can_be_read_in_the_dark(page: Page) -> None:
    """Lines on the card of a picture keep their contrast: the card is dark, the text on it light."""
    page.dark(True)
    page.evaluate("document.querySelector('#training figure').scrollIntoView()")
    box = page.evaluate(
        "(() => { const b = document.querySelector('#training figure .canvas').getBoundingClientRect();"
        " return [b.x, b.y, b.right, b.bottom].map(Math.round); })()"
    )
    card = picture(page)[max(box[1], 60) : min(box[3], 900), box[0] : box[2]]
    assert np.median(card) < 40
    assert np.quantile(card, 0.9995) > 180


def test_nothing_is_wider_than_a_narrow_window(page: Page) -> None:
    page.size(390, 800)
    page.click("[data-fold=open]")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_everything_that_acts_can_be_reached_by_tab_and_is_seen_to_have_the_focus(page: Page) -> None:
    reached = []
    for _ in range(14):
        page.key("Tab")
        reached.append(
            page.evaluate(
                "[document.activeElement.tagName, document.activeElement.textContent.trim(),"
                " getComputedStyle(document.activeElement).outlineStyle]"
            )
        )
    assert reached[0][1] == "Skip to the checkpoints"
    assert ["BUTTON", "Theme: auto", "solid"] in reached
    assert {kind for kind, _, _ in reached} >= {"A", "BUTTON", "INPUT"}
    assert all(outline != "none" for _, _, outline in reached)


def test_names_for_who_cannot_see(page: Page) -> None:
    tree = page.call("Accessibility.getFullAXTree")["nodes"]
    roles: dict[str, list[str]] = {}
    for node in tree:
        if not node.get("ignored"):
            roles.setdefault(node["role"]["value"], []).append(node.get("name", {}).get("value", ""))
    assert all(roles["button"])
    assert all(roles["image"])
    assert {"Checkpoints", "Over training", "Run by run", "How to read it"} <= set(roles["heading"])
    assert roles["searchbox"] == ["Filter checkpoints and runs"]


def test_printing_opens_everything_and_closes_it_again(page: Page) -> None:
    page.evaluate(
        "addEventListener('beforeprint', () => {"
        " window.folded = document.querySelectorAll('details:not([open])').length;"
        " window.low = Math.min(...[...document.querySelectorAll('figure svg')]"
        " .map((svg) => svg.getBoundingClientRect().height)); })"
    )
    printed = page.pdf()
    assert printed.startswith(b"%PDF")
    assert page.evaluate("window.folded") == 0
    assert page.evaluate("window.low") > 50
    assert page.evaluate("document.querySelectorAll('.run[open]').length") == 0
    assert pages(printed) > 6


def pages(pdf: bytes) -> int:
    """How many pages a PDF has, its object streams unpacked."""
    text = pdf
    for part in pdf.split(b"stream")[1:]:
        try:
            text += zlib.decompress(part.lstrip(b"\r\n"))
        except zlib.error:
            continue
    return text.replace(b"/Type /Pages", b"").count(b"/Type /Page")


def test_paper_is_white_in_the_dark_too(page: Page) -> None:
    page.dark(True)
    page.call("Emulation.setEmulatedMedia", media="print", features=[])
    try:
        style = "getComputedStyle(document.querySelector('.canvas'))"
        assert page.evaluate(f"{style}.filter") == "none"
        assert picture(page).mean() > 220
        assert not page.evaluate("document.querySelector('nav').checkVisibility()")
    finally:
        page.call("Emulation.setEmulatedMedia", media="")


def test_without_scripts_everything_is_there(page: Page, file: Path) -> None:
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        page.goto(file)
        assert picture(page).std() > 5
        tree = page.call("DOM.getDocument", depth=0)["root"]["nodeId"]
        found = page.call("DOM.querySelectorAll", nodeId=tree, selector="details figure svg")["nodeIds"]
        assert len(found) > 6
    finally:
        page.call("Emulation.setScriptExecutionDisabled", value=False)
        page.goto(file)
