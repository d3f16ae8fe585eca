"""Loss, gradient and Hessian are the data set's mean over its terms, however they fall into batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset

from landscape.linalg.operator import norm
from landscape.problem import Problem
from tests.support.closed_form import (
    FLOAT64,
    classification,
    dense_hessian,
    generator,
    matrix_of,
    operator_of,
    split_data,
)
from tests.support.models import mlp, tiny_transformer

SIZES = (5, 8, 3, 1, 6)  # 23 examples
N = sum(SIZES)


class Pairs(Dataset[tuple[Tensor, Tensor]]):
    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.x[index], self.y[index]


class Streamed:
    """Batches that can be read again, made as they are asked for."""

    def __init__(self, batches: list[Any]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)


def once(batches: list[Any]) -> Iterator[Any]:
    yield from batches


FORMS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "tensors": lambda x, y: (x, y),
    "list of arrays": lambda x, y: [x.numpy(), y.numpy()],
    "batches": lambda x, y: split_data((x, y), SIZES),
    "batches of arrays": lambda x, y: [(a.numpy(), b.numpy()) for a, b in split_data((x, y), SIZES)],
    "generator": lambda x, y: once(split_data((x, y), SIZES)),
    "iterable": lambda x, y: Streamed(split_data((x, y), SIZES)),
    "DataLoader": lambda x, y: DataLoader(TensorDataset(x, y), batch_size=4),
    "Dataset": lambda x, y: Pairs(x, y),
}


def check(
    model: nn.Module, loss: Any, data: Any, exact: Callable[[nn.Module], Tensor], **options: Any
) -> Problem:
    """Loss, gradient and 12 rows of the Hessian of ``data`` against ``exact(model)``, to rounding."""
    problem = Problem(model, loss, data, **options)
    rows = torch.linspace(0, problem.size - 1, 12).long()
    hessian = dense_hessian(problem.model, exact, rows=rows.tolist())
    value = exact(problem.model)
    gradient = torch.cat(
        [
            torch.zeros_like(p).reshape(-1) if g is None else g.reshape(-1)
            for p, g in zip(
                problem.selection.tensors,
                torch.autograd.grad(value, problem.selection.tensors, allow_unused=True),
                strict=True,
            )
        ]
    )
    for size in (None, 1, 4, 100):
        found = problem.measure(problem.pieces(size))
        assert found.loss == pytest.approx(float(value.detach()), rel=1e-13)
        assert norm(found.gradient - gradient) <= 1e-13 * norm(gradient)
        products = operator_of(problem, size).apply(torch.eye(problem.size, dtype=FLOAT64)[rows])
        assert norm(products - hessian) <= 1e-12 * norm(hessian)
    return problem


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_data(form: str) -> None:
    x, y = classification(N, 4, 3)
    model = mlp(4, 5, 3).double()
    problem = check(
        model, "cross_entropy", FORMS[form](x, y), lambda m: F.cross_entropy(m(x), y), memory=1 << 30
    )
    assert (problem.examples, problem.terms) == (N, N)
    same = Problem(model, "cross_entropy", (x, y))
    assert problem.data.fingerprint == same.data.fingerprint
    accuracy = problem.measure().accuracy
    assert accuracy == pytest.approx(float((model(x).argmax(1) == y).double().mean()))


@pytest.mark.parametrize("form", ["iterable", "DataLoader", "Dataset", "batches of arrays"])
def test_data_larger_than_memory_are_read_again(form: str) -> None:
    x, y = classification(N, 4, 3)
    data = FORMS[form](x, y)
    if form == "batches of arrays":
        data = Streamed(data)
    problem = check(
        mlp(4, 5, 3).double(), "cross_entropy", data, lambda m: F.cross_entropy(m(x), y), memory=64
    )
    assert problem.data.batches is None
    assert any("read again" in note for note in problem.notes)


def ragged_tokens() -> tuple[list[tuple[Tensor, Tensor]], Tensor, Tensor]:
    """Batches of sequences of unequal length, padded with −100; in one of them every target is ignored."""
    g = generator()
    batches = []
    for n, length in ((4, 6), (3, 3), (2, 5), (1, 2)):
        x, y = (torch.randint(12, (n, length), generator=g) for _ in range(2))
        lengths = torch.randint(1, length + 1, (n,), generator=g)
        y[torch.arange(length) >= lengths[:, None]] = -100
        batches.append((x, y))
    batches[2][1][:] = -100
    return batches, *(torch.cat([F.pad(b[i], (0, 6 - b[i].shape[1]), value=v) for b in batches])
                      for i, v in ((0, 0), (1, -100)))  # fmt: skip


def test_padded_targets_of_unequal_length() -> None:
    batches, x, y = ragged_tokens()

    def exact(model: nn.Module) -> Tensor:
        return F.cross_entropy(model(x).flatten(0, 1), y.flatten())

    model = tiny_transformer().double()
    problem = check(model, "cross_entropy", batches, exact)
    assert problem.terms == int((y != -100).sum())
    assert problem.examples == 10
    assert sum(piece.examples for piece in problem.pieces(4)) == 8  # the ignored batch has no terms

    def summed(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs.flatten(0, 1), targets.flatten())

    counted = check(model, summed, batches, exact, count=lambda batch: float((batch[1] != -100).sum()))
    assert counted.terms == problem.terms


def test_dict_batches_with_a_loss_of_the_model() -> None:
    batches, x, y = ragged_tokens()
    named = [{"ids": a, "labels": b, "step": 3} for a, b in batches]

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch["ids"]).flatten(0, 1), batch["labels"].flatten())

    check(
        tiny_transformer().double(),
        loss,
        named,
        lambda m: F.cross_entropy(m(x).flatten(0, 1), y.flatten()),
        count=lambda batch: float((batch["labels"] != -100).sum()),
    )


class Masked(nn.Module):
    """A model of two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp(4, 5, 3).double()

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        logits: Tensor = self.net(x * mask)
        return logits


