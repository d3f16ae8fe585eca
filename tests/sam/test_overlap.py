"""Overlaps of packed sets against Python's own sets, SciPy's hypergeometric law, and chance itself."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, hypergeom, kstest

from landscape.sam import overlap
from landscape.sam.overlap import (
    chance,
    common_counts,
    independent_interval,
    measures,
    packed_size,
    pair_counts,
)


def packed(members: np.ndarray) -> np.ndarray:
    return np.packbits(members, bitorder="little")


def as_set(mask: np.ndarray, n: int) -> set[int]:
    """The naive twin: a set of numbers of parameters."""
    return {i for i in range(n) if mask[i // 8] >> (i % 8) & 1}


@pytest.fixture(params=["counted by NumPy", "looked up"])
def _both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy 1 cannot count bits."""
    if request.param == "looked up":
        monkeypatch.setattr(overlap, "_ones", overlap._ones_of_bytes)


@pytest.mark.usefixtures("_both_ways")
@pytest.mark.parametrize("n", [1, 7, 8, 9, 63, 64, 65, 200])
def test_counts_are_those_of_sets(n: int) -> None:
    """The bits beyond n are noise here, and the pieces are shorter than the masks."""
    rng = np.random.default_rng(n)
    masks = rng.integers(0, 256, (5, packed_size(n)), dtype=np.uint8)
    sets = [as_set(mask, n) for mask in masks]
    pairs = [[len(one & other) for other in sets[2:]] for one in sets[:3]]
    assert pair_counts(masks[:3], masks[2:], n).tolist() == pairs
    found = common_counts(masks, n)
    for s, e in itertools.product(range(5), repeat=2):
        assert found[s, e] == (len(set.intersection(*sets[s : e + 1])) if e >= s else 0)


@pytest.mark.usefixtures("_both_ways")
def test_many_pieces_give_the_sum_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    n = 10_007
    members = np.random.default_rng(0).random((4, n)) < 0.6
    masks = [packed(row) for row in members]
    whole = pair_counts(masks, masks, n), common_counts(masks, n)
    monkeypatch.setattr(overlap, "_WORDS", 3)
    for one, other in zip(whole, (pair_counts(masks, masks, n), common_counts(masks, n)), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(whole[0], members.astype(int) @ members.T.astype(int))
    assert whole[1][0, 3] == members.all(axis=0).sum()


def test_masks_stay_as_they_are_and_may_lie_at_any_address() -> None:
    raw = np.random.default_rng(0).integers(0, 256, 4 * 13 + 3, dtype=np.uint8)
    masks = raw[3:].reshape(4, 13)
    before, aligned = raw.copy(), masks.copy()
    raw.setflags(write=False)
    np.testing.assert_array_equal(pair_counts(masks, masks, 101), pair_counts(aligned, aligned, 101))
    np.testing.assert_array_equal(raw, before)


def test_a_mask_of_another_length_is_refused() -> None:
    masks = np.zeros((2, 3), dtype=np.uint8)
    for count in (lambda n: pair_counts(masks, masks, n), lambda n: common_counts(masks, n)):
        assert count(17).shape == (2, 2)
        for n in (16, 25):
            with pytest.raises(ValueError, match="bytes"):
                count(n)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_mean_and_variance_are_those_of_the_hypergeometric_law(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 10_000))
    a, b = data.draw(st.integers(0, n)), data.draw(st.integers(0, n))
    law = chance((a, b), n)
    assert law.expected == pytest.approx(a * b / n, rel=1e-14)
    closed = a * b * (n - a) * (n - b) / (n * n * (n - 1)) if n > 1 else 0.0
    assert law.deviation**2 == pytest.approx(closed, rel=1e-12, abs=1e-12)
    if n > 3 and 0 < a < n and 0 < b < n:  # SciPy divides by zero elsewhere
        variance = float(hypergeom.stats(n, a, b, moments="v"))
        assert law.deviation**2 == pytest.approx(variance, rel=1e-9, abs=1e-9)


def test_the_variance_keeps_its_digits_at_billions() -> None:
    """E x² and (E x)² agree in 22 digits there."""
    n, a, b = 10**11, 6 * 10**10, 7 * 10**10
    closed = math.sqrt(0.6 * 0.7 * 0.4 * 0.3 * n * n / (n - 1))
    assert chance((a, b), n).deviation == pytest.approx(closed, rel=1e-12)


