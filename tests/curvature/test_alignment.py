"""Sums over the gradients of single examples, against the covariance as products give it and closed forms."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from landscape.curvature import alignment
from landscape.curvature.alignment import ExampleNoise, chunk_size
from landscape.curvature.fisher import NoiseOperator
from landscape.curvature.strategy import Strategy
from landscape.errors import ComputationError, ConfigurationError
from landscape.problem import Problem
from tests.curvature.naive import CASES, case
from tests.support.closed_form import FLOAT64, classification, generator
from tests.support.models import mlp, seeded, tiny_resnet, tiny_transformer, tokens


def measured(problem: Problem, chunk: int = 7, spaces: tuple[Tensor, ...] = ()) -> ExampleNoise:
    noise = ExampleNoise(problem, problem.measure().gradient, spaces)
    for _ in noise.run(chunk):
        pass
    return noise


def space(size: int, k: int = 3) -> Tensor:
    return torch.linalg.qr(torch.randn(size, k, generator=generator(5), dtype=FLOAT64))[0].T


class Recurrent(nn.Module):
    """A GRU, which torch cannot vectorise over examples."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(3, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.rnn(x)[0][:, -1])
        return out


def random(*shape: int, seed: int = 3) -> Tensor:
    return torch.randn(*shape, generator=generator(seed))


def labels(n: int, classes: int) -> Tensor:
    return torch.randint(classes, (n,), generator=generator(4))


def masked() -> Problem:
    """Token sequences of unequal length, one of them masked altogether."""
    x, y = tokens(9, 6, generator(1), vocabulary=12)
    y = y.clone()
    y[2, 1:], y[5, 3:], y[7] = -100, -100, -100
    return Problem(tiny_transformer(), "cross_entropy", (x, y), dtype="float64")


@pytest.mark.parametrize("name", [name for name in CASES if name != "one example"])
def test_diagonal_trace_and_shares_are_those_of_the_covariance(name: str) -> None:
    known = case(name)
    problem, v = known.problem, space(known.problem.size)
    total = known.counts.sum()
    rest = known.gradients - torch.outer(known.counts, known.gradients.sum(0) / total)
    factor = len(known.counts) / float(total) ** 2
    noise = measured(problem, spaces=(v,))
    assert torch.allclose(noise.diagonal, factor * rest.square().sum(0), rtol=1e-9, atol=1e-13)
    assert np.isclose(noise.trace, factor * float(rest.square().sum()), rtol=1e-9)
    share, error = noise.share(0)
    parts, lengths = (rest @ v.T).square().sum(1), rest.square().sum(1)
    assert np.isclose(share, float(parts.sum() / lengths.sum()), rtol=1e-9)
    count = len(parts)
    spread = count / (count - 1) * (parts - share * lengths).square().sum()
    assert np.isclose(error, float(spread.sqrt() / lengths.sum()), rtol=1e-9)
    assert not noise.silent


WHOLE: dict[str, Callable[[], Problem]] = {
    "recurrent": lambda: Problem(
        seeded(Recurrent, 1), "cross_entropy", (random(8, 5, 3), labels(8, 2)), dtype="float64"
    ),
    "loss(model, batch)": lambda: Problem(
        mlp(4, 3),
        lambda model, batch: (model(batch["x"]) ** 2).mean(),
        {"x": random(13, 4)},
        dtype="float64",
    ),
    "weight decay": lambda: Problem(
        mlp(4, 3), "mse", (random(13, 4), random(13, 3)), dtype="float64", weight_decay=0.3
    ),
}


@pytest.mark.parametrize("name", WHOLE)
def test_the_trace_is_that_of_the_operator(name: str) -> None:
    problem = WHOLE[name]()
    operator = NoiseOperator(problem, Strategy(problem.examples, 1, 0, 0))
    dense = operator.apply(torch.eye(problem.size, dtype=FLOAT64))
    assert torch.allclose(measured(problem).diagonal, dense.diagonal(), rtol=1e-9, atol=1e-13)


def test_one_by_one_is_the_same() -> None:
    """The recurrent net goes that way; here another one is made to, without its being vectorised first."""
    problem = masked()
    noise = ExampleNoise(problem, problem.measure().gradient, ())
    noise._one_by_one = True
    for _ in noise.run(4):
        pass
    assert torch.allclose(noise.diagonal, measured(problem).diagonal, rtol=1e-10, atol=1e-14)


