"""The pictures of a page: of each run, and of the comparable runs over training."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from matplotlib.figure import Figure

from landscape.errors import LandscapeError
from landscape.plots import figure_for, figure_of_series, figure_of_study, series_views
from landscape.plots.figure import views_of
from landscape.reports.contents import Entry
from landscape.reports.markup import Html, join, tag
from landscape.reports.tables import brief
from landscape.reports.vector import inline
from landscape.reports.words import guide
from landscape.results import Result
from landscape.results.measures import MEASURES, measures_of
from landscape.study import Series

__all__ = ["Pictures"]

#: Pictures that another one of the same run contains: (kind, view) → that view.
_WITHIN: Mapping[tuple[str, str], str] = {
    ("eigen", "layers"): "spectrum",
    ("noise", "alignment"): "overview",
    ("noise", "batches"): "overview",
    ("monitor", "curvature"): "overview",
    ("monitor", "ratios"): "overview",
}
#: Pictures wider than this (inches) have a line of their own.
_WIDE = 7.3
#: Numbers that a picture is summed up in for who does not see it.
_SPOKEN = 3


@dataclass(frozen=True)
class Pictures:
    """Draws figures, each with names of its own within the page."""

    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def of_run(self, entry: Entry) -> Html:
        """All pictures of a run; in words, why there is none."""
        try:
            views = drawn_views(entry.result)
        except LandscapeError as error:
            return tag("p", f"No picture: {error.what}.", class_="note")
        return tag("div", *(self._of_view(entry, view) for view in views), class_="figures")

    def _of_view(self, entry: Entry, view: str) -> Html:
        kind = entry.result.kind
        command = (
            f"landscape plot {shlex.quote(str(entry.stored.file))} {entry.stored.header.id} --view {view}"
        )
        try:
            drawn = figure_for(entry.result, view)
        except LandscapeError as error:
            return tag("p", f"No picture {view}: {error.what}.", class_="note")
        of = f" of {entry.stored.checkpoint}" if entry.stored.checkpoint else ""
        said = f"{guide().of(kind).title}{of}, {view}: {spoken(entry.result)}"
        words = guide().of(kind).views.get(view, "")
        return self._figure(drawn, view, said, words, tag("code", command), cut=kind == "slice")

    def of_series(self, kind: str, series: Series) -> Html:
        """All pictures of comparable runs; in words, why there is none. Empty for a kind that has none."""
        results = series.results
        views = [name for name, view in series_views(kind).items() if view.of(results)]
        drawn = [self._over_training(kind, series, view) for view in views]
        return tag("div", *drawn, class_="figures") if drawn else Html()

    def of_study(self, series: Mapping[str, Series]) -> Html:
        """The main measures of several kinds over the same training runs in one picture, if there are any."""
        several = {
            kind: one.results for kind, one in series.items() if kind in MEASURES and len(one.runs) > 1
        }
        if len(several) < 2:
            return Html()
        try:
            drawn = figure_of_study(several)
        except LandscapeError as error:
            return tag("p", f"No picture of all measures together: {error.what}.", class_="note")
        said = f"Main measures over training: {', '.join(guide().of(kind).title for kind in several)}"
        return tag("div", self._figure(drawn, "all together", said, guide().training), class_="figures")

    def _over_training(self, kind: str, series: Series, view: str) -> Html:
        try:
            drawn = figure_of_series(series.results, view)
        except LandscapeError as error:
            return tag("p", f"No picture over training: {error.what}.", class_="note")
        last = spoken(series.results[-1])
        said = f"{guide().of(kind).title} over {len(series.runs)} checkpoints; at the last one {last}"
        words = guide().of(kind).series.get(view, guide().training)
        return self._figure(drawn, view, said, words)

    def _figure(
        self, drawn: Figure, name: str, said: str, words: str, *below: str, cut: bool = False
    ) -> Html:
        """A picture that can be enlarged, with what it is and how to look at it."""
        svg = inline(drawn, f"f{next(self._numbers)}", said, cut=cut)
        label = f"Enlarge the picture {name}"
        button = tag("button", "Enlarge", type="button", class_="enlarge", aria_label=label)
        text = join([tag("b", name.capitalize()), f" {words} "])
        wide = "wide" if drawn.get_figwidth() > _WIDE else None
        caption = tag("figcaption", text, button, *below)
        return tag("figure", tag("div", svg, class_="canvas"), caption, class_=wide)


def drawn_views(result: Result) -> list[str]:
    """The pictures that are drawn of a result, without those that another one contains.

    Raises:
        InputError: there is none.
    """
    there = views_of(result)
    return [view for view in there if _WITHIN.get((result.kind, view)) not in there]


def spoken(result: Result) -> str:
    """The first numbers of a result in one line."""
    said = [f"{m.label} {brief(r)}" for m in measures_of(result.kind) if (r := m.read(result)) is not None]
    return ", ".join(said[:_SPOKEN]) or result.status.replace("_", " ")
