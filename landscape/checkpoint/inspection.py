"""What a checkpoint holds, told without executing anything in it and without reading its tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

from landscape.checkpoint.contents import scan_content
from landscape.checkpoint.directory import FORMAT, Directory, open_directory
from landscape.checkpoint.formats import Source, identify, is_directory
from landscape.checkpoint.pickles import Made, TensorInfo
from landscape.checkpoint.trust import may_offer
from landscape.checkpoint.unwrap import (
    Candidate,
    candidates,
    choose,
    common_prefix,
    facts,
    other_entries,
)
from landscape.errors import CheckpointError
from landscape.results import jsonable

__all__ = ["Inspection", "StateSummary", "TensorEntry", "inspect_checkpoint"]


@dataclass(frozen=True)
class TensorEntry:
    """One tensor; ``kind`` is dense, sparse, quantized or meta (no data)."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    kind: str


@dataclass(frozen=True)
class StateSummary:
    """One state dict in the file: where, how many tensors and numbers, whether averaged weights."""

    key: str
    tensors: int
    numbers: int
    averaged: bool


@dataclass(frozen=True)
class Inspection:
    """What a file holds. Names are as in the file: escape them before they are shown.

    ``safe`` says whether it is read without any option; ``needed_globals`` what its pickles ask for beyond
    that, ``allowable_globals`` those of them that ``--allow-global`` can be given, and ``reason`` what else
    stands in the way. ``numbers`` counts all entries of the chosen state dict, ``parameters`` those that are
    no integers and no running statistics (only the model knows which are trained). ``state_key`` is None
    where none or several are as likely. ``checksums`` says whether the file's own were there and right.
    """

    path: str
    format: str
    size: int
    sha256: str
    checksums: bool
    shards: tuple[str, ...]
    candidates: tuple[StateSummary, ...]
    state_key: str | None
    prefix: str
    tensors: tuple[TensorEntry, ...]
    numbers: int
    parameters: int
    dtypes: dict[str, int]
    wrappers: tuple[str, ...]
    step: int | None
    epoch: int | None
    metadata: dict[str, bool | int | float | str]
    others: tuple[str, ...]
    safe: bool
    needed_globals: tuple[str, ...]
    allowable_globals: tuple[str, ...]
    reason: str
    notes: tuple[str, ...]

    @property
    def state(self) -> dict[str, TensorEntry]:
        """The chosen state dict's tensors by name, as in a ``Checkpoint``."""
        return {entry.name: entry for entry in self.tensors}

    def to_json(self) -> dict[str, Any]:
        """The fields as objects that JSON knows, in order; numbers that are not finite become None."""
        return {name: jsonable(value) for name, value in asdict(self).items()}


def inspect_checkpoint(path: str | Path, *, state_key: str | None = None) -> Inspection:
    """Look at ``path`` (formats as for ``load_checkpoint``), also at files that cannot be read safely.

    Raises:
        CheckpointError: no checkpoint, damaged, or ``state_key`` names no state dict in it.
    """
    if is_directory(path):
        return _of_directory(open_directory(path), state_key)
    return _inspect(identify(path), state_key)


def _of_directory(directory: Directory, state_key: str | None) -> Inspection:
    """The weights of a directory, under the names that they have in its files."""
    inside = _inspect(directory.weights, state_key)
    return replace(
        inside,
        path=str(directory.path),
        format=FORMAT,
        size=directory.size,
        sha256=directory.sha256,
        prefix="",
        tensors=tuple(replace(entry, name=inside.prefix + entry.name) for entry in inside.tensors),
        wrappers=(),
        step=inside.step if directory.step is None else directory.step,
        epoch=inside.epoch if directory.epoch is None else directory.epoch,
        metadata=dict(directory.metadata),
        notes=(f"weights in {directory.weights.path.name}", *inside.notes, *directory.notes),
    )


def _inspect(source: Source, state_key: str | None) -> Inspection:
    contents = scan_content(source)
    found = candidates(contents.content)
    chosen, notes = _chosen(found, state_key, source)
    tensors: Mapping[str, TensorInfo] = chosen.tensors if chosen else {}
    prefix = common_prefix(tensors)
    entries = tuple(
        TensorEntry(name.removeprefix(prefix), t.shape, t.dtype, t.kind) for name, t in tensors.items()
    )
    known = facts(contents.metadata or contents.content)
    dtypes = Counter(entry.dtype for entry in entries)
    return Inspection(
        path=str(source.path),
        format=source.format,
        size=source.size,
        sha256=source.sha256,
        checksums=source.checksums,
        shards=tuple(shard.path.name for shard in source.shards),
        candidates=tuple(_summary(c) for c in found if c.is_weights),
        state_key=chosen.key if chosen else None,
        prefix=prefix,
        tensors=entries,
        numbers=_numbers(tensors),
        parameters=_numbers({name: t for name, t in tensors.items() if _is_parameter(name, t)}),
        dtypes=dict(dtypes),
        wrappers=_wrappers(contents.content, chosen, prefix),
        step=known.step,
        epoch=known.epoch,
        metadata=known.metadata,
        others=other_entries(contents.content, [c for c in found if c.is_weights]),
        safe=not contents.needed and not contents.why,
        needed_globals=contents.needed,
        allowable_globals=tuple(name for name in contents.needed if may_offer(name)),
        reason=contents.why,
        notes=tuple(notes),
    )


def _chosen(
    found: tuple[Candidate, ...], state_key: str | None, source: Source
) -> tuple[Candidate | None, list[str]]:
    try:
        return choose(found, state_key, source.path)
    except CheckpointError as error:
        if state_key is not None:
            raise
        return None, [f"{error.what}; {error.do}" if error.do else error.what]


def _summary(candidate: Candidate) -> StateSummary:
    return StateSummary(
        candidate.key, len(candidate.tensors), _numbers(candidate.tensors), candidate.is_average
    )


def _is_parameter(name: str, tensor: TensorInfo) -> bool:
    running = name.rpartition(".")[2] in ("running_mean", "running_var")
    return not running and tensor.dtype.startswith(("float", "bfloat", "complex"))


def _numbers(tensors: Mapping[str, TensorInfo]) -> int:
    return sum(prod(t.shape) for t in tensors.values())


def _wrappers(content: Any, chosen: Candidate | None, prefix: str) -> tuple[str, ...]:
    """Words for what is around the weights, outermost first."""
    named = {"module.": "DataParallel", "_orig_mod.": "torch.compile", "model.": "model attribute"}
    found = []
    if isinstance(content, Mapping):
        if "pytorch-lightning_version" in content:
            found.append("Lightning")
        if content.get("format") == "landscape-checkpoint":
            found.append("landscape")
    if isinstance(content, Made):
        found.append(f"pickled {getattr(content.function, 'name', 'object')}")
    if chosen is not None and chosen.key != ".":
        found.append(f"container {chosen.key}")
    while prefix:
        part = next(p for p in named if prefix.startswith(p))
        found.append(named[part])
        prefix = prefix.removeprefix(part)
    return tuple(found)
