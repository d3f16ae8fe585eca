"""A file or directory to its weights. No code in it runs, unless the caller says ``trust_pickle``."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from landscape.checkpoint.contents import safetensors_header, scan_content
from landscape.checkpoint.directory import FORMAT, Directory, open_directory
from landscape.checkpoint.formats import Source, damaged, identify, is_directory, stamp
from landscape.checkpoint.text import listing, plural, shown
from landscape.checkpoint.trust import allowed_by_torch, refusal, resolve_allowed
from landscape.checkpoint.unwrap import candidates, choose, common_prefix, facts
from landscape.errors import CheckpointError
from landscape.results import CheckpointReference

__all__ = ["Checkpoint", "load_checkpoint"]


@dataclass(frozen=True)
class Checkpoint:
    """Weights from a file, and where they were found.

    ``state`` holds the tensors by name, on the CPU, in the file's dtypes, without the wrappers' ``prefix``
    (as wide as the file is: read only, possibly mapped from it). ``state_key`` is where in the file they were
    ("." for the top level). ``notes`` say what was chosen. ``metadata`` are plain values found beside them,
    ``config`` is what the ``config.json`` of a Hugging Face directory holds.
    """

    path: str
    format: str
    sha256: str
    state: Mapping[str, Tensor]
    state_key: str
    prefix: str
    notes: tuple[str, ...]
    step: int | None
    epoch: int | None
    metadata: Mapping[str, bool | int | float | str]
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reference(self) -> CheckpointReference:
        """Which file, by content, for the record of a run."""
        return CheckpointReference(path=self.path, sha256=self.sha256, step=self.step, epoch=self.epoch)


def load_checkpoint(
    path: str | Path,
    *,
    state_key: str | None = None,
    allow_global: Sequence[str] = (),
    trust_pickle: bool = False,
) -> Checkpoint:
    """Read the weights in ``path``: ``.pt``/``.pth``/``.bin``/``.ckpt``, safetensors, an index of shards, or
    a Hugging Face directory (``config.json`` and safetensors; its ``sha256`` is over both).

    The format is told from the content. Containers (``state_dict``, ``model``, Lightning, …) and wrappers'
    prefixes are removed (not in a directory, whose names are the library's own); plain weights are preferred
    to averaged ones.

    Args:
        state_key: dotted path of the state dict in the file ("." for the top level).
        allow_global: full names of classes that the file may construct.
        trust_pickle: unpickle without restriction, which runs any code that the file holds.

    Raises:
        CheckpointError: no checkpoint, damaged, or not one state dict to choose.
        UntrustedError: reading would need classes that were not allowed, or would run code.
    """
    if is_directory(path):
        return _of_directory(open_directory(path), state_key)
    return _load(identify(path), state_key, allow_global, trust_pickle)


def _load(
    source: Source, state_key: str | None, allow_global: Sequence[str] = (), trust_pickle: bool = False
) -> Checkpoint:
    content = _read(source, allow_global, trust_pickle)
    _require_unchanged(source)
    chosen, notes = choose(candidates(content), state_key, source.path)
    notes = [*_warnings(source), *notes]
    prefix = common_prefix(chosen.tensors)
    if prefix:
        notes.append(f"prefix {prefix} removed from {plural(len(chosen.tensors), 'key')}")
    if chosen.others and chosen.key != ".":
        notes.append(f"left out, being no tensors: {listing(chosen.others)}")
    state = {name.removeprefix(prefix): _plain(value) for name, value in chosen.tensors.items()}
    found = facts(safetensors_header(source)[1] if source.format == "safetensors" else content)
    return Checkpoint(
        path=str(source.path),
        format=source.format,
        sha256=source.sha256,
        state=state,
        state_key=chosen.key,
        prefix=prefix,
        notes=tuple(notes),
        step=found.step,
        epoch=found.epoch,
        metadata=found.metadata,
    )


def _of_directory(directory: Directory, state_key: str | None) -> Checkpoint:
    """The weights of a directory, under the names that they have in its files."""
    inside = _load(directory.weights, state_key)
    return replace(
        inside,
        path=str(directory.path),
        format=FORMAT,
        sha256=directory.sha256,
        state={inside.prefix + name: tensor for name, tensor in inside.state.items()},
        prefix="",
        notes=(f"weights read from {shown(directory.weights.path.name)}", *directory.notes),
        step=inside.step if directory.step is None else directory.step,
        epoch=inside.epoch if directory.epoch is None else directory.epoch,
        metadata=directory.metadata,
        config=directory.config,
    )


def _require_unchanged(source: Source) -> None:
    """The hash must be that of what was read, also while a training run writes."""
    for file in (source, *source.shards):
        if file.stamp != stamp(file.path):
            raise CheckpointError(
                f"{shown(file.path)} changed while it was read", do="try again when nothing writes to it"
            )


def _warnings(source: Source) -> list[str]:
    if source.format == "pytorch" and not source.checksums:
        return ["the file was written without checksums: damage to its numbers would go unnoticed"]
    return []


def _plain(value: Tensor) -> Tensor:
    return value.detach().cpu()


def _read(source: Source, allow_global: Sequence[str], trust_pickle: bool) -> Any:
    if source.format == "index":
        return _read_shards(source, allow_global, trust_pickle)
    if source.format == "safetensors":
        return _read_safetensors(source)
    if trust_pickle:
        return _read_trusted(source)
    if source.format in ("pytorch", "pytorch-legacy"):
        return _read_weights_only(source, allow_global)
    scan = scan_content(source)
    raise refusal(source.path, scan.needed, scan.why)


def _read_weights_only(source: Source, allow_global: Sequence[str]) -> Any:
    # What the caller has registered with torch stays: leaving the context would remove it.
    registered = torch.serialization.get_safe_globals()
    allowed: list[Any] = [item for item in resolve_allowed(allow_global) if item not in registered]
    try:
        with torch.serialization.safe_globals(allowed):
            # Mapping needs the zip container; tensors are then read when they are used.
            return torch.load(
                str(source.path), map_location="cpu", weights_only=True, mmap=source.format == "pytorch"
            )
    except Exception as error:
        scan = scan_content(source)
        names = [n for n in scan.needed if n not in set(allow_global) | allowed_by_torch()]
        if names or scan.why:
            raise refusal(source.path, names, scan.why) from error
        if source.checksums:
            raise CheckpointError(
                f"{shown(source.path)} is intact, but torch cannot read it",
                found=_first_line(error),
                do="save model.state_dict() again on its own",
            ) from error
        raise damaged(source.path, _first_line(error)) from error


def _first_line(error: Exception) -> str:
    return shown(f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}", 200)


def _read_trusted(source: Source) -> Any:
    """Full unpickling, as the caller asked for."""
    try:
        if source.format == "torchscript":
            return torch.jit.load(str(source.path), map_location="cpu").state_dict()  # type: ignore[no-untyped-call]
        if source.format == "torch-export":
            with source.path.open("rb") as file:
                return dict(torch.export.load(file).state_dict)
        if source.format == "pickle":
            with source.path.open("rb") as file:
                return pickle.load(file)
        mapped = source.format == "pytorch"
        return torch.load(str(source.path), map_location="cpu", weights_only=False, mmap=mapped)
    except Exception as error:  # the file's own code may raise anything
        raise CheckpointError(
            f"{shown(source.path)} cannot be unpickled",
            found=_first_line(error),
            do="its classes must be importable here: run beside its training code, or save the state_dict()",
        ) from error


def _read_safetensors(source: Source) -> dict[str, Tensor]:
    names, _ = safetensors_header(source)
    try:
        with safetensors.safe_open(str(source.path), framework="pt", device="cpu") as file:
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            shared = file.metadata() or {}
            return {name: stored[name if name in stored else shared[name]] for name in names}
    except Exception as error:  # the library raises several types of its own
        raise damaged(source.path, _first_line(error)) from error


def _read_shards(source: Source, allow_global: Sequence[str], trust_pickle: bool) -> dict[str, Tensor]:
    contents = {}
    for shard in source.shards:
        content = _read(shard, allow_global, trust_pickle)
        contents[shard.path.name] = content if isinstance(content, Mapping) else {}
    lost = [key for key, name in source.weight_map if not isinstance(contents[name].get(key), Tensor)]
    if lost:
        raise CheckpointError(
            f"{shown(source.path)} names tensors that are not in their shards",
            found=listing(lost),
            do="download the index and all shards again, from one and the same version",
        )
    return {key: contents[name][key] for key, name in source.weight_map}
