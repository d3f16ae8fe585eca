"""Gradients example by example, against one backward pass for each example written out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landscape.errors import ConfigurationError
from landscape.problem import Problem
from landscape.sam.per_example import Example, per_example
from tests.support.closed_form import classification, generator
from tests.support.models import images, mlp, seeded, tiny_resnet, tiny_transformer, tokens

IGNORED = -100


def masked_tokens() -> tuple[Tensor, Tensor]:
    """Sequences of which some tokens, and one whole sequence, are masked."""
    x, y = tokens(5, 6, generator(1), vocabulary=12)
    y[0, :4] = IGNORED
    y[3] = IGNORED
    return x, y


def warm_resnet() -> nn.Module:
    """BatchNorm whose running statistics are not those of a fresh one."""
    model = tiny_resnet(seed=2)
    with torch.no_grad():
        model.train()(images(32, generator(5), size=8)[0])
    return model.eval()


class Unused(nn.Module):
    """A frozen, an unused and a shared parameter beside ordinary ones."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.unused = nn.Parameter(torch.ones(3))
        self.frozen = nn.Parameter(torch.full((4,), 0.5), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.second(torch.tanh(self.first(x)) + self.frozen)
        return hidden


def two_inputs() -> tuple[nn.Module, Any]:
    """Inputs by keyword."""

    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, left: Tensor, right: Tensor) -> Tensor:
            out: Tensor = self.layer(left * right)
            return out

    g = generator(4)
    inputs = {"left": torch.randn(6, 3, generator=g), "right": torch.randn(6, 3, generator=g)}
    return seeded(Sum, 0), [(inputs, torch.randint(2, (6,), generator=g))]


CASES: dict[str, Callable[[], tuple[nn.Module, Any, Any]]] = {
    "mlp": lambda: (mlp(4, 7, 3), "cross_entropy", classification(9, 4, 3)),
    "regression": lambda: (
        mlp(4, 7, 2),
        "mse",
        (torch.randn(5, 4, generator=generator(2)), torch.randn(5, 2, generator=generator(3))),
    ),
    "class weights": lambda: (
        mlp(4, 7, 3),
        nn.CrossEntropyLoss(torch.tensor([1.0, 0.5, 3.0]), label_smoothing=0.1),
        classification(9, 4, 3),
    ),
    "BatchNorm in eval mode": lambda: (
        warm_resnet(),
        "cross_entropy",
        images(4, generator(6), size=8),
    ),
    "masked tokens, tied": lambda: (tiny_transformer(), "cross_entropy", masked_tokens()),
    "frozen, tied and unused": lambda: (seeded(Unused, 1), "cross_entropy", classification(6, 4, 4)),
    "inputs by name": lambda: (
        two_inputs()[0],
        lambda outputs, targets: F.cross_entropy(outputs, targets),
        two_inputs()[1],
    ),
}


def naive(problem: Problem, x: Any, y: Tensor, loss: Callable[[Any, Tensor], Tensor]) -> list[Tensor]:
    """(loss, gradient) of each example: the model called on it alone, one backward pass."""
    rows = []
    for i in range(len(y)):
        one = {k: v[i : i + 1] for k, v in x.items()} if isinstance(x, dict) else x[i : i + 1]
        outputs = problem.model(**one) if isinstance(one, dict) else problem.model(one)
        value = loss(outputs, y[i : i + 1])
        parts = torch.autograd.grad(value, problem.selection.tensors, allow_unused=True)
        flat = [
            torch.zeros_like(p) if g is None else g
            for p, g in zip(problem.selection.tensors, parts, strict=True)
        ]
        rows.append(torch.cat([value.reshape(1), *(g.reshape(-1) for g in flat)]).detach())
    return rows


def summed(problem: Problem) -> Callable[[Any, Tensor], Tensor]:
    """The sum of an example's terms, by torch's own reduction."""
    module = problem.loss.module
    if isinstance(module, nn.CrossEntropyLoss):
        return lambda outputs, y: F.cross_entropy(
            outputs.movedim(-1, 1) if outputs.ndim == 3 else outputs,
            y,
            None if module.weight is None else module.weight.to(outputs),
            reduction="sum",
            label_smoothing=module.label_smoothing,
        )
    if isinstance(module, nn.MSELoss):
        return lambda outputs, y: F.mse_loss(outputs, y, reduction="sum")
    return lambda outputs, y: F.cross_entropy(outputs, y)


@pytest.mark.parametrize("vectorised", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_the_gradient_of_every_example(name: str, vectorised: bool) -> None:
    model, loss, data = CASES[name]()
    problem = Problem(model, loss, data, dtype="float64")
    of = per_example(problem, vectorised=None if vectorised else False)
    assert (of.vectorised, of.reason) == (vectorised, "")
    piece = next(problem.pieces())
    losses, gradients = of.gradients(piece)
    x, y = piece.batch
    wanted = torch.stack(naive(problem, x, y, summed(problem)))
    found = torch.cat([losses[:, None], *(g.reshape(len(y), -1) for g in gradients)], 1)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", CASES)
def test_they_add_up_to_the_gradient_over_the_data(name: str) -> None:
    model, loss, data = CASES[name]()
    problem = Problem(model, loss, data, dtype="float64")
    losses, gradients = per_example(problem).gradients(next(problem.pieces()))
    whole = problem.measure()
    assert float(losses.sum()) / problem.terms == pytest.approx(whole.loss, rel=1e-12)
    flat = torch.cat([g.sum(0).reshape(-1) for g in gradients]) / problem.terms
    torch.testing.assert_close(flat, whole.gradient, rtol=1e-12, atol=1e-13)


def test_only_the_parameters_that_are_measured() -> None:
    problem = Problem(mlp(4, 7, 3), "cross_entropy", classification(5, 4, 3), params=["2.*"])
    _, gradients = per_example(problem).gradients(next(problem.pieces()))
    assert [tuple(g.shape) for g in gradients] == [(5, 3, 7), (5, 3)]


def whole_loss(model: nn.Module, batch: Any) -> Tensor:
    x, y = batch
    return F.cross_entropy(model(x), y)


@pytest.mark.parametrize("vectorised", [None, False])
def test_a_loss_of_model_and_batch_has_gradients_but_no_outputs(vectorised: bool | None) -> None:
    data = classification(6, 4, 3)
    problem = Problem(mlp(4, 5, 3), whole_loss, data, dtype="float64")
    plain = Problem(mlp(4, 5, 3), "cross_entropy", data, dtype="float64")
    of = per_example(problem, vectorised)
    assert not of.separable
    found, wanted = (per_example(p, vectorised).gradients(next(p.pieces())) for p in (problem, plain))
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-14)


