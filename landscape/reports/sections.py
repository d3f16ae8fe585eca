"""The sections of the page: over training, one by one, and how to read it all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from landscape.reports.contents import Checkpoint, Contents, Entry
from landscape.reports.drawing import Pictures, spoken
from landscape.reports.markup import Html, join, tag
from landscape.reports.overview import counted
from landscape.reports.tables import measures, quantities, table
from landscape.reports.words import guide
from landscape.study import Series

__all__ = ["one_by_one", "reading_guide", "training"]

#: Characters of a hash that are shown in headings.
_HASH = 12


def training(contents: Contents, pictures: Pictures, drawn: Callable[[], None]) -> Html:
    """For each kind its pictures over training, and what was left out of them."""
    parts = []
    for kind, series in contents.series.items():
        if len(series.runs) > 1 and (figures := pictures.of_series(kind, series)):
            parts.append(_kind_over_training(kind, series, figures))
        drawn()
    if not parts:
        text = "No comparable runs of two checkpoints or more: there is nothing to draw over training."
        return tag("p", text, class_="note")
    together = pictures.of_study(contents.series) if len(parts) > 1 else ""
    return join([tag("p", guide().series), together, *parts])


def _kind_over_training(kind: str, series: Series, figures: Html) -> Html:
    words = guide().of(kind)
    left = [tag("p", f"Left out: {text}", class_="note") for text in series.left_out]
    said = f"{counted(len(series.runs), 'checkpoint')}. "
    return tag(
        "section",
        tag("h3", words.title),
        tag("p", words.what),
        figures,
        tag("p", said, tag("a", "How to read it", href=f"#about-{kind}"), class_="note"),
        *left,
        id=f"over-{kind}",
    )


def one_by_one(contents: Contents, pictures: Pictures, everywhere: bool, drawn: Callable[[], None]) -> Html:
    """Every run by checkpoint, folded; with pictures, or only those of the last checkpoints."""
    parts = []
    for checkpoint in contents.checkpoints:
        draws = everywhere or checkpoint.anchor in contents.last
        runs = []
        for entry in checkpoint.entries:
            runs.append(_run(checkpoint, entry, pictures if draws else None))
            drawn()
        sha = tag("code", checkpoint.sha256[:_HASH], title=checkpoint.sha256) if checkpoint.sha256 else ""
        about = [text for text in (checkpoint.training, checkpoint.at) if text]
        title = tag("h3", checkpoint.name, tag("small", " · ".join(about), " ", sha))
        parts.append(tag("section", title, *runs, class_="checkpoint", id=checkpoint.anchor))
    return join(parts)


def _run(checkpoint: Checkpoint, entry: Entry, pictures: Pictures | None) -> Html:
    kind, status = entry.result.kind, entry.result.status
    words = f"{kind} {checkpoint.name} {checkpoint.at} {status} {entry.stored.header.id}".lower()
    line = tag(
        "summary",
        tag("span", guide().of(kind).title, class_="kind"),
        tag("span", spoken(entry.result), class_="said"),
        tag("b", status.replace("_", " "), class_="status") if status != "complete" else "",
        tag("code", entry.stored.header.id),
    )
    advice = guide().statuses.get(status, "") if status != "complete" else ""
    return tag(
        "details",
        line,
        tag("p", tag("b", status.replace("_", " "), class_="status"), f" {advice}") if advice else "",
        _drawn(entry, pictures),
        measures(entry.result),
        tag("details", tag("summary", "All numbers of this run"), quantities(entry.result), class_="more"),
        tag(
            "details",
            tag("summary", "How it was made, and how to make it again"),
            _made(entry),
            class_="more",
        ),
        class_="run",
        id=entry.anchor,
        data_words=words,
    )


def _drawn(entry: Entry, pictures: Pictures | None) -> Html:
    if pictures is not None:
        return pictures.of_run(entry)
    command = f"landscape plot {entry.stored.file} {entry.stored.header.id}"
    return tag(
        "p", "Drawn for the last checkpoint of each training run only. ", tag("code", command), class_="note"
    )


def _made(entry: Entry) -> Html:
    """Everything that was written down beside the result."""
    provenance, reference = entry.provenance, entry.provenance.checkpoint
    drawn = "given" if provenance.seed_given else f"drawn: add --seed {provenance.seed} for the same figures"
    rows: list[tuple[str, str]] = [("command", tag("code", provenance.command, class_="command"))]
    if reference is not None:
        rows += [("checkpoint", reference.path), ("SHA-256", tag("code", reference.sha256))]
    rows += [
        ("seed", f"{provenance.seed} ({drawn})"),
        ("computed", f"on {provenance.device} in {provenance.dtype}, {provenance.seconds:.3g} s"),
        ("started", provenance.started),
        ("data", tag("code", provenance.data_fingerprint)),
        ("settings", _pairs(provenance.settings)),
        ("problem", _pairs(provenance.problem)),
        ("strategy", _pairs(provenance.strategy)),
        ("versions", _pairs(provenance.versions)),
        ("result file", str(entry.stored.file)),
        ("run", entry.stored.header.id),
    ]
    pairs = [tag("div", tag("dt", name), tag("dd", text)) for name, text in rows if text]
    return tag("dl", *pairs, class_="facts made")


def _pairs(values: Mapping[str, Any]) -> Html:
    """Names and values, those that were left as they are by default (None) in one list at the end."""
    given = [(name, value) for name, value in values.items() if value is not None]
    unset = [name for name, value in values.items() if value is None]
    said = [join([tag("b", name), f" = {value}"]) for name, value in given]
    return join([*said, *([f"not set: {', '.join(unset)}"] if unset else [])], "; ")


def reading_guide(contents: Contents) -> Html:
    """How to read the figures of the kinds that are on the page, and what they do not mean."""
    parts = [tag("section", tag("h3", title), tag("p", text)) for title, text in guide().general]
    statuses = dict.fromkeys(entry.result.status for entry in contents.entries)
    if set(statuses) != {"complete"}:
        rows = [(name.replace("_", " "), guide().statuses.get(name, "")) for name in statuses]
        parts.append(tag("section", tag("h3", "Status"), table(("status", "what it means"), rows)))
    for kind in contents.series:
        words = guide().of(kind)
        cautions = [tag("li", text) for text in words.cautions]
        parts.append(
            tag(
                "section",
                tag("h3", words.title),
                tag("p", f"{words.what} {words.read}"),
                join([tag("p", "What it does not mean:"), tag("ul", *cautions)]) if cautions else "",
                id=f"about-{kind}",
            )
        )
    return tag("div", *parts, class_="about")
