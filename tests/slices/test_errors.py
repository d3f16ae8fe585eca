"""Standard errors over the data: against the formula example by example, and against data drawn again."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landscape.problem import Problem
from landscape.slices.evaluate import Surface
from tests.slices.exact import directions_of, grid, moved
from tests.support.closed_form import FLOAT64, classification, generator, split_data
from tests.support.models import mlp, tiny_transformer, tokens

N = 60
POINTS = grid([-1.0, 0.5], [0.0, 2.0])
WEIGHT = torch.tensor([0.0, 1.0, 3.0], dtype=FLOAT64)


def ratio_error(d: np.ndarray, m: np.ndarray) -> float:
    """Cochran 1977, eq. 6.13 without the finite population's correction, written as a loop."""
    kept = [(float(a), float(b)) for a, b in zip(d, m, strict=True) if b > 0]
    n, mass = len(kept), sum(b for _, b in kept)
    ratio = sum(a for a, _ in kept) / mass
    spread = sum((a - ratio * b) ** 2 for a, b in kept) / (n - 1)
    return math.sqrt(n * spread) / mass


# --- single examples -----------------------------------------------------------------------------------


def padded() -> tuple[Tensor, Tensor]:
    x, y = tokens(8, 5, generator(1), vocabulary=12)
    y[torch.arange(5) >= torch.tensor([5, 3, 1, 5, 2, 0, 4, 4])[:, None]] = -100
    return x, y


def regression() -> tuple[Tensor, Tensor]:
    g = generator(2)
    return torch.randn(N, 4, generator=g, dtype=FLOAT64), torch.randn(N, 2, generator=g, dtype=FLOAT64)


