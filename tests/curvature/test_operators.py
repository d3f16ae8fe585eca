"""All operators against dense matrices from single examples, whatever the pieces, graphs and blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landscape.curvature.operators import OPERATORS, OperatorChoice, make_operator
from landscape.curvature.products import DataOperator
from landscape.curvature.strategy import Strategy
from landscape.errors import ComputationError, ConfigurationError
from landscape.linalg.operator import norm
from landscape.parameters import layers
from landscape.problem import Problem
from tests.curvature.naive import CASES, Naive, case, naive, pseudo_huber, regression
from tests.support.closed_form import FLOAT64, classification, generator
from tests.support.models import mlp


def operator(problem: Problem, name: str, size: int = 4, kept: int = 0, **options: Any) -> DataOperator:
    pieces = sum(1 for _ in problem.pieces(size))
    choice = OperatorChoice(name, **{k: v for k, v in options.items() if k not in ("gradient", "seed")})
    rest = {k: v for k, v in options.items() if k in ("gradient", "seed")}
    return make_operator(problem, Strategy(size, pieces, min(kept, pieces), 0), choice, **rest)


def matrix(problem: Problem, name: str, size: int = 4, kept: int = 0, **options: Any) -> Tensor:
    return operator(problem, name, size, kept, **options).apply(torch.eye(problem.size, dtype=problem.dtype))


def some_rows(problem: Problem, name: str, size: int, kept: int, **options: Any) -> tuple[Tensor, Tensor]:
    """(places of at most 50 rows, these rows of the matrix)."""
    rows = torch.randperm(problem.size, generator=generator(9))[:50]
    vectors = torch.eye(problem.size, dtype=FLOAT64)[rows]
    return rows, operator(problem, name, size, kept, **options).apply(vectors)


def close(found: Tensor, exact: Tensor, tolerance: float = 1e-10) -> bool:
    assert found.shape == exact.shape
    return norm(found - exact) <= tolerance * norm(exact)


EXACT: dict[str, Callable[[Naive], Tensor]] = {
    "hessian": Naive.hessian,
    "gauss-newton": Naive.gauss_newton,
    "empirical-fisher": Naive.empirical_fisher,
    "noise": Naive.noise,
}


@pytest.mark.parametrize("which", CASES)
@pytest.mark.parametrize("name", EXACT)
def test_dense_matrices(name: str, which: str) -> None:
    twin = case(which)
    exact = EXACT[name](twin)
    assert twin.problem.size <= 800
    for size, kept in ((1, 0), (4, 2), (100, 1)):
        rows, found = some_rows(twin.problem, name, size, kept)
        if norm(exact) < 1e-20:  # the noise of one example
            assert norm(found) <= 1e-20
        else:
            assert close(found, exact[rows])


@pytest.mark.parametrize("which", CASES)
def test_finite_differences(which: str) -> None:
    twin = case(which)
    exact = twin.hessian()
    curved = 1e3 if "tokens" in which else 1.0  # LayerNorm of embeddings of size 0.02
    for difference, tolerance in (("central", 1e-7), ("as-written", 1e-5)):
        rows, found = some_rows(twin.problem, "finite-difference", 4, 0, difference=difference)
        assert close(found, exact[rows], curved * tolerance)


def test_cases_are_what_they_should_be() -> None:
    """Tied and unused parameters, examples without terms, curvature of the model itself."""
    masked = case("masked tokens, tied")
    assert masked.problem.selection.tied
    assert len(masked.counted) == 5
    assert not close(masked.gauss_newton(), masked.hessian(), 1e-3)
    unused = case("unused and frozen")
    assert unused.problem.measure().unused
    assert unused.problem.selection.frozen
    assert case("restricted").problem.size == 21


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("which", ["cross-entropy, ragged", "masked tokens, tied"])
def test_kept_and_rebuilt_graphs_agree_bit_for_bit(name: str, which: str) -> None:
    problem = case(which).problem
    vectors = torch.randn(3, problem.size, generator=generator(), dtype=FLOAT64)
    reference = operator(problem, name, 2).apply(vectors)
    for kept in (0, 2, 100):
        each = operator(problem, name, 2, kept)
        first, again = each.apply(vectors), each.apply(vectors)
        each.release()
        assert all(torch.equal(reference, other) for other in (first, again, each.apply(vectors)))
        assert (each.products, each.passes) == (9, 3)


@pytest.mark.parametrize("name", OPERATORS)
def test_blocks_are_those_of_the_matrix(name: str) -> None:
    twin = case("unused and frozen")
    problem = Problem(twin.model, "cross_entropy", classification(17, 4, 3), weight_decay=0.25)
    whole, layout = matrix(problem, name), problem.selection.layout
    where = dict(layout.slices())
    parent = operator(problem, name, kept=2)
    for names in (["net.2.weight"], ["net.2.bias", "scale"], ["unused.weight"], layout.names):
        block = parent.block(names)
        rows = torch.cat([torch.arange(s.start, s.stop) for n, s in where.items() if n in names])
        found = block.apply(torch.eye(block.size, dtype=FLOAT64))
        assert block.names == tuple(n for n in layout.names if n in names)
        assert norm(found - whole[rows][:, rows]) <= (1e-8 if name == "finite-difference" else 1e-12)
        unit = torch.ones(block.size, dtype=FLOAT64) / block.size**0.5
        assert 0 <= block.error(unit) <= 1e-6
    assert parent.passes == 4
    for wrong in ([], ["net.0.weight"]):
        with pytest.raises(ConfigurationError, match="names of measured parameters"):
            parent.block(wrong)


@pytest.mark.parametrize("name", OPERATORS)
def test_a_block_differentiates_its_own_parameters_only(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    block = operator(case("cross-entropy, ragged").problem, name, kept=100).block(["2.bias"])
    block.apply(torch.ones(1, 3, dtype=FLOAT64))
    seen: list[int] = []
    plain = torch.autograd.grad

    def counting(outputs: Any, inputs: Any, *args: Any, **named: Any) -> Any:
        seen.append(1 if isinstance(inputs, Tensor) else len(inputs))
        return plain(outputs, inputs, *args, **named)

    monkeypatch.setattr(torch.autograd, "grad", counting)
    block.apply(torch.ones(1, 3, dtype=FLOAT64))
    assert seen
    assert max(seen) == 1


@pytest.mark.parametrize("name", OPERATORS)
def test_weight_decay(name: str) -> None:
    """It belongs to the loss, so to Hessian and Gauss–Newton; no example has it in its own loss."""
    data, model = classification(17, 4, 3), mlp(4, 6, 3).double()
    plain = matrix(Problem(model, "cross_entropy", data), name)
    problem = Problem(model, "cross_entropy", data, weight_decay=0.25)
    eye = torch.eye(problem.size, dtype=FLOAT64)
    expected = plain if name in ("fisher", "empirical-fisher", "noise") else plain + 0.25 * eye
    for gradient in (None, problem.measure().gradient):
        for difference in ("central", "as-written") if name == "finite-difference" else ("central",):
            found = matrix(problem, name, gradient=gradient, difference=difference)
            tolerance = 1e-12 if name != "finite-difference" else 1e-6
            assert close(found, expected, tolerance)


def test_semidefinite_ones_say_so() -> None:
    problem = case("cross-entropy, ragged").problem
    promised = {name: operator(problem, name).semidefinite for name in OPERATORS}
    assert [n for n, p in promised.items() if not p] == ["hessian", "finite-difference"]
    for name in ("gauss-newton", "fisher", "empirical-fisher", "noise"):
        values = torch.linalg.eigvalsh(matrix(problem, name))
        assert float(values[0]) >= -1e-15 * float(values[-1]) * problem.size


def test_a_loss_that_is_not_convex_in_the_outputs() -> None:
    def bounded(outputs: Tensor, y: Tensor) -> Tensor:
        return (1 - torch.exp(-(outputs - 3 * y).square())).mean()

    problem = Problem(mlp(4, 5, 2).double(), bounded, regression(), weight_decay=10.0)
    with pytest.raises(ComputationError, match="not convex in the model's output") as caught:
        matrix(problem, "gauss-newton")
    assert "--operator hessian" in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 5


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_null_vectors_are_no_breach_of_the_promise(dtype: str) -> None:
    """Rounding makes vᵀGv negative about every second time there."""
    x, y = classification(6, 4, 3)
    problem = Problem(mlp(4, 12, 3), "cross_entropy", (x, y), dtype=dtype)
    exact = naive(mlp(4, 12, 3), "cross_entropy", (x, y), F.cross_entropy).gauss_newton()
    null = torch.linalg.eigh(exact).eigenvectors.T[:80].to(problem.dtype)
    each = operator(problem, "gauss-newton", 2)
    products = each.apply(null)
    assert bool(((products * null).sum(1) < 0).any())
    assert norm(products) <= 1e-4


def test_a_linear_loss_has_a_zero_gauss_newton_matrix() -> None:
    x, y = regression()
    assert not matrix(Problem(mlp(4, 5, 2).double(), lambda o, _: o.mean(), (x, y)), "gauss-newton").any()


def test_negative_log_likelihood_is_cross_entropy_of_its_logits() -> None:
    data = classification(17, 4, 3)
    logits = mlp(4, 5, 3).double()
    weight = torch.tensor([0.5, 2.0, 1.0], dtype=FLOAT64)
    for options in ({}, {"weight": weight}, {"ignore_index": 1}):
        expected = matrix(Problem(logits, nn.CrossEntropyLoss(**options), data), "gauss-newton")  # type: ignore[arg-type]
        normalised = nn.Sequential(logits, nn.LogSoftmax(1))
        assert close(matrix(Problem(normalised, nn.NLLLoss(**options), data), "gauss-newton"), expected)  # type: ignore[arg-type]
    for name in ("gauss-newton", "fisher"):
        with pytest.raises(ConfigurationError, match="log-probabilities"):
            matrix(Problem(logits, "nll", data), name)


def whole_loss(model: nn.Module, batch: Any) -> Tensor:
    return pseudo_huber(model(batch["x"]), batch["y"])


def test_whole_losses() -> None:
    twin = case("callable")
    x, y = regression()
    problem = Problem(twin.model, whole_loss, {"x": x, "y": y})
    for name in ("hessian", "empirical-fisher", "noise"):
        assert close(matrix(problem, name, 5, 1), EXACT[name](twin))
    assert close(matrix(problem, "finite-difference"), twin.hessian(), 1e-7)
    for name, word in (("gauss-newton", "model, batch"), ("fisher", "likelihood")):
        with pytest.raises(ConfigurationError, match=word):
            operator(problem, name)


class TwoOutputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = mlp(4, 5, 2)

    def forward(self, x: Tensor) -> Any:
        return {"logits": self.net(x)}


def test_outputs_that_are_no_tensor() -> None:
    twin = case("callable")
    model = TwoOutputs()
    model.net.load_state_dict(twin.model.state_dict())
    problem = Problem(model.double(), lambda o, y: pseudo_huber(o["logits"], y), regression())
    for name in ("hessian", "empirical-fisher", "noise"):
        assert close(matrix(problem, name, 5), EXACT[name](twin))
    with pytest.raises(ConfigurationError, match="function of the model's output") as caught:
        matrix(problem, "gauss-newton")
    assert "a dict" in str(caught.value)


def test_counts_of_a_callable() -> None:
    """A count of terms by the user: here one term an element."""
    x, y = regression()
    model = mlp(4, 5, 2).double()
    counted = Problem(model, lambda o, t: ((o - t) ** 2).mean(), (x, y), count=lambda batch: batch[1].numel())
    for name in EXACT:
        assert close(matrix(counted, name), matrix(Problem(model, "mse", (x, y)), name))


def test_examples_without_terms_do_not_count() -> None:
    """A masked mean of the user's own, which is 0/0 where an example has no labels."""
    x, y = regression()
    kept = torch.arange(17) % 3 > 0
    targets = torch.cat([y, kept[:, None].double()], 1)

    def masked(outputs: Tensor, t: Tensor) -> Tensor:
        return ((outputs - t[:, :2]).square().sum(1) * t[:, 2]).sum() / t[:, 2].sum()

    model = mlp(4, 5, 2).double()
    problem = Problem(model, masked, (x, targets), count=lambda batch: float(batch[1][:, 2].sum()))
    others = naive(model, "mse", (x[kept], y[kept]), lambda o, t: (o - t).square().sum())
    for name in EXACT:
        for size in (1, 5, 17):
            assert close(matrix(problem, name, size), EXACT[name](others))


