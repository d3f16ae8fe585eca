"""Loss and gradient at any weights, against a copy of the model that holds them, all data at once."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landscape.data import Piece
from landscape.errors import LandscapeError
from landscape.problem import Problem
from landscape.sam.passes import inner, loss_and_gradient, loss_at, norm, summed
from landscape.sam.perturbation import Perturbation, random_step
from tests.problem.test_unchanged import Fragile, everything, loader, user_model
from tests.support.closed_form import FLOAT64, classification, generator, split_data
from tests.support.models import mlp, tiny_resnet, tiny_transformer

SIZES = (5, 8, 3, 1, 6)  # 23 examples
N = sum(SIZES)


@dataclass(frozen=True)
class Case:
    """A problem, and its loss written out by hand for a model that holds the weights itself."""

    model: nn.Module
    loss: Any
    data: Any
    exact: Callable[[nn.Module], Tensor]
    options: dict[str, Any] = field(default_factory=dict)

    def problem(self) -> Problem:
        return Problem(self.model, self.loss, self.data, **self.options)

    def by_hand(self, problem: Problem, weights: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Loss and gradient of a copy whose parameters are set to ``weights``."""
        twin = copy.deepcopy(problem.model)
        at = [dict(twin.named_parameters())[name] for name in problem.selection.layout.names]
        for parameter, weight in zip(at, weights, strict=True):
            parameter.data = weight.detach().clone()
        loss = self.exact(twin)
        found = torch.autograd.grad(loss, at, allow_unused=True)
        return loss.detach(), [
            torch.zeros_like(p) if g is None else g for p, g in zip(at, found, strict=True)
        ]


def ragged() -> Case:
    x, y = classification(N, 4, 3)
    return Case(
        mlp(4, 5, 3).double(), "cross_entropy", split_data((x, y), SIZES), lambda m: F.cross_entropy(m(x), y)
    )


def masked(tied: bool = True) -> Case:
    """Sequences of unequal length whose padding counts for nothing; one batch has no terms at all."""
    g = generator()
    x, y = (torch.randint(12, (10, 6), generator=g) for _ in range(2))
    lengths = torch.tensor([6, 2, 1, 5, 3, 3, 1, 0, 0, 4])
    y[torch.arange(6) >= lengths[:, None]] = -100
    batches = split_data((x, y), (4, 3, 2, 1))
    batches[1] = tuple(t[:, :3] for t in batches[1])
    return Case(
        tiny_transformer(tied=tied).double(),
        "cross_entropy",
        batches,
        lambda m: F.cross_entropy(m(x).flatten(0, 1), y.flatten()),
    )


def whole_batches() -> Case:
    """``loss(model, batch)`` with a tied model, dict batches and a count of its own."""
    case = masked()
    named = [{"ids": x, "labels": y, "step": 3} for x, y in case.data]

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch["ids"]).flatten(0, 1), batch["labels"].flatten())

    count = {"count": lambda batch: float((batch["labels"] != -100).sum())}
    return Case(case.model, loss, named, case.exact, count)


