"""Records in HDF5, laid out as netCDF-4 does it, so that xarray opens a run without our help.

Dimensions are HDF5 dimension scales; a boolean is an int8 with the attribute ``dtype = "bool"`` (xarray's
convention). A text that HDF5 cannot hold (with a NUL in it, say) is written as ``json:"…"``.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from landscape.errors import StoreError
from landscape.files import printable
from landscape.store.files import os_errors
from landscape.store.record import Attribute, Record, Variable

__all__ = [
    "add_dimension",
    "attributes",
    "check_version",
    "dataset_at",
    "group_at",
    "groups",
    "opened",
    "read_record",
    "sealed",
    "unsealed",
    "write_attributes",
    "write_record",
]

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_NO_VARIABLE = "This is a netCDF dimension but not a netCDF variable."
_BOOKKEEPING = frozenset({"CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST", "_Netcdf4Dimid"})
_PLAIN_LAYOUTS = (h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS)
_TAG = "json:"
_SEAL = b"landscape seal 1\n"
_SEAL_SIZE = len(_SEAL) + 32

#: What h5py raises on damaged contents, depending on where the damage is.
_DAMAGE = (
    OSError,
    RuntimeError,
    LookupError,
    ValueError,
    TypeError,
    ArithmeticError,
    MemoryError,
    AttributeError,
)


class _Foreign(Exception):
    """A part of the file points out of it, or into storage that is not plain."""


def sealed(image: bytes) -> bytes:
    """``image`` with a seal after its end, where HDF5 does not look.

    HDF5 1.x and 2.0 crash on some flipped bits, so damage must be found before it reads the file.
    """
    return image + _SEAL + hashlib.sha256(image).digest()


def unsealed(contents: bytes, path: Path) -> bytes:
    """The image in ``contents``; a broken seal is an error.

    There is no seal when another program has written to the file since; checksums of the runs still hold.
    """
    image, seal = contents[:-_SEAL_SIZE], contents[-_SEAL_SIZE:]
    if not seal.startswith(_SEAL):
        return contents
    if seal != sealed(image)[len(image) :]:
        raise _damaged(path, "its contents do not fit their checksum")
    return image


@contextlib.contextmanager
def opened(path: Path, *, large: bool = False) -> Iterator[h5py.File]:
    """The HDF5 file at ``path`` for reading; ``large`` leaves it on disk and does not look for a seal.

    Through a Python file: HDF5's own locks fail on read-only and network folders, and clash with other
    handles to the file in this process.

    Raises:
        StoreError: missing, a folder, unreadable, empty, not HDF5, truncated, or damaged where it is read.
    """
    with os_errors("read", path):
        raw = open(path, "rb")  # noqa: SIM115 - closed by the block below
    with raw:
        start = raw.read(len(_SIGNATURE))
        if start != _SIGNATURE:
            found = "another kind of file" if start else "an empty file"
            raise StoreError(f"{printable(path)} is not a landscape file", found=found, do="check the path")
        try:
            with h5py.File(raw if large else io.BytesIO(unsealed(start + raw.read(), path)), "r") as file:
                yield file
        except _Foreign as error:
            raise StoreError(
                f"{printable(path)} is refused: such a file holds all of its data itself",
                found=str(error),
                do="use the file as landscape wrote it",
            ) from error
        except _DAMAGE as error:
            raise _damaged(path, printable(error)[:200]) from error


def _damaged(path: Path, found: str) -> StoreError:
    return StoreError(
        f"{printable(path)} is truncated or damaged",
        found=found,
        do="restore it from a copy, or move it away and compute again",
    )


def check_version(file: h5py.File, path: Path, newest: int, member: str) -> None:
    """Refuse a file of another program, or of a version of ours that is newer than ``newest``."""
    version = attributes(file).get("format_version")
    if not isinstance(version, int) or member not in file:
        raise StoreError(
            f"{printable(path)} is not a landscape file of {member}",
            found="an HDF5 file of another kind",
            do="check the path, or choose another with -o FILE",
        )
    if version > newest:
        raise StoreError(
            f"{printable(path)} was made by a newer landscape (format {version})",
            found=f"this one reads up to format {newest}",
            do="upgrade landscape-diagnostics",
        )


def dataset_at(parent: h5py.Group, name: str) -> h5py.Dataset:
    """The dataset ``name`` of ``parent`` itself (no link). Raises ``KeyError`` if there is none."""
    dataset = _member(parent, name)
    if not isinstance(dataset, h5py.Dataset):
        raise TypeError(f"{printable(name)} is not a dataset")
    return dataset


def groups(parent: h5py.Group) -> list[str]:
    """Names of the groups in ``parent``; anything reached by a link into elsewhere is refused."""
    return [name for name in parent if isinstance(_member(parent, name), h5py.Group)]


def group_at(parent: h5py.Group, name: str) -> h5py.Group:
    """The group ``name`` of ``parent`` itself (no link). Raises ``KeyError`` if there is none."""
    group = _member(parent, name)
    if not isinstance(group, h5py.Group):
        raise TypeError(f"{printable(name)} is not a group")
    return group


def attributes(item: h5py.Group | h5py.Dataset) -> dict[str, Attribute]:
    """Attributes as plain strings and numbers, without HDF5's own."""
    names = [name for name in item.attrs if name not in _BOOKKEEPING]
    if not all(isinstance(name, str) for name in names):
        raise TypeError("an attribute whose name is not text")
    return {name: _plain(item.attrs[name]) for name in names}


