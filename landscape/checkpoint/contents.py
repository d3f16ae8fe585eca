"""What a recognised file holds, without its numbers: read from headers and opcodes, nothing is executed."""

from __future__ import annotations

import json
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import SEEK_CUR, BytesIO
from typing import IO, Any

from landscape.checkpoint.formats import Source, damaged
from landscape.checkpoint.pickles import Scan, ScanError, TensorInfo, scan
from landscape.checkpoint.text import shown
from landscape.checkpoint.trust import allowed_by_torch

__all__ = ["Contents", "safetensors_header", "scan_content"]

_WHY = {
    "torchscript": "a TorchScript archive, which holds a program",
    "torch-export": "a torch.export archive (.pt2), which holds a program and pickles",
    "pytorch-tar": "a tar file of torch before 0.1.10, which only an unrestricted unpickler reads",
    "pickle": "a plain pickle, not written by torch.save",
}
#: dtype names of the safetensors format.
_DTYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "U16": "uint16",
    "U32": "uint32",
    "U64": "uint64",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}
_ONLY_PROTOCOL = 2


@dataclass(frozen=True)
class Contents:
    """``content`` is the file's object, with a :class:`TensorInfo` for each tensor.

    ``globals`` are all names its pickles look up, ``needed`` those that ``weights_only`` does not accept by
    itself, ``why`` a further reason why it cannot be read without running code ("" if there is none).
    """

    content: Any
    globals: tuple[str, ...] = ()
    why: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def needed(self) -> tuple[str, ...]:
        allowed = allowed_by_torch()
        return tuple(name for name in self.globals if name not in allowed)


def scan_content(source: Source) -> Contents:
    """Work out what ``source`` holds.

    Raises:
        CheckpointError: the file is damaged.
    """
    try:
        if source.format == "safetensors":
            tensors, metadata = safetensors_header(source)
            return Contents(tensors, metadata=metadata)
        if source.format == "index":
            return _scan_shards(source)
        return _scan_pickles(source)
    except (
        ScanError,
        zipfile.BadZipFile,
        tarfile.TarError,
        KeyError,
        EOFError,
        OSError,
        RecursionError,
    ) as error:
        raise damaged(source.path, shown(error)) from error


def safetensors_header(source: Source) -> tuple[dict[str, TensorInfo], dict[str, Any]]:
    """Names, shapes and dtypes in a safetensors file, and its metadata (JSON numbers in it decoded).

    Raises:
        CheckpointError: the header is not valid.
    """
    with source.path.open("rb") as file:
        raw = file.read(int.from_bytes(file.read(8), "little"))
    try:
        header = json.loads(raw)
        metadata = header.pop("__metadata__", {})
        tensors = {
            name: TensorInfo(
                tuple(map(int, entry["shape"])), _DTYPES.get(entry["dtype"], entry["dtype"].lower())
            )
            for name, entry in header.items()
        }
        # Shared tensors are stored once; the metadata says under which name (safetensors.torch.save_model).
        tensors |= {k: tensors[v] for k, v in metadata.items() if v in tensors and k not in tensors}
        return tensors, {k: _decoded(v) for k, v in metadata.items() if k not in tensors}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise damaged(source.path, f"safetensors header: {shown(error)}") from error


def _decoded(text: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, bool | int | float | str) else text


def _scan_shards(source: Source) -> Contents:
    scans = {shard.path.name: scan_content(shard) for shard in source.shards}
    content = {
        key: scans[name].content[key]
        for key, name in source.weight_map
        if isinstance(scans[name].content, Mapping) and key in scans[name].content
    }
    names = dict.fromkeys(name for scanned in scans.values() for name in scanned.globals)
    why = next((scanned.why for scanned in scans.values() if scanned.why), "")
    return Contents(content, tuple(names), why)


def _scan_pickles(source: Source) -> Contents:
    scans = _scans(source)
    names = dict.fromkeys(name for scanned in scans for name in scanned.globals)
    why = _WHY.get(source.format, "")
    protocol = max((scanned.protocol for scanned in scans), default=_ONLY_PROTOCOL)
    if not why and protocol != _ONLY_PROTOCOL:
        why = f"pickle protocol {protocol}, where weights_only reads protocol {_ONLY_PROTOCOL}"
    content = scans[_CONTENT_AT.get(source.format, 0)].content if scans else {}
    return Contents(content, tuple(names), why)


#: Which of a format's pickles is the object that was saved (a legacy file opens with three others).
_CONTENT_AT = {"pytorch-legacy": 3}


def _scans(source: Source) -> list[Scan]:
    if source.format == "pytorch-legacy":
        with source.path.open("rb") as file:
            return [scan(file) for _ in range(5)]
    if source.format == "pickle":
        with source.path.open("rb") as file:
            return [scan(file)]
    if source.format == "pytorch-tar":
        with tarfile.open(source.path, "r:") as archive:
            names = [m.name for m in archive.getmembers() if m.isfile()]
            pickles = [n for n in names if n.removeprefix("./") in ("pickle", "storages", "tensors")]
            return [_scan_tar_member(archive.extractfile(name)) for name in sorted(pickles)]
    wanted = [source.root + name for name in ("data.pkl", "constants.pkl")]
    with zipfile.ZipFile(source.path) as archive, source.path.open("rb") as file:
        members = {m.filename: m for m in archive.infolist()}
        return [scan(BytesIO(_stored(file, members[name]))) for name in wanted if name in members]


def _stored(file: IO[bytes], member: zipfile.ZipInfo) -> bytes:
    """A stored member as it is; ``identify`` has checked it, if the archive has checksums at all."""
    file.seek(member.header_offset + 26)
    lengths = file.read(4)
    file.seek(int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little"), SEEK_CUR)
    return file.read(member.file_size)


def _scan_tar_member(member: IO[bytes] | None) -> Scan:
    if member is None:
        raise ScanError("a member of the tar archive is no file")
    return scan(member)
