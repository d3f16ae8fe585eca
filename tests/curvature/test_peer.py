"""pyhessian as a check: right where it says it is, whatever the loss, and nothing is changed by it."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn
from torch.nn import functional as F

from landscape.curvature.peer import PeerPairs, peer_density_note, peer_eigenpairs, peer_trace
from landscape.errors import ComputationError, ConfigurationError, Interrupted
from landscape.problem import Problem
from tests.problem.test_unchanged import everything, loader, user_model
from tests.support.closed_form import (
    FLOAT64,
    Product,
    classification,
    dense_hessian,
    generator,
    matrix_of,
    operator_of,
)
from tests.support.models import mlp, tiny_transformer, tokens

DIGITS = Path(__file__).parents[2] / "examples" / "digits"


def digits(net: str, examples: int, dtype: str | None = None, **options: Any) -> Problem:
    example = runpy.run_path(str(DIGITS / "problem.py"))
    model = example[net]()
    model.load_state_dict(torch.load(DIGITS / f"{net}-sgd.pt", weights_only=True)["state_dict"])
    return Problem(model.eval(), "cross_entropy", example["data"](), samples=examples, dtype=dtype, **options)


def small(**options: Any) -> Problem:
    return Problem(mlp(4, 5, 3).double(), "cross_entropy", classification(23, 4, 3), **options)


def largest(matrix: Tensor, k: int) -> np.ndarray:
    """The k eigenvalues largest in magnitude, algebraically descending."""
    values = torch.linalg.eigvalsh(matrix)
    kept = values[values.abs().argsort(descending=True)[:k]]
    return kept.sort(descending=True).values.numpy()


def tight(problem: Problem, k: int = 2, **options: Any) -> PeerPairs:
    return peer_eigenpairs(problem, k=k, tol=1e-10, max_iterations=1000, **options)


def check_against(matrix: Tensor, found: PeerPairs, rtol: float = 1e-5) -> None:
    """Values and vectors against the dense matrix; 1e-6 is what its own normalisation costs."""
    values = largest(matrix, len(found.values))
    assert np.allclose(found.values, values, rtol=rtol, atol=0)
    vectors = found.vectors
    assert vectors.dtype == FLOAT64
    assert torch.allclose(vectors @ vectors.T, torch.eye(len(vectors), dtype=FLOAT64), atol=1e-4)
    residuals = (vectors @ matrix - torch.from_numpy(found.values)[:, None] * vectors).norm(dim=1)
    assert bool((residuals <= 1e-4 * np.abs(values).max()).all())


def check_product(problem: Problem, micro_batch: int | None = None) -> PeerPairs:
    """Its first product: from a start vector drawn as it draws it, θ = vᵀHv and the vector Hv / ‖Hv‖.

    What is rounded is its draw, in float32, and the 1e-6 that its normalisation adds.
    """
    found = peer_eigenpairs(problem, max_iterations=1, seed=3, micro_batch=micro_batch)
    g = generator(3)
    v = torch.cat([torch.randn(shape, generator=g).reshape(-1) for shape in problem.selection.layout.shapes])
    v = v.double() / v.double().norm()
    hv = operator_of(problem).apply(v[None].to(problem.dtype))[0]
    assert abs(found.values[0] - float(v @ hv)) <= 1e-5 * float(hv.norm())
    assert torch.allclose(found.vectors[0], hv / hv.norm(), rtol=0, atol=1e-5)
    assert found.products == 1
    return found


def product_of(problem: Problem) -> LinearOperator:
    """A bare double backward through one graph of all the data."""
    (batch,) = problem.data.batches or ()
    weights = problem.selection.tensors
    loss = F.cross_entropy(problem.model(batch[0].to(problem.dtype)), batch[1])
    gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, weights, create_graph=True)])

    def matvec(v: np.ndarray) -> np.ndarray:
        parts = torch.autograd.grad(gradient, weights, torch.from_numpy(v.ravel()), retain_graph=True)
        return torch.cat([part.reshape(-1) for part in parts]).numpy()

    return LinearOperator((problem.size, problem.size), matvec=matvec, dtype=np.float64)


@pytest.mark.parametrize("net", ["mlp", "convnet"])
def test_agrees_with_arpack_on_the_digits_nets(net: str) -> None:
    """To its own tolerance; the convnet has BatchNorm, in eval mode."""
    found = peer_eigenpairs(digits(net, 60), k=3, tol=1e-4, max_iterations=500)
    assert found.converged.all()
    start = np.random.default_rng(0).standard_normal(found.vectors.shape[1])
    exact = eigsh(product_of(digits(net, 60, "float64")), 3, which="LM", v0=start, return_eigenvectors=False)
    assert np.allclose(found.values, np.sort(exact)[::-1], rtol=2e-3)
    assert found.products == found.each.sum() >= 6
    assert found.notes == ()


@pytest.mark.parametrize(
    ("net", "params"), [("mlp", ["4.*", "2.bias"]), ("convnet", ["2.*", "5.*", "*1.w*"])]
)
def test_restricted_parameters_against_the_dense_matrix(net: str, params: list[str]) -> None:
    problem = digits(net, 40, "float64", params=params)
    assert problem.size < problem.selection.left_out
    (batch,) = problem.data.batches or ()

    def loss(model: nn.Module) -> Tensor:
        return F.cross_entropy(model(batch[0].double()), batch[1])

    names = problem.selection.layout.names
    check_against(dense_hessian(problem.model, loss, names), tight(problem))


LOSSES: dict[str, tuple[Any, Any]] = {
    "cross_entropy": ("cross_entropy", None),
    "weighted": (nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 5.0], dtype=FLOAT64)), None),
    "mse": ("mse", lambda x, y: (x, F.one_hot(y, 3).double())),
    "bce": ("bce_with_logits", lambda x, y: (x, F.one_hot(y, 3).double())),
    "callable": (lambda outputs, targets: F.cross_entropy(outputs.square(), targets), None),
    "whole": (
        lambda model, batch: F.cross_entropy(model(batch["x"]), batch["y"]),
        lambda x, y: {"x": x, "y": y},
    ),
}


@pytest.mark.parametrize("micro_batch", [None, 8])
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_in_one_batch_and_in_ragged_ones(loss: str, micro_batch: int | None) -> None:
    function, change = LOSSES[loss]
    x, y = classification(23, 4, 3)
    problem = Problem(mlp(4, 5, 3).double(), function, change(x, y) if change else (x, y))
    found = check_product(problem, micro_batch)
    assert ("3 batches" in " ".join(found.notes)) == (micro_batch is not None)


@pytest.mark.parametrize("micro_batch", [None, 2])
def test_masked_tokens_and_tied_weights(micro_batch: int | None) -> None:
    x, y = tokens(5, 6, generator(), vocabulary=12)
    y[0, 2:], y[3] = -100, -100
    problem = Problem(tiny_transformer().double(), "cross_entropy", (x, y))
    assert problem.selection.tied > 0
    check_product(problem, micro_batch)


def test_batches_that_cannot_be_joined() -> None:
    """Sequences of unequal length stay apart, and each has its own number of terms."""
    x, y = tokens(4, 6, generator(), vocabulary=12)
    data = [(x[:3], y[:3]), (x[3:, :2], y[3:, :2])]
    problem = Problem(tiny_transformer().double(), "cross_entropy", data)
    assert "2 batches" in " ".join(check_product(problem).notes)


def test_unused_and_frozen_parameters_and_weight_decay() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.spare, self.used = nn.Linear(2, 2).double(), mlp(4, 5, 3).double()
            self.used[0].bias.requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.used(x)
            return logits

    for micro_batch in (None, 7):
        problem = Problem(Unused(), "cross_entropy", classification(23, 4, 3), weight_decay=0.25)
        check_product(problem, micro_batch)
        plain = Problem(Unused(), "cross_entropy", classification(23, 4, 3))
        found = check_product(plain, micro_batch)
        assert float(found.vectors[:, :6].abs().max()) == 0  # the spare layer
        assert float(found.vectors[:, 6:].abs().min()) > 0


def test_train_mode_is_the_problems() -> None:
    net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3)).double()
    problem = Problem(net, "cross_entropy", classification(23, 4, 3), train_mode=True, batch_size=12)
    found = check_product(problem)
    assert "train mode" in " ".join(found.notes)


def test_a_negative_value_is_found_and_told() -> None:
    """[[v², 2uv − y], [2uv − y, u²]] at u = v = 1, y = 5: 4 and −2."""
    half_mse = Problem(Product(1.0, 1.0).double(), lambda out, y: (out - y).square().mean() / 2, one_point())
    found = tight(half_mse, k=7)
    assert np.allclose(found.values, [4, -2], rtol=1e-5)
    assert "negative" in " ".join(found.notes)
    trace = peer_trace(half_mse)
    assert abs(trace.trace - 2) <= 6


def one_point() -> tuple[Tensor, Tensor]:
    return torch.ones(1, dtype=FLOAT64), torch.full((1,), 5.0, dtype=FLOAT64)


def test_what_it_does_not_resolve_is_told() -> None:
    tiny = Problem(mlp(4, 5, 3).double(), lambda o, y: 1e-9 * F.cross_entropy(o, y), classification(23, 4, 3))
    assert "1e-06" in " ".join(peer_eigenpairs(tiny).notes)
    stopped = short()
    assert not stopped.converged.any()
    assert stopped.each.tolist() == [10, 10]
    assert "2 of 2 pairs" in " ".join(stopped.notes)


def test_trace_against_the_dense_matrix() -> None:
    problem = small()
    exact = float(matrix_of(problem).trace())
    found = peer_trace(problem, tol=0, max_products=400)
    assert found.products == len(found.samples) == 400
    assert not found.converged
    assert abs(found.trace - exact) <= 4 * found.std_error <= 0.2 * exact
    several = peer_trace(problem, tol=0, max_products=10, micro_batch=8)
    assert np.allclose(several.samples, found.samples[:10], rtol=1e-6)
    early = peer_trace(problem)
    assert early.converged
    assert early.products < 100
    one = peer_trace(problem, max_products=1)
    assert np.isnan(one.std_error)


def test_a_negative_trace_stops_at_two_products() -> None:
    negative = Problem(mlp(4, 5, 3).double(), lambda o, y: -F.cross_entropy(o, y), classification(23, 4, 3))
    found = peer_trace(negative, tol=1e-12)
    assert found.products == 2
    assert "negative" in " ".join(found.notes)


def short(seed: int = 0) -> PeerPairs:
    return peer_eigenpairs(small(), k=2, tol=0, max_iterations=10, seed=seed)


def test_seeds_reproduce() -> None:
    first, again, other = (short(seed) for seed in (1, 1, 2))
    assert torch.equal(first.vectors, again.vectors)
    assert (first.values == again.values).all()
    assert not torch.equal(first.vectors, other.vectors)
    samples = [peer_trace(small(), seed=seed, tol=0, max_products=5).samples for seed in (1, 1, 2)]
    assert np.array_equal(samples[0], samples[1])
    assert not np.array_equal(samples[0], samples[2])


@pytest.mark.parametrize("micro_batch", [None, 8])
def test_nothing_is_changed_by_success_or_interruption(micro_batch: int | None) -> None:
    model = user_model()
    problem = Problem(model, "cross_entropy", loader())
    before, own = everything(model), everything(problem.model)
    calls: list[int] = []

    def stop(made: int) -> None:
        calls.append(made)
        if made == 1:
            raise Interrupted("enough")

    peer_eigenpairs(problem, k=2, max_iterations=5, micro_batch=micro_batch)
    peer_trace(problem, max_products=5, micro_batch=micro_batch)
    for run in (peer_eigenpairs, peer_trace):
        with pytest.raises(Interrupted):
            run(problem, tol=0, micro_batch=micro_batch, progress=stop)  # type: ignore[operator]
    assert calls == [0, 1] * 2
    assert everything(model) == before
    assert everything(problem.model) == own


@pytest.mark.parametrize("situation", [torch.no_grad, torch.inference_mode])
def test_where_gradients_are_off(situation: Any) -> None:
    expected = short()
    with situation():
        found = short()
    assert (found.values == expected.values).all()
    assert torch.equal(found.vectors, expected.vectors)


def test_density_does_not_run() -> None:
    """Where PyTorch has torch.eig no more; what is said is what happens."""
    state = torch.get_rng_state()
    note = peer_density_note.__wrapped__()
    assert torch.equal(torch.get_rng_state(), state)
    assert "torch.eig" in note
    assert len(note.splitlines()) == 1
    with pytest.raises(RuntimeError, match="removed"):
        torch.eig(torch.eye(2))  # type: ignore[operator]


def test_errors_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="k must be at least 1"):
        peer_eigenpairs(small(), k=0)
    with pytest.raises(ConfigurationError, match="tol"):
        peer_trace(small(), tol=float("nan"))
    infinite = Problem(
        mlp(4, 5, 3).double(), lambda o, y: o.square().sum().sqrt() * float("inf"), classification(9, 4, 3)
    )
    with pytest.raises(ComputationError, match="not finite"):
        peer_eigenpairs(infinite, max_iterations=3)
    monkeypatch.setitem(sys.modules, "pyhessian", None)
    with pytest.raises(ConfigurationError, match="pip install pyhessian"):
        peer_eigenpairs(small())


def test_an_operation_without_second_derivative() -> None:
    class First(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Any:
            return Second.apply(grad)

    class Second(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            raise RuntimeError("derivative is not implemented")

    problem = Problem(
        mlp(4, 5, 3).double(), lambda o, y: F.cross_entropy(First.apply(o), y), classification(9, 4, 3)
    )
    with pytest.raises(ComputationError, match=r"pyhessian .* failed"):
        peer_eigenpairs(problem)
