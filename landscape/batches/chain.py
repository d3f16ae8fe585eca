"""The eigenvectors that a chain of checkpoints passes on, kept until the chain is done."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from landscape.errors import StoreError
from landscape.store import PartialFile, locked, os_errors

__all__ = ["Chain"]

#: Seconds to wait for another writer, which takes milliseconds.
_PATIENCE = 60.0


class Chain:
    """Eigenvectors of the last two checkpoints of a chain, in a file beside the results.

    They are written before the result that they belong to, so whoever finds that result stored finds them,
    too, and goes on from the same vectors as if nothing had happened. Two, because a kill may come between:
    the vectors are there, their result is not, and it is computed again from those before.
    """

    def __init__(self, folder: Path, recipes: Sequence[str]) -> None:
        """Args: folder: of the results; recipes: of the eigenvalues of all checkpoints of the chain."""
        name = hashlib.sha256(json.dumps(list(recipes)).encode()).hexdigest()[:16]
        self._file = PartialFile(folder / f"chain-{name}.partial")
        self._links: dict[str, np.ndarray] = {}
        self._mark: tuple[int, ...] | None = None

    def before(self, recipe: str) -> np.ndarray | None:
        """The vectors to start this one from, (k, n): the latest that are not its own."""
        others = [rows for name, rows in self._read().items() if name != recipe]
        return others[-1] if others else None

    def keep(self, recipe: str, vectors: np.ndarray) -> None:
        """Remember the vectors of this one.

        Raises:
            StoreError: the folder cannot be written, or the disk is full.
        """
        links = {name: rows for name, rows in self._read().items() if name != recipe}
        kept = dict([*links.items(), (recipe, vectors)][-2:])
        arrays = {f"vectors{i}": rows for i, rows in enumerate(kept.values())}
        with os_errors("write", self._file.path):
            self._file.path.parent.mkdir(parents=True, exist_ok=True)
            with locked(self._file.path, _PATIENCE):  # another batch may be at the same chain
                self._file.write({"recipes": list(kept)}, arrays, {})
                self._links, self._mark = kept, self._found_mark()

    def close(self) -> None:
        """The chain is done: nobody needs them any more."""
        if self._file.path.exists():
            with os_errors("remove", self._file.path), locked(self._file.path, _PATIENCE):
                self._file.remove()

    def _read(self) -> dict[str, np.ndarray]:
        """What the file holds; read again only if somebody else has written it since."""
        mark = self._found_mark()
        if mark is None or mark != self._mark:
            try:
                found = self._file.read()
            except StoreError:  # damaged: a start afresh is as right
                found = None
            names = [] if found is None else found[0]["recipes"]
            self._links = {} if found is None else {n: found[1][f"vectors{i}"] for i, n in enumerate(names)}
            self._mark = mark
        return self._links

    def _found_mark(self) -> tuple[int, ...] | None:
        """What tells one writing of the file from another; None if there is none."""
        try:
            found = self._file.path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns
