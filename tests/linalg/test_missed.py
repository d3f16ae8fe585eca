"""The missed-eigenvalue statement against simulation, on spectra that are hard for it."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from landscape.linalg.bounds import missed_share, missed_value


def _chebyshev(n: int, points: int, gap: float) -> np.ndarray:
    """The top eigenvalue 1, the others at Chebyshev's extremal points of [−1, 1 − gap], about equally often.

    The polynomial that has to be small on all of them but large at 1 is then the worst possible.
    """
    extremal = (1 - gap / 2) * np.cos(np.pi * np.arange(points) / (points - 1)) - gap / 2
    return np.concatenate([[1.0], extremal[np.arange(n - 1) % points]])


def _ritz_values(eigenvalues: np.ndarray, steps: int, starts: int, seed: int) -> np.ndarray:
    """All Ritz values after each of ``steps`` Lanczos steps, (steps, starts, 2): smallest and largest.

    On a diagonal matrix, from uniformly random starts: only the start's distribution matters here.
    """
    start = np.random.default_rng(seed).standard_normal((starts, len(eigenvalues)))
    basis = [start / np.linalg.norm(start, axis=1, keepdims=True)]
    small = np.zeros((starts, steps, steps))
    ends = np.empty((steps, starts, 2))
    for j in range(steps):
        w = basis[j] * eigenvalues
        for _ in range(2):
            for i, q in enumerate(basis):
                coefficient = (q * w).sum(1)
                small[:, i, j] += coefficient
                w = w - coefficient[:, None] * q
        basis.append(w / np.linalg.norm(w, axis=1, keepdims=True))
        values = np.linalg.eigvalsh(small[:, : j + 1, : j + 1], UPLO="U")
        ends[j] = values[:, [0, -1]]
    return ends


@pytest.mark.parametrize("probability", [0.5, 0.05])
@pytest.mark.parametrize(
    ("n", "steps"), [(50, 8), (100, 10), (100, 16), pytest.param(400, 40, marks=pytest.mark.long)]
)
@pytest.mark.parametrize("share_of_points", [1.0, 0.0], ids=["distinct", "repeated"])
def test_the_bound_holds_on_chebyshev_spectra(
    n: int, steps: int, probability: float, share_of_points: float
) -> None:
    epsilon, starts = missed_share(n, steps, probability), 2000
    assert epsilon is not None
    points = n - 1 if share_of_points else steps + 2
    worst = 0.0
    for factor in (0.5, 1.001, 1.5):
        eigenvalues = _chebyshev(n, points, min(1.9, 2 * epsilon * factor))
        found = _ritz_values(eigenvalues, steps, starts, seed=n + steps)[-1, :, 1]
        worst = max(worst, float((1.0 - found > epsilon * 2).sum()))
    assert worst <= scipy.stats.binom.ppf(1 - 1e-6, starts, probability)
    # Nor is it idle: on these spectra it is met within a factor of four.
    assert worst >= probability / 4 * starts


@pytest.mark.parametrize("gap", [0.1, 0.3])
@pytest.mark.parametrize("n", [60, 200])
def test_both_ends_whenever_the_search_stops(n: int, gap: float) -> None:
    """The claim as it is made, from the Ritz values alone; violated if it fails at any step at all.

    The theorem is about a fixed number of steps, a search stops when it likes: but the starts that are poor
    in the top eigenvector are the same at every step, so stopping cleverly gains nothing.
    """
    steps, starts, probability = 20, 2000, 0.05
    ends = _ritz_values(_chebyshev(n, n - 1, gap), steps, starts, seed=3)
    violated, available = np.zeros(starts, dtype=bool), 0
    for k in range(1, steps + 1):
        for i, (bottom, top) in enumerate(ends[k - 1]):
            claim = missed_value(top, bottom, n, k, probability)
            if claim is not None:
                available += 1
                violated[i] |= claim[1] < 1.0 or claim[2] > -1.0
    assert available > 10 * starts
    assert 0 < violated.sum() <= scipy.stats.binom.ppf(1 - 1e-6, starts, probability)


def test_what_the_statement_says() -> None:
    assert missed_share(6570, 0, 0.05) is None
    assert missed_share(6570, 3, 0.05) is None
    epsilon = missed_share(6570, 20, 0.05)
    assert epsilon is not None
    assert 1.648 * 6570**0.5 * np.exp(-(epsilon**0.5) * 39) == pytest.approx(0.05)
    assert missed_share(12, 12, 0.05) == 0.0
    claim = missed_value(3.0, -1.0, 6570, 20)
    assert claim is not None
    assert claim[0] == missed_share(6570, 20, 0.025)
    assert 3.0 < claim[1] < 3.0 + 4.0
    assert claim[2] == pytest.approx(-1.0 - (claim[1] - 3.0))
    assert missed_value(3.0, -1.0, 3, 3) == (0.0, 3.0, -1.0)


def test_where_it_is_available_it_says_something() -> None:
    """Never that an eigenvalue may have been missed farther out than the whole range found."""
    claims = [missed_value(1.0, 0.0, n, k) for n in (10, 1000, 10**6, 10**9) for k in range(1, 60)]
    reach = [claim[1] - 1.0 for claim in claims if claim is not None]
    assert len(reach) > 100
    assert max(reach) <= 1.0 + 1e-12
    assert min(reach) < 0.05