def test_a_count_of_terms_turns_the_mean_into_a_sum() -> None:
    """A callable's mean over unmasked tokens times their number is the sum; a fully masked one is nothing."""

    def mean(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs.movedim(-1, 1), targets, ignore_index=IGNORED)

    x, y = masked_tokens()
    problem = Problem(
        tiny_transformer(),
        mean,
        (x, y),
        count=lambda batch: float((batch[1] != IGNORED).sum()),
        dtype="float64",
    )
    known = Problem(tiny_transformer(), "cross_entropy", (x, y), dtype="float64")
    kept = torch.tensor([0, 1, 2, 4])
    found, wanted = (per_example(p).gradients(next(p.pieces())) for p in (problem, known))
    torch.testing.assert_close(found[0][kept], wanted[0][kept], rtol=1e-12, atol=1e-14)
    for one, other in zip(found[1], wanted[1], strict=True):
        torch.testing.assert_close(one[kept], other[kept], rtol=1e-11, atol=1e-14)


class Branching(nn.Module):
    """Control flow that depends on numbers, which cannot be vectorised."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.layer(x)
        return torch.stack([row if float(row.detach().sum()) > 0 else 2 * row for row in rows])


class OldFunction(torch.autograd.Function):
    """An autograd function of the old kind, which torch.func refuses altogether."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grads[0] * (x > 0)


class Old(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = OldFunction.apply(self.layer(x))
        return out


class Reluctant(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out.relu()


@pytest.mark.parametrize("build", [Branching, Old])
def test_what_cannot_be_vectorised_is_done_one_by_one_and_said(build: Callable[[], nn.Module]) -> None:
    data = classification(6, 4, 3)
    problem = Problem(seeded(build, 0), "cross_entropy", data, dtype="float64")
    of = per_example(problem)
    assert not of.vectorised
    assert "Error" in of.reason
    _, gradients = of.gradients(next(problem.pieces()))
    flat = torch.cat([g.sum(0).reshape(-1) for g in gradients]) / problem.terms
    torch.testing.assert_close(flat, problem.measure().gradient, rtol=1e-12, atol=1e-14)


def test_one_by_one_is_the_same_function() -> None:
    data = classification(6, 4, 3)
    old = Problem(seeded(Old, 0), "cross_entropy", data, dtype="float64")
    new = Problem(seeded(Reluctant, 0), "cross_entropy", data, dtype="float64")
    found, wanted = (per_example(p).gradients(next(p.pieces())) for p in (old, new))
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-14)


def test_running_out_of_memory_is_not_taken_for_a_model_that_cannot_be_vectorised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = Problem(mlp(4, 5, 3), "cross_entropy", classification(5, 4, 3))

    def full(self: Example, weights: Any) -> Any:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(Example, "at", full)
    with pytest.raises(torch.OutOfMemoryError):
        per_example(problem)


def test_train_mode_is_refused() -> None:
    problem = Problem(mlp(4, 5, 3), "cross_entropy", classification(5, 4, 3), train_mode=True)
    with pytest.raises(ConfigurationError, match="no gradient of its own"):
        per_example(problem)


def test_nothing_is_changed() -> None:
    model = warm_resnet()
    problem = Problem(model, "cross_entropy", images(3, generator(6), size=8))
    before = {name: tensor.clone() for name, tensor in problem.model.state_dict().items()}
    state = torch.random.get_rng_state()
    for vectorised in (None, False):
        per_example(problem, vectorised).gradients(next(problem.pieces()))
    assert all(torch.equal(before[name], tensor) for name, tensor in problem.model.state_dict().items())
    assert all(p.grad is None for p in problem.model.parameters())
    assert not problem.model.training
    assert torch.equal(state, torch.random.get_rng_state())


def test_labels_that_are_predicted_right() -> None:
    x, y = masked_tokens()
    problem = Problem(tiny_transformer(), "cross_entropy", (x, y), dtype="float64")
    piece = next(problem.pieces())

    def counted(example: Example) -> tuple[Tensor, ...]:
        point = example.at(example.weights)
        return point.hits, point.labels, point.terms

    hits, labels, terms = per_example(problem).over(piece, counted)
    predicted = problem.model(x).argmax(-1)
    assert hits.tolist() == ((predicted == y) & (y != IGNORED)).sum(1).tolist()
    assert labels.tolist() == (y != IGNORED).sum(1).tolist() == terms.tolist()
    accuracy = problem.measure().accuracy
    assert float(hits.sum() / labels.sum()) == pytest.approx(accuracy)