@pytest.mark.parametrize("which", ["cross-entropy, ragged", "masked tokens, tied"])
@pytest.mark.parametrize("name", ["gauss-newton", "fisher", "empirical-fisher", "noise"])
def test_the_error_claimed_for_float32_products(name: str, which: str) -> None:
    """At least what it is, at most a hundred times that; towards the top, where it is largest."""
    single = case(which).problem.in_dtype(torch.float32)
    double = case(which).problem
    vectors = torch.randn(2, single.size, generator=generator())
    ours, exact = operator(single, name, 8), operator(double, name, 100)
    for _ in range(3):
        vectors[1] = ours.apply(vectors[1:])[0]
        vectors /= vectors.norm(dim=1, keepdim=True)
    errors = ours.apply(vectors) - exact.apply(vectors.double())
    for vector, error in zip(vectors, errors, strict=True):
        assert norm(error) <= ours.error(vector) <= 100 * norm(error)
        claimed = exact.error(vector.double() / norm(vector))
        assert claimed == pytest.approx(ours.error(vector) * 2.0**-29, rel=1.0)


def test_layers_are_blocks_in_the_models_order() -> None:
    layout = case("unused and frozen").problem.selection.layout
    groups = layers(layout)
    assert groups == {
        "scale": ("scale",),
        "net.0": ("net.0.bias",),
        "net.2": ("net.2.weight", "net.2.bias"),
        "unused": ("unused.weight", "unused.bias"),
    }
    assert [name for names in groups.values() for name in names] == list(layout.names)


