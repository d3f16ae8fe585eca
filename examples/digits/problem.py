"""The handwritten digits of scikit-learn and two small nets: what ``landscape.toml`` points at.

A factory takes no arguments. It builds the model, or returns the data; the weights come from the checkpoint.
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn


def mlp() -> nn.Module:
    """Tanh network 64-64-32-10, 6570 parameters."""
    return nn.Sequential(
        nn.Linear(64, 64),
        nn.Tanh(),
        nn.Linear(64, 32),
        nn.Tanh(),
        nn.Linear(32, 10),
    )


def convnet() -> nn.Module:
    """Two convolutions with BatchNorm and a linear layer, 3842 parameters."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 10),
    )


def data() -> tuple[Tensor, Tensor]:
    """All 1797 images: inputs (1797, 64) float32 in [0, 1], labels (1797,) int64 in 0 … 9."""
    digits = load_digits()
    x = torch.from_numpy(digits.data / 16).to(torch.float32)
    return x, torch.from_numpy(digits.target).to(torch.int64)


def shifted() -> tuple[Tensor, Tensor]:
    """The same images a pixel further to the right: digits that the nets were not trained on."""
    x, y = data()
    moved = torch.roll(x.view(-1, 8, 8), 1, dims=2)
    moved[:, :, 0] = 0
    return moved.reshape(-1, 64), y


def noisy_data() -> tuple[Tensor, Tensor]:
    """The same images; a fifth of the labels, drawn at random, are shuffled among themselves."""
    x, y = data()
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randperm(len(y), generator=generator)[: len(y) // 5]
    shuffled = y.clone()
    shuffled[drawn] = y[drawn[torch.randperm(len(drawn), generator=generator)]]
    return x, shuffled


def wrong_labels() -> Tensor:
    """Which labels of :func:`noisy_data` are wrong, (1797,) bool: 18 %, for shuffling leaves some right."""
    return noisy_data()[1] != data()[1]
