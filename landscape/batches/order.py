"""Checkpoints in the order of training, in chains that one process works through."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from landscape.batches.parts import Seen, Unit
from landscape.errors import InputError
from landscape.files import natural_order, number_in, printable, training_name

__all__ = ["CHAIN", "in_training_order", "units"]

#: Checkpoints in a chain of warm starts, at most. Each chain's first begins afresh, and so keeps the
#: statement on missed eigenvalues; chains are what processes share, so long ones would leave some idle.
CHAIN = 5

_Key = Callable[[Seen], Any]


def in_training_order(seen: Sequence[Seen], order: str = "auto") -> list[tuple[Seen, ...]]:
    """The checkpoints apart by training run, each in its order; the runs in the order of their names.

    Checkpoints are of one training run if they lie in one folder and their names differ in numbers only.

    Args:
        order: ``auto`` (by the steps in the files, else their epochs, else the last numbers in their names),
            ``name`` or ``given``.

    Raises:
        InputError: nothing says in which order the checkpoints of a run were saved.
    """
    runs: dict[tuple[Path, str], list[Seen]] = {}
    for one in seen:
        runs.setdefault((one.path.parent, training_name(_stem(one.path))), []).append(one)
    return [tuple(_ordered(run, order)) for _, run in sorted(runs.items(), key=lambda item: _named(item[0]))]


def _named(run: tuple[Path, str]) -> tuple[Any, ...]:
    folder, name = run
    return *_by_name(folder), name


def _by_name(path: Path) -> tuple[Any, str]:
    """Numbers as numbers; a key of its own for each path, so that how they were listed tells nothing."""
    return natural_order(path), str(path)


def _stem(path: Path) -> str:
    return path.name if path.is_dir() else path.stem


def _ordered(run: list[Seen], order: str) -> list[Seen]:
    if order == "given" or len(run) < 2:
        return run
    if order == "name":
        return sorted(run, key=lambda one: _by_name(one.path))
    usable = [one for one in run if not one.error]
    keys: list[_Key] = [lambda one: one.step, lambda one: one.epoch, lambda one: number_in(_stem(one.path))]
    key = next((key for key in keys if _tells(key, usable)), None)
    if key is None:
        raise InputError(
            "nothing says in which order these were saved",
            found=f"no steps, or the same, in {_listed(usable)}, and no numbers in their names",
            do="--order given takes them as they are listed, --order name by their names",
        )
    last = [one for one in run if one.error]
    return [*sorted(usable, key=key), *sorted(last, key=lambda one: _by_name(one.path))]


def _tells(key: _Key, run: Sequence[Seen]) -> bool:
    """Whether it puts them into one order: each has it, and no two the same."""
    found = [key(one) for one in run]
    return None not in found and len(set(found)) == len(found)


def _listed(run: Iterable[Seen]) -> str:
    names = [printable(one.path.name) for one in run]
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def units(runs: Sequence[Sequence[Seen]], chained: bool) -> list[Unit]:
    """The work in pieces for processes: chains of neighbours, or one checkpoint each.

    Chains of a run are of nearly the same length. They depend on the checkpoints alone, not on who does them.
    """
    found = []
    for run in runs:
        count = max(-(-len(run) // CHAIN), min(2, len(run) // 2)) if chained else len(run)
        ends = [round(i * len(run) / count) for i in range(count + 1)]
        found += [Unit(tuple(run[low:high])) for low, high in pairwise(ends)]
    long = [i for i, unit in enumerate(found) if len(unit.checkpoints) > 1]
    if len(found) > 1 and long:
        middle = long[len(long) // 2]  # neither where training begins nor where it ends
        found[middle] = replace(found[middle], compared=True)
    return found
