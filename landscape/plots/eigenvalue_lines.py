"""What the eigenvalues of a result are called, and how each is read: by the end that it was found at."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from landscape.errors import InputError
from landscape.results import EigenResult
from landscape.results.measures import Reading
from landscape.results.reading import BOUND, finite

__all__ = ["named_pairs"]

#: Eigenvalues of each end that are drawn as lines.
_MOST = 20
_LOW = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def named_pairs(
    results: Sequence[EigenResult], most: int
) -> list[tuple[str, Callable[[EigenResult], Reading | None]]]:
    """What each eigenvalue is called, and its reading: from the top, from the bottom, or by |λ|."""
    ends = {result.which for result in results}
    if len(ends) > 1:
        raise InputError(
            "these runs are of different ends of the spectrum", found=", ".join(sorted(ends)),
            do="give runs of one --which",
        )  # fmt: skip
    (end,) = ends
    if end == "magnitude":
        return [(f"θ{_low(i + 1)}", _pair(i, by_size=True)) for i in range(min(most, _MOST))]
    below = {"smallest": most, "both": most // 2}.get(end, 0)
    top = [(f"λ{_low(i + 1)}", _pair(i)) for i in range(min(most - below, _MOST))]
    bottom = [(f"λₙ{f'₋{_low(i)}' if i else ''}", _pair(-1 - i)) for i in range(min(below, _MOST))]
    return top + bottom


def _low(number: int) -> str:
    return str(number).translate(_LOW)


def _pair(i: int, *, by_size: bool = False) -> Callable[[EigenResult], Reading | None]:
    """The i-th eigenvalue, from the bottom if negative; ``by_size`` the largest |λ| first."""

    def read(result: EigenResult) -> Reading | None:
        there = np.asarray(result.eigenvalues)
        if not -len(there) <= i < len(there):
            return None
        at = int(np.argsort(-np.abs(there), kind="stable")[i]) if by_size else i
        value = finite(there[at])
        if value is None:
            return None
        error = finite(result.residuals[at] + result.noise_floor)
        return Reading(value, error, BOUND, finite(result.standard_errors[at]))

    return read
