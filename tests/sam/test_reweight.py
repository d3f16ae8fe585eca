"""The weights of 1-SAM against closed forms, limits and a naive twin; the statistics against theirs."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from landscape.problem import Problem
from landscape.sam.per_example import Example, per_example
from landscape.sam.perturbation import p_norm
from landscape.sam.reweight import (
    FIGURES,
    OneSam,
    area,
    figures,
    gradients,
    length,
    median,
    rank_correlation,
    step,
)
from tests.sam.test_per_example import CASES
from tests.support.closed_form import FLOAT64, generator


def found(problem: Problem, how: OneSam, vectorised: bool | None = None) -> dict[str, Tensor]:
    """The figures of all examples, by name."""
    columns = per_example(problem, vectorised).over(next(problem.pieces()), partial(figures, how=how))
    return dict(zip(FIGURES, columns, strict=True))


def all_gradients(problem: Problem, how: OneSam) -> list[tuple[Tensor, ...]]:
    """The four gradients of each example, as lists over the parameters."""
    count = len(problem.selection.tensors)

    def flat(example: Example) -> list[Tensor]:
        return [part for g in gradients(example, example.at(example.weights), how) for part in g]

    parts = per_example(problem).over(next(problem.pieces()), flat)
    return [parts[i : i + count] for i in range(0, len(parts), count)]


def logistic(outputs: Tensor, targets: Tensor) -> Tensor:
    """−log σ(t f), t = ±1 (seed 002)."""
    return -nn.functional.logsigmoid(targets * outputs[:, 0]).mean()


def linear(z_scale: float, n: int = 60) -> tuple[Problem, Tensor, Tensor, Tensor]:
    """A linear model without bias, its inputs, labels ±1 and margins z = t⟨w, x⟩."""
    g = generator(3)
    x = torch.randn(n, 5, generator=g, dtype=FLOAT64)
    t = 2.0 * torch.randint(2, (n,), generator=g) - 1
    model = nn.Linear(5, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(z_scale * torch.randn(1, 5, generator=g, dtype=FLOAT64))
    z = t * (x @ model.weight.detach()[0])
    return Problem(model, logistic, (x, t)), x, t, z


@pytest.mark.parametrize("rho", [1e-3, 0.05, 0.5, 3.0])
@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_logistic_regression(rho: float, scale: float) -> None:
    """Seed 002, lemma 3.1: the weight is σ(−z + C)/σ(−z), C = ρ‖x‖."""
    problem, x, _, z = linear(scale)
    figures = found(problem, OneSam(rho))
    c = rho * x.norm(dim=1)
    wanted = (nn.functional.logsigmoid(c - z) - nn.functional.logsigmoid(-z)).exp()
    weight = figures["perturbed_norm"] / figures["gradient_norm"]
    torch.testing.assert_close(weight, wanted, rtol=1e-11, atol=0)
    torch.testing.assert_close(figures["logit_norm"] / figures["gradient_norm"], wanted, rtol=1e-11, atol=0)
    jacobian = figures["jacobian_norm"] / figures["gradient_norm"]  # constant in a linear model
    torch.testing.assert_close(jacobian, torch.ones_like(jacobian), rtol=1e-13, atol=0)


def test_the_weight_rises_with_the_margin_from_one_to_its_limit() -> None:
    """Same ‖x‖ for all: strictly increasing in z, between 1 and e^C."""
    problem, x, t, _ = linear(4.0)
    same = x / x.norm(dim=1, keepdim=True)
    problem = Problem(problem.model, logistic, (same, t))
    z = t * (same @ problem.selection.tensors[0].detach()[0])
    figures = found(problem, OneSam(0.7))
    weight = (figures["perturbed_norm"] / figures["gradient_norm"])[z.argsort()]
    assert bool((weight.diff() > 0).all())
    assert float(weight.min()) > 1
    assert float(weight.max()) < math.exp(0.7)


@pytest.mark.parametrize("z", [300.0, 600.0])
def test_gradients_whose_squares_underflow_have_a_weight(z: float) -> None:
    """σ(−600) = 3e-261: its square is no float64. Logits z and 0, the label is that of z."""

    def softplus(outputs: Tensor, targets: Tensor) -> Tensor:
        return torch.exp(-targets * outputs[:, 0]).mean()  # l = e^−z, whose weight is e^(ρ‖x‖)

    model = nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        model.weight.fill_(z)
    problem = Problem(model, softplus, (torch.ones(1, 1, dtype=FLOAT64), torch.ones(1, dtype=FLOAT64)))
    figures = found(problem, OneSam(0.5))
    assert float(figures["gradient_norm"]) == pytest.approx(math.exp(-z), rel=1e-12)
    weight = float(figures["perturbed_norm"] / figures["gradient_norm"])
    assert weight == pytest.approx(math.exp(0.5), rel=1e-12)


def test_two_layer_linear_network() -> None:
    """Seed 002, proposition 4.1: the terms that J-SAM adds are ρσ z xᵀ/J and ρσ ‖x‖² v/J, with their sign."""

    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            g = generator(8)
            self.W = nn.Parameter(torch.randn(4, 3, generator=g, dtype=FLOAT64))
            self.v = nn.Parameter(torch.randn(4, generator=g, dtype=FLOAT64))

        def forward(self, x: Tensor) -> Tensor:
            return (x @ self.W.T @ self.v)[:, None]

    g, rho = generator(9), 0.3
    x = torch.randn(10, 3, generator=g, dtype=FLOAT64)
    t = 2.0 * torch.randint(2, (10,), generator=g) - 1
    model = Deep()
    W, v = model.W.detach(), model.v.detach()
    problem = Problem(model, logistic, (x, t))
    assert problem.selection.layout.names == ("W", "v")
    plain, _, _, jacobian = all_gradients(problem, OneSam(rho))
    hidden = x @ W.T
    sigma = torch.sigmoid(-t * (hidden @ v))
    J = (hidden.square().sum(1) + x.square().sum(1) * v.square().sum()).sqrt()
    extra_W = (rho * sigma / J)[:, None, None] * hidden[:, :, None] * x[:, None, :]
    extra_v = (rho * sigma * x.square().sum(1) / J)[:, None] * v
    for found, start, extra in zip(jacobian, plain, (extra_W, extra_v), strict=True):
        torch.testing.assert_close(found - start, extra, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        *((name, OneSam(0.1)) for name in CASES),
        ("mlp", OneSam(0.2, relative=True)),
        ("masked tokens, tied", OneSam(0.01, p=math.inf)),
    ],
)
def test_against_a_naive_loop(name: str, how: OneSam) -> None:
    """Weights really moved, example by example, one backward pass each; J by outputs and residual apart."""
    model, loss, data = CASES[name]()
    problem = Problem(model, loss, data, dtype="float64")
    ours = found(problem, how)
    piece = next(problem.pieces())
    for i in range(piece.examples):
        (one,) = (*problem.cut(piece, slice(i, i + 1)), None)[:1]
        if one is None:  # all masked
            assert float(ours["terms"][i]) == float(ours["gradient_norm"][i]) == 0
            continue
        for name_, value in naive(problem, one, how).items():
            assert float(ours[name_][i]) == pytest.approx(value, rel=1e-9, abs=1e-12), (i, name_)


def naive(problem: Problem, one: Any, how: OneSam) -> dict[str, float]:
    """The figures of one example with the model's own weights changed and put back."""
    weights = problem.selection.tensors

    def graph() -> tuple[Tensor, Tensor, Tensor]:
        outputs = problem.outputs(one)
        leaf = outputs.detach().requires_grad_()
        loss = problem.loss.mean(leaf, one.batch[1]) * one.terms
        (residual,) = torch.autograd.grad(loss, leaf)
        return outputs, residual, loss.detach()

    def pulled(outputs: Tensor, residual: Tensor) -> Tensor:
        parts = torch.autograd.grad(outputs, weights, residual, retain_graph=True, allow_unused=True)
        return torch.cat(
            [torch.zeros(w.numel(), dtype=FLOAT64) if g is None else g.reshape(-1)
             for w, g in zip(weights, parts, strict=True)]
        )  # fmt: skip

    outputs, residual, loss = graph()
    g = pulled(outputs, residual)
    direction = g.sign() if math.isinf(how.p) else g / g.norm()
    epsilon = direction * how.rho * (float(g.norm()) if how.relative else 1.0)
    before = [w.detach().clone() for w in weights]
    with torch.no_grad():
        for w, part in zip(weights, problem.selection.layout.split(epsilon), strict=True):
            w.data = w.data + part  # a new tensor: the graph at w keeps its own
    moved, there, _ = graph()
    norms = {
        "loss": float(loss),
        "gradient_norm": float(g.norm()),
        "perturbed_norm": float(pulled(moved, there).norm()),
        "jacobian_norm": float(pulled(moved, residual).norm()),
    }
    with torch.no_grad():
        for w, old in zip(weights, before, strict=True):
            w.data = old
    outputs, _, _ = graph()
    return {**norms, "logit_norm": float(pulled(outputs, there).norm())}


