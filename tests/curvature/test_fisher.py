"""The true Fisher: labels from the model's own distribution, seeded example by example."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landscape.curvature.likelihood import label_sampler
from landscape.errors import ConfigurationError
from landscape.linalg.operator import norm
from landscape.losses import resolve_loss
from landscape.problem import Problem
from tests.curvature.naive import IGNORED, Naive, case, log_probabilities, naive, regression
from tests.curvature.test_operators import matrix, operator
from tests.support.closed_form import FLOAT64, classification, generator
from tests.support.models import mlp


def nll_case() -> Naive:
    """Its Gauss–Newton matrix is that of cross-entropy, which its outputs are logits of, too."""
    data = classification(17, 4, 3)
    return naive(log_probabilities(), "nll", data, lambda o, y: F.cross_entropy(o, y, reduction="sum"))


def expected_matrix(name: str) -> tuple[Naive, Tensor]:
    """A problem, and the expectation of its Fisher matrix over the labels."""
    twin = nll_case() if name == "nll" else case(name)
    if name != "BCE":
        return twin, twin.gauss_newton()
    p = {id(x): twin.outputs(x)(twin.weights).detach() for x, _ in twin.counted}
    inner = [torch.diag(1 / (p[id(x)] * (1 - p[id(x)])).reshape(-1)) for x, _ in twin.counted]
    total = sum(j.T @ m @ j for j, m in zip(twin.jacobians, inner, strict=True))
    return twin, total / twin.counts.sum()  # type: ignore[operator, return-value]


@pytest.mark.parametrize(
    "name",
    ["cross-entropy, ragged", "masked tokens, tied", "squared error", "BCE with logits", "BCE", "nll"],
)
def test_the_mean_over_draws_is_the_gauss_newton_matrix(name: str) -> None:
    """400 draws: unbiased (means of two halves straddle it as their spread says), error as 1/√draws."""
    twin, exact = expected_matrix(name)
    direction = torch.randn(8, twin.problem.size, generator=generator(1), dtype=FLOAT64)
    forms = [
        ((matrix_times(twin.problem, direction, seed)) * direction).sum(1) for seed in range(40)
    ]  # 40 seeds of 10 draws
    each = torch.stack(forms)
    error = each.std(0) / len(each) ** 0.5
    truth = ((direction @ exact) * direction).sum(1)
    assert bool(((each.mean(0) - truth).abs() <= 4.5 * error).all())
    assert float((error / truth).max()) <= 0.1
    assert float((each[:, 0] - truth[0]).abs().min()) > 0


def matrix_times(problem: Problem, vectors: Tensor, seed: int) -> Tensor:
    return operator(problem, "fisher", 5, label_samples=10, seed=seed).apply(vectors)


def test_sampled_scores_by_hand() -> None:
    """Against outer products of gradients with the very labels that were drawn."""
    x, y = classification(17, 4, 3)
    model = mlp(4, 6, 3).double()
    problem = Problem(model, "cross_entropy", (x, y))
    sampler = label_sampler(problem.loss, 3, seed=7)
    exact = torch.zeros(problem.size, problem.size, dtype=FLOAT64)
    for labels in sampler.labels(model(x), y, 0):
        twin = naive(model, "cross_entropy", (x, labels), lambda o, t: F.cross_entropy(o, t, reduction="sum"))
        exact += twin.empirical_fisher() / 3
    found = matrix(problem, "fisher", 5, label_samples=3, seed=7)
    assert norm(found - exact) <= 1e-12 * norm(exact)


def test_labels_follow_the_models_distribution() -> None:
    """Counts within 4.5 standard deviations of their expectation; squares of MSE labels likewise."""
    make = generator(2)
    logits = torch.randn(2, 5, generator=make, dtype=FLOAT64)
    draws = 4000
    sampler = label_sampler(resolve_loss("cross_entropy"), draws, 0)
    drawn = torch.stack(list(sampler.labels(logits, torch.zeros(2, dtype=torch.int64), 0)))
    p = torch.softmax(logits, 1)
    share = F.one_hot(drawn, 5).double().mean(0)
    assert bool(((share - p).abs() <= 4.5 * (p * (1 - p) / draws).sqrt()).all())
    values = torch.randn(2, 3, generator=make, dtype=FLOAT64)
    normal = torch.stack(list(label_sampler(resolve_loss("mse"), draws, 0).labels(values, values, 0)))
    assert bool(((normal - values).mean(0).abs() <= 4.5 * (0.5 / draws) ** 0.5).all())
    assert bool(((normal - values).square().mean(0) - 0.5).abs().max() <= 4.5 * (2 * 0.25 / draws) ** 0.5)
    for name, probability in (("bce_with_logits", torch.sigmoid(values)), (nn.BCELoss(), values.sigmoid())):
        outputs = values if name == "bce_with_logits" else probability
        bits = torch.stack(list(label_sampler(resolve_loss(name), draws, 0).labels(outputs, values, 0)))
        assert set(bits.unique().tolist()) == {0.0, 1.0}
        spread = (probability * (1 - probability) / draws).sqrt()
        assert bool(((bits.mean(0) - probability).abs() <= 4.5 * spread).all())


def test_masked_labels_stay_masked() -> None:
    twin = case("masked tokens, tied")
    batch = next(twin.problem.pieces()).batch
    outputs = twin.model(batch[0])
    for labels in label_sampler(twin.problem.loss, 3, 0).labels(outputs, batch[1], 0):
        assert torch.equal(labels == IGNORED, batch[1] == IGNORED)
        assert labels.dtype == torch.int64


def test_draws_depend_on_seed_and_example_alone() -> None:
    x, y = classification(17, 4, 3)
    whole = Problem(mlp(4, 6, 3).double(), "cross_entropy", (x, y))
    batches = list(zip(x.split([7, 7, 3]), y.split([7, 7, 3]), strict=True))
    ragged = Problem(whole.model, "cross_entropy", batches)
    reference = matrix(whole, "fisher", 17, seed=3)
    for problem, size, kept in ((whole, 1, 0), (whole, 4, 2), (ragged, 5, 0), (ragged, 100, 1)):
        assert norm(matrix(problem, "fisher", size, kept, seed=3) - reference) <= 1e-13 * norm(reference)
    assert norm(matrix(whole, "fisher", 17, seed=4) - reference) > 0.01 * norm(reference)
    state = torch.get_rng_state()
    matrix(whole, "fisher", seed=3)
    assert torch.equal(state, torch.get_rng_state())


def test_examples_have_draws_of_their_own() -> None:
    """Equal examples get labels that differ."""
    zeros = torch.zeros(200, 4, dtype=FLOAT64)
    sampler = label_sampler(resolve_loss("cross_entropy"), 2, 0)
    first, second = sampler.labels(zeros, torch.zeros(200, dtype=torch.int64), 0)
    assert len(set(first.tolist())) == 4
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("loss", "targets", "word"),
    [
        (nn.CrossEntropyLoss(weight=torch.ones(3)), "labels", "weight"),
        (nn.CrossEntropyLoss(label_smoothing=0.1), "labels", "label_smoothing=0.1"),
        ("cross_entropy", "probabilities", "targets that are probabilities"),
        (nn.BCEWithLogitsLoss(pos_weight=torch.ones(3)), "probabilities", "pos_weight"),
        (nn.L1Loss(), "probabilities", "L1Loss"),
        (lambda outputs, y: F.cross_entropy(outputs, y), "labels", "lambda"),
    ],
)
def test_losses_that_are_no_likelihood(loss: Any, targets: str, word: str) -> None:
    x, y = classification(9, 4, 3)
    given = y if targets == "labels" else F.one_hot(y, 3).double()
    problem = Problem(mlp(4, 5, 3).double(), loss, (x, given))
    with pytest.raises(ConfigurationError, match="likelihood") as caught:
        matrix(problem, "fisher")
    assert word in str(caught.value)
    assert "gauss-newton" in str(caught.value)


def test_misshapen_targets_are_an_error_as_for_the_loss() -> None:
    x, y = regression()
    with pytest.raises(Exception, match="different shapes"):
        matrix(Problem(mlp(4, 5, 1).double(), "mse", (x, y[:, 0])), "fisher")
