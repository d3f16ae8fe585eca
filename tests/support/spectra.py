"""Symmetric matrices of known eigenvalues, rotated at random, and operators that are wrong on purpose."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from landscape.linalg.noise import repeated_error
from landscape.linalg.operator import MatrixOperator, norm

__all__ = ["FAMILIES", "AsymmetricOperator", "NoisyOperator", "digits_like", "family", "rotated"]


def rotated(eigenvalues: np.ndarray, seed: int) -> Tensor:
    """A dense symmetric matrix (n, n) float64 with these ``eigenvalues``, its eigenvectors random."""
    generator = np.random.default_rng([seed, 7])
    basis, triangle = np.linalg.qr(generator.standard_normal((len(eigenvalues),) * 2))
    basis *= np.sign(np.diag(triangle))
    matrix = (basis * eigenvalues) @ basis.T
    return torch.from_numpy((matrix + matrix.T) / 2)


def digits_like(size: int, seed: int) -> np.ndarray:
    """Eigenvalues like a small trained classifier's: a few outliers above a narrow bulk around zero."""
    top = [
        2.9,
        2.5,
        2.2,
        1.6,
        1.03,
        0.72,
        0.64,
        0.50,
        0.42,
        0.36,
        0.30,
        0.26,
        0.22,
        0.19,
        0.16,
        0.14,
        0.12,
        0.10,
    ]
    bulk = np.random.default_rng(seed).normal(0.0, 0.02, size - len(top)).clip(-0.08, 0.08)
    return np.concatenate([top, np.sort(bulk)[::-1]])


class NoisyOperator(MatrixOperator):
    """Each product is wrong by a fresh random vector: a ``share`` of its length, plus ``absolute``."""

    def __init__(
        self, matrix: Tensor, share: float, seed: int, dtype: torch.dtype | None = None, absolute: float = 0.0
    ) -> None:
        super().__init__(matrix, dtype)
        self.share, self.absolute = share, absolute
        self._generator = torch.Generator().manual_seed(seed)

    def apply(self, vectors: Tensor) -> Tensor:
        products = super().apply(vectors)
        sigma = (
            self.share * torch.linalg.vector_norm(products, dim=1, keepdim=True) + self.absolute
        ) / self.size**0.5
        return products + sigma * torch.randn(products.shape, dtype=torch.float64, generator=self._generator)

    def error(self, vector: Tensor) -> float:
        return repeated_error(self, vector) + MatrixOperator(self.matrix, self.dtype).error(vector)


class AsymmetricOperator(MatrixOperator):
    """Products always wrong in the same way: by a fixed matrix without symmetry, ‖E‖_F = share·‖H‖·√n."""

    def __init__(self, matrix: Tensor, share: float, seed: int, dtype: torch.dtype | None = None) -> None:
        super().__init__(matrix, dtype)
        error = np.random.default_rng([seed, 11]).standard_normal(matrix.shape)
        length = share * float(torch.linalg.matrix_norm(matrix, 2)) / self.size**0.5
        self.exact, self.wrong = matrix, matrix + length * torch.from_numpy(error)

    def apply(self, vectors: Tensor) -> Tensor:
        return (vectors.to(self.dtype) @ self.wrong.to(self.dtype).T).double()

    def error(self, vector: Tensor) -> float:
        return 2 * norm(self.apply(vector[None])[0] - self.exact @ vector.double())


def _decaying(n: int, draw: np.random.Generator) -> np.ndarray:
    return draw.uniform(0.6, 0.99) ** np.arange(n) * draw.choice([-1.0, 1.0], n, p=[0.2, 0.8])


def _clustered(n: int, draw: np.random.Generator) -> np.ndarray:
    centres = draw.uniform(-1, 1, max(1, n // 4))
    return draw.choice(centres, n) + draw.choice([0.0, 1e-10, 1e-6, 1e-3]) * draw.standard_normal(n)


def _low_rank(n: int, draw: np.random.Generator) -> np.ndarray:
    rank = int(draw.integers(0, n // 3 + 1))
    return np.concatenate([draw.standard_normal(rank), np.zeros(n - rank)])


FAMILIES: dict[str, Callable[[int, np.random.Generator], np.ndarray]] = {
    "decaying": _decaying,
    "flat": lambda n, draw: draw.uniform(0.9, 1.0, n),
    "indefinite": lambda n, draw: draw.standard_normal(n),
    "clustered": _clustered,
    "low rank": _low_rank,
    "repeated": lambda n, draw: draw.integers(-2, 3, n).astype(float),
    "outliers": lambda n, draw: np.where(np.arange(n) < 3, draw.uniform(1, 30, n), draw.normal(0, 0.1, n)),
}


def family(name: str, n: int, draw: np.random.Generator) -> np.ndarray:
    """Eigenvalues (n,) descending, at a random scale between 1e-6 and 1e6."""
    return np.sort(FAMILIES[name](n, draw))[::-1] * 10.0 ** draw.uniform(-6, 6)
