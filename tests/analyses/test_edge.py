"""The edge of stability: gradient descent gets there, and the document's figure is right there alone."""

from __future__ import annotations

import contextlib
import io
import runpy
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import landscape
from landscape.problem import Problem
from landscape.results import EigenResult
from landscape_cli.console import Console
from landscape_cli.views.eigen import print_eigen

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits"


@pytest.fixture(scope="module")
def edge() -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLE / "edge.py"))


def figures(problem: Problem) -> EigenResult:
    options = {"k": 3, "seed": 0, "standard_errors": False}
    return landscape.eigen(problem, method="running-average", perturb="gradient", **options)


def printed(result: EigenResult) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        print_eigen(Console("eigen"), result)
    return out.getvalue()


def quotient(result: EigenResult) -> float:
    """‖v‖/λmax."""
    assert result.history is not None
    assert result.reference_eigenvalues is not None
    return float(result.history[-1] / result.reference_eigenvalues[0])


def assert_at_the_edge(problem: Problem, lr: float) -> None:
    found = figures(problem)
    assert found.status == "complete"
    assert found.reference_eigenvalues is not None
    assert found.gradient_share is not None
    assert 0.98 <= lr * found.reference_eigenvalues[0] / 2 <= 1.04
    assert 0.9 <= quotient(found) <= 1.1
    assert found.gradient_share > 0.8
    assert "within 10 % of λmax" in printed(found)


def assert_far_below(found: EigenResult) -> None:
    assert found.status == "complete"
    assert quotient(found) < 0.1
    assert "far below λmax" in printed(found)
    assert "not λmax" in printed(found)


def test_a_small_net_comes_to_the_edge(edge: dict[str, Any]) -> None:
    x, y = edge["data"](300)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: nn.Module = edge["network"](64, 16, 10)
    before = next(islice(edge["descent"](model, x, y, 0.2), 299, None))
    assert_far_below(figures(Problem(model, "mse", (x, y))))
    after = next(islice(edge["descent"](model, x, y, 1.0), 1699, None))
    assert after < before
    assert_at_the_edge(Problem(model, "mse", (x, y)), 1.0)


def test_after_training_with_mini_batches_the_figure_is_below_and_says_so() -> None:
    """The noise of the batches leaves the weights off the valley's floor: part of ‖Hu‖ is that."""
    found = figures(landscape.load_problem(EXAMPLE, EXAMPLE / "mlp-sgd.pt"))
    assert found.status == "complete"
    assert 0.5 < quotient(found) < 0.9
    assert "below λmax" in printed(found)
    assert "not λmax" in printed(found)


def test_the_script_saves_what_it_says(edge: dict[str, Any], tmp_path: Path) -> None:
    arguments = ["--out", tmp_path, "--steps", "50", "--save-every", "20"]
    subprocess.run([sys.executable, EXAMPLE / "edge.py", *arguments], check=True, capture_output=True)
    names = ["edge-step00020.pt", "edge-step00040.pt", "edge.pt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    saved = torch.load(tmp_path / "edge.pt", weights_only=True)
    assert (saved["step"], saved["metadata"]["learning_rate"]) == (50, 0.2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, _, (x, y) = edge["problem"]()
    next(islice(edge["descent"](model, x, y, 0.2), 49, None))
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(saved["state_dict"][name], weight, rtol=0, atol=1e-6)


@pytest.mark.long
def test_the_example_comes_to_the_edge(edge: dict[str, Any], tmp_path: Path) -> None:
    subprocess.run([sys.executable, EXAMPLE / "edge.py", "--out", tmp_path], check=True)
    for name in ("edge-step04000.pt", "edge-step08000.pt"):
        problem = landscape.load_problem(EXAMPLE, tmp_path / name, problem=str(EXAMPLE / "edge.py"))
        assert_far_below(figures(problem))
    assert_at_the_edge(
        landscape.load_problem(EXAMPLE, tmp_path / "edge.pt", problem=str(EXAMPLE / "edge.py")), 0.2
    )
