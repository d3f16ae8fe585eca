"""What a run takes from the store and gives to it beside its result: earlier results, long vectors."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landscape.errors import StoreError

if TYPE_CHECKING:
    from landscape.analyses.base import Analysis
    from landscape.results import Result

__all__ = ["chosen", "stored_inputs", "with_vectors_apart"]


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
