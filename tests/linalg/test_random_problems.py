"""Random problems: sizes, spectra, noise, settings. The interval claim holds in all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from landscape.linalg.bounds import refined_intervals
from landscape.linalg.eigenpairs import wanted_count
from landscape.linalg.operator import MatrixOperator
from tests.support.search import Found, check_claims, find
from tests.support.spectra import FAMILIES, AsymmetricOperator, NoisyOperator, family, rotated


@dataclass(frozen=True)
class _Case:
    label: str
    eigenvalues: np.ndarray
    matrix: torch.Tensor
    operator: MatrixOperator
    options: dict[str, Any]


def _case(seed: int) -> _Case:
    draw = np.random.default_rng([seed, 2024])
    n = int(draw.integers(1, 121))
    name = str(draw.choice(list(FAMILIES)))
    eigenvalues = family(name, n, draw)
    matrix = rotated(eigenvalues, seed)
    dtype = [torch.float32, torch.float64][draw.integers(2)]
    share, top = 10 ** draw.uniform(-6, -2), float(np.abs(eigenvalues).max())
    kind = str(draw.choice(["exact", "exact", "share", "absolute", "asymmetric"]))
    operator = {
        "exact": lambda: MatrixOperator(matrix, dtype),
        "share": lambda: NoisyOperator(matrix, share, seed, dtype),
        "absolute": lambda: NoisyOperator(matrix, 0.0, seed, dtype, absolute=share * top),
        "asymmetric": lambda: AsymmetricOperator(matrix, share, seed, dtype),
    }[kind]()
    k = int(draw.integers(1, 9))
    which: Any = str(draw.choice(["largest", "smallest", "both", "magnitude"]))
    options = {
        "k": k,
        "which": which,
        "tol": 10 ** draw.uniform(-8, -1),
        "capacity": wanted_count(k, which, n) + 2 + int(draw.integers(0, 20)),
        "check": int(draw.choice([0, 0, 5, 15])),
        "seed": seed,
        "at_most": 300,
    }
    return _Case(
        f"seed {seed}: {name}, n {n}, {kind}, {dtype}, {options}", eigenvalues, matrix, operator, options
    )


def _refined(found: Found, eigenvalues: np.ndarray, label: str) -> int:
    """Check refined intervals where their condition holds, given true ones; how many there were."""
    values, epsilon = found.every.values, found.every.residuals + found.floor
    refined = refined_intervals(values, found.every.residuals, found.floor, found.wanted)
    rounding = 1e-15 * len(eigenvalues) ** 0.5 * np.abs(eigenvalues).max()
    checked = 0
    for row, i in enumerate(found.wanted):
        if refined.mask[row].any():
            continue
        a = max((values + epsilon)[i + 1 :], default=-np.inf)
        b = min((values - epsilon)[:i], default=np.inf)
        inside = eigenvalues[(a < eigenvalues) & (eigenvalues < b)]
        if len(inside) == 1:
            low, high = refined[row]
            assert low - rounding <= inside[0] <= high + rounding, f"{label}: refined interval {row}"
            checked += 1
    return checked


def _run(seeds: range) -> None:
    checked = 0
    for seed in seeds:
        case = _case(seed)
        found = find(case.operator, **case.options)
        check_claims(found, case.matrix, case.eigenvalues, case.options["tol"], case.label)
        if not case.options["check"]:
            checked += _refined(found, case.eigenvalues, case.label)
    assert checked > len(seeds) // 4, "the refined intervals were hardly ever tested"


def test_random_problems() -> None:
    _run(range(100))


@pytest.mark.long
@pytest.mark.parametrize("block", range(10))
def test_random_problems_in_full(block: int) -> None:
    _run(range(100 + 100 * block, 200 + 100 * block))
