"""A small project on disk: a user's file, a checkpoint of its model, and the folder it lies in."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

NET = """
import torch
from torch import nn


def build():
    return nn.Linear(3, 2)


def data():
    x = torch.arange(12.0).reshape(4, 3) / 12
    return x, torch.tensor([0, 1, 0, 1])


def half():
    x, y = data()
    return x[:2], y[:2]
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: ``net.py`` and ``ckpt.pt``, in a repository; unicode and a space in it."""
    folder = tmp_path / "mein Projekt é"
    folder.mkdir()
    (folder / ".git").mkdir()
    (folder / "net.py").write_text(NET)
    torch.save({"weight": torch.full((2, 3), 0.5), "bias": torch.tensor([1.0, 2.0])}, folder / "ckpt.pt")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def write(project: Path) -> Callable[[str, str], Path]:
    """Write a text file of the project, dedented."""

    def write(name: str, text: str) -> Path:
        path = project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    return write


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses

    import landscape.checkpoint as room
    from landscape.errors import CheckpointError
    from landscape.results import CheckpointReference

    if hasattr(room, "load_checkpoint"):
        return

    @dataclasses.dataclass
    class Checkpoint:
        state: dict
        notes: tuple
        reference: CheckpointReference

    def load(path, **_):
        if not path.is_file():
            raise CheckpointError("no file")
        return Checkpoint(
            torch.load(path), (f"read {path.name}",), CheckpointReference(path=str(path), sha256="0")
        )

    fakes = {
        "load_checkpoint": load,
        "inspect_checkpoint": load,
        "load_into": lambda model, checkpoint, ignore_keys=(): model.load_state_dict(checkpoint.state),
        "escape_text": lambda text: (
            text.encode("unicode_escape").decode() if not text.isprintable() else text
        ),
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(room, name, fake, raising=False)