class Partly(nn.Module):
    """A used and an unused layer, a frozen one, a scalar and an empty parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.unused = nn.Linear(4, 5), nn.Linear(4, 7)
        self.frozen, self.head = nn.Linear(5, 5).requires_grad_(False), nn.Linear(5, 3)
        self.scale, self.empty = nn.Parameter(torch.tensor(1.5)), nn.Parameter(torch.zeros(0, 3))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.scale * self.head(torch.tanh(self.frozen(self.first(x)))) + self.empty.sum()
        return logits


def partly(params: Sequence[str] = ()) -> Case:
    x, y = classification(N, 4, 3)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = Partly().double()
    exact = lambda m: F.cross_entropy(m(x), y)  # noqa: E731
    return Case(model, "cross_entropy", split_data((x, y), SIZES), exact, {"params": params})


def decayed() -> Case:
    case = partly()
    decay = 0.3

    def exact(model: nn.Module) -> Tensor:
        squares = [p.square().sum() for p in model.parameters() if p.requires_grad]
        return case.exact(model) + decay / 2 * torch.stack(squares).sum()

    return Case(case.model, case.loss, case.data, exact, {"weight_decay": decay})


def batch_norm(train: bool) -> Case:
    """In train mode a batch is normalised by itself; the last one is smaller."""
    g = generator()
    x, y = torch.randn(11, 3, 8, 8, generator=g, dtype=FLOAT64), torch.randint(10, (11,), generator=g)
    model = tiny_resnet().double()
    for name, buffer in model.named_buffers():
        if name.endswith(("mean", "var")):
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=g, dtype=FLOAT64))

    def exact(m: nn.Module) -> Tensor:
        parts = zip(x.split(4), y.split(4), strict=True) if train else [(x, y)]
        return torch.stack([F.cross_entropy(m(a), b, reduction="sum") for a, b in parts]).sum() / len(x)

    options = {"train_mode": True, "batch_size": 4} if train else {}
    return Case(model, "cross_entropy", (x, y), exact, options)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(2, 3, batch_first=True), nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        value: Tensor = self.head(self.lstm(x.view(len(x), 2, 2))[0][:, -1])
        return value


def recurrent() -> Case:
    x, _ = classification(N, 4, 3)
    y = x[:, :1].sin()
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = Recurrent().double()
    return Case(model, "mse", split_data((x, y), SIZES), lambda m: F.mse_loss(m(x), y))


CASES: dict[str, Callable[[], Case]] = {
    "ragged batches": ragged,
    "masked tokens, tied": masked,
    "masked tokens, untied": lambda: masked(tied=False),
    "loss(model, batch)": whole_batches,
    "unused, frozen, scalar, empty": partly,
    "some parameters": lambda: partly(("head.*", "unused.bias", "scale")),
    "weight decay": decayed,
    "BatchNorm": lambda: batch_norm(train=False),
    "BatchNorm in train mode": lambda: batch_norm(train=True),
    "recurrent": recurrent,
}


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradient_by_hand(name: str) -> None:
    """At the model's weights, near them and far away, in pieces of any size."""
    case = CASES[name]()
    problem = case.problem()
    own = list(problem.selection.tensors)
    for radius in (None, 0.1, 5.0):
        weights = own
        if radius is not None:
            step = random_step(own, radius, 0, "step")
            weights = [w.detach() + e for w, e in zip(own, step, strict=True)]
        loss, gradient = case.by_hand(problem, weights)
        for size in (None, 1, 4, 100):
            pieces = list(problem.pieces(size))
            found, parts = loss_and_gradient(problem, pieces, None if radius is None else weights)
            assert found == pytest.approx(float(loss), rel=1e-13)
            assert [(p.shape, p.dtype, p.requires_grad) for p in parts] == [
                (w.shape, FLOAT64, False) for w in own
            ]
            error = norm([a - b for a, b in zip(parts, gradient, strict=True)])
            assert error <= 1e-13 * norm(gradient)
            assert loss_at(problem, pieces, weights) == found


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_own_weights_given_or_not_are_the_same_bit_by_bit(name: str, dtype: str) -> None:
    """ρ = 0 must find every parameter in the class ``equal``."""
    case = CASES[name]()
    problem = Problem(case.model, case.loss, case.data, dtype=dtype, **case.options)
    pieces = list(problem.pieces(4))
    loss, gradient = loss_and_gradient(problem, pieces)
    for weights in (list(problem.selection.tensors), [w.detach().clone() for w in problem.selection.tensors]):
        again, same = loss_and_gradient(problem, pieces, weights)
        assert again == loss
        assert all(torch.equal(a, b) for a, b in zip(gradient, same, strict=True))
    measured = problem.measure(pieces)
    assert loss == pytest.approx(measured.loss, rel=1e-15)
    flat = torch.cat([part.reshape(-1) for part in gradient])
    assert torch.equal(flat, measured.gradient.to(problem.dtype))


@pytest.mark.parametrize("dtype", [torch.float32, FLOAT64])
def test_a_single_piece_is_the_backward_pass_as_it_is(dtype: torch.dtype) -> None:
    x, y = classification(N, 4, 3)
    model = mlp(4, 5, 3).to(dtype)
    problem = Problem(model, "cross_entropy", (x, y))
    loss = F.cross_entropy(model(x.to(dtype)), y)
    expected = torch.autograd.grad(loss, list(model.parameters()))
    found, gradient = loss_and_gradient(problem, problem.pieces())
    assert found == float(loss.detach())
    assert all(torch.equal(a, b) for a, b in zip(gradient, expected, strict=True))