@pytest.mark.parametrize("sizes", [(3, 2), (3, 4, 2), (4, 4, 3, 5), (6, 1, 2), (0, 3, 3)])
def test_chance_of_several_sets_by_laying_them_out_in_every_way(sizes: tuple[int, ...]) -> None:
    """All subsets of these sizes among six, the first fixed: whichever it is makes no difference."""
    n = 6
    ways: dict[frozenset[int], float] = {frozenset(range(sizes[0])): 1.0}
    for size in sizes[1:]:
        subsets = [frozenset(s) for s in itertools.combinations(range(n), size)]
        following: dict[frozenset[int], float] = {}
        for left, weight in ways.items():
            for subset in subsets:
                following[left & subset] = following.get(left & subset, 0.0) + weight / len(subsets)
        ways = following
    mean = sum(len(left) * weight for left, weight in ways.items())
    variance = sum((len(left) - mean) ** 2 * weight for left, weight in ways.items())
    law = chance(sizes, n)
    assert law.expected == pytest.approx(mean, rel=1e-12)
    assert law.deviation**2 == pytest.approx(variance, rel=1e-12, abs=1e-15)


def test_a_single_set_and_a_single_parameter_leave_nothing_to_chance() -> None:
    assert chance([5], 9) == overlap.Chance(5.0, 0.0)
    assert chance([1, 1, 1], 1) == overlap.Chance(1.0, 0.0)
    assert chance([1, 0], 1) == overlap.Chance(0.0, 0.0)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_the_interval_is_that_of_scipy(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 3000))
    a, b = data.draw(st.integers(0, n)), data.draw(st.integers(0, n))
    level = data.draw(st.sampled_from([0.5, 0.9, 0.95, 0.999]))
    low, high = independent_interval(a, b, n, level)
    law, tail = hypergeom(n, a, b), (1 - level) / 2
    # As ppf says, but not where a probability is the tail to the last digit.
    assert law.cdf(low - 1) <= tail + 1e-9
    assert law.sf(high) <= tail + 1e-9
    assert law.cdf(low) >= tail - 1e-9
    assert law.sf(high - 1) >= tail - 1e-9 or high == low


@pytest.mark.parametrize(
    ("a", "b", "n"),
    [(6_000_000, 6_720_000, 11_200_000), (40, 3_000_000, 11_200_000), (3000, 4000, 11_200_000)],
)
def test_the_interval_of_millions(a: int, b: int, n: int) -> None:
    assert independent_interval(a, b, n) == tuple(hypergeom(n, a, b).ppf([0.025, 0.975]))


def test_the_interval_of_single_parameters_among_billions() -> None:
    assert independent_interval(1, 1, 10**10) == (0, 0)


@pytest.mark.parametrize(("a", "b"), [(0, 5), (9, 5), (0, 0), (9, 9), (9, 0)])
def test_sets_that_leave_no_choice_have_an_interval_of_one_value(a: int, b: int) -> None:
    assert independent_interval(a, b, 9) == (a * b // 9, a * b // 9)


def test_the_same_set_the_complement_and_disjoint_ones() -> None:
    n = 37
    rng = np.random.default_rng(3)
    a = rng.random(n) < 0.4
    some = a & (rng.random(n) < 0.5)
    sets = [a, ~a, some, a & ~some]
    counts = pair_counts([packed(a)], [packed(s) for s in sets], n)
    sizes = [int(s.sum()) for s in sets]
    found = measures(counts, sizes[:1], sizes, n)
    assert counts[0].tolist() == [sizes[0], 0, sizes[2], sizes[3]]
    assert found.share[0].tolist() == [1.0, 0.0, sizes[2] / sizes[0], sizes[3] / sizes[0]]
    assert found.lift[0, 0] == pytest.approx(n / sizes[0])
    assert found.lift[0, 1] == 0.0
    assert found.jaccard[0].tolist() == [1.0, 0.0, sizes[2] / sizes[0], sizes[3] / sizes[0]]
    assert found.kappa[0, 0] == pytest.approx(1.0)
    # Of the complement p_o = 0, and κ = −p_e/(1 − p_e).
    p_e = 2 * sizes[0] * (n - sizes[0]) / n**2
    assert found.kappa[0, 1] == pytest.approx(-p_e / (1 - p_e))
    apart = measures(pair_counts([packed(some)], [packed(a & ~some)], n), [sizes[2]], [sizes[3]], n)
    assert (apart.share[0, 0], apart.lift[0, 0], apart.jaccard[0, 0]) == (0.0, 0.0, 0.0)
    assert apart.kappa[0, 0] < 0


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 60), st.integers(0, 2**32 - 1), st.floats(0, 1), st.floats(0, 1))
def test_measures_are_those_of_their_definitions(n: int, seed: int, p: float, q: float) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.random(n) < p, rng.random(n) < q
    counts = pair_counts([packed(a)], [packed(b)], n)
    found = measures(counts, [int(a.sum())], [int(b.sum())], n)
    agreement = float((a == b).mean())
    by_chance = a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean())
    defined = {
        "share": (a.any(), lambda: (a & b).sum() / a.sum()),
        "lift": (a.any() and b.any(), lambda: (a & b).mean() / (a.mean() * b.mean())),
        "jaccard": ((a | b).any(), lambda: (a & b).sum() / (a | b).sum()),
        "kappa": (by_chance < 1 - 1e-12, lambda: (agreement - by_chance) / (1 - by_chance)),
    }
    for name, (there, value) in defined.items():
        entry = getattr(found, name)[0, 0]
        assert np.ma.is_masked(entry) == (not there), name
        if there:
            assert entry == pytest.approx(value(), rel=1e-9, abs=1e-9), name
            assert math.isfinite(entry)


