"""Whether an earlier result is about the matrix that is asked for, and what can be taken over from it."""

from __future__ import annotations

import numpy as np
import torch

from landscape.analyses.matrix import MatrixSettings
from landscape.linalg.lanczos import Krylov
from landscape.linalg.operator import Operator
from landscape.results import EigenResult, Result
from landscape.settings import options_of

__all__ = ["same_matrix", "taken_over"]


def same_matrix(settings: MatrixSettings, result: Result) -> bool:
    """The same operator with the same options.

    Labels that are drawn, and a step that is searched for, make another matrix each time.
    """
    if result.provenance is None or settings.operator == "fisher" or settings.rho_sweep:
        return False
    stored = result.provenance.settings
    return all(stored.get(o.name) == getattr(settings, o.name) for o in options_of(MatrixSettings))


def taken_over(operator: Operator, result: EigenResult, room: int) -> Krylov:
    """The Krylov decomposition of a stored run, with room for ``room`` products more."""
    assert result.krylov_basis is not None
    assert result.krylov_relation is not None
    relation, n = np.asarray(result.krylov_relation), operator.size
    m = relation.shape[1]
    capacity = min(m + room, n)
    basis = torch.empty((capacity + 1, n), dtype=operator.dtype, device=operator.device)
    basis[: m + 1] = torch.from_numpy(np.array(result.krylov_basis))
    coefficients = np.zeros((capacity + 1, capacity))
    coefficients[: m + 1, :m] = relation
    scale = float(np.linalg.norm(relation, axis=0).max())
    return Krylov(basis, coefficients, np.zeros(capacity), m, exhausted=m == n, scale=scale)
