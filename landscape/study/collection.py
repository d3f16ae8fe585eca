"""Stored runs of a file or of a folder, as one collection that can be filtered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, overload

from landscape.errors import StoreError
from landscape.files import natural_order, printable
from landscape.store import Header, ResultFile, holds_vectors

if TYPE_CHECKING:
    from landscape.results import Result

__all__ = ["Runs", "Stored", "open_runs"]


@dataclass(frozen=True)
class Stored:
    """A run in a file: what a list shows of it; :meth:`read` gives its result."""

    file: Path
    header: Header

    def read(self) -> Result:
        """The whole result, with its provenance."""
        return ResultFile(self.file).read(self.header)


@dataclass(frozen=True)
class Runs(Sequence[Stored]):
    """Stored runs, the files in natural order, in each the oldest first. Arrays are read when asked for.

    Attributes:
        entries: the runs.
        unreadable: files that could not be read, and why, in words.
    """

    entries: tuple[Stored, ...]
    unreadable: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.entries)

    @overload
    def __getitem__(self, index: int) -> Stored: ...

    @overload
    def __getitem__(self, index: slice) -> Runs: ...

    def __getitem__(self, index: int | slice) -> Stored | Runs:
        if isinstance(index, slice):
            return Runs(self.entries[index], self.unreadable)
        return self.entries[index]

    def results(self) -> Iterator[Result]:
        """The results, read one by one."""
        return (entry.read() for entry in self.entries)


def open_runs(path: str | Path) -> Runs:
    """The runs in a result file, or in all result files of a folder.

    In a folder, files of vectors are passed over, and files that cannot be read are listed as such.

    Raises:
        StoreError: there is nothing at ``path``, or the one file that it names cannot be read.
    """
    path = Path(path).expanduser()
    if not path.is_dir():
        if not path.exists():
            raise StoreError(
                f"there are no results at {printable(path)}", do="landscape eigen CHECKPOINT makes some"
            )
        return Runs(tuple(Stored(path, header) for header in ResultFile(path).runs()))
    entries: list[Stored] = []
    unreadable: list[str] = []
    for file in sorted(path.glob("*.h5"), key=natural_order):
        try:
            if not holds_vectors(file):
                entries += [Stored(file, header) for header in ResultFile(file).runs()]
        except StoreError as error:
            unreadable.append(f"{printable(file)}: {error.what}")
    return Runs(tuple(entries), tuple(unreadable))
