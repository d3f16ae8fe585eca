"""Checkpoint files of every kind, harmless and hostile, written afresh for each test."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn


def network() -> nn.Module:
    """A small model with parameters, BatchNorm's buffers and an integer counter."""
    generator = torch.Generator().manual_seed(3)
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3))
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return model


def weights() -> dict[str, Tensor]:
    return dict(network().state_dict())


def same(a: Any, b: Any) -> bool:
    """Same names, dtypes, shapes and bits."""
    return list(a) == list(b) and all(
        a[k].dtype == b[k].dtype and a[k].shape == b[k].shape and _bits(a[k]) == _bits(b[k]) for k in a
    )


def _bits(tensor: Tensor) -> bytes:
    return bytes(tensor.contiguous().flatten().view(torch.uint8).tolist()) if tensor.numel() else b""


def write_zip(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def write_legacy(path: Path, content: Any) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=False)
    return path


def write_safetensors(path: Path, content: dict[str, Tensor]) -> Path:
    safetensors.torch.save_file(content, path)
    return path


def write_shards(
    path: Path, content: dict[str, Any], write: Callable[[Path, Any], Path] = write_safetensors
) -> Path:
    """Two shards and their index, which is ``path``."""
    names = list(content)
    halves = {"shard-1.bin": names[: len(names) // 2], "shard-2.bin": names[len(names) // 2 :]}
    for file, keys in halves.items():
        write(path.parent / file, {key: content[key] for key in keys})
    weight_map = {key: file for file, keys in halves.items() for key in keys}
    path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return path


class Touch:
    """Unpickling this makes the file ``marker``."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


def write_tar(path: Path, content: Any) -> Path:
    """The container of torch before 0.1.10: a tar file of pickles."""
    parts = {"sys_info": {"little_endian": True}, "pickle": content, "storages": 0, "tensors": 0}
    with tarfile.open(path, "w:", format=tarfile.PAX_FORMAT) as archive:
        for name, part in parts.items():
            raw = pickle.dumps(part, protocol=2)
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
    return path


def write_archive(path: Path, content: Any, *extra: str) -> Path:
    """A zip archive with the pickle ``data.pkl`` and the members that mark a kind of program archive."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(content, protocol=2))
        for name in extra:
            archive.writestr(f"archive/{name}", pickle.dumps(content, protocol=2))
        archive.writestr("archive/version", "3\n")
    return path
