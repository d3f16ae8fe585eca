"""Runs of several checkpoints that go into one picture: the same question, the latest of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from landscape.errors import InputError, StoreError

from .stored import open_file

if TYPE_CHECKING:
    from landscape.store import Header
    from landscape.study.series import Run, Series

__all__ = ["STUDY", "Drawn", "has_series", "read_series"]

#: The picture of several kinds of runs.
STUDY = "study"


@dataclass(frozen=True)
class Drawn:
    """What goes into a picture by kind, of two checkpoints or more each; and what is left out, in words."""

    series: Mapping[str, Series]
    left_out: tuple[str, ...]

    @property
    def runs(self) -> list[Run]:
        """All of them, kind by kind."""
        return [run for series in self.series.values() for run in series.runs]


def has_series(file: Path, view: str) -> bool:
    """Whether ``view`` is a picture of several runs, of any kind that ``file`` holds."""
    from landscape.plots import series_views

    kinds = dict.fromkeys(header.kind for header in open_file(file).runs())
    return view == STUDY or any(view in series_views(kind) for kind in kinds)


def read_series(files: Sequence[Path], start: str | None, view: str | None, *, several: bool) -> Drawn:
    """The runs of ``files`` for one picture, of those whose ids begin with ``start``.

    Of the runs of each kind that has such a picture, those that ask the same of most checkpoints, and of each
    checkpoint the latest. Without ``several`` they are of one kind.

    Raises:
        InputError: runs of no such kind, of several where they must not be, or of fewer than two checkpoints.
        StoreError: a file that cannot be read, or no run whose id begins so.
    """
    from landscape.study.series import Run, comparable, counted_runs

    found = [(path, header) for path in files for header in open_file(path).runs()]
    if start is not None:
        found = [(path, header) for path, header in found if start and header.id.startswith(start)]
    if not found:
        where = f"the {len(files)} files hold" if len(files) > 1 else f"{files[0]} holds"
        raise StoreError(
            f"{where} no run{'' if start is None else f' whose id begins with {start!r}'}",
            do="landscape show FILE lists the runs of a file",
        )
    every = {
        kind: comparable([Run(p, open_file(p).read(h.id)) for p, h in found if h.kind == kind])
        for kind in _kinds([header for _, header in found], view)
    }
    kept = {kind: series for kind, series in every.items() if len(series.runs) > 1}
    if not kept:
        _refuse(every)
    if len(kept) > 1 and not several:
        raise InputError(
            "one picture over checkpoints shows runs of one kind",
            found=", ".join(kept),
            do=f"choose by the beginning of the ids, such as {next(iter(kept))}",
        )
    left_out = [
        f"{kind}: {text}" if len(kept) > 1 else text
        for kind, series in kept.items()
        for text in series.left_out
    ]
    if others := [header.kind for _, header in found if header.kind not in kept]:
        names = ", ".join(dict.fromkeys(others))
        left_out.append(f"{counted_runs(len(others))} of other kinds ({names})")
    return Drawn(kept, tuple(left_out))


def _kinds(headers: Sequence[Header], view: str | None) -> list[str]:
    """The kinds of these runs that have such a picture; at least one."""
    from landscape.plots import series_views

    kinds = list(dict.fromkeys(header.kind for header in headers))
    views = {kind: list(series_views(kind)) for kind in kinds}
    of_any = view is None or view == STUDY
    fitting = [kind for kind in kinds if (views[kind] if of_any else view in views[kind])]
    if fitting:
        return fitting
    there = [f"{name} of {kind}" for kind in kinds for name in views[kind]]
    raise InputError(
        f"there is no picture {'' if view is None else f'{view!r} '}of several {' or '.join(kinds)} runs",
        do=f"there is: {', '.join(there)}" if there else "draw them one by one: landscape plot FILE RUN",
    )


def _refuse(every: Mapping[str, Series]) -> None:
    """None of these kinds has runs on two checkpoints."""
    from landscape.study.series import counted_runs

    kind, series = max(every.items(), key=lambda item: len(item[1].runs) + len(item[1].left_out))
    there = f"{counted_runs(len(series.runs))} on {_names(series.runs)}"
    raise InputError(
        f"a picture over checkpoints needs {kind} runs of two checkpoints or more",
        found="; ".join([there, *series.left_out]),
        do=f"run landscape {kind} with the same options on others, and give all result files",
    )


def _names(runs: Sequence[Run]) -> str:
    return ", ".join(_paths(runs)) or "no checkpoint"


def _paths(runs: Sequence[Run]) -> Iterator[str]:
    for run in runs:
        reference = run.provenance.checkpoint
        yield "weights" if reference is None else Path(reference.path).name