def independent_z(n: int, share: float, repetitions: int, seed: int) -> tuple[np.ndarray, float]:
    """(z of pairs of independent random masks, how often the lift is in its 95 % interval)."""
    rng = np.random.default_rng(seed)
    z, inside = [], 0
    for _ in range(repetitions):
        masks = rng.random((2, n)) < np.array([[share], [0.62]])
        a, b = (int(count) for count in masks.sum(axis=1))
        x = int(pair_counts([packed(masks[0])], [packed(masks[1])], n)[0, 0])
        law = chance((a, b), n)
        z.append((x - law.expected) / law.deviation)
        low, high = independent_interval(a, b, n)
        inside += low <= x <= high
    return np.array(z), inside / repetitions


def test_z_of_independent_masks_is_standard_normal_and_the_interval_holds_95_percent() -> None:
    z, inside = independent_z(20_011, 0.54, 2000, seed=1)
    assert abs(z.mean()) < 4 / math.sqrt(len(z))
    assert abs(z.var() - 1) < 4 * math.sqrt(2 / len(z))
    assert kstest(z, "norm").pvalue > 1e-3
    assert binomtest(round(inside * len(z)), len(z), 0.953).pvalue > 1e-3


@pytest.mark.long
@pytest.mark.parametrize("share", [0.02, 0.54, 0.97])
def test_z_is_calibrated_at_any_size_of_the_sets(share: float) -> None:
    z, inside = independent_z(20_011, share, 20_000, seed=2)
    assert abs(z.mean()) < 4 / math.sqrt(len(z))
    assert abs(z.var() - 1) < 4 * math.sqrt(2 / len(z))
    assert 0.95 - 4 * math.sqrt(0.05 * 0.95 / len(z)) < inside < 0.975


def test_several_independent_masks_have_in_common_what_chance_says() -> None:
    n, rng = 5003, np.random.default_rng(5)
    z = []
    for _ in range(1000):
        masks = rng.random((5, n)) < 0.54
        x = common_counts([packed(row) for row in masks], n)[0, 4]
        law = chance(masks.sum(axis=1).tolist(), n)
        z.append((x - law.expected) / law.deviation)
    assert abs(np.mean(z)) < 4 / math.sqrt(len(z))
    assert abs(np.var(z) - 1) < 4 * math.sqrt(2 / len(z))


def test_the_figures_of_the_seed() -> None:
    """004, experiment 2: 6e6 of 11.2e6, and 60 to 65 %; experiment 3: five or six sets in a row."""
    n, a = 11_200_000, 6_000_000
    expected = [chance((a, round(share * n)), n).expected for share in (0.6, 0.65)]
    assert expected == [3.6e6, 3.9e6]
    assert [4e6 / e for e in expected] == pytest.approx([1.11, 1.03], abs=0.005)
    five, six = (chance([a] * k, n).expected for k in (5, 6))
    assert 1e5 < 2.6e5 < six < five < 5e5
    assert chance([a] * 8, n).expected < 1e5 < chance([a] * 7, n).expected
