"""Random directions: Gaussian, scaled as the weights are, the same for a seed; pairs made orthogonal."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from landscape.errors import ConfigurationError
from landscape.parameters import Layout, select_parameters
from landscape.slices.directions import angle_between, orthogonalised, random_direction, rescaled
from tests.support.closed_form import FLOAT64, generator
from tests.support.models import seeded, tiny_resnet

N = 400


class Mixed(nn.Module):
    """One parameter of each kind, with a filter of zeros and a bias of zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(3, 4, 2)
        self.conv = nn.Conv2d(3, 5, 3)
        self.embedding = nn.Embedding(7, 6)
        self.linear = nn.Linear(6, 3)
        self.norm = nn.BatchNorm2d(5)
        self.scale = nn.Parameter(torch.tensor(-1.7))
        with torch.no_grad():
            self.conv.weight[2] = 0.0
            self.linear.weight *= 1e-3
            self.norm.weight.uniform_(0.5, 2.0)


def mixed(dtype: torch.dtype = FLOAT64) -> tuple[Tensor, Layout]:
    selection = select_parameters(seeded(Mixed, 3).to(dtype))
    return selection.flat(), selection.layout


def drawn(weights: Tensor, layout: Layout, **options: Any) -> Tensor:
    chosen: dict[str, Any] = {"normalize": "filter", "biases": False, "seed": 0, "number": 1, **options}
    return random_direction(weights, layout, **chosen)


def plain(seed: int, number: int, n: int = N) -> Tensor:
    """A direction as drawn."""
    layout = Layout(("w",), (torch.Size((n, 1)),))
    return drawn(torch.ones(n, dtype=FLOAT64), layout, normalize="none", seed=seed, number=number)


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a.double() @ b.double() / (a.double().norm() * b.double().norm()))


@pytest.fixture(scope="module")
def pairs() -> tuple[Tensor, Tensor]:
    """Both axes' directions of 600 seeds."""
    first, second = (torch.stack([plain(seed, number) for seed in range(600)]) for number in (1, 2))
    return first, second


def test_the_entries_are_standard_normal(pairs: tuple[Tensor, Tensor]) -> None:
    for axis in pairs:
        assert stats.kstest(axis[:100].reshape(-1).numpy(), "norm").pvalue > 1e-3
        positive = int((axis > 0).sum())
        assert abs(positive - axis.numel() / 2) < 4 * math.sqrt(axis.numel() / 4)


def test_the_cosine_with_all_ones_is_that_of_a_uniform_direction(pairs: tuple[Tensor, Tensor]) -> None:
    """Of a uniform direction, (1 + cos)/2 with any fixed one is Beta((n − 1)/2, (n − 1)/2)."""
    uniform = stats.beta((N - 1) / 2, (N - 1) / 2, loc=-1, scale=2)
    assert uniform.std() == pytest.approx(N**-0.5, rel=0.01)
    ones = torch.ones(N, dtype=FLOAT64)
    for axis in pairs:
        cosines = np.array([cosine(direction, ones) for direction in axis])
        assert stats.kstest(cosines, uniform.cdf).pvalue > 1e-3
        assert cosines.std() == pytest.approx(N**-0.5, rel=0.12)  # four standard errors of 600


def test_both_axes_and_all_seeds_are_independent(pairs: tuple[Tensor, Tensor]) -> None:
    uniform = stats.beta((N - 1) / 2, (N - 1) / 2, loc=-1, scale=2)
    first, second = pairs
    between_axes = np.array([cosine(a, b) for a, b in zip(first, second, strict=True)])
    between_seeds = np.array([cosine(a, b) for a, b in pairwise(first)])
    across = np.array([cosine(a, b) for a, b in zip(first[1:], second[:-1], strict=True)])
    for cosines in (between_axes, between_seeds, across):
        assert stats.kstest(cosines, uniform.cdf).pvalue > 1e-3


