"""A symmetric matrix that is only ever multiplied.

Vectors are rows: a block of ``m`` vectors of length ``n`` is a tensor ``(m, n)``, each vector contiguous.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

__all__ = ["MatrixOperator", "Operator", "as_linear_operator", "norm"]


class Operator(Protocol):
    """What every algorithm here asks of a matrix."""

    @property
    def size(self) -> int:
        """Number of rows and columns, ``n``."""

    @property
    def dtype(self) -> torch.dtype:
        """Arithmetic of the products, float32 or float64; vectors are stored in it."""

    @property
    def device(self) -> torch.device:
        """Where the vectors live."""

    def apply(self, vectors: Tensor) -> Tensor:
        """Products with the rows of ``vectors`` (m, n) in ``dtype``; (m, n) in float64. Changes nothing."""

    def error(self, vector: Tensor) -> float:
        """Estimate of ‖computed product − exact product‖ for a unit ``vector`` (n,)."""


class MatrixOperator:
    """A symmetric matrix (n, n) given in full, as an :class:`Operator`."""

    def __init__(self, matrix: Tensor, dtype: torch.dtype | None = None) -> None:
        self.matrix = matrix
        self.dtype = dtype or matrix.dtype
        self.size = matrix.shape[0]
        self.device = matrix.device
        self._rounded = matrix.to(self.dtype)

    def apply(self, vectors: Tensor) -> Tensor:
        return (vectors.to(self.dtype) @ self._rounded).double()

    def error(self, vector: Tensor) -> float:
        # Higham (2002), eq. 3.12: |fl(Av) − Av| ≤ γ_n |A||v|, with the statistical √n in place of n; in
        # float32 the difference from the float64 product is measured as well. Twice, as it is for one vector.
        unit_roundoff = torch.finfo(torch.float64).eps / 2
        bound = unit_roundoff * self.size**0.5 * norm(self.matrix.double().abs() @ vector.double().abs())
        exact = vector.double() @ self.matrix.double()
        return float(2 * (norm(self.apply(vector[None])[0] - exact) + bound))


def norm(vector: Tensor) -> float:
    """Euclidean norm, summed in float64."""
    return float(torch.linalg.vector_norm(vector, dtype=torch.float64))


def as_linear_operator(operator: Operator) -> LinearOperator:
    """``operator`` for SciPy's solvers (float64 vectors; products keep the operator's own arithmetic)."""

    def multiply(columns: np.ndarray) -> np.ndarray:
        rows = torch.from_numpy(np.ascontiguousarray(columns.reshape(operator.size, -1).T))
        products = operator.apply(rows.to(device=operator.device, dtype=operator.dtype))
        return products.cpu().numpy().T.reshape(columns.shape)

    return LinearOperator(
        (operator.size, operator.size), matvec=multiply, matmat=multiply, rmatvec=multiply, dtype=np.float64
    )
