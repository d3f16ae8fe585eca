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
