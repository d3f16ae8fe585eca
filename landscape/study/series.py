"""Runs on several checkpoints that are comparable: the same question, the latest of each checkpoint."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from landscape.results import Provenance, Result

__all__ = ["Run", "Series", "comparable", "counted_runs"]

#: Settings that add to a run without changing its other figures.
_ADDITIONS = ("masks", "rho_sweep", "per_layer", "eigenvectors", "krylov")


@dataclass(frozen=True)
class Run:
    """A stored result and the file that it was found in."""

    file: Path
    result: Result

    @property
    def provenance(self) -> Provenance:
        assert self.result.provenance is not None  # what is stored has it
        return self.result.provenance

    @property
    def checkpoint(self) -> str:
        """What tells checkpoints apart: the file's content, or whatever else was measured."""
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


@dataclass(frozen=True)
class Series:
    """Comparable runs, in the order given; and what was left out, in words."""

    runs: tuple[Run, ...]
    left_out: tuple[str, ...]

    @property
    def results(self) -> tuple[Result, ...]:
        return tuple(run.result for run in self.runs)

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(run.file for run in self.runs)


def comparable(runs: Sequence[Run]) -> Series:
    """Of runs of one kind those that ask the same of most checkpoints, of each checkpoint the latest."""
    usable = [run for run in runs if run.result.status != "failed"]
    groups: dict[str, list[Run]] = {}
    for run in usable:
        groups.setdefault(json.dumps(run.question, sort_keys=True, default=str), []).append(run)
    left_out = [f"{counted_runs(len(runs) - len(usable))} that failed"] if len(usable) < len(runs) else []
    if not groups:
        return Series((), tuple(left_out))
    largest = max(groups.values(), key=_weight)
    latest = {run.checkpoint: run for run in sorted(largest, key=lambda run: run.provenance.started)}
    chosen = [run for run in largest if latest[run.checkpoint] is run]
    if earlier := len(largest) - len(chosen):
        left_out.append(f"{counted_runs(earlier)} on a checkpoint of which there is a later one")
    others = [group for group in groups.values() if group is not largest]
    left_out += [f"{counted_runs(len(group))} with {_differences(group[0], largest[0])}" for group in others]
    return Series(tuple(chosen), tuple(left_out))


def _weight(group: Sequence[Run]) -> tuple[int, str]:
    return len({run.checkpoint for run in group}), max(run.provenance.started for run in group)


def _differences(run: Run, drawn: Run) -> str:
    """What was asked otherwise than of the runs that are taken."""
    ours, theirs = run.question, drawn.question
    names = [name for name in dict.fromkeys((*theirs, *ours)) if ours.get(name) != theirs.get(name)]
    shown = [f"{name} = {_short(ours.get(name))} instead of {_short(theirs.get(name))}" for name in names[:3]]
    return ", ".join(shown) + (", …" if len(names) > 3 else "")


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:12]}…"


def counted_runs(count: int) -> str:
    """``1 run``, ``2 runs``."""
    return f"{count} run{'' if count == 1 else 's'}"
