"""Runs of several checkpoints that go into one picture: one kind, the same question, the latest of each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landscape.errors import InputError, StoreError

from .stored import open_file

if TYPE_CHECKING:
    from landscape.results import Provenance, Result
    from landscape.store import Header

__all__ = ["Series", "has_series", "read_series"]

#: Settings that add to a run without changing its other figures.
_ADDITIONS = ("masks", "rho_sweep", "per_layer")


@dataclass(frozen=True)
class Series:
    """Runs to draw, in the order of the files; the file of each; what was left out, in words."""

    results: tuple[Result, ...]
    files: tuple[Path, ...]
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class _Run:
    file: Path
    result: Result

    @property
    def provenance(self) -> Provenance:
        assert self.result.provenance is not None  # what is stored has it
        return self.result.provenance

    @property
    def checkpoint(self) -> str:
        """What tells checkpoints apart."""
        reference = self.provenance.checkpoint
        return self.provenance.subject if reference is None else reference.sha256

    @property
    def question(self) -> dict[str, Any]:
        """What was asked and of what, apart from the checkpoint: runs that differ in it are not compared."""
        asked = {k: v for k, v in self.provenance.settings.items() if k not in _ADDITIONS}
        return {
            **asked,
            **self.provenance.problem,
            "data": self.provenance.data_fingerprint,
            "dtype": self.provenance.dtype,
            "parameters": getattr(self.result, "parameters", None),
        }


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
    runs = [_Run(path, open_file(path).read(header.id)) for path, header in found if header.kind == kind]
    chosen, left_out = _comparable(runs)
    if others:
        names = ", ".join(dict.fromkeys(others))
        left_out.append(f"{_runs(len(others))} of other kinds ({names})")
    if len(chosen) < 2:
        raise InputError(
            f"a picture over checkpoints needs {kind} runs of two checkpoints or more",
            found="; ".join([f"{_runs(len(chosen))} on {_names(chosen)}", *left_out]),
            do=f"run landscape {kind} with the same options on others, and give all result files",
        )
    return Series(tuple(r.result for r in chosen), tuple(r.file for r in chosen), tuple(left_out))


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


def _comparable(runs: Sequence[_Run]) -> tuple[list[_Run], list[str]]:
    """The runs that ask the same of most checkpoints, the latest of each; and the others, in words."""
    usable = [run for run in runs if run.result.status != "failed"]
    groups: dict[str, list[_Run]] = {}
    for run in usable:
        groups.setdefault(json.dumps(run.question, sort_keys=True, default=str), []).append(run)
    left_out = [f"{_runs(len(runs) - len(usable))} that failed"] if len(usable) < len(runs) else []
    if not groups:
        return [], left_out
    largest = max(groups.values(), key=_weight)
    latest = {run.checkpoint: run for run in sorted(largest, key=lambda run: run.provenance.started)}
    chosen = [run for run in largest if latest[run.checkpoint] is run]
    if earlier := len(largest) - len(chosen):
        left_out.append(f"{_runs(earlier)} on a checkpoint of which there is a later one")
    others = [group for group in groups.values() if group is not largest]
    left_out += [f"{_runs(len(group))} with {_differences(group[0], largest[0])}" for group in others]
    return chosen, left_out


def _weight(group: Sequence[_Run]) -> tuple[int, str]:
    return len({run.checkpoint for run in group}), max(run.provenance.started for run in group)


def _differences(run: _Run, drawn: _Run) -> str:
    """What was asked otherwise than of the runs that are drawn."""
    ours, theirs = run.question, drawn.question
    names = [name for name in dict.fromkeys((*theirs, *ours)) if ours.get(name) != theirs.get(name)]
    shown = [f"{name} = {_short(ours.get(name))} instead of {_short(theirs.get(name))}" for name in names[:3]]
    return ", ".join(shown) + (", …" if len(names) > 3 else "")


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:12]}…"


def _runs(count: int) -> str:
    return f"{count} run{'' if count == 1 else 's'}"


def _names(runs: Sequence[_Run]) -> str:
    return ", ".join(_paths(runs)) or "no checkpoint"


def _paths(runs: Sequence[_Run]) -> Iterator[str]:
    for run in runs:
        reference = run.provenance.checkpoint
        yield "weights" if reference is None else Path(reference.path).name
