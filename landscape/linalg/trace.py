"""Trace estimators with intervals that hold: ``krylov``, ``hutchinson``, ``hutch++``, ``xtrace``.

    estimator = krylov_trace(operator, draw, Goal(budget=1000, tol=0.03), blocks=layers)
    for look in estimator.run():
        ...                                 # after each product; a Look when the interval was looked at
    estimator.looks[-1].trace, estimator.looks[-1].half_width

All step product by product, stop by the same rule (looks.py), and go on bit for bit from what ``arrays()``
and ``counters()`` gave after any product, once made again with the same arguments.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from landscape.linalg.complement import ComplementTrace
from landscape.linalg.lanczos import Krylov
from landscape.linalg.looks import Draw, Goal, Look, TraceEstimator
from landscape.linalg.operator import Operator
from landscape.linalg.probes import gaussian, rademacher
from landscape.linalg.share import row_pays
from landscape.linalg.subspace import KrylovSpace, Nothing, Sketch
from landscape.linalg.xtrace import XTrace

__all__ = [
    "METHODS",
    "Goal",
    "Look",
    "TraceEstimator",
    "draws",
    "hutchinson",
    "hutchpp",
    "krylov_trace",
    "room",
    "xtrace",
]

METHODS = ("krylov", "hutchinson", "hutch++", "xtrace")


def draws(size: int, seed: int, method: str = "krylov") -> Draw:
    """Random vectors for a ``method``, each from a stream of its own: signs for Hutchinson, else Gaussian."""

    def draw(name: str, i: int) -> Tensor:
        signs = method == "hutchinson" and name == "probe"
        return (rademacher if signs else gaussian)(size, seed, "trace", name, i)

    return draw


def krylov_share(products: int) -> float:
    """Two thirds of the products at 12 or fewer, half of them from 30 on (measured: the smallest errors)."""
    return float(np.interp(products, [12, 30], [2 / 3, 1 / 2]))


def room(bytes_available: int, size: int, itemsize: int, budget: int) -> tuple[int, int]:
    """How long a Krylov basis and how many random vectors (two vectors each) memory allows: (rows, stored).

    Both are needed in about equal numbers; at least 8 of each, at most the ``budget``.
    """
    vectors = bytes_available // max(1, size * itemsize)
    half = int(min(budget, max(8, (vectors - 1) // 3)))
    return min(half, size), half


def krylov_trace(
    operator: Operator,
    draw: Draw,
    goal: Goal,
    *,
    krylov: Krylov | None = None,
    rows: int | None = None,
    blocks: Sequence[slice] = (),
    floor: float = 0.0,
    stored: int | None = None,
    diagonal: bool = False,
) -> ComplementTrace:
    """Krylov part plus random vectors on its complement (after Chen & Hallman 2023); the default.

    At most about half of the products go into the Krylov part, fewer where its coefficients say that random
    vectors are worth more.

    Args:
        operator: symmetric, (n, n).
        draw: Gaussian vectors named "start", "fresh", "probe".
        krylov: a decomposition taken over, which is extended in place; its products do not count.
        rows: room of a decomposition of its own.
        blocks: disjoint ascending slices of the coordinates whose traces are wanted.
        floor: what a product with a unit vector can be wrong by; it is added to the intervals.
        stored: random vectors kept with their products; see :class:`ComplementTrace`.
        diagonal: whether the diagonal will be asked for although not all of them are stored.
    """
    pays = None
    if krylov is None:
        krylov = own = Krylov.start(operator, draw("start", 0), goal.budget if rows is None else rows)

        def pays(probes: int) -> bool:
            return row_pays(own.relation, operator.size, probes)

    return ComplementTrace(
        operator,
        KrylovSpace(krylov, draw),
        draw,
        goal,
        share=krylov_share,
        pays=pays,
        blocks=blocks,
        floor=floor,
        stored=stored,
        diagonal=diagonal,
    )


def hutchinson(
    operator: Operator,
    draw: Draw,
    goal: Goal,
    *,
    blocks: Sequence[slice] = (),
    floor: float = 0.0,
    stored: int | None = None,
    diagonal: bool = False,
) -> ComplementTrace:
    """Mean of zᵀHz over random signs (Hutchinson 1990, Commun. Stat. 19), which ``draw`` gives as "probe"."""
    return ComplementTrace(
        operator,
        Nothing(operator),
        draw,
        goal,
        share=lambda products: 0.0,
        blocks=blocks,
        floor=floor,
        stored=stored,
        diagonal=diagonal,
    )


def hutchpp(
    operator: Operator,
    draw: Draw,
    goal: Goal,
    *,
    rows: int | None = None,
    blocks: Sequence[slice] = (),
    floor: float = 0.0,
    stored: int | None = None,
    diagonal: bool = False,
) -> ComplementTrace:
    """Hutch++ (Meyer, Musco, Musco & Woodruff 2021, algorithm 1), in thirds: sketch, its products, the rest.

    Its random vectors are Gaussian, projected on the complement and rescaled, where the paper takes signs.
    """
    sketch = Sketch(operator, draw, goal.budget // 2 if rows is None else rows)
    return ComplementTrace(
        operator,
        sketch,
        draw,
        goal,
        share=lambda products: 2 / 3,
        blocks=blocks,
        floor=floor,
        stored=stored,
        diagonal=diagonal,
    )


def xtrace(
    operator: Operator, draw: Draw, goal: Goal, *, blocks: Sequence[slice] = (), floor: float = 0.0
) -> XTrace:
    """XTrace (Epperly, Tropp & Webber 2024); the trace alone.

    Raises:
        ValueError: ``blocks`` were asked for.
    """
    if blocks:
        raise ValueError("xtrace gives no traces of layers: use krylov, hutchinson or hutch++ for them")
    return XTrace(operator, draw, goal, floor=floor)
