"""The loss of the next token: which tokens count, however they are batched, padded and labelled."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.data import DataLoader, Dataset, TensorDataset

import landscape
from landscape.errors import ConfigurationError, DataError, LandscapeError
from landscape.losses import resolve_loss
from landscape.sam.per_example import per_example
from tests.checkpoint.test_directory import gpt2, llama, seeded
from tests.support.closed_form import FLOAT64, generator

VOCABULARY = 11
MAKE: dict[str, Callable[..., nn.Module]] = {"gpt2": gpt2, "llama": llama}
#: How far float64 agrees with the library's own forward: Llama's norms go through float32 there.
ROUNDING = {"gpt2": 1e-12, "llama": 2e-6}


def tokens(examples: int, length: int, seed: int = 1) -> Tensor:
    return torch.randint(VOCABULARY, (examples, length), generator=generator(seed))


def masks(examples: int, length: int, seed: int = 2) -> Tensor:
    """Right padding of every length, one example whole and one of a single token."""
    lengths = torch.randint(1, length + 1, (examples,), generator=generator(seed))
    lengths[0], lengths[-1] = length, 1
    return (torch.arange(length) < lengths[:, None]).long()


def naive(
    model: nn.Module, sequences: list[list[int]], left_out: set[tuple[int, int]]
) -> tuple[float, int, int]:
    """(mean −log p, terms, right guesses), token after token in float64, each sequence alone and unpadded."""
    model = model.double().eval()
    total, terms, right = 0.0, 0, 0
    for number, sequence in enumerate(sequences):
        if len(sequence) < 2:
            continue
        with torch.no_grad():
            logits = model(torch.tensor([sequence])).logits[0]
        for place in range(1, len(sequence)):
            if (number, place) in left_out:
                continue
            row = logits[place - 1].tolist()
            total += float(torch.logsumexp(torch.tensor(row, dtype=FLOAT64), 0)) - row[sequence[place]]
            terms += 1
            right += row[sequence[place]] == max(row)
    return total / terms, terms, right


def unpadded(x: Tensor, mask: Tensor) -> list[list[int]]:
    return [row[seen != 0].tolist() for row, seen in zip(x, mask, strict=True)]


class Rows(Dataset[dict[str, Tensor]]):
    """Examples as the library's tokenizers give them: mappings."""

    def __init__(self, **columns: Tensor) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        return {name: column[row] for name, column in self.columns.items()}


@pytest.mark.parametrize("make", MAKE)
@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
def test_padded_and_ragged_batches_against_a_loop_over_tokens(make: str, batch_size: int) -> None:
    """Labels of -100 and padding add nothing; the mean is over the tokens of all batches together."""
    model = MAKE[make]()
    long, short = tokens(7, 9), tokens(4, 3, seed=3)
    mask = masks(7, 9)
    labels = long.masked_fill(mask == 0, -100)
    labels[0, 4], labels[2, 1] = -100, -100
    expected = naive(MAKE[make](), [*unpadded(long, mask), *short.tolist()], {(0, 4), (2, 1)})
    batches = [
        {"input_ids": long[:5], "attention_mask": mask[:5], "labels": labels[:5]},
        {"input_ids": long[5:], "attention_mask": mask[5:], "labels": labels[5:]},
        {"input_ids": short, "labels": short},
    ]
    problem = landscape.Problem(model, "causal_lm", batches, batch_size=batch_size, dtype="float64")
    found = problem.measure()
    assert problem.terms == expected[1]
    assert found.loss == pytest.approx(expected[0], rel=ROUNDING[make])
    assert found.accuracy == pytest.approx(expected[2] / expected[1])


@pytest.mark.parametrize("make", MAKE)
def test_one_batch_without_padding_is_the_library_s_own_loss(make: str) -> None:
    model, x = MAKE[make](), tokens(6, 8)
    own = model(input_ids=x, labels=x)
    found = landscape.Problem(model, "causal_lm", x).measure()
    assert found.loss == pytest.approx(own.loss.item(), rel=1e-6)
    names = [n for n, _ in model.named_parameters()]
    gradients = torch.autograd.grad(own.loss, [model.get_parameter(n) for n in names])
    assert torch.allclose(found.gradient.float(), torch.cat([g.flatten() for g in gradients]), atol=1e-5)


