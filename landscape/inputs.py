"""What a run takes from the store and gives to it beside its result: earlier results, long vectors."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landscape.errors import StoreError
from landscape.files import printable

if TYPE_CHECKING:
    import numpy as np

    from landscape.analyses.base import Analysis
    from landscape.results import Result

__all__ = [
    "chosen",
    "named_vectors",
    "read_fixed",
    "stored_inputs",
    "with_vectors_apart",
    "write_fixed",
]

#: A hash, or its beginning, by which stored vectors are named.
_HASH = re.compile(r"[0-9a-f]{6,16}")


def chosen(module: Analysis, settings: Any, of: str, results: Iterable[Result]) -> dict[str, Result]:
    """The first result of each kind that the analysis can use, all of the same subject ``of``."""
    found: dict[str, Result] = {}
    wanted = set(module.needs(settings))
    for result in results:
        known = result.provenance is not None and result.provenance.subject == of
        if known and result.kind in wanted - set(found) and module.usable(settings, result):
            found[result.kind] = result
    return found


def stored_inputs(module: Analysis, settings: Any, of: str, path: Path) -> Iterator[Result]:
    """The results in a file of the kinds that an analysis can use, the latest first, with their vectors.

    A run that cannot be read is left out: whatever is wrong with it, this one does not need it.
    """
    from landscape.store import ResultFile

    kinds = set(module.needs(settings))
    if not kinds or not path.exists():
        return
    file = ResultFile(path)
    for header in reversed(file.runs()):
        if header.kind not in kinds:
            continue
        with contextlib.suppress(StoreError):
            result = file.read(header.id)
            if result.provenance is not None and result.provenance.subject == of:
                yield _with_vectors(result, path.parent)


def _with_vectors(result: Result, folder: Path) -> Result:
    """The result with the vectors that are kept apart; without them if their file is gone or damaged."""
    from landscape.store import read_vectors

    found: dict[str, Any] = {}
    for name, file_name in result.apart.items():
        file = getattr(result, file_name)
        if file is not None:
            with contextlib.suppress(StoreError):
                found[name] = read_vectors(folder / Path(file).name)[0]
    return dataclasses.replace(result, **found)


def with_vectors_apart(result: Result, path: Path) -> Result:
    """Vectors as long as the model go to files of their own, beside the result file ``path``."""
    from landscape.store import write_vectors

    files: dict[str, Any] = {}
    for name, file_name in result.apart.items():
        vectors = getattr(result, name)
        if vectors is not None and result.provenance is not None:
            about = {"run": result.provenance.id, "holds": name}
            files[file_name] = write_vectors(path.parent, path.stem, vectors, about).name
    return dataclasses.replace(result, **files)


def named_vectors(
    module: Analysis, settings: Any, folder: Path, given: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The rows that an analysis names, from files of vectors, and those that are given.

    A name is a file, or six or more digits of the hash that the name of a file in ``folder`` ends in.

    Raises:
        StoreError: no such file, several of them, or one that is damaged.
    """
    from landscape.store import read_vectors

    names = getattr(module, "vectors", lambda settings: ())(settings)
    return {**given, **{name: read_vectors(_vector_file(name, folder))[0] for name in names}}


def _vector_file(name: str, folder: Path) -> Path:
    from landscape.store import holds_vectors

    path = Path(name).expanduser()
    if path.exists() and not holds_vectors(path) and (beside := _vectors_of(path)):
        raise StoreError(
            f"{printable(path)} holds results, not vectors",
            found=f"its vectors are in {', '.join(beside)}",
            do="name one of these files, in the folder of the results",
        )
    if path.exists():
        return path
    found = (
        [one for one in folder.glob(f"*-{name}*.h5") if holds_vectors(one)] if _HASH.fullmatch(name) else []
    )
    found = [one for one in found if one.stem.rpartition("-")[2].startswith(name)]
    contents = {one.stem[-16:] for one in found}
    if len(contents) == 1:
        return found[0]
    raise StoreError(
        f"there are {'several' if contents else 'no'} stored vectors {printable(name)}",
        found=", ".join(sorted(contents)) or f"no such file, nor one with that hash in {printable(folder)}",
        do="name a file of vectors, or more digits of the hash that its name ends in",
    )


def _vectors_of(path: Path) -> list[str]:
    """The files of vectors that the runs in a result file name; none if it is no result file."""
    from landscape.store import ResultFile

    found: list[str] = []
    with contextlib.suppress(StoreError):
        file = ResultFile(path)
        for header in file.runs():
            result = file.read(header.id)
            names = ((name, getattr(result, file_name)) for name, file_name in result.apart.items())
            found += [f"{printable(own)} ({name} of {header.id})" for name, own in names if own is not None]
    return found


def write_fixed(path: Path, arrays: Mapping[str, np.ndarray], written: MutableMapping[str, str]) -> None:
    """Write rows that never change to files beside the result file ``path``, each once; ``written`` knows."""
    from landscape.store import write_vectors

    for name, rows in arrays.items():
        if name not in written:
            written[name] = write_vectors(path.parent, path.stem, rows, {"holds": name}).name


def read_fixed(folder: Path, written: Mapping[str, str]) -> dict[str, np.ndarray]:
    """What :func:`write_fixed` wrote."""
    from landscape.store import read_vectors

    return {name: read_vectors(folder / file)[0] for name, file in written.items()}
