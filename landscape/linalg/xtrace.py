"""XTrace: every test vector serves the sketch of the others and probes what they leave.

Epperly, Tropp & Webber (2024), "XTrace: making the most of every sample in stochastic trace estimation",
SIAM J. Matrix Anal. Appl. 45. With k Gaussian test vectors Ω, Q = orth(HΩ) and Q₍ᵢ₎ = orth of HΩ without ω_i,

    t_i = Tr(Q₍ᵢ₎ᵀHQ₍ᵢ₎) + ν_iᵀHν_i,    ν_i = (I − Q₍ᵢ₎Q₍ᵢ₎ᵀ)ω_i rescaled to norm √(n − k + 1),

and the estimate is their mean. As Q₍ᵢ₎ spans Q but for one direction s_i, all t_i come from k × k matrices.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from landscape.linalg.looks import Draw, Goal, Look, Stage, TraceEstimator, quantile, stages
from landscape.linalg.operator import Operator
from landscape.linalg.subspace import Sketch

__all__ = ["XTrace"]

#: By how much the half-width t·√(max(s², v)/k) is widened, since the t_i are not independent. Their mean
#: strays 1.0–1.2 times as far as s says at 3–15 test vectors and 1.1–1.55 times at 30–60, for flat, power-law
#: (exponents 1–3) and geometric spectra; with 1.6 all commands in tests/benchmarks/coverage.py cover 95 %.
_WIDENING = 1.6


class XTrace(TraceEstimator):
    """The trace alone: leaving vectors out says nothing of blocks or of the diagonal.

    Args:
        draw: ``"sketch"`` gives the Gaussian test vectors.
        floor: what a product with a unit vector can be wrong by.
    """

    def __init__(self, operator: Operator, draw: Draw, goal: Goal, *, floor: float = 0.0) -> None:
        super().__init__(operator, goal, (), floor)
        self.sketch = Sketch(operator, draw, max(1, self.stages[-1].rows))

    @property
    def exact(self) -> bool:
        return self.sketch.rows == self.operator.size

    def plan(self) -> list[Stage]:
        n = self.operator.size

        def allocate(products: int) -> tuple[int, int]:
            pairs = min(products // 2, n)
            return pairs, pairs

        return stages(self.goal, allocate)

    def complete(self, stage: Stage) -> bool:
        # An odd product at the end of the budget has no partner.
        over = self.products == self.goal.budget
        return over or (self.sketch.rows >= stage.rows and not self.sketch.pending)

    def next_vector(self) -> Tensor:
        return self.sketch.next_vector()

    def take(self, product: Tensor) -> None:
        self.sketch.extend(product)

    def look(self, risk: float) -> Look:
        k, nan = self.sketch.rows, float("nan")
        trace, width = self._estimate(risk)
        nothing = np.empty(0)
        norms = (nan,) * 6
        return Look(self.products, k, k, 1 - risk, trace, width, *norms, nothing, nothing)

    def _estimate(self, risk: float) -> tuple[float, float]:
        """Mean of the t_i and its half-width."""
        k, n = self.sketch.rows, self.operator.size
        projected = self.sketch.projected.cpu().numpy()
        rounding = (n**0.5 + k**0.5) * self.floor
        if k == n:
            return float(np.trace(projected)), rounding
        if k == 0:
            return float("nan"), float("nan")
        values, lengths = self._leave_one_out(projected)
        if k == 1:
            return float(values[0]), float("nan")
        rest = n - k + 1
        second = 2 * rest / (rest + 2) * max(0.0, lengths.mean() - self._left(values, projected) ** 2 / rest)
        spread = np.sqrt(max(values.var(ddof=1), second) / k)
        return float(values.mean()), float(_WIDENING * quantile(k, risk) * spread + rounding)

    def _left(self, values: np.ndarray, projected: np.ndarray) -> float:
        """Trace of what a test vector probes, on average."""
        return float(values.mean() - np.trace(projected) * (1 - 1 / len(values)))

    def _leave_one_out(self, projected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """t_i, and ‖P₍ᵢ₎Hν_i‖² whose mean estimates ‖P₍ᵢ₎HP₍ᵢ₎‖_F²; (k,) each.

        Columns of the k × k matrices belong to the test vectors: ``mapped`` = QᵀHΩ, ``seen`` = QᵀΩ,
        ``kept`` = its part in Q₍ᵢ₎, ``left`` = s_i, orthogonal to all columns of ``mapped`` but the i-th.
        """
        k, n = len(projected), self.operator.size
        mapped = self.sketch.triangle[:k, :k].T
        left = scipy.linalg.solve_triangular(mapped / _column_norms(mapped), np.eye(k), trans="T")
        left /= _column_norms(left)
        seen, squares = self._seen()
        kept = seen - left * (left * seen).sum(axis=0)
        # ν_i = ω_i − Qᵀkept_i and Hν_i = Hω_i − (HQ)ᵀkept_i.
        scale = (n - k + 1) / (squares - (kept**2).sum(axis=0))
        image = mapped - projected @ kept
        quadratic = ((seen - kept) * mapped).sum(axis=0) - (kept * image).sum(axis=0)
        own = np.trace(projected) - (left * (projected @ left)).sum(axis=0)
        out = self.sketch.gram.cpu().numpy() - projected @ projected.T
        lengths = (kept * (out @ kept)).sum(axis=0) + (left * image).sum(axis=0) ** 2
        return own + scale * quadratic, scale * lengths

    def _seen(self) -> tuple[np.ndarray, np.ndarray]:
        """QᵀΩ (k, k), and ‖ω_i‖² (k,)."""
        columns, squares = [], []
        for i in range(self.sketch.rows):
            vector = self.sketch.test_vector(i).double()
            columns.append(self.sketch.inside(vector))
            squares.append(float(vector @ vector))
        return torch.stack(columns, dim=1).cpu().numpy(), np.array(squares)

    def arrays(self) -> dict[str, np.ndarray]:
        return super().arrays() | self.sketch.arrays()

    def restore(self, arrays: Mapping[str, np.ndarray], counters: Mapping[str, Any]) -> None:
        super().restore(arrays, counters)
        self.sketch.restore(arrays)


def _column_norms(matrix: np.ndarray) -> np.ndarray:
    norms: np.ndarray = np.linalg.norm(matrix, axis=0)
    return norms
