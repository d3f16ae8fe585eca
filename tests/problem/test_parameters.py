"""Tied once, unused zero, frozen left out; patterns restrict to a block."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landscape.errors import ConfigurationError
from landscape.linalg.operator import norm
from landscape.problem import Problem
from tests.support.closed_form import classification, dense_hessian, generator, matrix_of, operator_of
from tests.support.models import mlp, tiny_transformer, tokens


def lines(error: pytest.ExceptionInfo[BaseException]) -> int:
    return len(str(error.value).splitlines())


def test_tied_parameters_count_once() -> None:
    x, y = tokens(4, 5, generator(), vocabulary=12)
    tied, untied = tiny_transformer(tied=True).double(), tiny_transformer(tied=False).double()
    problem = Problem(tied, "cross_entropy", (x, y))
    assert problem.size == sum(p.numel() for p in tied.parameters())
    assert Problem(untied, "cross_entropy", (x, y)).size == problem.size + 96
    assert problem.selection.tied == 96
    assert "head.weight" not in problem.selection.layout.names
    rows = list(range(0, 96, 5))
    exact = dense_hessian(tied, lambda m: F.cross_entropy(m(x).flatten(0, 1), y.flatten()), rows=rows)
    eye = torch.eye(problem.size, dtype=torch.float64)[rows]
    assert norm(operator_of(problem, 3).apply(eye) - exact) <= 1e-12 * norm(exact)
    by_other_name = Problem(tied, "cross_entropy", (x, y), params=["head.*"])
    assert by_other_name.selection.layout.names == ("tokens.weight",)


class PartlyUsed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.idle, self.late = nn.Linear(3, 2), nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        """``late`` matters only for batches that hold an example with a large first entry."""
        h: Tensor = self.used(x)
        return h + self.late(x) * (x[:, :1] > 1) if bool((x[:, 0] > 1).any()) else h


def test_unused_parameters_get_zeros_and_are_named() -> None:
    x, y = classification(30, 3, 2)
    x[:12, 0].clamp_(max=1.0)  # the first pieces do not use ``late``
    x[20, 0] = 3.0
    model = PartlyUsed().double()
    problem = Problem(model, "cross_entropy", (x, y))
    evaluation, matrix = problem.measure(problem.pieces(4)), matrix_of(problem, 4, kept=2)
    assert evaluation.unused == ("idle.weight", "idle.bias")
    exact = dense_hessian(
        model, lambda m: F.cross_entropy(m(x) + 0 * sum(p.sum() for p in m.parameters()), y)
    )
    idle = [s for name, s in problem.selection.layout.slices() if name.startswith("idle")]
    for part in idle:
        assert not evaluation.gradient[part].any()
        assert not matrix[part].any()
        assert not matrix[:, part].any()
    assert norm(matrix - exact) <= 1e-13 * norm(exact)


def test_frozen_parameters_are_left_out() -> None:
    x, y = classification(20, 4, 3)
    model = mlp(4, 5, 3).double()
    model[0].requires_grad_(False)  # type: ignore[index]
    problem = Problem(model, "cross_entropy", (x, y))
    assert problem.selection.layout.names == ("2.weight", "2.bias")
    assert (problem.size, problem.selection.frozen, problem.selection.left_out) == (18, 25, 0)
    exact = dense_hessian(model, lambda m: F.cross_entropy(m(x), y), ["2.weight", "2.bias"])
    assert norm(matrix_of(problem, 7) - exact) <= 1e-13 * norm(exact)


@pytest.mark.parametrize("patterns", [["0.*"], ["*.weight"], ["2.bias", "0.weight"], ["?.bias"]])
def test_patterns_restrict_to_a_block(patterns: list[str]) -> None:
    x, y = classification(20, 4, 3)
    model = mlp(4, 5, 3).double()
    whole, part = (
        Problem(model, "cross_entropy", (x, y)),
        Problem(model, "cross_entropy", (x, y), params=patterns),
    )
    places = dict(whole.selection.layout.slices())
    rows = torch.cat([torch.arange(whole.size)[places[name]] for name in part.selection.layout.names])
    block = matrix_of(whole, 7)[rows][:, rows]
    assert norm(matrix_of(part, 7) - block) <= 1e-14 * norm(block)
    assert part.size + part.selection.left_out == whole.size
    assert torch.equal(part.measure().gradient, whole.measure().gradient[rows])
    assert part.measure().loss == whole.measure().loss


def test_pattern_errors_name_what_is_near() -> None:
    data = classification(5, 4, 3)
    model = mlp(4, 5, 3)
    with pytest.raises(ConfigurationError, match="matches no parameter") as caught:
        Problem(model, "cross_entropy", data, params=["2.wieght"])
    assert "2.weight" in str(caught.value)
    assert lines(caught) <= 5
    model[0].requires_grad_(False)  # type: ignore[index]
    with pytest.raises(ConfigurationError, match="frozen parameters only"):
        Problem(model, "cross_entropy", data, params=["0.*"])


def test_nothing_to_measure() -> None:
    data = classification(5, 4, 3)
    for model in (nn.Identity(), mlp(4, 5, 3).requires_grad_(False)):
        with pytest.raises(ConfigurationError, match="no trainable parameters") as caught:
            Problem(model, "cross_entropy", data)
        assert lines(caught) <= 5


def test_complex_parameters_are_refused_and_complex_buffers_kept() -> None:
    class Rotated(nn.Module):
        def __init__(self, trained: bool) -> None:
            super().__init__()
            phase = torch.exp(1j * torch.arange(4))
            if trained:
                self.phase = nn.Parameter(phase)
            else:
                self.register_buffer("phase", phase)
            self.head = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.head((x * self.phase).imag)
            return logits

    x, y = classification(5, 4, 3)
    with pytest.raises(ConfigurationError, match="complex parameters"):
        Problem(Rotated(True), "cross_entropy", (x, y))
    problem = Problem(Rotated(False), "cross_entropy", (x, y), dtype="float64")
    assert problem.model.phase.dtype == torch.complex128
    assert problem.measure().gradient.any()


def test_wrappers_are_taken_off() -> None:
    x, y = classification(8, 4, 3)
    model = mlp(4, 5, 3).double()
    expected = Problem(model, "cross_entropy", (x, y))
    for wrapped in (nn.DataParallel(model), torch.compile(model)):
        problem = Problem(wrapped, "cross_entropy", (x, y))  # type: ignore[arg-type]
        assert problem.selection.layout.names == expected.selection.layout.names
        assert torch.equal(matrix_of(problem, 3), matrix_of(expected, 3))
