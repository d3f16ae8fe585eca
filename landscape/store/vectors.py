"""Vectors as long as the model: an HDF5 file of their own, named with the hash of what it holds."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
from numpy.typing import NDArray

from landscape.errors import StoreError
from landscape.files import printable, replace_atomically
from landscape.store.files import os_errors
from landscape.store.hdf import add_dimension, check_version, dataset_at, opened, write_attributes
from landscape.store.hdf import attributes as read_attributes
from landscape.store.record import Attribute

__all__ = ["holds_vectors", "read_vectors", "write_vectors"]

_DIMS = ("pair", "parameter")
_CHECKSUM = "contents_sha256"

#: Layout of the files written here.
FORMAT_VERSION = 1


def write_vectors(
    folder: str | Path, name: str, array: NDArray[Any], attributes: Mapping[str, Attribute]
) -> Path:
    """Store ``array`` (k, n) as ``<folder>/<name>-<16 hex of its hash>.h5``: floats, or bytes of packed bits.

    Written once: the same contents give the same file. Returns its path.

    Raises:
        StoreError: the folder cannot be written or the disk is full.
        ValueError: an array of another shape or dtype.
    """
    array = np.asarray(array)
    if array.ndim != 2 or (array.dtype.kind != "f" and array.dtype != np.uint8):
        raise ValueError(f"vectors are rows (k, n) of floats or bytes, not {array.dtype} {array.shape}")
    total = _hash(array)
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._-")[:80] or "vectors"
    path = Path(folder) / f"{stem}-{total[:16]}.h5"

    def write(raw: BinaryIO) -> None:
        with h5py.File(raw, "w") as file:
            file.attrs["format_version"] = FORMAT_VERSION
            dataset = file.create_dataset("vectors", shape=array.shape, dtype=array.dtype)
            for axis, dim in enumerate(_DIMS):
                add_dimension(dataset, axis, dim)
            write_attributes(dataset, {**attributes, _CHECKSUM: total})
            for row, vector in enumerate(array):
                dataset[row] = vector

    with os_errors("write", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            replace_atomically(path, write)
    return path


def holds_vectors(path: Path) -> bool:
    """Whether a file, by its name, is one of these and no result file."""
    return re.fullmatch(r".+-[0-9a-f]{16}\.h5", path.name) is not None


def read_vectors(path: str | Path, *, verify: bool = True) -> tuple[NDArray[Any], dict[str, Attribute]]:
    """The vectors (k, n), read from the file only where they are used, and their attributes.

    The array is a read-only memory map. ``verify`` reads it once and compares the hash.

    Raises:
        StoreError: not such a file, made by a newer version, or damaged.
    """
    path = Path(path)
    with opened(path, large=True) as file:
        check_version(file, path, FORMAT_VERSION, "vectors")
        dataset = dataset_at(file, "vectors")
        found = read_attributes(dataset)
        shape, dtype, offset = dataset.shape, dataset.dtype, dataset.id.get_offset()
        if len(shape) != 2 or (dtype.kind != "f" and dtype != np.uint8):
            raise TypeError(f"rows of {dtype} {shape}")
    array: NDArray[Any] = np.empty(shape, dtype)
    if offset is not None and array.size:
        array = np.memmap(path, dtype, "r", offset, shape)
    total = found.pop(_CHECKSUM, None)
    if verify and _hash(array) != total:
        raise StoreError(
            f"the vectors in {printable(path)} were damaged or changed",
            found="their contents do not fit their checksum",
            do="delete the file and compute the run again with --fresh",
        )
    return array, found


def _hash(array: NDArray[Any]) -> str:
    total = hashlib.sha256(f"{array.dtype.newbyteorder('<').str} {array.shape}".encode())
    for row in array:
        total.update(np.ascontiguousarray(row, row.dtype.newbyteorder("<")).view(np.uint8).data)
    return total.hexdigest()
