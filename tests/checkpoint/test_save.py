"""What save_checkpoint writes says what it is, is read without options, and replaces the old file whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from landscape.checkpoint import inspect_checkpoint, load_checkpoint, load_into, save_checkpoint
from landscape.errors import CheckpointError
from tests.checkpoint.files import network, same, weights

SUFFIXES = [".pt", ".safetensors"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_round_trip(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    save_checkpoint(
        path, network(), step=7, epoch=2, learning_rate=0.1, run="a", accuracy=np.float32(0.5), done=True
    )
    checkpoint = load_checkpoint(path)
    assert same(dict(sorted(checkpoint.state.items())), dict(sorted(weights().items())))
    assert (checkpoint.step, checkpoint.epoch) == (7, 2)
    assert checkpoint.metadata == {"learning_rate": 0.1, "run": "a", "accuracy": 0.5, "done": True}
    inspection = inspect_checkpoint(path)
    assert inspection.safe
    assert inspection.metadata == checkpoint.metadata
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_the_file_is_plain_torch(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "m.pt", weights(), step=1)
    content = torch.load(tmp_path / "m.pt", weights_only=True)
    assert content["format"] == "landscape-checkpoint"
    assert content["format_version"] == 1
    assert content["step"] == 1
    assert content["epoch"] is None
    assert same(content["state_dict"], weights())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_tied_tensors_and_slices(tmp_path: Path, suffix: str) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(300, 300)
            self.b = nn.Linear(300, 300)
            self.b.weight = self.a.weight

    model, path = Tied(), tmp_path / f"m{suffix}"
    save_checkpoint(path, model)
    assert path.stat().st_size < 1.2 * 300 * 300 * 4
    assert set(load_checkpoint(path).state) == set(inspect_checkpoint(path).state) == set(model.state_dict())
    other = Tied()
    load_into(other, load_checkpoint(path))
    assert same(other.state_dict(), model.state_dict())
    base = torch.arange(1_000_000.0)
    state = {
        "slice": base[5:8],
        "rows": base.reshape(1000, 1000)[:, 3],
        "empty": base[:0],
        "empty2": base[:0],
    }
    save_checkpoint(path, state)
    assert path.stat().st_size < 20_000
    assert all(torch.equal(t, state[n]) for n, t in load_checkpoint(path).state.items())


def test_gradients_and_the_model_are_left_alone(tmp_path: Path) -> None:
    model = network()
    save_checkpoint(tmp_path / "m.pt", dict(model.named_parameters()))
    assert all(p.requires_grad for p in model.parameters())
    assert not any(t.requires_grad for t in load_checkpoint(tmp_path / "m.pt").state.values())


@pytest.mark.parametrize(
    ("state", "values", "words"),
    [
        ({"w": [1.0]}, {}, "w is no tensor"),
        ({"w\x1b": None}, {}, r"w\\x1b is no tensor"),
        ({}, {"config": {"lr": 1}}, "config is no plain value"),
        ({}, {"model": nn.Identity()}, "model is no plain value"),
    ],
)
def test_what_is_not_plain_is_refused(tmp_path: Path, state: Any, values: dict[str, Any], words: str) -> None:
    path = tmp_path / "m.pt"
    with pytest.raises(CheckpointError, match=words):
        save_checkpoint(path, state, **values)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_old_file_stays_when_writing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    path = tmp_path / f"m{suffix}"
    save_checkpoint(path, weights())
    before = path.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CheckpointError, match="No space left"):
        save_checkpoint(path, weights(), step=2)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot write"):
        save_checkpoint(tmp_path / "nowhere" / "m.pt", weights())


def test_sparse_tensors_have_no_place_in_safetensors(tmp_path: Path) -> None:
    state = {"w": torch.eye(3).to_sparse()}
    with pytest.raises(CheckpointError, match=r"suffix \.pt"):
        save_checkpoint(tmp_path / "m.safetensors", state)
    save_checkpoint(tmp_path / "m.pt", state)
    assert torch.equal(load_checkpoint(tmp_path / "m.pt").state["w"].to_dense(), torch.eye(3))
