"""Runs of several checkpoints that go into one picture: one kind, the same question, the latest of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from landscape.errors import InputError, StoreError

from .stored import open_file

if TYPE_CHECKING:
    from landscape.store import Header
    from landscape.study.series import Run, Series

__all__ = ["has_series", "read_series"]


def has_series(file: Path, view: str) -> bool:
    """Whether ``view`` is a picture of several runs, of any kind that ``file`` holds."""
    from landscape.plots import series_views

    kinds = dict.fromkeys(header.kind for header in open_file(file).runs())
    return any(view in series_views(kind) for kind in kinds)


def read_series(files: Sequence[Path], start: str | None, view: str | None) -> Series:
    """The runs of ``files`` for one picture, of those whose ids begin with ``start``.

    The kind is the only one of which there is such a picture; of the runs of that kind, those that ask the
    same of most checkpoints, and of each checkpoint the latest.

    Raises:
        InputError: runs of no such kind or of several, or of fewer than two checkpoints.
        StoreError: a file that cannot be read, or no run whose id begins so.
    """
    from landscape.study.series import Run, Series, comparable, counted_runs

    found = [(path, header) for path in files for header in open_file(path).runs()]
    if start is not None:
        found = [(path, header) for path, header in found if start and header.id.startswith(start)]
    if not found:
        where = f"the {len(files)} files hold" if len(files) > 1 else f"{files[0]} holds"
        raise StoreError(
            f"{where} no run{'' if start is None else f' whose id begins with {start!r}'}",
            do="landscape show FILE lists the runs of a file",
        )
    kind = _kind([header for _, header in found], view)
    others = [header.kind for _, header in found if header.kind != kind]
    series = comparable([Run(p, open_file(p).read(h.id)) for p, h in found if h.kind == kind])
    left_out = list(series.left_out)
    if others:
        names = ", ".join(dict.fromkeys(others))
        left_out.append(f"{counted_runs(len(others))} of other kinds ({names})")
    if len(series.runs) < 2:
        there = f"{counted_runs(len(series.runs))} on {_names(series.runs)}"
        raise InputError(
            f"a picture over checkpoints needs {kind} runs of two checkpoints or more",
            found="; ".join([there, *left_out]),
            do=f"run landscape {kind} with the same options on others, and give all result files",
        )
    return Series(series.runs, tuple(left_out))


def _kind(headers: Sequence[Header], view: str | None) -> str:
    """The only kind of these runs that has such a picture."""
    from landscape.plots import series_views

    kinds = list(dict.fromkeys(header.kind for header in headers))
    views = {kind: list(series_views(kind)) for kind in kinds}
    fitting = [kind for kind in kinds if (view in views[kind] if view is not None else views[kind])]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise InputError(
            "one picture over checkpoints shows runs of one kind",
            found=", ".join(fitting),
            do=f"choose by the beginning of the ids, such as {fitting[0]}",
        )
    there = [f"{name} of {kind}" for kind in kinds for name in views[kind]]
    raise InputError(
        f"there is no picture {'' if view is None else f'{view!r} '}of several {' or '.join(kinds)} runs",
        do=f"there is: {', '.join(there)}" if there else "draw them one by one: landscape plot FILE RUN",
    )


def _names(runs: Sequence[Run]) -> str:
    return ", ".join(_paths(runs)) or "no checkpoint"


def _paths(runs: Sequence[Run]) -> Iterator[str]:
    for run in runs:
        reference = run.provenance.checkpoint
        yield "weights" if reference is None else Path(reference.path).name
