"""The whole page: one file that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from landscape.errors import InputError
from landscape.files import printable, replace_atomically
from landscape.reports.contents import Contents, gathered
from landscape.reports.drawing import Pictures
from landscape.reports.markup import Html, element, join, tag
from landscape.reports.overview import attention, facts, head_line, summary
from landscape.reports.sections import one_by_one, reading_guide, training
from landscape.study import Runs

__all__ = ["FIGURES", "TITLE", "ReportSummary", "write_report"]

TITLE = "Loss landscape"
#: Of which checkpoints the runs are drawn one by one: of all, or of the last of each training run.
FIGURES = ("all", "last")
_Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class ReportSummary:
    """What was written.

    Attributes:
        path: the page.
        runs: runs on it.
        checkpoints: saved models that they are of.
        figures: pictures on it.
        size: of the file, in bytes.
        unreadable: what could not be read, and why.
    """

    path: Path
    runs: int
    checkpoints: int
    figures: int
    size: int
    unreadable: tuple[str, ...]


def write_report(
    runs: Runs,
    path: str | Path,
    *,
    title: str | None = None,
    figures: str = "all",
    progress: _Progress | None = None,
) -> ReportSummary:
    """Write one page about stored runs: tables, pictures, what they mean and how they were made.

    The page is one HTML file that loads nothing. The same runs give the same bytes. ``path`` is replaced in
    one step, or left as it is.

    Args:
        runs: as :func:`landscape.open` gives them.
        title: of the page.
        figures: ``all`` draws every run, ``last`` those of the last checkpoint of each training run; pictures
            over training are drawn always.
        progress: called as ``progress(done, total, text)`` while pictures are drawn.

    Raises:
        InputError: no run that can be read, an unknown choice of figures, or a place that cannot be written.
    """
    if figures not in FIGURES:
        raise InputError(f"figures is one of {', '.join(FIGURES)}", found=repr(figures))
    path = Path(path).expanduser()
    contents = gathered(runs)
    text = _page(contents, title or TITLE, figures == "all", progress)
    _write(path, text.encode())
    saved = len(contents.saved)
    return ReportSummary(
        path,
        len(contents.entries),
        saved,
        text.count("<figcaption>"),
        len(text.encode()),
        contents.unreadable,
    )


def _write(path: Path, page: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_atomically(path, lambda file: file.write(page))
    except OSError as error:
        raise InputError(
            f"cannot write {printable(path)}",
            found=error.strerror or str(error),
            do="check the folder and the room on the disk, or choose another name",
        ) from error


def _page(contents: Contents, title: str, everywhere: bool, progress: _Progress | None) -> Html:
    total, done = len(contents.entries) + len(contents.series), 0

    def drawn() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total, "drawing")

    pictures = Pictures()
    over = training(contents, pictures, drawn)
    each = one_by_one(contents, pictures, everywhere, drawn)
    return join(
        [Html("<!DOCTYPE html>\n"), tag("html", _head(title), _body(contents, title, over, each), lang="en")]
    )


def _head(title: str) -> Html:
    """Nothing may be loaded, and no script runs but the page's own."""
    style, script = _file("page.css"), _file("page.js")
    policy = (
        f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        element("meta", {"http-equiv": "Content-Security-Policy", "content": policy}),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="generator", content="landscape"),
        tag("title", title),
        tag("style", style),
        tag("script", script),
    )


def _file(name: str) -> Html:
    return Html(resources.files("landscape.reports").joinpath(name).read_text(encoding="utf-8"))


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_SECTIONS = (
    ("summary-section", "Checkpoints"),
    ("training", "Over training"),
    ("runs", "Run by run"),
    ("guide", "How to read it"),
)


def _body(contents: Contents, title: str, over: Html, each: Html) -> Html:
    links = [tag("a", name, href=f"#{anchor}") for anchor, name in _SECTIONS]
    theme = tag("button", "Theme: auto", type="button", id="theme", class_="script")
    return tag(
        "body",
        tag("a", "Skip to the checkpoints", href="#summary-section", class_="skip"),
        tag("header", tag("h1", title), tag("p", head_line(contents)), class_="top"),
        tag("nav", *links, theme, aria_label="Sections"),
        tag(
            "main",
            attention(contents),
            tag("section", tag("h2", "What was measured"), facts(contents)),
            _section(0, _filter(), summary(contents), _note()),
            _section(1, over),
            _section(2, _folds(), each),
            _section(3, reading_guide(contents)),
        ),
        _viewer(),
    )


def _section(place: int, *content: str) -> Html:
    anchor, name = _SECTIONS[place]
    return tag("section", tag("h2", name), *content, id=anchor)


def _note() -> Html:
    text = (
        "Of each kind the runs that ask the same question of most checkpoints, of each checkpoint "
        "the latest. ± is what the number may be off by for these data, s.e. its standard error over "
        "their sampling. What was measured on fewer than a quarter of the checkpoints stands with its runs."
    )
    return tag("p", text, class_="note")


def _filter() -> Html:
    box = tag("input", type="search", id="filter", placeholder="sgd, step 720, ratios, partial …")
    return tag(
        "p",
        tag("label", "Filter checkpoints and runs ", box),
        tag("span", id="matches", role="status"),
        class_="tools script",
    )


def _folds() -> Html:
    buttons = [
        tag("button", text, type="button", data_fold=fold)
        for text, fold in (("Open all", "open"), ("Close all", "close"))
    ]
    return tag("p", *buttons, class_="tools script")


def _viewer() -> Html:
    """Where a picture is enlarged; empty until one is."""
    buttons = [
        tag("button", text, type="button", data_do=do, aria_label=label)
        for text, do, label in (
            ("+", "in", "Zoom in (+)"),
            ("−", "out", "Zoom out (−)"),
            ("1:1", "reset", "Whole picture (0)"),
            ("Close", "close", "Close (Esc)"),
        )
    ]
    hint = tag("span", "+ − 0, arrows, wheel or drag; Esc closes", class_="hint")
    return tag(
        "dialog", tag("p", *buttons, hint), tag("div", class_="canvas"), id="viewer", aria_label="Picture"
    )