def test_every_way_to_give_the_data_is_the_same_problem() -> None:
    x, mask = tokens(6, 7), masks(6, 7)
    named = {"input_ids": x, "attention_mask": mask}
    labels = x.masked_fill(mask == 0, -100)
    ways: dict[str, Any] = {
        "mapping": {**named, "labels": labels},
        "no labels": named,
        "labels that count padding": {**named, "labels": x},
        "arrays": {name: column.numpy() for name, column in {**named, "labels": labels}.items()},
        "pairs": [(named, labels)],
        "data set": Rows(**named, labels=labels),
        "label": Rows(**named, label=labels),
        "loader": DataLoader(Rows(**named, labels=labels), batch_size=4),
        "batches": [{name: c[i : i + 2] for name, c in named.items()} for i in range(0, 6, 2)],
        "once": iter([{**named, "labels": labels}]),
        "transformers": transformers.BatchEncoding({**named, "labels": labels}),
        "tokens and labels": (x, labels),
        "small integers": {"input_ids": x.to(torch.uint8), "attention_mask": mask.bool()},
    }
    losses = {n: landscape.Problem(gpt2(), "causal_lm", way).measure().loss for n, way in ways.items()}
    assert losses == pytest.approx(dict.fromkeys(ways, losses["mapping"]), rel=1e-6)
    alone: list[Any] = [x, x.numpy(), (x,), TensorDataset(x), (x, x), x.to(torch.int32)]
    losses_alone = [landscape.Problem(gpt2(), "causal_lm", way).measure().loss for way in alone]
    assert losses_alone == pytest.approx([losses_alone[0]] * len(alone), rel=1e-6)
    assert abs(losses_alone[0] - losses["mapping"]) > 1e-3


def test_padding_on_the_left() -> None:
    """With the places told, a sequence padded on the left is worth what it is worth alone."""
    right, mask = tokens(5, 8), masks(5, 8)
    left, seen = torch.zeros_like(right), torch.zeros_like(mask)
    for row, n in enumerate(mask.sum(1).tolist()):
        left[row, 8 - n :], seen[row, 8 - n :] = right[row, :n], 1
    places = (seen.cumsum(1) - 1).clamp(min=0)
    expected = naive(gpt2(), unpadded(right, mask), set())
    batch = {"input_ids": left, "attention_mask": seen, "position_ids": places}
    found = landscape.Problem(gpt2(), "causal_lm", batch, dtype="float64")
    assert found.terms == expected[1]
    assert found.measure().loss == pytest.approx(expected[0], rel=1e-12)


def test_nothing_given_is_changed() -> None:
    x, mask = tokens(4, 5), masks(4, 5)
    batch = {"input_ids": x.to(torch.int32), "attention_mask": mask, "labels": x.clone()}
    before = {name: tensor.clone() for name, tensor in batch.items()}
    model = gpt2()
    landscape.Problem(model, "causal_lm", batch).measure()
    assert list(batch) == list(before)
    assert all(torch.equal(batch[n], before[n]) and batch[n].dtype == before[n].dtype for n in batch)
    assert not model._forward_hooks
    assert "logits" in model(x), "the user's model returns what it did"


def test_samples_are_chosen_among_examples() -> None:
    x, mask = tokens(30, 6), masks(30, 6)
    problem = landscape.Problem(
        gpt2(), "causal_lm", {"input_ids": x, "attention_mask": mask}, samples=7, dtype="float64"
    )
    rows = problem.data.rows
    assert rows is not None
    expected = naive(gpt2(), unpadded(x[rows], mask[rows]), set())
    assert (problem.examples, problem.terms) == (7, expected[1])
    assert problem.measure().loss == pytest.approx(expected[0], rel=1e-12)


# Curvature


