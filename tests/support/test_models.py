"""The models and data that other tests and the benchmarks stand on."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from tests.support.models import (
    images,
    mlp,
    resnet20,
    tiny_resnet,
    tiny_transformer,
    tokens,
    transformer,
)


def size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_sizes() -> None:
    assert size(resnet20()) == 269_722
    assert size(transformer()) == 1_032_576
    assert size(transformer(tied=False)) == size(transformer()) + 256 * 128
    assert size(mlp(64, 64, 32, 10)) == 6570
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in resnet20().modules()) == 20


@pytest.mark.parametrize("build", [tiny_resnet, tiny_transformer, lambda seed: mlp(3, 4, 2, seed=seed)])
def test_the_weights_depend_on_the_seed_alone(build: Callable[..., nn.Module]) -> None:
    state = torch.random.get_rng_state()
    first, again, other = build(seed=3), build(seed=3), build(seed=4)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not first.training
    ours, same, others = (list(m.parameters()) for m in (first, again, other))
    assert all(torch.equal(a, b) for a, b in zip(ours, same, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(ours, others, strict=True))


def test_the_transformer_is_causal() -> None:
    model = tiny_transformer()
    x, _ = tokens(2, 6, torch.Generator().manual_seed(0), vocabulary=12)
    changed = x.clone()
    changed[:, 4] = (changed[:, 4] + 1) % 12
    before, after = model(x), model(changed)
    torch.testing.assert_close(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])


def test_the_head_is_tied_to_the_embedding() -> None:
    tied, untied = tiny_transformer(), tiny_transformer(tied=False)
    assert tied.get_parameter("tokens.weight") is tied.get_parameter("head.weight")
    assert untied.get_parameter("tokens.weight") is not untied.get_parameter("head.weight")


def test_images_fit_the_nets() -> None:
    x, y = images(5, torch.Generator().manual_seed(0), size=8)
    assert (x.shape, y.shape, y.dtype) == ((5, 3, 8, 8), (5,), torch.int64)
    assert tiny_resnet()(x).shape == (5, 10)


def test_targets_are_the_next_tokens() -> None:
    x, y = tokens(40, 20, torch.Generator().manual_seed(0))
    assert x.shape == y.shape == (40, 20)
    assert torch.equal(x[:, 1:], y[:, :-1])
    followers: dict[int, set[int]] = {}
    for a, b in zip(x.flatten().tolist(), y.flatten().tolist(), strict=True):
        followers.setdefault(a, set()).add(b)
    frequent = [seen for token, seen in followers.items() if (x == token).sum() >= 8]
    assert frequent
    assert max(len(seen) for seen in frequent) <= 4 + 4  # four likely ones and a surprise now and then