def token_losses(outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return F.cross_entropy(outputs.flatten(0, 1), y.flatten(), reduction="sum"), (y != -100).sum()


def weighted(outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return -WEIGHT[y[0]] * outputs.log_softmax(1)[0, y[0]], WEIGHT[y[0]]


def squares(outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return (outputs - y).square().sum(), torch.tensor(y.numel())


#: Model, loss, data; (sum, terms) of an example.
CASES: dict[str, Callable[[], tuple[nn.Module, Any, tuple[Tensor, Tensor], Any]]] = {
    "plain": lambda: (
        mlp(4, 5, 3), "cross_entropy", classification(N, 4, 3),
        lambda o, y: (F.cross_entropy(o, y), torch.tensor(1)),
    ),
    "class weights, one of them zero": lambda: (
        mlp(4, 5, 3), nn.CrossEntropyLoss(weight=WEIGHT), classification(N, 4, 3), weighted,
    ),
    "tokens, of an example all masked": lambda: (tiny_transformer(), "cross_entropy", padded(), token_losses),
    "elements": lambda: (
        mlp(4, 5, 2), "mse", regression(), squares,
    ),
}  # fmt: skip


def by_example(model: nn.Module, data: tuple[Tensor, Tensor], each: Any) -> tuple[np.ndarray, np.ndarray]:
    """(sums, terms) of each example, the model called on it alone."""
    found = []
    for x, y in zip(*data, strict=True):
        value, terms = each(model(x[None]), y[None])
        found.append((float(value.detach()), float(terms)))
    s, m = np.array(found).T
    return s, m


@pytest.mark.parametrize("name", CASES)
def test_the_error_of_the_difference_example_by_example(name: str) -> None:
    model, loss, data, each = CASES[name]()
    problem = Problem(model.double(), loss, data, weight_decay=0.1)
    directions = directions_of(problem)
    before, m = by_example(problem.model, data, each)
    expected = []
    for point in POINTS:
        after, _ = by_example(moved(problem, directions, point), data, each)
        expected.append(ratio_error(after - before, m))
    assert min(expected) > 0
    for micro_batch in (problem.examples, 7):
        surface = Surface(problem, directions, micro_batch)
        assert surface.method == "paired differences of single examples"
        assert surface.centre[1] == pytest.approx(ratio_error(before, m), rel=1e-9)
        assert surface.row(POINTS)[:, 1] == pytest.approx(expected, rel=1e-9)
        assert surface.row([(0.0, 0.0)])[0, 1] == 0.0


def test_what_both_points_have_in_common_drops_out() -> None:
    """A bias that all examples see alike adds to each loss the same: the difference has no error."""
    x = torch.randn(N, 1, generator=generator(4), dtype=FLOAT64)

    class Shift(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shift = nn.Parameter(torch.zeros(1, dtype=FLOAT64))

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([10 * x[:, 0] + self.shift, 10 * x[:, 0]], 1)

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs[:, 0].mean()

    for given, bound in ((loss, 1e-7), (nn.L1Loss(), 1e-7)):
        targets = torch.full((N, 2), -1e3, dtype=FLOAT64)  # |outputs − targets| is linear there
        surface = Surface(Problem(Shift(), given, (x, targets)), torch.ones(1, 1, dtype=FLOAT64), 13)
        (found,) = surface.row([(5.0,)])
        assert found[0] - surface.centre[0] == pytest.approx(5.0 if given is loss else 2.5, rel=1e-12)
        assert surface.centre[1] > 0.3
        assert found[1] < bound * surface.centre[1]


# --- data drawn again ----------------------------------------------------------------------------------


def grouped(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets)


def whole(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


@pytest.mark.parametrize(
    ("loss", "low", "high"),
    [
        # Binomial of 400 draws at 0.95: ± 3 × 0.011.
        ("cross_entropy", 0.915, 0.983),
        (nn.CrossEntropyLoss(weight=torch.tensor([0.3, 1.0, 4.0])), 0.91, 0.983),
        # Of 20 groups Student's t has 19 degrees of freedom: 1.96 covers 93.5 %.
        (grouped, 0.895, 0.975),
        (whole, 0.895, 0.975),
    ],
    ids=["named", "weighted", "groups", "calls"],
)
def test_intervals_cover_the_difference(loss: Any, low: float, high: float) -> None:
    """Data sets drawn with replacement from a population whose own loss is the truth."""
    population = classification(700, 4, 3, seed=5)
    model = nn.Linear(4, 3).double()
    direction = directions_of(Problem(model, loss, population), 1)
    points = [(0.4,), (-2.0,)]
    truth = Surface(Problem(model, loss, population), direction, 700)
    exact = truth.row(points)[:, 0] - truth.centre[0]
    g, covered, centre = generator(11), np.zeros(2), 0
    draws, n = 400, 150
    for k in range(draws):
        rows = torch.randint(700, (n,), generator=g)
        x, y = population[0][rows], population[1][rows]
        order = y.argsort()  # sorted by class: it must not matter
        surface = Surface(Problem(model, loss, (x[order], y[order])), direction, 90, seed=k)
        found = surface.row(points)
        covered += np.abs(found[:, 0] - surface.centre[0] - exact) <= 1.96 * found[:, 1]
        centre += abs(surface.centre[0] - truth.centre[0]) <= 1.96 * surface.centre[1]
    for share in (*(covered / draws), centre / draws):
        assert low <= share <= high


# --- random groups -------------------------------------------------------------------------------------


def sorted_data(n: int) -> tuple[Tensor, Tensor]:
    """By class, whose losses are far apart."""
    x, y = classification(n, 4, 3)
    order = y.argsort()
    return x[order] + 3.0 * y[order][:, None], y[order]


@pytest.mark.parametrize("micro_batch", [400, 90])
@pytest.mark.parametrize("loss", [grouped, whole], ids=["groups", "calls"])
def test_groups_agree_with_single_examples_also_of_sorted_data(loss: Any, micro_batch: int) -> None:
    """Averaged over seeds: a variance from 20 groups is off by √(2/19) = 32 %, a mean of 80 by 3.6 %."""
    data = sorted_data(400)
    model = mlp(4, 5, 3).double()
    problem = Problem(model, loss, data)
    directions = directions_of(problem)
    exact = Surface(Problem(model, "cross_entropy", data), directions, 400).row(POINTS)
    found = [Surface(problem, directions, micro_batch, seed=seed).row(POINTS) for seed in range(80)]
    variances = np.mean([rows[:, 1] ** 2 for rows in found], axis=0)
    assert np.abs(variances / exact[:, 1] ** 2 - 1).max() < 0.15
    assert np.std([rows[0, 1] for rows in found]) > 0  # the seed draws the groups
    for rows in found:
        assert rows[:, 0] == pytest.approx(exact[:, 0], rel=1e-12)
    again = Surface(problem, directions, micro_batch, seed=3).row(POINTS)
    assert np.array_equal(again, found[3])


@pytest.mark.parametrize("streamed", [False, True])
def test_groups_of_single_examples_are_single_examples(streamed: bool) -> None:
    """Pieces of at most 20 examples: each is a group by itself, and the formula is the exact one."""
    data = sorted_data(70)
    masked = data[0], data[1].where(torch.arange(70) % 3 > 0, -100)
    model = mlp(4, 5, 3).double()
    given = _loader(masked) if streamed else masked
    options: dict[str, Any] = {"memory": 64} if streamed else {}
    problem = Problem(model, grouped, given, count=lambda b: float((b[1] != -100).sum()), **options)
    directions = directions_of(problem)
    exact = Surface(Problem(model, "cross_entropy", masked), directions, 70)
    found = Surface(problem, directions, 20)
    assert "20 random groups of examples in each piece" in found.method
    assert found.centre[:2] == pytest.approx(exact.centre[:2], rel=1e-10)
    assert found.row(POINTS)[:, :2] == pytest.approx(exact.row(POINTS)[:, :2], rel=1e-10)
    value, error = found.contrast(POINTS[:2], [1.0, -1.0])
    assert (value, error) == pytest.approx(exact.contrast(POINTS[:2], [1.0, -1.0]), rel=1e-10)


def _loader(data: tuple[Tensor, Tensor]) -> Any:
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data), batch_size=20)


def test_streamed_calls_are_taken_in_their_order() -> None:
    """Nothing can be drawn at random there, and that is said."""
    problem = Problem(mlp(4, 5, 3).double(), whole, _loader(classification(N, 4, 3)), memory=64)
    surface = Surface(problem, directions_of(problem), N)
    assert surface.method == "paired differences of pieces of the data, in the order they come in"
    assert (surface.row(POINTS)[:, 1] > 0).all()


# --- where there is none -------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["cross_entropy", grouped, whole])
def test_train_mode_says_why_not(loss: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)).double()
    problem = Problem(model, loss, classification(N, 4, 3), train_mode=True, batch_size=20)
    surface = Surface(problem, directions_of(problem), 7)
    assert surface.method == "not computed: in train mode the examples of a batch are not independent"
    assert np.isnan(surface.centre[1])
    assert np.isnan(surface.row(POINTS)[:, 1]).all()
    assert np.isfinite(surface.row(POINTS)[:, 0]).all()
    assert math.isnan(surface.contrast(POINTS[:1], [1.0])[1])


@pytest.mark.parametrize("loss", ["cross_entropy", grouped, whole])
def test_a_single_example_says_why_not(loss: Any) -> None:
    problem = Problem(mlp(4, 5, 3).double(), loss, classification(1, 4, 3))
    surface = Surface(problem, directions_of(problem), 7)
    assert surface.method == "not computed: a single example"
    assert np.isnan(surface.row(POINTS)[:, 1]).all()


def test_a_single_example_that_is_not_masked_says_why_not() -> None:
    x, y = classification(9, 4, 3)
    y[torch.arange(9) != 4] = -100
    model = mlp(4, 5, 3).double()
    directions = directions_of(Problem(model, "cross_entropy", (x, y)))
    surface = Surface(Problem(model, "cross_entropy", (x, y)), directions, 9)
    alone = Surface(Problem(model, "cross_entropy", (x[4:5], y[4:5])), directions, 9)
    assert surface.method == "not computed: a single example with terms"
    assert np.isnan(surface.centre[1])
    assert surface.row(POINTS)[:, 0] == pytest.approx(alone.row(POINTS)[:, 0], rel=1e-13)
    assert surface.contrast(POINTS[:1], [2.0])[0] == pytest.approx(2 * surface.row(POINTS)[0, 0], rel=1e-13)


@pytest.mark.long
def test_groups_of_one_piece_have_the_variance_of_single_examples() -> None:
    """Over many draws of the groups, that of N/(N − 1) with N examples: with N = 20 groups, 5 % more."""
    given = classification(200, 4, 3)
    problem = Problem(mlp(4, 5, 3).double(), grouped, given)
    directions = directions_of(problem, 1)
    single = Surface(Problem(mlp(4, 5, 3).double(), "cross_entropy", given), directions, 200)
    expected = single.row([(1.0,)])[0, 1] ** 2
    drawn = [Surface(problem, directions, 200, seed=s).row([(1.0,)])[0, 1] ** 2 for s in range(600)]
    assert np.mean(drawn) / expected == pytest.approx(1.0, abs=4 * np.std(drawn) / expected / 600**0.5)
    assert 4 * np.std(drawn) / expected / 600**0.5 < 0.055


# --- barriers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_a_contrast_example_by_example(name: str) -> None:
    """The barrier L(t) − (1 − t) L(0) − t L(1), and its error, on the same examples at all three."""
    model, loss, data, each = CASES[name]()
    problem = Problem(model.double(), loss, data, weight_decay=0.1)
    directions = directions_of(problem, 1)
    t, points = 0.3, [(0.3,), (0.0,), (1.0,)]
    coefficients = [1.0, t - 1.0, -t]
    parts = [by_example(moved(problem, directions, point), data, each) for point in points]
    d, m = sum(a * s for a, (s, _) in zip(coefficients, parts, strict=True)), parts[0][1]
    norms = [float((problem.selection.flat() + c * directions[0]).square().sum()) for (c,) in points]
    decay = 0.05 * sum(a * b for a, b in zip(coefficients, norms, strict=True))
    for micro_batch in (problem.examples, 7):
        surface = Surface(problem, directions, micro_batch)
        value, error = surface.contrast(points, coefficients)
        assert value == pytest.approx(d.sum() / m.sum() + decay, rel=1e-11)
        assert value == pytest.approx(float(coefficients @ surface.row(points)[:, 0]), rel=1e-11)
        assert error == pytest.approx(ratio_error(d, m), rel=1e-9)


def test_a_contrast_that_is_not_finite() -> None:
    problem = Problem(mlp(4, 5, 3).double(), "cross_entropy", split_data(classification(23, 4, 3), [20, 3]))
    surface = Surface(problem, directions_of(problem), 7)
    value, error = surface.contrast([(0.0, 0.0), (math.nan, 1.0)], [1.0, 1.0])
    assert math.isnan(value)
    assert math.isnan(error)
