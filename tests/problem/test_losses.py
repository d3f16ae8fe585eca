"""Summed losses of single examples against torch's own, also where they are computed the other way round."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landscape.losses import _across, resolve_loss
from tests.support.closed_form import FLOAT64, generator

N = 40


def logits(*shape: int, dtype: torch.dtype = FLOAT64) -> Tensor:
    return 3 * torch.randn(*shape, generator=generator(1), dtype=FLOAT64).to(dtype)


def labels(classes: int, *shape: int) -> Tensor:
    return torch.randint(classes, shape, generator=generator(2))


def sums(loss: nn.Module | str, outputs: Tensor, targets: Tensor) -> Tensor:
    resolved = resolve_loss(loss)
    assert resolved.sums is not None
    assert resolved.each is not None
    found = resolved.sums(outputs, targets)
    again, terms = resolved.each(outputs, targets)
    assert torch.equal(found, again)
    assert found.shape == terms.shape == (len(outputs),)
    assert float(found.sum() / terms.sum()) == pytest.approx(
        float(resolved.mean(outputs, targets)), rel=20 * torch.finfo(outputs.dtype).eps
    )
    return found


@pytest.mark.parametrize("dtype", [torch.float32, FLOAT64])
@pytest.mark.parametrize("classes", [1, 2, 10, 15, 16, 40])
@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_of_few_and_many_classes(
    classes: int, dtype: torch.dtype, weights: bool, smoothing: float
) -> None:
    """The softmax of fewer than 16 classes is taken across; nothing differs but rounding."""
    outputs, targets = logits(N, classes, dtype=dtype), labels(classes, N)
    targets[::7] = -100
    weight = torch.rand(classes, generator=generator(3), dtype=FLOAT64).to(dtype) + 0.1 if weights else None
    loss = nn.CrossEntropyLoss(weight=weight, label_smoothing=smoothing)
    assert _across(loss, outputs, targets) == (classes < 16)
    expected = F.cross_entropy(outputs, targets, weight, label_smoothing=smoothing, reduction="none")
    rounding = 8 * torch.finfo(dtype).eps
    assert torch.allclose(sums(loss, outputs, targets), expected, rtol=rounding, atol=rounding)
    assert not expected[::7].any()


@pytest.mark.parametrize("ignored", [-100, 0, 2])
def test_ignored_labels_are_zero(ignored: int) -> None:
    outputs, targets = logits(N, 4), labels(4, N)
    found = sums(nn.CrossEntropyLoss(ignore_index=ignored), outputs, targets)
    expected = F.cross_entropy(outputs, targets, ignore_index=ignored, reduction="none")
    assert torch.allclose(found, expected, rtol=1e-14)
    assert bool((found[targets == ignored] == 0).all())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_outputs_that_are_not_finite_stay_with_their_examples(value: float) -> None:
    outputs, targets = logits(N, 4, dtype=torch.float32), labels(4, N)
    outputs[5, 1], outputs[9], outputs[11, int(targets[11])] = value, value, value
    sums = resolve_loss("cross_entropy").sums
    assert sums is not None
    found, expected = sums(outputs, targets), _torch(outputs, targets)
    assert torch.equal(found.isfinite(), expected.isfinite())
    assert torch.equal(found.isnan(), expected.isnan())
    rest = [i for i in range(N) if i not in (5, 9, 11)]
    assert torch.allclose(found[rest], expected[rest], rtol=1e-6)


def _torch(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets, reduction="none")


def test_large_logits_do_not_overflow() -> None:
    outputs, targets = 1e4 * logits(N, 5, dtype=torch.float32), labels(5, N)
    assert torch.allclose(sums("cross_entropy", outputs, targets), _torch(outputs, targets), rtol=1e-6)
    assert bool(sums("cross_entropy", outputs, targets).isfinite().all())


def test_labels_of_other_integers_and_outputs_that_are_views() -> None:
    outputs, targets = logits(6, N).T, labels(6, N)
    assert not outputs.is_contiguous()
    for kind in (torch.uint8, torch.int16, torch.int32, torch.int64):
        assert torch.allclose(
            sums("cross_entropy", outputs, targets.to(kind)), _torch(outputs, targets), rtol=1e-13
        )
    assert torch.allclose(sums("cross_entropy", outputs[::3], targets[::3]), _torch(outputs, targets)[::3])
    assert sums("cross_entropy", outputs[:1], targets[:1]).shape == (1,)


def test_gradients_go_through() -> None:
    outputs, targets = logits(N, 3).requires_grad_(), labels(3, N)
    loss = resolve_loss("cross_entropy")
    assert loss.sums is not None
    (found,) = torch.autograd.grad(loss.sums(outputs, targets).sum(), outputs)
    (expected,) = torch.autograd.grad(_torch(outputs, targets).sum(), outputs)
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("shape", [(N, 5, 7), (N, 7, 5)], ids=["classes second", "classes last"])
def test_sequences(shape: tuple[int, ...]) -> None:
    """Of 5 classes at 7 places: an example's sum is over its places, those masked left out."""
    outputs, targets = logits(*shape), labels(5, N, 7)
    targets[:, 4:] = -100
    second = outputs if shape[1] == 5 else outputs.movedim(-1, 1)
    expected = F.cross_entropy(second, targets, reduction="none").sum(1)
    assert torch.allclose(sums("cross_entropy", outputs, targets), expected, rtol=1e-13)


def test_probabilities_as_targets() -> None:
    outputs, targets = logits(N, 5), logits(N, 5).softmax(1)
    assert not _across(nn.CrossEntropyLoss(), outputs, targets)
    expected = F.cross_entropy(outputs, targets, reduction="none")
    assert torch.allclose(sums("cross_entropy", outputs, targets), expected, rtol=1e-13)


def test_log_likelihoods() -> None:
    outputs, targets = logits(N, 5).log_softmax(1), labels(5, N)
    assert not _across(nn.NLLLoss(), outputs, targets)
    weight = torch.rand(5, generator=generator(3), dtype=FLOAT64)
    for loss in (nn.NLLLoss(), nn.NLLLoss(weight=weight, ignore_index=1)):
        expected = F.nll_loss(outputs, targets, loss.weight, ignore_index=loss.ignore_index, reduction="none")
        assert torch.allclose(sums(loss, outputs, targets), expected, rtol=1e-13)


ELEMENTWISE = (nn.MSELoss, nn.L1Loss, nn.HuberLoss, nn.SmoothL1Loss, nn.BCEWithLogitsLoss, nn.PoissonNLLLoss)


@pytest.mark.parametrize(("kind", "shape"), [*itertools.product(ELEMENTWISE, [(N,), (N, 3), (N, 3, 2)])])
def test_elements(kind: type[nn.Module], shape: tuple[int, ...]) -> None:
    outputs, targets = logits(*shape), labels(2, *shape)
    expected = kind(reduction="none")(outputs, targets.double()).reshape(N, -1).sum(1)
    assert torch.allclose(sums(kind(), outputs, targets), expected, rtol=1e-13)
