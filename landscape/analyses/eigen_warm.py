"""Warm starts of ``landscape eigen``: what is taken from another checkpoint, and what is given on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from landscape.analyses.base import Saved
from landscape.analyses.eigen import Settings
from landscape.errors import ConfigurationError
from landscape.files import printable
from landscape.linalg.eigenpairs import ritz_pairs, select
from landscape.linalg.lanczos import Krylov
from landscape.problem import Problem
from landscape.results import EigenResult

__all__ = ["digest", "end_vectors", "known_vectors", "start_vectors"]

#: The name of the rows that a search starts from.
_NAME = "start"


def known_vectors(problem: Problem, vectors: Mapping[str, np.ndarray]) -> Tensor | None:
    """The rows (j, n) to start from; None if there are none.

    Raises:
        ConfigurationError: rows of another length than the model's, or numbers that are not finite.
    """
    rows = vectors.get(_NAME)
    if rows is None or len(rows) == 0:
        return None
    if rows.ndim != 2 or rows.shape[1] != problem.size or rows.dtype.kind != "f":
        raise ConfigurationError(
            f"a search starts from rows of {problem.size} numbers, one for each measured parameter",
            found=f"an array of {rows.dtype}, {' × '.join(map(str, rows.shape)) or 'a single number'}",
            do="start from eigenvectors of a model with the same parameters (and the same --params)",
        )
    if not np.isfinite(rows).all():
        raise ConfigurationError("the vectors to start from hold NaN or infinities")
    return torch.from_numpy(np.array(rows, copy=True))


def digest(rows: Tensor) -> str:
    """A hash of rows (j, n) on the CPU: what is drawn beside them is drawn anew for each checkpoint.

    Were it always the same, what it happens to be poor in would be missed all along a training run.
    """
    return hashlib.sha256(rows.contiguous().numpy().data).hexdigest()


def start_vectors(given: EigenResult | np.ndarray | Tensor) -> np.ndarray:
    """The rows of a result that holds eigenvectors, or an array (j, n), or (n,), as rows of numbers.

    Raises:
        ConfigurationError: a result without eigenvectors, or no array of real numbers.
    """
    if isinstance(given, EigenResult):
        if given.eigenvectors is None:
            file = given.eigenvectors_file
            raise ConfigurationError(
                "the result to start from holds no eigenvectors",
                found="" if file is None else f"they are in {printable(file)}",
                do="eigen(problem, eigenvectors=True) keeps them; rows (j, n) may be given as well",
            )
        return given.eigenvectors
    rows: np.ndarray = given.detach().cpu().numpy() if isinstance(given, Tensor) else np.asarray(given)
    if rows.dtype.kind not in "iuf":
        raise ConfigurationError(
            "start= takes the result of eigen(…, eigenvectors=True), or an array (j, n)",
            found=f"{type(given).__name__} of {rows.dtype}",
        )
    return np.atleast_2d(rows.astype(rows.dtype if rows.dtype.kind == "f" else np.float64, copy=False))


def end_vectors(problem: Problem, settings: Settings, saved: Saved) -> np.ndarray | None:
    """What a search at a neighbouring checkpoint can start from: orthonormal Ritz vectors (k, n).

    In the model's dtype, from a state of the method Lanczos; None for other methods, and before a product.
    """
    steps = int(saved.counters.get("steps", 0))
    if settings.method != "lanczos" or not steps:
        return None
    found = saved.arrays.get("locked_vectors")
    if found is None:
        basis = torch.from_numpy(saved.arrays["basis"])
        krylov = Krylov(basis, saved.arrays["coefficients"], saved.arrays["lost"], steps)
        every = ritz_pairs(krylov)
        found = every[select(every.values, settings.k, settings.which)].vectors(basis).numpy()
    rows = torch.nn.functional.normalize(torch.from_numpy(found).double(), dim=1)
    vectors: np.ndarray = rows.to(problem.dtype).numpy()
    return vectors
