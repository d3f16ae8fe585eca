"""``landscape inspect``: what a checkpoint holds, without executing anything in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..console import Console
from ..numbers import size
from ..options import Debug, Json, Quiet

if TYPE_CHECKING:
    from landscape.checkpoint import Inspection

#: Keys listed without --all.
ABRIDGED = 20


def command(
    checkpoint: Annotated[Path, typer.Argument(help="The saved model.", metavar="CHECKPOINT")],
    all_keys: Annotated[bool, typer.Option("--all", help="List every key, however many there are.")] = False,
    state_key: Annotated[
        str | None,
        typer.Option("--state-key", help="Which entry of the checkpoint holds the weights.", metavar="KEY"),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show what a checkpoint holds: format, keys, shapes, number of parameters.

    Nothing in the file is executed, so this is safe for files that you were sent.

    Examples:
      landscape inspect ckpt.pt
      landscape inspect model.safetensors --all
    """
    from landscape.checkpoint import inspect_checkpoint
    from landscape.results import jsonable

    console = Console("inspect", json=json, quiet=quiet)
    inspection = inspect_checkpoint(checkpoint, state_key=state_key)
    console.pairs(_facts(inspection))
    if inspection.tensors:
        console.out()
        _print_tensors(console, inspection, all_keys)
    for note in inspection.notes:
        console.note(note)
    console.emit(inspection=jsonable(inspection.to_json()))


def _facts(inspection: Inspection) -> Iterator[tuple[str, str]]:
    """What is known of the file as a whole, by name."""
    checked = "its own checksums are right" if inspection.checksums else "it has no checksums of its own"
    yield "file", inspection.path
    yield "format", f"{inspection.format}, {size(inspection.size)}; {checked}"
    yield "sha-256", inspection.sha256
    yield "safe", _safety(inspection)
    if inspection.shards:
        yield "shards", ", ".join(inspection.shards)
    if inspection.wrappers:
        yield "wrapped in", ", ".join(inspection.wrappers)
    if inspection.state_key is not None:
        dtypes = ", ".join(f"{count} {dtype}" for dtype, count in inspection.dtypes.items())
        yield "weights", f"{len(inspection.tensors)} tensors ({dtypes}), {inspection.numbers:,} numbers"
    if inspection.prefix:
        yield "prefix", f"{inspection.prefix} (removed below)"
    if len(inspection.candidates) > 1:
        keys = (f"{c.key} ({c.tensors} tensors)" for c in inspection.candidates)
        yield "--state-key", f"{', '.join(keys)}; taken: {inspection.state_key or 'none, choose one'}"
    for name, number in (("step", inspection.step), ("epoch", inspection.epoch)):
        if number is not None:
            yield name, str(number)
    if inspection.metadata:
        yield "metadata", ", ".join(f"{name} = {value}" for name, value in inspection.metadata.items())
    if inspection.others:
        yield "also holds", ", ".join(inspection.others)


def _safety(inspection: Inspection) -> str:
    if inspection.safe:
        return "yes: it is read without running any code"
    why = [inspection.reason] if inspection.reason else []
    why += [f"needs {_listed(inspection)}"] if inspection.needed_globals else []
    if inspection.reason or set(inspection.needed_globals) - set(inspection.allowable_globals):
        why.append("--trust-pickle would read it, and run whatever code it holds")
    return f"NO: {'; '.join(why)}"


def _listed(inspection: Inspection) -> str:
    """The classes that the file needs, those that may be allowed with the option that does it."""
    allowable = set(inspection.allowable_globals)
    return ", ".join(
        f"--allow-global {name}" if name in allowable else name for name in inspection.needed_globals
    )


def _print_tensors(console: Console, inspection: Inspection, all_keys: bool) -> None:
    rows = [[t.name, " × ".join(map(str, t.shape)) or "scalar", t.dtype, t.kind] for t in inspection.tensors]
    hidden = len(rows) - ABRIDGED
    if hidden > 0 and not all_keys:
        rows[ABRIDGED // 2 : -(ABRIDGED // 2)] = [["…", "", "", ""]]
    console.table(["key", "shape", "dtype", "kind"], rows)
    if hidden > 0 and not all_keys:
        console.note(f"{hidden} keys are not listed; --all lists every one")