def test_some_of_the_pieces_count_for_their_share() -> None:
    problem = ragged().problem()
    pieces = list(problem.pieces(4))
    loss, gradient = loss_and_gradient(problem, pieces)
    each = [loss_and_gradient(problem, [piece]) for piece in pieces]
    assert math.fsum(part for part, _ in each) == pytest.approx(loss, rel=1e-14)
    added = [sum(parts) for parts in zip(*(g for _, g in each), strict=True)]
    assert norm([a - b for a, b in zip(added, gradient, strict=True)]) <= 1e-14 * norm(gradient)
    single = Problem(ragged().model.float(), "cross_entropy", classification(N, 4, 3))
    piece = next(iter(single.pieces(4)))
    exact = single.measure([piece]).gradient.float()
    assert torch.equal(torch.cat([g.flatten() for g in loss_and_gradient(single, [piece])[1]]), exact)
    none, zeros = loss_and_gradient(problem, [])
    assert none == 0
    assert all(torch.equal(z, torch.zeros_like(w)) for z, w in zip(zeros, gradient, strict=True))


def test_sums_over_pieces_are_float64_whatever_the_model() -> None:
    """One large piece and many tiny ones: in float32 these would be lost."""
    x = torch.cat([torch.full((1, 1), 2.0**24), torch.ones(512, 1)])
    problem = Problem(nn.Linear(1, 1, bias=False), lambda out, t: (out * t).mean(), (x, torch.ones(513, 1)))
    _, (gradient,) = loss_and_gradient(problem, problem.pieces(1))
    exact = (2.0**24 + 512) / 513
    assert gradient.dtype == torch.float32
    assert float(gradient) == float(torch.tensor(exact))
    assert float(gradient) != float(torch.tensor(2.0**24 / 513))


def test_dropout_in_train_mode_is_one_function_of_the_weights() -> None:
    """The same masks at every weight: the gradient is that of the loss, by central differences."""
    x, y = classification(20, 4, 3)
    problem = Problem(Fragile().double(), "cross_entropy", (x, y), train_mode=True, batch_size=7)
    pieces = list(problem.pieces())
    own = [w.detach() for w in problem.selection.tensors]
    loss, gradient = loss_and_gradient(problem, pieces)
    assert loss_at(problem, pieces, own) == loss
    step = random_step(own, 1e-4, 0, "step")
    ahead, behind = (
        loss_at(problem, pieces, [w + s * e for w, e in zip(own, step, strict=True)]) for s in (1, -1)
    )
    assert (ahead - behind) / 2 == pytest.approx(inner(gradient, step), rel=1e-5)


def both(problem: Problem, pieces: Sequence[Piece]) -> tuple[float, ...]:
    """Everything that is done to a problem here: g, g' and the loss at perturbed weights."""
    own = list(problem.selection.tensors)
    loss, gradient = loss_and_gradient(problem, pieces)
    step = Perturbation(rho=0.1).steps(gradient, own, problem.selection.layout.names, 0.1)
    perturbed, other = loss_and_gradient(problem, pieces, step.moved())
    after = random_step(own, 0.1, 0, "step")
    moved = [w.detach() + e for w, e in zip(own, after, strict=True)]
    return loss, norm(gradient), perturbed, norm(other), loss_at(problem, pieces, moved)


@pytest.mark.parametrize("train_mode", [False, True])
@pytest.mark.parametrize("fatal", [0, *range(1, 10)])
def test_nothing_is_changed_whatever_happens(fatal: int, train_mode: bool) -> None:
    """Neither in the user's model nor in the problem's; also after an exception in any forward pass."""
    model = user_model()
    before = everything(model)
    problem = Problem(model, "cross_entropy", loader(), batch_size=8, train_mode=train_mode)
    problem.model.fatal, problem.model.calls = fatal, 0  # type: ignore[assignment]
    inside = everything(problem.model)
    pieces = list(problem.pieces())
    assert 3 * len(pieces) == 9
    if fatal:
        with pytest.raises(LandscapeError, match="had enough"):
            both(problem, pieces)
    else:
        assert all(math.isfinite(figure) for figure in both(problem, pieces))
    assert everything(model) == before
    assert everything(problem.model) == inside


