"""Classes of gradient ratios: by definition, against division in exact arithmetic, and at their borders."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from landscape.results import CLASSES
from landscape.sam import passes
from landscape.sam.ratios import OCTAVES, bin_edges, classify, octaves, pack, tally
from landscape.sam.ratios import by_division as by_division_of
from tests.support.closed_form import generator

NAMES = list(CLASSES)
INF, NAN, TINY = math.inf, math.nan, 2.0**-149  # TINY: the smallest float32


def by_division(g: float, h: float) -> str:
    """The class by its definition, in exact arithmetic."""
    if not (math.isfinite(g) and math.isfinite(h)):
        return "nonfinite"
    if g == 0 or h == 0:
        return {(True, True): "dead", (True, False): "born", (False, True): "killed"}[g == 0, h == 0]
    r = Fraction(h) / Fraction(g)
    if abs(r) == 1:
        return "equal" if r > 0 else "opposite"
    return ("ckpt1" if r > 1 else "ckpt2") if r > 0 else ("ckpt3" if r < -1 else "ckpt4")


@pytest.mark.parametrize(
    ("g", "h", "name"),
    [
        (1.0, 2.0, "ckpt1"),
        (-1.0, -2.0, "ckpt1"),
        (2.0, 1.0, "ckpt2"),
        (1.0, -2.0, "ckpt3"),
        (2.0, -1.0, "ckpt4"),
        (3.0, 3.0, "equal"),
        (3.0, -3.0, "opposite"),
        (0.0, -0.0, "dead"),
        (-0.0, 1.0, "born"),
        (1.0, 0.0, "killed"),
        (NAN, 1.0, "nonfinite"),
        (1.0, INF, "nonfinite"),
        (0.0, NAN, "nonfinite"),
        (TINY, TINY, "equal"),
        (TINY, -2 * TINY, "ckpt3"),
        (1e-30, 1e-30, "equal"),
        (1e-30, 2e-30, "ckpt1"),
        (3e38, -1e38, "ckpt4"),
        (1.0, 1.0000001, "ckpt1"),
    ],
)
def test_the_classes_and_their_borders(g: float, h: float, name: str) -> None:
    """Also where a product or quotient of float32 would underflow or overflow."""
    pair = torch.tensor([g, h], dtype=torch.float32)
    assert NAMES[int(classify(pair[:1], pair[1:])[0])] == name
    assert by_division(float(pair[0]), float(pair[1])) == name


FLOATS = st.floats(width=32, allow_subnormal=True)


@given(st.lists(st.tuples(FLOATS, FLOATS | st.sampled_from([0.0, 1.0, -1.0, INF])), min_size=1, max_size=50))
def test_every_pair_is_in_the_class_that_exact_division_gives(pairs: list[tuple[float, float]]) -> None:
    g, h = torch.tensor(pairs, dtype=torch.float32).T
    assert [NAMES[i] for i in classify(g, h)] == [by_division(*pair) for pair in pairs]


NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False).filter(bool)


@given(NUMBERS, NUMBERS, st.integers(-20, 20))
def test_octaves_are_exact(g: float, h: float, k: int) -> None:
    """Also at powers of two and one step of rounding beside them."""
    beside = np.float64(g) * 2.0**k
    for other in (h, beside, np.nextafter(beside, INF), np.nextafter(beside, -INF)):
        pair = torch.tensor([g, other], dtype=torch.float64)
        if pair[1] == 0:
            continue
        found = int(octaves(pair[:1], pair[1:])[0])
        ratio = abs(Fraction(float(pair[1])) / Fraction(float(pair[0])))
        assert Fraction(2) ** found <= ratio < Fraction(2) ** (found + 1)


def gradients(seed: int, dtype: torch.dtype = torch.float64) -> tuple[list[Tensor], list[Tensor]]:
    """Two gradients of three tensors with zeros, ties and turned signs in them."""
    g = generator(seed)
    first = [torch.randn(s, generator=g, dtype=dtype) for s in [(7, 5), (11,), (2, 3, 4)]]
    second = [x + torch.randn(x.shape, generator=g, dtype=dtype) for x in first]
    for x, y in zip(first, second, strict=True):
        x.view(-1)[0], y.view(-1)[1], y.view(-1)[2] = 0, 0, x.view(-1)[2]
        y.view(-1)[3] = -x.view(-1)[3]
        x.view(-1)[4] = y.view(-1)[4] = 0
    return first, second


@pytest.mark.parametrize("chunk", [1, 4, 1 << 18])
def test_a_tally_is_the_sum_over_all_elements(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "CHUNK", chunk)
    first, second = gradients(0)
    weights = [torch.randn(x.shape, generator=generator(3), dtype=x.dtype) for x in first]
    moved = [w + 0.1 * x for w, x in zip(weights, first, strict=True)]
    found, codes = tally(first, second, weights, moved, layer_of=[0, 0, 1], rounding=[0.0] * 3)

    g, h = (torch.cat([x.reshape(-1) for x in parts]).numpy() for parts in (first, second))
    names = [by_division(a, b) for a, b in zip(g, h, strict=True)]
    assert [NAMES[i] for i in codes] == names
    for layer, part in enumerate((slice(0, 46), slice(46, None))):
        assert found.counts[layer].tolist() == [names[part].count(name) for name in NAMES]
    assert found.uncertain.sum() == 0
    for row, x in enumerate((g, h)):
        expected = [sum(v**2 for v, name in zip(x, names, strict=True) if name == one) for one in NAMES]
        np.testing.assert_allclose(found.squares[row], expected, rtol=1e-13)
    d = torch.cat([(m - w).reshape(-1) for m, w in zip(moved, weights, strict=True)]).numpy()
    np.testing.assert_allclose(found.inner, [g @ h, d @ d, (h - g) @ d], rtol=1e-12)


def test_the_histogram_counts_each_ratio_in_its_bin() -> None:
    g = torch.full((9,), 2.0, dtype=torch.float64)
    h = torch.tensor([2.0, 3.9, 4.0, 1.9, -2.0, -3.9, -1.9, 1e9, -1e-9], dtype=torch.float64)
    found, _ = tally([g], [h], [g], [g], layer_of=[0], rounding=[0.0])
    low, high = bin_edges()
    assert len(low) == len(high) == len(found.histogram) == 4 * (OCTAVES + 1)
    assert (low[1:] == high[:-1]).all()
    in_bins = {(a, b): int(c) for a, b, c in zip(low, high, found.histogram, strict=True) if c}
    assert in_bins == {
        (1, 2): 2,
        (2, 4): 1,
        (0.5, 1): 1,
        (-2, -1): 2,
        (-1, -0.5): 1,
        (2.0**OCTAVES, INF): 1,
        (-(2.0**-OCTAVES), 0): 1,
    }


def test_by_division_zeros_and_ties_are_in_no_class() -> None:
    g = torch.tensor([1.0, 1.0, 1.0, 2.0, 1.0, 0.0, 0.0, 1.0, 1e-30], dtype=torch.float32)
    h = torch.tensor([2.0, 0.5, -2.0, -1.0, 1.0, 0.0, 3.0, 0.0, 1e30], dtype=torch.float32)
    assert classified(g, h) == {
        "ckpt1": 2,
        "ckpt2": 1,
        "ckpt3": 1,
        "ckpt4": 1,
        "equal": 1,
        "dead": 1,
        "born": 1,
        "killed": 1,
    }
    # 3/0 counts as ckpt1, 0/0, 0/1 and 1/1 as nothing.
    assert by_division_of(g, h).tolist() == [3, 1, 1, 1, 3]
    found, _ = tally([g], [h], [g], [g], layer_of=[0], rounding=[0.0], divide=True)
    assert found.divided.tolist() == [3, 1, 1, 1, 3]
    assert tally([g], [h], [g], [g], layer_of=[0], rounding=[0.0])[0].divided.sum() == 0


def classified(g: Tensor, h: Tensor) -> dict[str, int]:
    names = [NAMES[i] for i in classify(g, h)]
    return {name: names.count(name) for name in NAMES if name in names}


def test_special_classes_are_in_no_bin() -> None:
    first, second = gradients(1)
    found, codes = tally(first, second, first, second, layer_of=[0, 1, 2], rounding=[0.0] * 3)
    assert found.histogram.sum() == int((codes <= NAMES.index("opposite")).sum()) < len(codes)


def test_elements_within_rounding_of_a_border_are_uncertain() -> None:
    g = torch.tensor([1.0, 1.0, 1.0, 1.0, 1e-4, 0.0, 0.0, 1.0])
    h = torch.tensor([1.0015, 1.01, -0.9985, 1e-4, 5.0, 0.0, 5.0, -7.0])
    found, codes = tally([g], [h], [g], [g], layer_of=[0], rounding=[1e-3])
    sure = {NAMES[i] for i, near in zip(codes, [1, 0, 1, 1, 1, 0, 1, 0], strict=True) if not near}
    assert sure == {"ckpt1", "dead", "ckpt3"}
    assert found.uncertain.sum() == 5
    assert found.uncertain[0, NAMES.index("dead")] == 0
    assert found.uncertain[0, NAMES.index("ckpt4")] == 1


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 1000])
def test_packed_masks_hold_one_bit_for_each_class_and_element(
    n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("landscape.sam.ratios.CHUNK", 64)
    codes = torch.randint(len(NAMES), (n,), generator=generator(n), dtype=torch.uint8)
    packed = pack(codes)
    assert packed.shape == (len(NAMES), -(-n // 8))
    bits = np.unpackbits(packed, axis=1, bitorder="little", count=n)
    assert (bits.sum(0) == 1).all()
    assert (bits.argmax(0) == codes.numpy()).all()