def dense(model: nn.Module, chosen: list[str], x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(Hessian, Gauss-Newton matrix) of the mean over next tokens by some parameters, by definition."""
    model = model.double()
    shapes = [model.get_parameter(name).shape for name in chosen]
    centre = torch.cat([model.get_parameter(name).detach().flatten() for name in chosen])
    counted = labels[:, 1:] != -100
    targets = labels[:, 1:][counted]

    def logits(w: Tensor) -> Tensor:
        parts = w.split([shape.numel() for shape in shapes])
        named = {n: part.view(s) for n, part, s in zip(chosen, parts, shapes, strict=True)}
        found: Tensor = functional_call(model, named, (x,)).logits[:, :-1][counted]
        return found

    def loss(w: Tensor) -> Tensor:
        z = logits(w)
        return (z.logsumexp(1) - z.gather(1, targets[:, None])[:, 0]).mean()

    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        hessian = torch.autograd.functional.hessian(loss, centre)
        jacobian = torch.autograd.functional.jacobian(logits, centre)
        p = logits(centre).softmax(1).detach()
    middle = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    return hessian, torch.einsum("tcn,tcd,tdm->nm", jacobian, middle, jacobian) / len(targets)


@pytest.mark.parametrize("make", MAKE)
def test_eigenvalues_are_the_dense_matrices(make: str) -> None:
    """Of the tied embedding and the norms; the rest is frozen, so that dense matrices are quick."""
    x = tokens(4, 5)
    labels = x.masked_fill(torch.rand(4, 5, generator=generator(4)) < 0.3, -100)
    model = MAKE[make]()
    chosen = [name for name, _ in model.named_parameters() if re.search("norm|ln_f|embed_tokens|wte", name)]
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in chosen)
    matrices = dense(MAKE[make](), chosen, x, labels)
    problem = landscape.Problem(model, "causal_lm", (x, labels), dtype="float64", batch_size=3)
    assert problem.size == len(matrices[0])
    for operator, matrix in zip(("hessian", "gauss-newton"), matrices, strict=True):
        found = landscape.eigen(problem, k=3, operator=operator, seed=0, tol=1e-8)
        expected = torch.linalg.eigvalsh(matrix).flip(0)[:3].numpy()
        assert np.allclose(found.eigenvalues, expected, rtol=100 * ROUNDING[make]), operator


def test_float64_is_float64_all_through() -> None:
    """Llama's norms ask for float32: a difference quotient with a tiny step would show it, and does."""
    x, model = tokens(6, 7), llama()
    problem = landscape.Problem(model, "causal_lm", x, dtype="float64")
    (piece,), weights = problem.pieces(), [p.detach() for p in problem.selection.tensors]
    direction = [torch.randn(w.shape, generator=generator(8), dtype=FLOAT64) for w in weights]
    gradient = problem.selection.layout.split(problem.measure().gradient)
    slope = sum(float((d * g).sum()) for d, g in zip(direction, gradient, strict=True))
    with problem.arithmetic(), torch.no_grad():
        ends = [
            float(problem.mean_loss_at(piece, [w + h * d for w, d in zip(weights, direction, strict=True)]))
            for h in (1e-6, -1e-6)
        ]
    assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(slope, rel=1e-7)
    state = torch.tensor(1.0).float().dtype, torch.zeros(1, dtype=torch.float32).dtype
    assert state == (torch.float32, torch.float32), "and only in there"


def test_a_forward_that_fails_leaves_nothing_behind() -> None:
    problem = landscape.Problem(llama(), "causal_lm", tokens(3, 4) + 7, dtype="float64")
    for _ in range(2):
        with pytest.raises(LandscapeError):
            problem.measure()
    assert torch.ones(1).double().float().dtype == torch.float32


@pytest.mark.parametrize("make", MAKE)
def test_every_example_at_once_is_each_by_itself(make: str) -> None:
    """Vectorised per-example gradients, in float64 too."""
    x, mask = tokens(5, 6), masks(5, 6)
    data = {"input_ids": x, "attention_mask": mask}
    problem = landscape.Problem(MAKE[make](), "causal_lm", data, dtype="float64")
    whole = per_example(problem)
    (piece,) = problem.pieces()
    losses, parts = whole.gradients(piece)
    again, alone = per_example(problem, vectorised=False).gradients(piece)
    assert torch.allclose(losses, again, rtol=1e-10)
    assert all(torch.allclose(a, b, rtol=1e-8, atol=1e-12) for a, b in zip(parts, alone, strict=True))
    gradient = torch.cat([part.sum(0).flatten() for part in parts]) / problem.terms
    assert torch.allclose(gradient, problem.measure().gradient, rtol=1e-8, atol=1e-12)


def test_the_data_error_is_of_examples_with_their_numbers_of_tokens() -> None:
    """Per-example sums and terms, which every error over the data is made of."""
    x, mask = tokens(6, 7), masks(6, 7)
    problem = landscape.Problem(
        gpt2(), "causal_lm", {"input_ids": x, "attention_mask": mask}, dtype="float64"
    )
    (piece,) = problem.pieces()
    assert problem.loss.each is not None
    sums, terms = problem.loss.each(problem.outputs(piece), piece.batch[1])
    assert terms.tolist() == (mask.sum(1) - 1).tolist()
    for row in range(5):  # the last has a single token, so no term
        expected = naive(gpt2(), unpadded(x[row : row + 1], mask[row : row + 1]), set())
        assert float(sums[row].detach()) == pytest.approx(expected[0] * expected[1], rel=1e-12)


def test_sequence_classification() -> None:
    """Mappings with one label for each example, and cross_entropy of the logits."""
    config = transformers.GPT2Config(
        n_embd=8, n_layer=1, n_head=2, vocab_size=VOCABULARY, n_positions=16, num_labels=3,
        pad_token_id=0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = seeded(transformers.GPT2ForSequenceClassification(config))
    x, labels = tokens(10, 6).clamp(min=1), torch.randint(3, (10,), generator=generator(5))
    mask = masks(10, 6)
    x = x.masked_fill(mask == 0, 0)
    data = Rows(input_ids=x, attention_mask=mask, labels=labels)
    problem = landscape.Problem(model, "cross_entropy", DataLoader(data, batch_size=4))
    found = problem.measure()
    output = model(input_ids=x, attention_mask=mask, labels=labels)
    assert found.loss == pytest.approx(output.loss.item(), rel=1e-6)
    assert found.accuracy == float((output.logits.argmax(1) == labels).double().mean())
    assert (problem.examples, problem.terms) == (10, 10)


def test_a_loss_of_one_s_own_gets_what_the_model_returns() -> None:
    x = tokens(4, 5)

    def own(outputs: Any, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs.logits.flatten(0, 1), targets.flatten())

    def whole(model: nn.Module, batch: Any) -> Tensor:
        loss: Tensor = model(**batch).loss
        return loss

    batch = {"input_ids": x, "labels": x}
    found = landscape.Problem(gpt2(), own, batch).measure().loss
    with torch.no_grad():
        logits = gpt2()(x).logits
        expected = nn.functional.cross_entropy(logits.flatten(0, 1), x.flatten())
    assert found == pytest.approx(expected.item(), rel=1e-6)
    found = landscape.Problem(gpt2(), whole, batch).measure().loss
    assert found == pytest.approx(gpt2()(**batch).loss.item(), rel=1e-6)


# What is wrong


def base_model() -> nn.Module:
    model = gpt2()
    inner: nn.Module = model.get_submodule("transformer")
    return inner


X = tokens(4, 5)
WRONG: dict[str, tuple[Callable[[], tuple[nn.Module, Any]], type[LandscapeError], str]] = {
    "shifted already": (lambda: (gpt2(), (X[:, :-1], X[:, 1:])), DataError, "shifted already"),
    "shifted, with masks": (
        lambda: (gpt2(), (X[:, :-1], X[:, 1:].masked_fill(X[:, 1:] == 3, -100))), DataError, "already"),
    "shifted beyond the first batch": (
        lambda: (gpt2(), iter([(X, X), (X[:, :-1], X[:, 1:])])), DataError, "shifted already"),
    "one label an example": (lambda: (gpt2(), (X, X[:, 0])), DataError, r"tokens \(4, 5\).*labels \(4,\)"),
    "labels of another length": (lambda: (gpt2(), (X, X[:, 1:])), DataError, "alike in shape"),
    "numbers": (lambda: (gpt2(), X.float()), DataError, "integers"),
    "no tokens": (lambda: (gpt2(), {"x": X}), DataError, "tokens none"),
    "triples": (lambda: (gpt2(), [(X, X, X)]), DataError, "tuple of 3"),
    "single tokens": (lambda: (gpt2(), X[:, :1]), DataError, "no terms"),
    "nothing unmasked": (
        lambda: (gpt2(), {"input_ids": X, "attention_mask": 0 * X}), DataError, "no terms"),
    "labels beyond the vocabulary": (
        lambda: (gpt2(), (X, X + 3)), DataError, r"labels are out of range"),
    "no head": (lambda: (base_model(), X), ConfigurationError, "last_hidden_state"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said(case: str) -> None:
    make, kind, message = WRONG[case]
    model, data = make()
    with pytest.raises(kind, match=message) as caught:
        landscape.eigen(landscape.Problem(model, "causal_lm", data))
    assert len(str(caught.value).splitlines()) <= 5


def test_tokens_that_repeat_are_not_taken_for_shifted() -> None:
    x = torch.full((3, 4), 7)
    assert landscape.Problem(gpt2(), "causal_lm", (x, x)).terms == 9


def test_it_is_reported_by_its_name() -> None:
    loss = resolve_loss("causal_lm")
    assert (loss.name, loss.counting) == ("causal_lm", "next tokens that are not masked")
    assert landscape.Problem(gpt2(), "causal_lm", X).description["terms"] == loss.counting
