"""Damaged files: the same bits, or a clear error; never anything else.

Zip archives carry a checksum for each member, so no damage to a tensor or a name goes unnoticed. Legacy
files and safetensors carry none: there only the kind of the outcome is promised.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from landscape.checkpoint import inspect_checkpoint, load_checkpoint, save_checkpoint
from landscape.errors import LandscapeError
from tests.checkpoint.files import same, write_legacy, write_safetensors, write_zip


def _own(path: Path, content: Any) -> Path:
    save_checkpoint(path, content, step=3)
    return path


WRITERS: dict[str, Callable[[Path, Any], Path]] = {
    "zip": write_zip,
    "own": _own,
    "legacy": write_legacy,
    "safetensors": write_safetensors,
}
SAMPLE, FULL = 40, 1500


def _damage(raw: bytes, generator: random.Random) -> bytes:
    kind = generator.choice(["flip", "flip", "flip", "truncate", "zeros", "double"])
    if kind == "truncate":
        return raw[: generator.randrange(len(raw))]
    damaged, at = bytearray(raw), generator.randrange(len(raw))
    if kind == "flip":
        damaged[at] ^= 1 << generator.randrange(8)
    elif kind == "zeros":
        damaged[at : at + 16] = bytes(len(damaged[at : at + 16]))
    else:
        damaged[at:at] = damaged[at : at + generator.randrange(1, 64)]
    return bytes(damaged)


def _attempt(read: Callable[[Path], Any], path: Path) -> tuple[Any, str]:
    """What ``read`` gives, or the message of its error."""
    try:
        return read(path), ""
    except LandscapeError as error:
        return None, str(error)


def _survive(tmp_path: Path, kind: str, seeds: range) -> None:
    state = {"layer.weight": torch.arange(6.0).reshape(2, 3), "layer.bias": torch.tensor([1.5, -2.5])}
    path = WRITERS[kind](tmp_path / "model.pt", state)
    raw = path.read_bytes()
    intact, refused = dict(sorted(state.items())), 0
    for seed in seeds:
        path.write_bytes(_damage(raw, random.Random(seed)))
        loaded, refusal = _attempt(load_checkpoint, path)
        inspection, complaint = _attempt(inspect_checkpoint, path)
        refused += bool(refusal)
        assert len(refusal.splitlines()) <= 5, seed
        if loaded is not None:
            assert inspection is not None, (seed, complaint)
            assert list(inspection.state) == list(loaded.state), seed
            if kind in ("zip", "own"):
                assert same(dict(sorted(loaded.state.items())), intact), seed
    assert refused > 0


@pytest.mark.parametrize("kind", WRITERS)
def test_damage(tmp_path: Path, kind: str) -> None:
    _survive(tmp_path, kind, range(SAMPLE))


@pytest.mark.long
@pytest.mark.parametrize("kind", WRITERS)
def test_damage_full(tmp_path: Path, kind: str) -> None:
    _survive(tmp_path, kind, range(SAMPLE, SAMPLE + FULL))


def test_every_bit_of_the_numbers_is_guarded(tmp_path: Path) -> None:
    """In a zip archive, each single flip inside a tensor's bytes is noticed."""
    state = {"w": torch.tensor([1.0, 2.0, 3.0])}
    path = write_zip(tmp_path / "model.pt", state)
    raw = path.read_bytes()
    start = raw.index(state["w"].numpy().tobytes())
    for bit in range(12 * 8):
        flipped = bytearray(raw)
        flipped[start + bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(LandscapeError, match="CRC"):
            load_checkpoint(path)


@pytest.mark.parametrize("kind", WRITERS)
def test_every_truncation(tmp_path: Path, kind: str) -> None:
    state = {"w": torch.arange(3.0)}
    path = WRITERS[kind](tmp_path / "model.pt", state)
    raw = path.read_bytes()
    for length in range(0, len(raw), max(1, len(raw) // 40)):
        path.write_bytes(raw[:length])
        with pytest.raises(LandscapeError):
            load_checkpoint(path)