def test_examples_without_terms_are_left_out() -> None:
    noise = measured(masked())
    assert noise.examples == [0, 1, 2, 3, 4, 5, 6, 8]
    assert noise.terms.tolist() == [6, 6, 1, 6, 6, 3, 6, 6]


def test_least_squares_by_hand() -> None:
    """(xw − y)² has the gradients 2(xw − y)x."""
    x, w, y = (
        random(15, 3).double(),
        torch.tensor([[1.0, -2.0, 0.5]]).double(),
        random(15, 1, seed=9).double(),
    )
    model = nn.Linear(3, 1, bias=False)
    model.weight.data = w.float()
    problem = Problem(model, "mse", (x, y), dtype="float64")
    each = 2 * (x @ w.T - y) * x
    noise = measured(problem)
    assert np.isclose(noise.trace, float(each.var(0, correction=0).sum()), rtol=1e-12)
    squares = (each - each.mean(0)).square().sum(1)
    assert np.isclose(noise.trace_error, float(squares.std() / 15**0.5), rtol=1e-12)


def test_float32_is_near_float64() -> None:
    data = (random(11, 3, 8, 8), labels(11, 10))
    single, double = (
        measured(Problem(tiny_resnet(), "cross_entropy", data, dtype=d)) for d in ("float32", "float64")
    )
    assert torch.allclose(single.diagonal, double.diagonal, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_equal_examples_make_no_noise(dtype: str) -> None:
    x = random(1, 4).expand(6, 4).contiguous()
    noise = measured(Problem(mlp(4, 3), "cross_entropy", (x, torch.ones(6, dtype=torch.int64)), dtype=dtype))
    assert noise.silent
    assert noise.trace < 1e-10


def test_it_goes_on_bit_for_bit_after_any_piece() -> None:
    problem = masked()
    gradient, v = problem.measure().gradient, space(problem.size)
    whole = measured(problem, 2, (v,))
    begun = ExampleNoise(problem, gradient, (v,))
    for _ in begun.run(2):
        again = ExampleNoise(problem, gradient, (v,))
        again.restore({name: array.copy() for name, array in begun.arrays().items()})
        for _ in again.run(2):
            pass
        for name, array in whole.arrays().items():
            assert array.tobytes() == again.arrays()[name].tobytes(), name


def test_train_mode_is_refused() -> None:
    problem = Problem(mlp(4, 2), "mse", (random(9, 4), random(9, 2)), train_mode=True)
    with pytest.raises(ConfigurationError, match="leave --train-mode out"):
        ExampleNoise(problem, torch.zeros(problem.size), ())


def test_gradients_that_do_not_add_up_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem(mlp(4, 2), "mse", (random(9, 4), random(9, 2)))
    right = alignment._vmapped
    monkeypatch.setattr(alignment, "_vmapped", lambda *given: [1.1 * part for part in right(*given)])
    with pytest.raises(ComputationError, match="do not add up"):
        measured(problem)


def test_running_out_of_memory_stays_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: Any) -> Any:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(alignment, "_vmapped", full)
    with pytest.raises(torch.OutOfMemoryError):
        measured(Problem(mlp(4, 2), "mse", (random(9, 4), random(9, 2))))


def test_a_chunk_fits_in_memory() -> None:
    problem = Problem(mlp(4, 2), "mse", (random(9, 4), random(9, 2)))
    assert chunk_size(problem, 1000, 1 << 30) == 128
    assert chunk_size(problem, 5, 1 << 30) == 5
    assert chunk_size(problem, 1000, 16 * problem.size * 3) == 3
    assert chunk_size(problem, 1000, 0) == 1


def test_batches_of_x_and_y_change_nothing() -> None:
    x, y = classification(20, 4, 3)
    whole = Problem(mlp(4, 3), "cross_entropy", (x, y), dtype="float64")
    ragged = [(x[:3], y[:3]), (x[3:16], y[3:16]), (x[16:], y[16:])]
    cut = Problem(mlp(4, 3), "cross_entropy", ragged, dtype="float64")
    one, other = measured(whole, 20), measured(cut, 6)
    assert json.dumps(one.examples) == json.dumps(other.examples)
    assert torch.allclose(one.diagonal, other.diagonal, rtol=1e-12)
