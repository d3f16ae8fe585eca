"""Whether one more product is worth more in a Krylov space or as a random vector on its complement.

Whatever decides may know what H does to the subspace, but nothing of the random vectors: they must stay
independent of the subspace that they are projected off, or the intervals would be biased.
"""

from __future__ import annotations

import numpy as np

from landscape.linalg.gauss import distances, gauss

__all__ = ["row_pays"]

#: The first row is random and takes off as little as a random vector would: it says nothing of the next.
_FIRST_ROWS = 2
#: What the next row takes off is guessed from the larger of the last two: as eigenvalues converge one after
#: the other, a poor row often comes before a good one.
_RECENT = 2
#: Eigenvalues this close, relative to the largest, are equal: rounding is not worth a row.
_ROUNDING = 1e-8


def row_pays(relation: np.ndarray, size: int, probes: int) -> bool:
    """Whether one more Krylov row lowers the variance of a trace more than one more random vector.

    The mean over p ``probes`` has a variance proportional to V/p, V = Σ(λ − μ)² over the spectrum of the
    complement, μ its middle. A row in place of a probe lowers it if

        δ·p > V,    δ = (α_m − μ)² + 2β_m²,

    δ what the row takes off V: of H̄ = ``relation`` (m + 1, m) the last column is (…, α_m, β_m), and
    ‖QHQᵀ‖_F² + 2‖PHQᵀ‖_F² = Σ(α_j² + 2β_j²). The decomposition has to begin with a random vector.
    """
    if relation.shape[1] < _FIRST_ROWS:
        return True
    middle, variance = _remainder(relation, size)
    steps = np.arange(relation.shape[1])[-_RECENT:]
    taken = (relation[steps, steps] - middle) ** 2 + 2 * relation[steps + 1, steps] ** 2
    return bool(taken.max() * probes > variance)


def _remainder(relation: np.ndarray, size: int) -> tuple[float, float]:
    """(μ, V) of the complement: the median of the spectrum, and n Σ w_i s_i (θ_i − μ)².

    The start vector being uniform on the sphere, n Σ w_i f(θ_i) over the Gauss rule's nodes θ_i and weights
    w_i estimates Tr f(H). A value that has converged (residual r_i ≪ d_i, the distance to the next) is in
    the space itself; s_i = min(1, r_i/d_i) is taken for the share that is not.
    """
    nodes, weights, residuals = gauss(relation, 0.0)
    apart = distances(nodes)
    outside = np.divide(residuals, apart, out=np.ones_like(apart), where=residuals < apart)
    middle = float(nodes[np.searchsorted(np.cumsum(weights), 0.5).clip(0, len(nodes) - 1)])
    rounding = size * (_ROUNDING * float(np.abs(nodes).max())) ** 2
    return middle, size * float((weights * outside) @ (nodes - middle) ** 2) + rounding
