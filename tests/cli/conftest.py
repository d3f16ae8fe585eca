from __future__ import annotations

from pathlib import Path

import pytest
import torch

TRAIN = """\
import os
import time

import torch


class Slow(torch.nn.Module):
    def forward(self, x):
        time.sleep(float(os.environ.get("SLOW", "0")))
        return x


def build_model():
    return torch.nn.Sequential(torch.nn.Linear(4, 5), Slow(), torch.nn.Tanh(), torch.nn.Linear(5, 3))


def build_data():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 4, generator=generator)
    return x, (x @ torch.randn(4, 3, generator=generator)).argmax(1)
"""

CONFIG = """\
model = "train.py:build_model"
data = "train.py:build_data"
loss = "cross_entropy"
dtype = "float64"

[eigen]
k = 3
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder holds ckpt.pt, train.py and landscape.toml (k = 3)."""
    monkeypatch.chdir(tmp_path)
    Path("train.py").write_text(TRAIN)
    Path("landscape.toml").write_text(CONFIG)
    generator = torch.Generator().manual_seed(1)
    shapes = {"0.weight": (5, 4), "0.bias": (5,), "3.weight": (3, 5), "3.bias": (3,)}
    state = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    torch.save({"model_state_dict": state, "epoch": 3}, "ckpt.pt")
    return tmp_path
