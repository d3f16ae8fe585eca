"""Writing a checkpoint that says what it is and that ``weights_only=True`` reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from landscape.checkpoint.text import shown
from landscape.errors import CheckpointError
from landscape.files import replace_atomically

__all__ = ["FORMAT", "FORMAT_VERSION", "save_checkpoint"]

FORMAT, FORMAT_VERSION = "landscape-checkpoint", 1

Plain = bool | int | float | str | None


def save_checkpoint(
    path: str | Path,
    model_or_state_dict: torch.nn.Module | Mapping[str, Tensor],
    *,
    step: int | None = None,
    epoch: int | None = None,
    learning_rate: float | None = None,
    **metadata: Plain,
) -> None:
    """Write weights with what is worth knowing about them; the old file stays until the new one is whole.

    The file is a dict with ``format``, ``format_version``, ``state_dict``, ``step``, ``epoch`` and
    ``metadata`` (``learning_rate`` among it), or, if ``path`` ends so, a safetensors file with the same as
    metadata strings.

    Args:
        metadata: further plain values: bool, int, float, str or None (NumPy scalars are converted).

    Raises:
        CheckpointError: an entry that is no tensor, a value that is not plain, or a path not writable.
    """
    path = Path(path)
    state = _state(model_or_state_dict)
    values = {name: _plain(name, value) for name, value in metadata.items()}
    if learning_rate is not None:
        values = {"learning_rate": float(learning_rate), **values}
    header: dict[str, Any] = {"format": FORMAT, "format_version": FORMAT_VERSION}
    header |= {"step": _plain("step", step), "epoch": _plain("epoch", epoch)}
    if path.suffix == ".safetensors":
        _write_safetensors(path, state, header | values)
        return
    content = {**header, "state_dict": state, "metadata": values}
    _write(path, lambda file: torch.save(content, file))


def _state(source: torch.nn.Module | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Detached tensors on the CPU; those that share numbers go on sharing them, slices are cut out."""
    entries = source.state_dict() if isinstance(source, torch.nn.Module) else source
    own: dict[object, Tensor] = {}
    state = {}
    for name, tensor in entries.items():
        if not isinstance(tensor, Tensor):
            raise CheckpointError(
                f"save_checkpoint: {shown(name)} is no tensor", found=type(tensor).__name__, do="leave it out"
            )
        key = _place(tensor) or str(name)
        if key not in own:
            own[key] = _own(tensor.detach())
        state[str(name)] = own[key]
    return state


def _place(tensor: Tensor) -> object:
    """The same for tensors that are the same numbers in memory; None where that cannot be told."""
    if tensor.layout != torch.strided or tensor.is_meta or not tensor.numel():
        return None
    return tensor.device, tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype


def _own(tensor: Tensor) -> Tensor:
    tensor = tensor.cpu()
    if tensor.layout != torch.strided or tensor.is_quantized:
        return tensor
    whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor if whole else tensor.clone()


def _plain(name: str, value: Any) -> Plain:
    value = value.item() if isinstance(value, np.generic) or _is_scalar_tensor(value) else value
    if value is None or type(value) in (bool, int, float, str):
        return value  # type: ignore[no-any-return]
    raise CheckpointError(
        f"save_checkpoint: {shown(name)} is no plain value",
        found=type(value).__name__,
        do="give a bool, int, float, str or None",
    )


def _is_scalar_tensor(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 0


def _write_safetensors(path: Path, state: dict[str, Tensor], values: dict[str, Plain]) -> None:
    """The format has no shared tensors: they are stored once, and the metadata says under which name."""
    first: dict[int, str] = {}
    for name, tensor in state.items():
        first.setdefault(id(tensor), name)
    shared = {name: first[id(t)] for name, t in state.items() if first[id(t)] != name}
    strings = {k: v if isinstance(v, str) else json.dumps(v) for k, v in values.items() if v is not None}
    try:
        stored = {name: state[name].contiguous() for name in first.values()}
        raw = safetensors.torch.save(stored, metadata=shared | strings)
    except (RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{shown(path)}: these tensors have no place in a safetensors file",
            found=shown(error, 200),
            do="save with the suffix .pt",
        ) from error
    _write(path, lambda file: file.write(raw))


def _write(path: Path, write: Callable[[BinaryIO], object]) -> None:
    try:
        replace_atomically(path, write)
    except OSError as error:
        raise CheckpointError(
            f"cannot write {shown(path)}",
            found=shown(error.strerror or error),
            do="check the folder and its rights",
        ) from error
