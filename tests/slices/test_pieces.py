"""The size of pieces for many passes: the largest unless a smaller one is clearly faster, cheaply tried."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import landscape
from landscape.slices import pieces
from landscape.slices.pieces import forward_pieces
from tests.support.models import mlp


def problem(examples: int = 2000, **named: Any) -> landscape.Problem:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(examples, 5, generator=generator), torch.randint(3, (examples,), generator=generator)
    return landscape.Problem(mlp(5, 7, 3), "cross_entropy", (x, y), **named)


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], float]], list[int]]:
    """Sizes have the times of a function; returns the list of those that are tried."""

    def use(seconds_per_example: Callable[[int], float]) -> list[int]:
        sizes: list[int] = []

        def seconds(_: landscape.Problem, size: int) -> float:
            sizes.append(size)
            return size * seconds_per_example(size)

        monkeypatch.setattr(pieces, "_seconds", seconds)
        return sizes

    return use


def test_the_largest_where_smaller_ones_are_not_clearly_faster(tried: Callable[..., list[int]]) -> None:
    sizes = tried(lambda size: 1.0 if size == 2000 else 0.9)
    assert forward_pieces(problem(), 1000).micro_batch == 2000
    assert sizes == [2000, 500, 125] * 3


def test_a_smaller_one_that_stays_in_the_caches(tried: Callable[..., list[int]]) -> None:
    tried(lambda size: {2000: 2.0, 500: 1.05, 125: 1.0}[size])
    chosen = forward_pieces(problem(), 1000)
    assert (chosen.micro_batch, chosen.pieces) == (500, 4)


def test_the_least_time_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([9.0, 1.0, 1.0, 1.0, 9.0, 9.0, 9.0, 1.0, 1.0])
    monkeypatch.setattr(pieces, "_seconds", lambda _, size: size * next(times))
    assert forward_pieces(problem(), 1000).micro_batch == 2000


def test_no_more_is_spent_than_a_small_part_of_the_passes(tried: Callable[..., list[int]]) -> None:
    sizes = tried(lambda size: 1.0)
    assert forward_pieces(problem(), 64).micro_batch == 2000
    assert sizes == [500, 125] * 3
    assert sum(sizes) <= 2000
    sizes.clear()
    assert forward_pieces(problem(64), 3).micro_batch == 64
    assert sizes == []


def test_a_smaller_one_where_the_largest_may_not_be_tried(tried: Callable[..., list[int]]) -> None:
    tried(lambda size: 1.0 if size == 125 else 2.0)
    assert forward_pieces(problem(), 64).micro_batch == 125


def test_a_size_that_was_given_is_used(tried: Callable[..., list[int]]) -> None:
    sizes = tried(lambda size: 1.0)
    assert forward_pieces(problem(batch_size=300), 1000).micro_batch == 300
    assert forward_pieces(problem(batch_size=300, train_mode=True), 1000).pieces == 7
    assert sizes == []


def test_the_graph_of_a_piece_fits_half_of_the_memory() -> None:
    chosen = forward_pieces(problem(memory=50_000), 1000)
    assert chosen.micro_batch < 2000
    assert chosen.graph_bytes <= 25_000


def test_times_are_of_real_passes() -> None:
    own = problem()
    assert pieces._seconds(own, 2000) > 0
    assert forward_pieces(own, 1000).micro_batch in range(1, 2001)