@pytest.mark.parametrize("name", ["fisher", "empirical-fisher", "noise"])
def test_train_mode_is_refused_where_examples_must_be_independent(name: str) -> None:
    problem = Problem(mlp(4, 5, 3).double(), "cross_entropy", classification(9, 4, 3), train_mode=True)
    with pytest.raises(ConfigurationError, match="gradient of each example"):
        operator(problem, name)


def test_gauss_newton_in_train_mode() -> None:
    """Batch statistics make the outputs one function of the weights; its Jacobian is what counts."""
    x, y = classification(9, 4, 3)
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3)).double()
    problem = Problem(model, "cross_entropy", (x, y), train_mode=True)
    layout = problem.selection.layout

    def outputs(w: Tensor) -> Tensor:
        named = dict(zip(layout.names, layout.split(w), strict=True))
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        found: Tensor = torch.func.functional_call(model.train(), {**named, **buffers}, (x,))
        return found

    weights = problem.selection.flat().requires_grad_()
    jacobian = torch.autograd.functional.jacobian(outputs, weights).reshape(27, -1)
    inner = torch.func.hessian(lambda o: F.cross_entropy(o, y))(outputs(weights).detach()).reshape(27, 27)
    assert close(matrix(problem, "gauss-newton"), jacobian.T @ inner @ jacobian)