def test_weights_that_were_given_are_not_changed() -> None:
    problem = partly().problem()
    weights = [w.detach().clone() for w in problem.selection.tensors]
    before = [(w.clone(), w._version) for w in weights]
    loss_and_gradient(problem, problem.pieces(4), weights)
    loss_at(problem, problem.pieces(4), weights)
    for w, (values, version) in zip(weights, before, strict=True):
        assert torch.equal(w, values)
        assert (w._version, w.requires_grad, w.grad) == (version, False, None)


@pytest.mark.parametrize(
    "situation",
    [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", dtype=torch.bfloat16)],
    ids=["no_grad", "inference_mode", "autocast"],
)
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_called_under(situation: Callable[[], Any], decay: float) -> None:
    """The same bit by bit, also where the perturbed weights are made in there."""
    x, y = classification(N, 4, 3)
    problem = Problem(mlp(4, 5, 3), "cross_entropy", (x, y), weight_decay=decay)
    pieces = list(problem.pieces(9))
    expected = both(problem, pieces)
    with situation():
        assert both(problem, pieces) == expected


def test_a_loss_that_overflows_comes_back_as_it_is() -> None:
    problem = ragged().problem()
    pieces = list(problem.pieces(4))
    for factor, expected in ((1e200, None), (1e308, math.inf), (math.inf, math.nan), (math.nan, math.nan)):
        weights = [w.detach() * factor for w in problem.selection.tensors]
        loss, gradient = loss_and_gradient(problem, pieces, weights)
        assert 1e199 < loss < math.inf if expected is None else loss == pytest.approx(expected, nan_ok=True)
        assert loss_at(problem, pieces, weights) == pytest.approx(loss, nan_ok=True)
        if math.isnan(factor):
            assert all(bool(part.isnan().all()) for part in gradient)
            assert math.isnan(norm(gradient))


def test_a_weight_decay_that_overflows_is_infinite() -> None:
    problem = Problem(nn.Linear(4, 3).double(), "cross_entropy", classification(N, 4, 3), weight_decay=1e-5)
    pieces = list(problem.pieces())
    for size, finite in ((1e150, True), (1.2e154, False), (1e200, False)):
        weights = [torch.full_like(w, size) for w in problem.selection.tensors]
        loss, gradient = loss_and_gradient(problem, pieces, weights)
        assert loss == loss_at(problem, pieces, weights)
        assert (loss == pytest.approx(1e-5 / 2 * 15 * size**2)) if finite else (loss == math.inf)
        assert norm(gradient) == pytest.approx(1e-5 * math.sqrt(15) * size)


def test_one_bad_example_is_enough() -> None:
    """An infinite input: the loss is not finite in one piece only, and in the sum."""
    x, y = classification(N, 4, 3)
    x[7, 2] = math.inf
    problem = Problem(nn.Linear(4, 3).double(), "cross_entropy", (x, y))
    loss, gradient = loss_and_gradient(problem, problem.pieces(4))
    assert math.isnan(loss)
    assert bool(gradient[0].isnan().any())


def test_inner_products() -> None:
    g = generator()
    left, right = ([torch.randn(s, generator=g, dtype=FLOAT64) for s in ((3, 2), (), (0,))] for _ in range(2))
    expected = sum(float((a * b).sum()) for a, b in zip(left, right, strict=True))
    assert inner(left, right) == pytest.approx(expected, rel=1e-15)
    single = torch.full((4,), 1e30)
    assert inner([single], [single]) == pytest.approx(4e60, rel=1e-6)
    one = torch.ones(1, dtype=FLOAT64)
    assert math.isnan(inner([one * math.inf, one], [one, -one * math.inf]))
    assert inner([one * 1e308, one * 1e308], [one, one]) == math.inf
    assert summed([1e16, 1.0, -1e16]) == 1.0
    with pytest.raises(ValueError, match="argument"):
        inner([one], [])