@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, FLOAT64])
def test_filters_are_as_long_as_the_weights_own(dtype: torch.dtype, biases: bool) -> None:
    """Naively: one loop over parameters, one over their filters."""
    weights, layout = mixed(dtype)
    found = drawn(weights, layout, biases=biases)
    assert found.dtype == dtype
    raw = layout.split(drawn(weights.double(), layout, normalize="none", biases=True))
    for direction, own, start in zip(layout.split(found), layout.split(weights), raw, strict=True):
        if own.ndim <= 1 and not biases:
            assert not direction.any()
            continue
        filters = [(direction, own, start)]
        if own.ndim > 1:
            filters = [(direction[i], own[i], start[i]) for i in range(len(own))]
        for d, w, drawn_filter in filters:
            length = float(w.double().norm())
            assert float(d.double().norm()) == pytest.approx(length, rel=1e-6, abs=0.0)
            if length:
                assert cosine(d.reshape(-1), drawn_filter.reshape(-1)) == pytest.approx(1.0, abs=1e-12)
    assert not layout.split(found)[layout.names.index("conv.weight")][2].any()


@pytest.mark.parametrize("biases", [False, True])
def test_layers_are_as_long_as_the_weights_own(biases: bool) -> None:
    weights, layout = mixed()
    found = drawn(weights, layout, normalize="layer", biases=biases)
    for direction, own in zip(layout.split(found), layout.split(weights), strict=True):
        kept = biases or own.ndim > 1
        assert float(direction.norm()) == pytest.approx(float(own.norm()) if kept else 0.0, rel=1e-12)
    conv = layout.names.index("conv.weight")
    assert layout.split(found)[conv][2].any()  # a filter of zeros moves, as the layer is not zero
    filters = layout.split(found)[conv].reshape(5, -1).norm(dim=1)
    own = layout.split(weights)[conv].reshape(5, -1).norm(dim=1)
    assert not torch.allclose(filters, own, rtol=0.05)


@pytest.mark.parametrize("normalize", ["filter", "layer", "none"])
def test_biases_and_scales_are_zero_or_kept(normalize: str) -> None:
    weights, layout = mixed()
    without, kept = (drawn(weights, layout, normalize=normalize, biases=b) for b in (False, True))
    for name, a, b in zip(layout.names, layout.split(without), layout.split(kept), strict=True):
        small = name.endswith("bias") or name in ("norm.weight", "scale")
        assert bool(a.any()) != small
        assert bool(b.any()) == (name != "norm.bias" or normalize == "none")  # a shift of zeros has no scale
        if not small:
            assert torch.equal(a, b)


def test_as_drawn_is_as_drawn() -> None:
    weights, layout = mixed()
    found = drawn(weights, layout, normalize="none", biases=True, seed=5)
    assert torch.equal(found, plain(5, 1, len(weights)))
    assert float(found.norm()) == pytest.approx(math.sqrt(len(weights)), rel=0.2)


@pytest.mark.parametrize("normalize", ["filter", "layer", "none"])
def test_the_same_seed_in_another_dtype_is_the_same_direction(normalize: str) -> None:
    single, layout = mixed(torch.float32)
    a = drawn(single, layout, normalize=normalize, biases=True)
    b = drawn(single.double(), layout, normalize=normalize, biases=True)
    assert torch.equal(a, b.float())
    assert torch.equal(a, drawn(single, layout, normalize=normalize, biases=True))
    assert abs(cosine(a, drawn(single, layout, normalize=normalize, biases=True, seed=1))) < 0.3


def test_how_the_weights_lie_in_memory_is_irrelevant() -> None:
    plainly = select_parameters(tiny_resnet())
    last = select_parameters(tiny_resnet().to(memory_format=torch.channels_last))
    assert not last.tensors[0].is_contiguous()
    assert torch.equal(drawn(plainly.flat(), plainly.layout), drawn(last.flat(), last.layout))


def test_the_global_generators_and_the_weights_are_not_touched() -> None:
    weights, layout = mixed()
    before, state = weights.clone(), torch.get_rng_state()
    found = drawn(weights, layout)
    assert torch.equal(weights, before)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert torch.equal(found, drawn(weights, layout))