def write_attributes(item: h5py.Group | h5py.Dataset, values: Mapping[str, Attribute]) -> None:
    """Set plain attributes; the opposite of :func:`attributes`."""
    for key, value in values.items():
        item.attrs[key] = _text(value) if isinstance(value, str) else value


def write_record(parent: h5py.Group, name: str, record: Record) -> None:
    """Write ``record`` as the new group ``name`` of ``parent``."""
    group = parent.create_group(name)
    write_attributes(group, record.attributes)
    for variable in record.variables.values():
        _write_variable(group, variable)
    for variable in record.variables.values():
        for axis, dim in enumerate(variable.dims):
            if dim != variable.name:
                add_dimension(group[variable.name], axis, dim)


def add_dimension(dataset: h5py.Dataset, axis: int, dim: str) -> None:
    """Name an axis of ``dataset`` by the scale ``dim`` of its group, made if need be (it takes no space)."""
    group, size = dataset.parent, dataset.shape[axis]
    if dim not in group:
        group.create_dataset(dim, shape=(size,), dtype=">f4")
        group[dim].make_scale(f"{_NO_VARIABLE}{size:11d}")
    dataset.dims[axis].attach_scale(group[dim])


def read_record(group: h5py.Group) -> Record:
    """The record in ``group``. Raises what :func:`opened` turns into a StoreError."""
    datasets = {name: dataset_at(group, name) for name in group}
    scales = {_address(item): name for name, item in datasets.items() if item.is_scale}
    variables = {
        name: _read_variable(name, item, scales)
        for name, item in datasets.items()
        if _address(item) not in scales or not _without_variable(item)
    }
    return Record(attributes(group), variables)


def _write_variable(group: h5py.Group, variable: Variable) -> None:
    values, kind = variable.values, variable.values.dtype.kind
    if kind == "O":
        texts = np.array([_text(t) for t in values.ravel().tolist()], dtype=object).reshape(values.shape)
        dataset = group.create_dataset(variable.name, data=texts, dtype=h5py.string_dtype())
    else:
        dataset = group.create_dataset(variable.name, data=values.astype(np.int8) if kind == "b" else values)
    if kind == "b":
        dataset.attrs["dtype"] = "bool"
    write_attributes(dataset, variable.attributes)
    if variable.dims == (variable.name,):
        dataset.make_scale(variable.name)


def _read_variable(name: str, dataset: h5py.Dataset, scales: Mapping[int, str]) -> Variable:
    values: NDArray[Any]
    described = attributes(dataset)
    if h5py.check_string_dtype(dataset.dtype):
        texts = [_untext(t) for t in np.ravel(dataset.asstr()[()]).tolist()]
        values = np.array(texts, dtype=object).reshape(dataset.shape)
    else:
        values = np.asarray(dataset[()])
    if described.pop("dtype", "") == "bool":
        values = values.astype(bool)
    own = _address(dataset) in scales
    dims = (name,) if own else tuple(scales[_address(dimension[0])] for dimension in dataset.dims)
    return Variable(name, dims, values, described)


def _without_variable(scale: h5py.Dataset) -> bool:
    return str(_plain(scale.attrs.get("NAME", ""))).startswith(_NO_VARIABLE)


def _address(dataset: h5py.Dataset) -> int:
    """Where a dataset lies in its file: what a scale is known by (its name is slow to find)."""
    return int(h5py.h5o.get_info(dataset.id).addr)


def _member(parent: h5py.Group, name: str) -> Any:
    """A member that lies in this file, in plain storage no larger than the file."""
    if not isinstance(name, str):
        raise TypeError("a member whose name is not text")
    if not isinstance(parent.get(name, getlink=True), h5py.HardLink):
        raise _Foreign(f"{printable(name)} is a link")
    member = parent[name]
    if isinstance(member, h5py.Dataset):
        layout = member.id.get_create_plist()
        if layout.get_layout() not in _PLAIN_LAYOUTS or layout.get_external_count():
            raise _Foreign(f"{printable(name)} has virtual, external or filtered storage")
        if member.id.get_storage_size() > parent.file.id.get_filesize():
            raise _Foreign(f"{printable(name)} claims more bytes than the file has")
    return member


def _text(text: str) -> str:
    """``text``, tagged and quoted where HDF5 could not give it back as it is."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return _TAG + json.dumps(text)
    return _TAG + json.dumps(text) if "\0" in text or text.startswith(_TAG) else text


def _untext(text: str) -> str:
    return str(json.loads(text[len(_TAG) :])) if text.startswith(_TAG) else text


def _plain(value: Any) -> Attribute:
    if isinstance(value, bytes):
        value = value.decode()
    if isinstance(value, str):
        return _untext(value)
    if isinstance(value, np.integer | np.bool_):
        return int(value)
    if isinstance(value, np.floating):
        return float(value)
    raise TypeError(f"an attribute of type {type(value).__name__}")