def test_names_and_options_that_do_not_exist() -> None:
    problem = case("cross-entropy, ragged").problem
    for name, options, word in (
        ("kfac", {}, "kfac"),
        ("fisher", {"label_samples": 0}, "label-samples"),
        ("finite-difference", {"difference": "forward"}, "forward"),
    ):
        with pytest.raises(ConfigurationError, match=word):
            operator(problem, name, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_that_is_not_differentiable_says_so(name: str) -> None:
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x.sin()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors
            return grad * x.cos()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 5), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.second(Once.apply(self.first(x)))  # type: ignore[no-untyped-call]
            return out

    problem = Problem(Net().double(), "cross_entropy", classification(17, 4, 3))
    if name == "finite-difference":
        assert matrix(problem, name).any()
        return
    with pytest.raises(ComputationError, match="differentiable"):
        matrix(problem, name)


@pytest.mark.parametrize("name", OPERATORS)
def test_an_exception_midway_changes_nothing(name: str) -> None:
    class Failing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.calls, self.limit = mlp(4, 5, 3), 0, 10**9

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            if self.calls > self.limit:
                raise KeyboardInterrupt
            out: Tensor = self.net(x)
            return out

    model = Failing().double()
    model.net[0].weight.grad = torch.ones(5, 4, dtype=FLOAT64)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    random = torch.get_rng_state()
    problem = Problem(model, "cross_entropy", classification(17, 4, 3))
    each = operator(problem, name, kept=2)
    own = problem.selection.flat().clone()
    inner = problem.model
    inner.limit = inner.calls + 3  # type: ignore[assignment, operator]
    vectors = torch.ones(2, problem.size, dtype=FLOAT64)
    with pytest.raises(KeyboardInterrupt):
        each.apply(vectors)
    inner.limit = 10**9  # type: ignore[assignment]
    assert torch.equal(problem.selection.flat(), own)
    assert all(p.grad is None for p in inner.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(model.net[0].weight.grad, torch.ones(5, 4, dtype=FLOAT64))
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.equal(each.apply(vectors), operator(problem, name).apply(vectors))
