"""A Hugging Face directory as a checkpoint: ``config.json`` and safetensors, read from the local disk.

Nothing in it runs, and no pickle in it is opened. What stands in ``config.json`` is plain data here; a model
is made of it elsewhere, and only of classes of the installed library.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from landscape.checkpoint.formats import CONFIG, Source, damaged, identify
from landscape.checkpoint.text import listing, shown
from landscape.errors import CheckpointError

__all__ = ["FORMAT", "Directory", "open_directory"]

#: What the format of such a checkpoint is called.
FORMAT = "transformers"

#: The files that hold weights, the first of them that is there, as transformers' own loader takes them.
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_TRAINER = "trainer_state.json"
#: A trainer's folder is named by its step.
_NAME = re.compile(r"checkpoint-(\d{1,18})")
#: Longest JSON text that is read (a trainer's log grows with the training).
_MAX_TEXT = 100_000_000
_MAX_WORD = 200


@dataclass(frozen=True)
class Directory:
    """A directory that was recognised.

    ``weights`` is the file (or index of shards) that was checked, ``config`` what ``config.json`` holds.
    ``sha256`` is that of the lines ``NAME NUL SHA-256 LF`` of ``config.json`` and of the weights' file; an
    index's own hash is over its text and its shards. Tokenizer, trainer's state and the like do not count.
    ``metadata`` are plain values: the architecture, and what the trainer said.
    """

    path: Path
    weights: Source
    config: Mapping[str, Any]
    sha256: str
    size: int
    step: int | None
    epoch: int | None
    metadata: Mapping[str, bool | int | float | str]
    notes: tuple[str, ...]


def open_directory(path: str | Path) -> Directory:
    """Read what there is beside the numbers, and check and hash the weights.

    Raises:
        CheckpointError: no safetensors in it, a ``config.json`` that is none, or damaged weights.
    """
    path = Path(path)
    if path.name in ("", ".."):  # "." has no name that results could be filed under
        path = Path(os.path.abspath(path))
    raw = _bytes(path / CONFIG)
    config = _object(path / CONFIG, raw)
    weights = _weights(path)
    hashes = {CONFIG: hashlib.sha256(raw).hexdigest(), weights.path.name: weights.sha256}
    lines = "".join(f"{name}\0{digest}\n" for name, digest in hashes.items())
    trainer, notes = _trainer(path)
    step, epoch, told = _progress(trainer)
    named = _NAME.fullmatch(path.name)
    return Directory(
        path=path,
        weights=weights,
        config=config,
        sha256=hashlib.sha256(lines.encode()).hexdigest(),
        size=len(raw) + weights.size,
        step=int(named[1]) if step is None and named else step,
        epoch=epoch,
        metadata={**_architecture(config), **told},
        notes=tuple(notes),
    )


def _bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MAX_TEXT:
            raise CheckpointError(f"{shown(path)} is too long to be read", found=f"over {_MAX_TEXT} bytes")
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read {shown(path)}", found=shown(error.strerror or error)) from error


def _object(path: Path, raw: bytes) -> dict[str, Any]:
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"JSON: {shown(error)}") from error
    if not isinstance(found, dict):
        raise damaged(path, f"JSON: a {type(found).__name__} instead of an object")
    return found


def _weights(folder: Path) -> Source:
    """The weights' file; every file of it is safetensors by content, whatever its name."""
    name = next((name for name in _WEIGHTS if (folder / name).is_file()), None)
    if name is None:
        raise _no_weights(folder)
    source = identify(folder / name)
    others = [file.path.name for file in source.shards or (source,) if file.format != "safetensors"]
    if others:
        raise CheckpointError(
            f"{shown(folder)} holds weights that are no safetensors, so they were not read",
            found=listing(others),
            do="save it again with model.save_pretrained(folder)",
        )
    return source


def _no_weights(folder: Path) -> CheckpointError:
    try:
        names = sorted(one.name for one in folder.iterdir())
    except OSError as error:
        return CheckpointError(f"cannot read {shown(folder)}", found=shown(error.strerror or error))
    pickles = [name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt"))]
    if "adapter_config.json" in names:
        return CheckpointError(
            f"{shown(folder)} holds an adapter, not a model's weights",
            do="merge it into its model and save that: model.merge_and_unload().save_pretrained(folder)",
        )
    if pickles:
        return CheckpointError(
            f"{shown(folder)} holds no safetensors, only files that are pickles",
            found=listing(pickles),
            do="save it again with model.save_pretrained(folder), or name one of these files and its --model",
        )
    return CheckpointError(
        f"{shown(folder)} holds a {CONFIG} but no weights",
        found=listing(names),
        do=f"put {' or '.join(_WEIGHTS)} beside it",
    )


def _trainer(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """The trainer's state, {} without one; it is no part of the weights, so damage to it is only told."""
    path = folder / _TRAINER
    if not path.is_file():
        return {}, []
    try:
        return _object(path, _bytes(path)), []
    except CheckpointError as error:
        return {}, [f"no step is known from {_TRAINER}: {shown(error.found or error.what)}"]


def _progress(state: Mapping[str, Any]) -> tuple[int | None, int | None, dict[str, float]]:
    """(step, epoch, what else is known) of the training; a part of an epoch is no epoch's number."""
    step, passed = _counted(state.get("global_step")), state.get("epoch")
    epoch, told = _counted(passed), {}
    if epoch is None and isinstance(passed, float):
        told["epoch"] = passed
    log = state.get("log_history")
    for entry in reversed(log if isinstance(log, list) else []):
        # The rate changes as training goes on: only the one of this very step is the checkpoint's.
        if isinstance(entry, dict) and entry.get("step") == step and "learning_rate" in entry:
            if isinstance(entry["learning_rate"], float):
                told["learning_rate"] = entry["learning_rate"]
            break
    return step, epoch, told


def _counted(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**63:
        return None
    return int(value) if value == int(value) else None


def _architecture(config: Mapping[str, Any]) -> dict[str, str]:
    """What the model is, in the words of the configuration."""
    names = config.get("architectures")
    first = names[0] if isinstance(names, list) and names else None
    words = {"architecture": first, "model_type": config.get("model_type")}
    return {name: word for name, word in words.items() if isinstance(word, str) and len(word) <= _MAX_WORD}
