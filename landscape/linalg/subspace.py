"""Subspaces on which H is known: an orthonormal basis Q (rows) together with its products.

With P = I − QᵀQ the projector on the complement, each knows QHQᵀ and how H leads out of it: PHq_j as
combinations of a few rows R. That is all that an estimate of the rest of a trace asks for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from landscape.linalg.lanczos import Krylov, inner, orthogonalise
from landscape.linalg.looks import Draw
from landscape.linalg.operator import Operator, norm

__all__ = ["KrylovSpace", "Nothing", "Sketch", "Subspace"]


class Subspace(Protocol):
    """Orthonormal rows and what H does to them."""

    #: Products that one more row takes.
    cost: int

    @property
    def rows(self) -> int:
        """Dimension m, of rows whose products are known."""

    @property
    def capacity(self) -> int:
        """How many rows there is room for."""

    @property
    def basis(self) -> Tensor:
        """Q (m, n)."""

    @property
    def projected(self) -> Tensor:
        """QHQᵀ (m, m) float64, as computed."""

    @property
    def weights(self) -> Tensor:
        """K (m, r) float64 with PHq_j = Σ_k K_jk R_k."""

    def outside(self, part: slice) -> Tensor:
        """Columns ``part`` of R, (r, …) float64."""

    @property
    def leak(self) -> float:
        """Σ_j ‖PHq_j‖²."""

    @property
    def lost(self) -> float:
        """By how much a product of a basis vector is off, beyond the operator's own error, at most."""

    def next_vector(self) -> Tensor:
        """The vector whose product is due, (n,)."""

    def extend(self, product: Tensor) -> None:
        """Take in that product, (n,) float64."""

    def arrays(self) -> dict[str, np.ndarray]:
        """All that is needed to go on."""

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Go on from it."""


class Nothing:
    """The subspace {0}: the complement is all there is."""

    cost, rows, capacity, leak, lost = 1, 0, 0, 0.0, 0.0

    def __init__(self, operator: Operator) -> None:
        self.basis = torch.empty((0, operator.size), dtype=operator.dtype, device=operator.device)
        self.projected = torch.zeros((0, 0), dtype=torch.float64, device=operator.device)
        self.weights = self.projected

    def outside(self, part: slice) -> Tensor:
        return self.basis[:, part].double()

    def next_vector(self) -> Tensor:
        raise IndexError("there is no room for a row")

    def extend(self, product: Tensor) -> None:
        raise IndexError("there is no room for a row")

    def arrays(self) -> dict[str, np.ndarray]:
        return {}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        pass


class KrylovSpace:
    """A Krylov decomposition HQ_m = Q_{m+1}H̄, its own or taken over from an eigenvalue search.

    PHq_j = H̄_{m+1,j} q_{m+1}: the single vector q_{m+1} leads out. A decomposition that was taken over is
    extended in place.
    """

    cost = 1

    def __init__(self, krylov: Krylov, draw: Draw) -> None:
        self.krylov, self._draw = krylov, draw

    @property
    def rows(self) -> int:
        return self.krylov.steps

    @property
    def capacity(self) -> int:
        return self.krylov.capacity

    @property
    def basis(self) -> Tensor:
        return self.krylov.basis[: self.rows]

    @property
    def projected(self) -> Tensor:
        return torch.from_numpy(self.krylov.projected).to(self.krylov.basis.device)

    @property
    def weights(self) -> Tensor:
        return torch.from_numpy(self.krylov.coefficients[self.rows, : self.rows, None]).to(
            self.krylov.basis.device
        )

    def outside(self, part: slice) -> Tensor:
        return self.krylov.basis[self.rows, None, part].double()

    @property
    def leak(self) -> float:
        return float((self.krylov.coefficients[self.rows, : self.rows] ** 2).sum())

    @property
    def lost(self) -> float:
        return self.krylov.drift

    def next_vector(self) -> Tensor:
        return self.krylov.next_vector()

    def extend(self, product: Tensor) -> None:
        self.krylov.extend(product, lambda i: self._draw("fresh", i))

    def arrays(self) -> dict[str, np.ndarray]:
        krylov, m = self.krylov, self.rows
        numbers = [krylov.exhausted, krylov.breakdowns, krylov.scale]
        return {
            "basis": krylov.basis[: m + 1].cpu().numpy(),
            "relation": krylov.relation,
            "lost": krylov.lost[:m],
            "krylov": np.array(numbers, dtype=float),
        }

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        krylov, m = self.krylov, len(arrays["lost"])
        krylov.basis[: m + 1] = torch.from_numpy(np.asarray(arrays["basis"]))
        krylov.coefficients[:] = 0.0
        krylov.coefficients[: m + 1, :m] = arrays["relation"]
        krylov.lost[:m] = arrays["lost"]
        exhausted, breakdowns, krylov.scale = map(float, arrays["krylov"])
        krylov.steps, krylov.exhausted, krylov.breakdowns = m, bool(exhausted), int(breakdowns)


class Sketch:
    """The range of H as random vectors show it: Q = orth(HS), S Gaussian; two products a row.

    Meyer, Musco, Musco & Woodruff (2021), "Hutch++: optimal stochastic trace estimation", algorithm 1,
    lines 2–3; built row by row, so that a longer sketch goes on from a shorter one.

    Attributes:
        images: (capacity, n) products of the basis vectors.
        pending: a new direction has been found, and its own product is due.
        triangle: (capacity, capacity) float64, R of HΩ = RᵀQ (row i: coefficients of Hω_i, lower triangular).
    """

    cost = 2

    def __init__(self, operator: Operator, draw: Draw, capacity: int) -> None:
        self.operator, self._draw = operator, draw
        self.capacity = min(capacity, operator.size)
        shape = (self.capacity, operator.size)
        self._basis = torch.empty(shape, dtype=operator.dtype, device=operator.device)
        self.images = torch.empty_like(self._basis)
        self.triangle = np.zeros((self.capacity, self.capacity))
        self._projected = np.zeros((self.capacity, self.capacity))
        self.rows, self.scale, self.pending = 0, 0.0, False
        self.lost = 0.0

    @property
    def basis(self) -> Tensor:
        return self._basis[: self.rows]

    @property
    def projected(self) -> Tensor:
        m = self.rows
        return torch.from_numpy(self._projected[:m, :m]).to(self._basis.device)

    @property
    def weights(self) -> Tensor:
        return torch.eye(self.rows, dtype=torch.float64, device=self._basis.device)

    def outside(self, part: slice) -> Tensor:
        return self.images[: self.rows, part].double() - self.projected.T @ self.basis[:, part].double()

    @property
    def leak(self) -> float:
        """Σ_j ‖PHq_j‖² = Σ_j ‖Hq_j‖² − ‖QHQᵀ‖²."""
        images = self.images[: self.rows]
        total = float(torch.linalg.vector_norm(images, dtype=torch.float64)) ** 2
        return max(0.0, total - float((self.projected**2).sum()))

    def next_vector(self) -> Tensor:
        if self.pending:
            return self._basis[self.rows]
        return self.test_vector(self.rows)

    def test_vector(self, i: int) -> Tensor:
        """ω_i (n,) in the operator's dtype."""
        return self._draw("sketch", i).to(self.operator.device, self.operator.dtype)

    def extend(self, product: Tensor) -> None:
        if self.pending:
            self._second(product)
        else:
            self._first(product.clone())
        self.pending = not self.pending

    def _first(self, product: Tensor) -> None:
        """Hω_i: a new direction, or a random one where it lies in the span already."""
        m, scale = self.rows, max(self.scale, norm(product))
        rounding = 8 * torch.finfo(self._basis.dtype).eps * scale
        coefficients = orthogonalise(product, self.basis)
        length = norm(product)
        if length <= rounding:
            product = self._draw("fresh", m).to(product.device, torch.float64, copy=True)
            orthogonalise(product, self.basis)
            # Not zero, and its square neither: the triangle stays invertible, off by no more than rounding.
            length = max(rounding, float(np.finfo(float).tiny) ** 0.5)
            product.div_(norm(product))
        else:
            product.div_(length)
        self._basis[m] = product
        self.triangle[m, :m] = coefficients.cpu().numpy()
        self.triangle[m, m] = length
        self.scale = scale

    def _second(self, product: Tensor) -> None:
        """Hq_m."""
        m = self.rows
        self.images[m] = product
        column = inner(product[None], self._basis[: m + 1])[0].cpu().numpy()
        self._projected[: m + 1, m] = self._projected[m, : m + 1] = column
        self.scale, self.rows = max(self.scale, norm(product)), m + 1

    @property
    def gram(self) -> Tensor:
        """(Hq_i)·(Hq_j), (m, m) float64."""
        images = self.images[: self.rows]
        return torch.stack([inner(image.double()[None], images)[0] for image in images])

    def inside(self, vector: Tensor) -> Tensor:
        """Q·vector (m,) for a ``vector`` (n,) float64."""
        return inner(vector[None], self.basis)[0]

    def arrays(self) -> dict[str, np.ndarray]:
        m = self.rows
        return {
            "basis": self._basis[: m + self.pending].cpu().numpy(),
            "images": self.images[:m].cpu().numpy(),
            "triangle": self.triangle[: m + self.pending, : m + self.pending],
            "projected": self._projected[:m, :m],
            "sketch": np.array([self.scale]),
        }

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        m, held = len(arrays["images"]), len(arrays["basis"])
        self._basis[:held] = torch.from_numpy(np.asarray(arrays["basis"]))
        self.images[:m] = torch.from_numpy(np.asarray(arrays["images"]))
        self.triangle[:held, :held] = arrays["triangle"]
        self._projected[:m, :m] = arrays["projected"]
        self.rows, self.pending, self.scale = m, held > m, float(arrays["sketch"][0])