@pytest.mark.parametrize("name", ["mlp", "masked tokens, tied"])
def test_the_weights_tend_to_one_at_the_rate_of_rho(name: str) -> None:
    model, loss, data = CASES[name]()
    problem = Problem(model, loss, data, dtype="float64")
    off = []
    for rho in (1e-3, 1e-4, 1e-5):
        figures = found(problem, OneSam(rho))
        kept = figures["terms"] > 0
        norms = torch.stack([figures[n][kept] for n in FIGURES[2:5]])
        off.append(float((norms / figures["gradient_norm"][kept] - 1).abs().max()))
    assert off[0] > 1e-5
    assert off[0] / off[1] == pytest.approx(10, rel=0.05)
    assert off[1] / off[2] == pytest.approx(10, rel=0.05)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_without_a_perturbation_the_weights_are_exactly_one(dtype: str) -> None:
    model, loss, data = CASES["mlp"]()
    figures = found(Problem(model, loss, data, dtype=dtype), OneSam(0.0))
    for name in FIGURES[2:5]:
        assert torch.equal(figures[name], figures["gradient_norm"])


def test_a_zero_gradient_stays_where_it_is() -> None:
    """A dead unit and a saturated label: no direction, and no NaN."""
    model = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[200.0, 0.0], [-200.0, 0.0]]))
    x = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    figures = found(Problem(model, "cross_entropy", (x, torch.tensor([0, 0, 0]))), OneSam(0.1))
    assert figures["gradient_norm"].tolist()[:2] == figures["perturbed_norm"].tolist()[:2] == [0.0, 0.0]
    assert float(figures["gradient_norm"][2]) > 0
    assert all(bool(torch.isfinite(column).all()) for column in figures.values())