def test_inputs_as_tuples_and_mappings() -> None:
    x, y = classification(N, 4, 3)
    mask = (torch.rand(N, 4, generator=generator()) < 0.7).double()
    for batches in (
        [((a, b), c) for a, b, c in split_data((x, mask, y), SIZES)],
        [({"x": a, "mask": b}, c) for a, b, c in split_data((x, mask, y), SIZES)],
    ):
        check(Masked(), "cross_entropy", batches, lambda m: F.cross_entropy(m(x, mask), y))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [torch.float32, FLOAT64])
def test_class_weights_and_ignored_labels(smoothing: float, dtype: torch.dtype) -> None:
    x, y = classification(N, 4, 3)
    y[::4] = 1
    y[3:9] = 7
    weight = torch.tensor([0.5, 2.0, 0.1 if smoothing else 0.0], dtype=dtype)
    loss = nn.CrossEntropyLoss(weight=weight, ignore_index=7, label_smoothing=smoothing)

    def exact(model: nn.Module) -> Tensor:
        return F.cross_entropy(model(x), y, weight.double(), ignore_index=7, label_smoothing=smoothing)

    problem = check(mlp(4, 5, 3).double(), loss, split_data((x, y), SIZES), exact)
    sums, terms = problem.loss.each(problem.model(x).detach(), y)  # type: ignore[misc]
    assert float(sums.sum() / terms.sum()) == pytest.approx(problem.measure().loss, rel=1e-13)
    assert loss.weight is weight
    assert loss.weight.dtype == dtype


def test_probability_targets() -> None:
    x, _ = classification(N, 4, 3)
    p = torch.softmax(torch.randn(N, 3, generator=generator(), dtype=FLOAT64), 1)
    problem = check(
        mlp(4, 5, 3).double(), "cross_entropy", split_data((x, p), SIZES), lambda m: F.cross_entropy(m(x), p)
    )
    assert problem.measure().accuracy is None
    check(
        mlp(4, 5, 3).double(),
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0])),
        (x, p),
        lambda m: F.cross_entropy(m(x), p, torch.tensor([1.0, 2.0, 3.0], dtype=FLOAT64)),
    )


