"""The whole matrix, from products with unit vectors, and all its eigenpairs: for small sizes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from landscape.linalg.operator import Operator

__all__ = ["Spectrum", "dense_bytes", "dense_matrix", "dense_spectrum"]

#: Square float64 matrices held at once: the products, their symmetric part, the eigenvectors, and three of
#: workspace in LAPACK's divide and conquer (dsyevd: 2n² of its own, and torch's copy).
_MATRICES = 6


@dataclass(frozen=True)
class Spectrum:
    """All eigenpairs of the symmetric part of a matrix M, values descending.

    Attributes:
        values: (n,) float64.
        residuals: (n,) ‖My − θy‖ for M as computed, unsymmetric.
        vectors: (n, n) float64, orthonormal rows.
        asymmetry: ‖M − Mᵀ‖_F: an alarm, no bound on the error of M, as it is blind to symmetric errors.
    """

    values: np.ndarray
    residuals: np.ndarray
    vectors: Tensor
    asymmetry: float


def dense_bytes(size: int, block: int) -> int:
    """Memory for all eigenpairs of ``size`` rows, with products of ``block`` vectors at a time."""
    return 8 * size * (_MATRICES * size + 2 * block)


def dense_matrix(
    operator: Operator, *, block: int, rows: Tensor | None = None, done: int = 0
) -> Iterator[tuple[Tensor, int]]:
    """Fill the matrix row by row, ``block`` at a time; row i is the product with the i-th unit vector.

    Yields, after each block, the matrix (n, n) float64 on the CPU and how many of its rows are done.

    Args:
        rows: the matrix of an interrupted run, at least ``done`` rows of it; not changed.

    Raises:
        ValueError: a block without vectors.
    """
    if block < 1:
        raise ValueError(f"a block needs at least one vector, got {block}")
    n = operator.size
    matrix = torch.empty((n, n), dtype=torch.float64)
    if rows is not None:
        matrix[:done] = rows[:done]
    for first in range(done, n, block):
        last = min(n, first + block)
        units = torch.zeros((last - first, n), dtype=operator.dtype, device=operator.device)
        units[torch.arange(last - first), torch.arange(first, last)] = 1.0
        matrix[first:last] = operator.apply(units).cpu()
        yield matrix, last


def dense_spectrum(matrix: Tensor) -> Spectrum:
    """All eigenpairs, from a whole matrix (n, n) float64 whose rows are products with the unit vectors."""
    values, columns = torch.linalg.eigh((matrix + matrix.T) / 2)
    values, vectors = values.flip(0), columns.T.flip(0)
    residuals = torch.empty_like(values)
    for first in range(0, len(values), 256):  # a few rows at a time: no further matrix
        part = slice(first, first + 256)
        errors = vectors[part] @ matrix - values[part, None] * vectors[part]
        residuals[part] = torch.linalg.vector_norm(errors, dim=1)
    asymmetry = float(torch.linalg.vector_norm(matrix - matrix.T))
    return Spectrum(values.numpy(), residuals.numpy(), vectors, asymmetry)