@pytest.mark.parametrize("how", [OneSam(0.3, p=p) for p in (1, 1.5, 2, 4, math.inf)])
def test_the_step_has_its_length_and_is_the_steepest(how: OneSam) -> None:
    g = generator(2)
    gradient = tuple(torch.randn(s, generator=g, dtype=FLOAT64) for s in ((3, 4), (4,)))
    epsilon = step(gradient, how)
    assert p_norm(epsilon, how.p) == pytest.approx(0.3, rel=1e-13)
    q = math.inf if how.p == 1 else 1.0 if math.isinf(how.p) else how.p / (how.p - 1)
    inner = sum(float((e * d).sum()) for e, d in zip(epsilon, gradient, strict=True))
    assert inner == pytest.approx(0.3 * p_norm(gradient, q), rel=1e-13)


@pytest.mark.parametrize("p", [1, 1.5, 2, 4, math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_step_along_any_size_of_gradient(p: float, dtype: torch.dtype) -> None:
    """Down to denormal numbers, whose reciprocals overflow."""
    tiny = torch.tensor([3.0, -4.0], dtype=dtype) * torch.finfo(dtype).tiny
    plain = step((torch.tensor([3.0, -4.0], dtype=dtype),), OneSam(0.3, p=p))
    torch.testing.assert_close(step((tiny,), OneSam(0.3, p=p)), plain)
    assert float(length((tiny,))) == pytest.approx(5 * torch.finfo(dtype).tiny, rel=1e-6)
    zero = torch.zeros(2, dtype=dtype)
    assert torch.equal(step((zero,), OneSam(0.3, p=p))[0], zero)


def test_a_relative_length_is_that_of_the_gradient() -> None:
    (epsilon,) = step((torch.tensor([3.0, 4.0], dtype=FLOAT64),), OneSam(0.1, relative=True))
    torch.testing.assert_close(epsilon, torch.tensor([0.3, 0.4], dtype=FLOAT64))


# --- statistics


def test_the_rank_correlation_is_spearmans() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 8, 60).astype(float)  # with ties
    y = x + rng.normal(size=60)
    found, (low, high) = rank_correlation(x, y)
    assert found == pytest.approx(stats.spearmanr(x, y).statistic, rel=1e-12)
    assert -1 < low < found < high < 1


@pytest.mark.parametrize("sign", [1, -1])
def test_a_perfect_order_still_has_an_interval(sign: int) -> None:
    x = np.arange(30.0)
    found, (low, high) = rank_correlation(x, sign * x)
    assert found == pytest.approx(sign)
    inner, outer = (low, high) if sign > 0 else (high, low)
    assert outer == pytest.approx(sign)
    assert 0.9 < abs(inner) < 1


@pytest.mark.parametrize(
    ("x", "y"), [([1.0, 2, 3], [1.0, 2, 3]), ([1.0] * 9, list(range(9))), (list(range(9)), [2.0] * 9)]
)
def test_no_rank_correlation_of_too_few_or_of_what_does_not_vary(x: list[float], y: list[float]) -> None:
    found, interval = rank_correlation(np.array(x, dtype=float), np.array(y, dtype=float))
    assert math.isnan(found)
    assert all(math.isnan(end) for end in interval)


@pytest.mark.parametrize("n", [1, 5, 6, 17, 100])
def test_the_ends_of_a_medians_interval_are_order_statistics(n: int) -> None:
    values = np.random.default_rng(n).normal(size=n)
    found, (low, high) = median(values)
    assert found == np.median(values)
    if n < 6:
        assert math.isnan(low)
        assert math.isnan(high)
        return
    rank = int((values < low).sum())
    assert rank == (values > high).sum()
    outside = [2 * stats.binom.cdf(r, n, 0.5) for r in (rank, rank + 1)]
    assert outside[0] <= 0.05 < outside[1]  # the narrowest that is allowed


def test_the_area_counts_pairs() -> None:
    rng = np.random.default_rng(1)
    high, low = rng.integers(0, 6, 40).astype(float) + 1, rng.integers(0, 6, 30).astype(float)
    pairs = high[:, None] - low[None]
    found, (below, above) = area(high, low)
    assert found == pytest.approx((pairs > 0).mean() + 0.5 * (pairs == 0).mean(), rel=1e-12)
    assert below < found < above
    mirrored, ends = area(low, high)
    assert mirrored == pytest.approx(1 - found)
    assert ends == pytest.approx((1 - above, 1 - below), abs=1e-9)


def test_an_area_of_one_is_not_certain() -> None:
    found, (below, above) = area(np.arange(20.0) + 100, np.arange(10.0))
    assert (found, above) == (1.0, 1.0)
    assert 0.7 < below < 0.95


@pytest.mark.parametrize("sizes", [(0, 5), (5, 0)])
def test_no_area_of_an_empty_group(sizes: tuple[int, int]) -> None:
    assert math.isnan(area(np.arange(float(sizes[0])), np.arange(float(sizes[1])))[0])


def covered(draw: Callable[[np.random.Generator], tuple[tuple[float, float], float]], times: int) -> float:
    """How often an interval holds the truth."""
    hits = 0
    for seed in range(times):
        (low, high), truth = draw(np.random.default_rng(seed))
        hits += low <= truth <= high
    return hits / times


@pytest.mark.parametrize("times", [300, pytest.param(3000, marks=pytest.mark.long)])
def test_the_intervals_cover_what_they_say(times: int) -> None:
    def correlated(rng: np.random.Generator) -> tuple[tuple[float, float], float]:
        x = rng.normal(size=80)
        y = -0.6 * x + 0.8 * rng.normal(size=80)
        return rank_correlation(x, y)[1], 6 / math.pi * math.asin(-0.6 / 2)  # of normal pairs

    def skewed(rng: np.random.Generator) -> tuple[tuple[float, float], float]:
        return median(rng.exponential(size=31))[1], math.log(2)

    def separated(rng: np.random.Generator) -> tuple[tuple[float, float], float]:
        return area(rng.normal(2.0, size=60), rng.normal(size=25))[1], stats.norm.cdf(math.sqrt(2))

    allowed = 0.95 - 3 * math.sqrt(0.95 * 0.05 / times) - 0.005
    for draw in (correlated, skewed, separated):
        assert covered(draw, times) >= allowed, draw.__name__
