"""Random vectors from explicit seeds; the global generators are never touched."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

__all__ = ["derived_seed", "gaussian", "rademacher"]


def derived_seed(seed: int, *key: str | int) -> int:
    """A seed for the purpose named by ``key``: independent streams from one user's seed."""
    text = repr((seed, *key)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little") >> 1


def gaussian(size: int, seed: int, *key: str | int) -> Tensor:
    """Standard normal vector (size,), float64, on the CPU; normalised, it is uniform on the sphere."""
    generator = torch.Generator().manual_seed(derived_seed(seed, *key))
    return torch.randn(size, dtype=torch.float64, generator=generator)


def rademacher(size: int, seed: int, *key: str | int) -> Tensor:
    """Independent random signs ±1 (size,), float64, on the CPU."""
    generator = torch.Generator().manual_seed(derived_seed(seed, *key))
    return 2.0 * torch.randint(0, 2, (size,), generator=generator).double() - 1.0