def test_weights_of_zero_have_no_direction() -> None:
    _, layout = mixed()
    assert not drawn(torch.zeros(layout.size, dtype=FLOAT64), layout, biases=True).any()


def test_a_filter_of_zeros_in_a_direction_stays_one() -> None:
    direction, like = torch.tensor([[0.0, 0.0], [3.0, 4.0]]), torch.tensor([[1.0, 1.0], [0.0, 2.0]])
    found = rescaled(direction, like, by_filter=True)
    assert torch.allclose(found, torch.tensor([[0.0, 0.0], [1.2, 1.6]]))


# --- pairs --------------------------------------------------------------------------------------------


def at_angle(radians: float, n: int = 60) -> tuple[Tensor, Tensor]:
    """Two vectors (n,) float64, of other lengths, with that angle between them, in a random plane."""
    basis, _ = torch.linalg.qr(torch.randn(n, 2, generator=generator(1), dtype=FLOAT64))
    a, b = basis.T
    return 3.0 * a, 0.2 * (math.cos(radians) * a + math.sin(radians) * b)


@pytest.mark.parametrize(
    "degrees", [1e-5, 1e-3, 0.01, 1.0, 30.0, 89.9999, 90.0, 90.0001, 135.0, 179.0, 179.999]
)
def test_angles_also_small_and_flat_ones(degrees: float) -> None:
    a, b = at_angle(math.radians(degrees))
    assert angle_between(a, b) == pytest.approx(degrees, rel=1e-9, abs=2e-13)
    assert angle_between(b, a) == angle_between(a, b)
    assert 180 - angle_between(a, -b) == pytest.approx(degrees, rel=1e-9, abs=1e-12)


def test_angles_of_0_90_and_180_are_exact() -> None:
    v = torch.randn(100, generator=generator(2))
    e = torch.eye(4, dtype=FLOAT64)
    assert angle_between(v, 4 * v) == 0.0
    assert angle_between(v, -v / 8) == 180.0
    assert angle_between(2 * e[0], -5 * e[3]) == 90.0


@pytest.mark.parametrize("degrees", [0.01, 0.5, 20.0, 90.0, 160.0, 179.98])
@pytest.mark.parametrize(("dtype", "bound"), [(FLOAT64, 1e-12), (torch.float32, 1e-7)])
def test_orthogonalised(degrees: float, dtype: torch.dtype, bound: float) -> None:
    a, b = (v.to(dtype) for v in at_angle(math.radians(degrees), n=5000))
    before = a.clone(), b.clone()
    found = orthogonalised(a, b)
    assert found.dtype == dtype
    assert abs(cosine(a, found)) < bound
    assert torch.equal(a, before[0])
    assert torch.equal(b, before[1])
    # In the plane of both, on the side of b, and as long as what is left of it.
    rest = b.double() - found.double()
    assert float(rest.norm()) == pytest.approx(
        abs(cosine(a, b)) * float(b.double().norm()), rel=1e-6, abs=1e-7
    )
    assert cosine(b, found) > 0
    assert float(found.double().norm()) == pytest.approx(
        float(b.double().norm()) * math.sin(math.radians(angle_between(a, b))), rel=1e-5
    )


def test_random_directions_are_nearly_orthogonal_before() -> None:
    weights, layout = mixed(torch.float32)
    a, b = (drawn(weights, layout, number=number) for number in (1, 2))
    assert 60 < angle_between(a, b) < 120
    assert abs(cosine(a, orthogonalised(a, b))) < 1e-7


@pytest.mark.parametrize("degrees", [0.0, 1e-7, 0.005, 179.996, 180.0])
def test_directions_on_one_line_span_no_plane(degrees: float) -> None:
    a, b = at_angle(math.radians(degrees))
    with pytest.raises(ConfigurationError, match="lie on one line") as caught:
        orthogonalised(a, b)
    assert "degrees" in caught.value.found
