"""The state of an unfinished run: named arrays and counters in one file, replaced whole at each write.

Layout: a line that says what it is, the length of a JSON description (8 bytes, little-endian), the
description, the bytes of the arrays one after the other, and the SHA-256 of all before. No HDF5: states are
large, written often and read by this program only.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from landscape.errors import StoreError
from landscape.files import printable, remove_stale, replace_atomically
from landscape.store.files import os_errors
from landscape.store.record import plain

__all__ = ["PartialFile"]

_MAGIC = b"landscape partial 1\n"
_ANY_MAGIC = b"landscape partial "

Counter = int | float | str | bool
State = tuple[dict[str, Any], dict[str, NDArray[Any]], dict[str, Counter]]


class PartialFile:
    """One ``.partial`` file. One run writes it, so there is no lock."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def write(
        self,
        header: Mapping[str, Any],
        arrays: Mapping[str, NDArray[Any]],
        counters: Mapping[str, Counter],
        *,
        durable: bool = True,
    ) -> None:
        """Replace the file: ``header`` (anything JSON knows), arrays of any numeric dtype, counters.

        Without ``durable`` it lasts when the process is killed, not when the power goes.

        Raises:
            StoreError: the folder cannot be written or the disk is full; the file is as it was before.
            ValueError: an array of objects or text.
        """
        blocks = {name: _block(name, array) for name, array in arrays.items()}
        description = {
            "header": dict(header),
            "counters": dict(counters),
            "arrays": [[name, a.dtype.str, a.shape] for name, a in blocks.items()],
        }
        text = json.dumps(description, default=plain).encode()

        start = _MAGIC + len(text).to_bytes(8, "little") + text

        def write(file: BinaryIO) -> None:
            total = hashlib.sha256()
            for piece in (memoryview(start), *map(_bytes, blocks.values())):
                file.write(piece)
                total.update(piece)
            file.write(total.digest())

        with os_errors("write", self.path):
            if durable:  # the first write of a run is
                self.path.parent.mkdir(parents=True, exist_ok=True)
                remove_stale(self.path)
            replace_atomically(self.path, write, durable=durable)

    def read(self) -> State | None:
        """``(header, arrays, counters)``, the arrays bit for bit as written; None if there is no file.

        Raises:
            StoreError: the file cannot be read, is damaged, or was written by another version.
        """
        with os_errors("read", self.path):
            try:
                file = open(self.path, "rb")  # noqa: SIM115 - closed by the block below
            except FileNotFoundError:
                return None
            with file:
                return self._read(file)

    def remove(self) -> None:
        """Delete the file, if it is there, and what killed writers left of it."""
        with os_errors("remove", self.path), contextlib.suppress(FileNotFoundError):
            remove_stale(self.path)
            self.path.unlink()

    def _read(self, file: BinaryIO) -> State:
        size = os.fstat(file.fileno()).st_size
        magic = file.read(len(_MAGIC))
        if magic != _MAGIC:
            other = magic.startswith(_ANY_MAGIC)
            raise self._damaged("the format of another version" if other else "not an unfinished run")
        length = file.read(8)
        count = int.from_bytes(length, "little")
        if count > size:
            raise self._damaged("it ends too early")
        text = file.read(count)
        total = hashlib.sha256(magic + length + text)
        try:
            description = json.loads(text)
            shapes = [(name, np.dtype(code), tuple(shape)) for name, code, shape in description["arrays"]]
            state: State = (description["header"], {}, description["counters"])
        except (ValueError, TypeError, KeyError) as error:
            raise self._damaged("its description is not readable") from error
        expected = file.tell() + sum(d.itemsize * _count(s) for _, d, s in shapes) + total.digest_size
        if expected != size:
            raise self._damaged(f"{size} bytes, {expected} expected")
        for name, dtype, shape in shapes:
            array = np.empty(shape, dtype)
            file.readinto(_bytes(array))  # type: ignore[attr-defined]
            total.update(_bytes(array))
            state[1][name] = array
        if file.read() != total.digest():
            raise self._damaged("its contents do not fit their checksum")
        return state

    def _damaged(self, found: str) -> StoreError:
        return StoreError(
            f"the unfinished run in {printable(self.path)} cannot be resumed",
            found=found,
            do="start over with --fresh, or delete that file",
        )


def _block(name: str, array: NDArray[Any]) -> NDArray[Any]:
    array = np.asarray(array, order="C")
    if array.dtype.kind not in "biufc":
        raise ValueError(f"{name} holds {array.dtype}, which cannot be stored")
    return array


def _bytes(array: NDArray[Any]) -> memoryview:
    """The memory of a C-contiguous array, not copied."""
    return array.reshape(-1).view(np.uint8).data


def _count(shape: tuple[int, ...]) -> int:
    total = 1
    for size in shape:
        total *= int(size)
    return total