def test_losses_over_elements() -> None:
    x = torch.randn(N, 4, generator=generator(), dtype=FLOAT64)
    t = torch.rand(N, 2, generator=generator(1), dtype=FLOAT64)
    weight = torch.tensor([2.0, 0.5])
    cases: list[tuple[Any, Callable[[Tensor], Tensor]]] = [
        ("mse", lambda out: ((out - t) ** 2).mean()),
        (F.mse_loss, lambda out: ((out - t) ** 2).mean()),
        (nn.HuberLoss(), lambda out: F.huber_loss(out, t)),
        ("bce_with_logits", lambda out: F.binary_cross_entropy_with_logits(out, t)),
        (
            nn.BCEWithLogitsLoss(pos_weight=weight),
            lambda out: F.binary_cross_entropy_with_logits(out, t, pos_weight=weight.double()),
        ),
    ]
    for loss, exact in cases:
        problem = check(mlp(4, 5, 2).double(), loss, split_data((x, t), SIZES), lambda m, e=exact: e(m(x)))
        assert problem.terms == 2 * N
        sums, terms = problem.loss.each(problem.model(x).detach(), t)  # type: ignore[misc]
        assert float(sums.sum() / terms.sum()) == pytest.approx(problem.measure().loss, rel=1e-13)


def test_nll_and_functions_of_torch_know_their_terms() -> None:
    x, y = classification(N, 4, 3)
    y[:4] = -100
    model = nn.Sequential(mlp(4, 5, 3), nn.LogSoftmax(1)).double()
    for loss in ("nll", F.nll_loss, nn.NLLLoss()):
        problem = check(model, loss, split_data((x, y), SIZES), lambda m: F.nll_loss(m(x), y))
        assert problem.terms == N - 4
    assert Problem(model, F.cross_entropy, (x, y)).terms == N - 4


def test_a_callable_without_count_is_a_mean_over_examples() -> None:
    x, y = classification(N, 4, 3)
    problem = check(
        mlp(4, 5, 3).double(),
        lambda out, t: (torch.logsumexp(out, 1) - out[torch.arange(len(t)), t]).mean(),
        split_data((x, y), SIZES),
        lambda m: F.cross_entropy(m(x), y),
    )
    assert problem.description["terms"] == "examples"


def test_label_dtypes_do_not_matter() -> None:
    x, y = classification(N, 4, 3)
    model = mlp(4, 5, 3).double()
    expected = Problem(model, "cross_entropy", (x, y)).measure().loss
    for labels in (y.int(), y.to(torch.uint8), y.numpy().astype(np.int16)):
        assert Problem(model, "cross_entropy", (x, labels)).measure().loss == expected


def test_a_random_subset_is_stated_and_reproducible() -> None:
    x, _ = classification(N, 4, 3)
    model = mlp(4, 5, 3).double()
    whole = [Problem(model, "mse", (x, x[:, :3]), samples=9, sample_seed=s) for s in (0, 0, 1)]
    prints = [problem.data.fingerprint for problem in whole]
    assert prints[0] == prints[1] != prints[2]
    batched = Problem(model, "mse", split_data((x, x[:, :3]), SIZES), samples=9)
    assert batched.data.fingerprint == prints[0]
    assert whole[0].examples == 9
    assert "random subset of 9 of 23" in whole[0].notes[0]
    rows = whole[0].data.batches[0][0]  # type: ignore[index]
    where = [int((x == row).all(1).nonzero()) for row in rows]
    assert where == sorted(where)
    assert "all 23 examples" in Problem(model, "mse", (x, x[:, :3]), samples=99).notes[0]


def test_unequal_batches_that_cannot_be_joined_keep_what_is_their_own() -> None:
    """A number beside the tensors that differs from batch to batch."""
    x = torch.randn(6, 2, generator=generator(), dtype=FLOAT64)
    batches = [{"x": x[:2], "power": 1}, {"x": x[2:], "power": 2}]
    model = nn.Linear(2, 1, bias=False).double()

    def loss(model: nn.Module, batch: dict[str, Any]) -> Tensor:
        return (model(batch["x"]) ** (2 * batch["power"])).mean()

    exact = (loss(model, batches[0]) * 2 + loss(model, batches[1]) * 4) / 6
    assert Problem(model, loss, batches).measure().loss == pytest.approx(float(exact.detach()), rel=1e-14)


def test_matrix_of_ragged_batches_is_symmetric() -> None:
    batches, _, _ = ragged_tokens()
    model = nn.Sequential(nn.Embedding(12, 3), nn.Tanh(), nn.Linear(3, 12)).double()
    matrix = matrix_of(Problem(model, "cross_entropy", batches))
    assert norm(matrix - matrix.T) <= 1e-14 * norm(matrix)
