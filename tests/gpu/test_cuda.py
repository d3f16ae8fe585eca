"""The same figures on a GPU: run with ``pytest -m gpu`` where there is one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import landscape
from landscape.slices import batched
from landscape.slices import evaluate as surface
from tests.support.models import images, mlp, tiny_resnet, tiny_transformer, tokens

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


class Recurrent(nn.Module):
    """An LSTM whose last state is classified: cuDNN's cannot be differentiated twice."""

    def __init__(self) -> None:
        super().__init__()
        self.cells, self.head = nn.LSTM(5, 7, batch_first=True), nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.cells(x)[0][:, -1])
        return logits


def cases() -> dict[str, tuple[nn.Module, tuple[Tensor, Tensor]]]:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(70, 4, generator=generator), torch.randint(3, (70,), generator=generator)
    series = torch.randn(70, 6, 5, generator=generator)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        recurrent = Recurrent()
    return {
        "mlp": (mlp(4, 6, 3), (x, y)),
        "resnet": (tiny_resnet(), images(20, generator, size=8)),
        "transformer": (tiny_transformer(), tokens(20, 5, generator, vocabulary=12)),
        "lstm": (recurrent, (series, y)),
    }


@pytest.mark.parametrize("name", ["mlp", "resnet", "transformer", "lstm"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_figures_are_those_of_the_cpu(name: str, dtype: str) -> None:
    model, data = cases()[name]
    results = [
        landscape.eigen(
            landscape.Problem(model, "cross_entropy", data, device=device, dtype=dtype), k=3, seed=0, tol=1e-6
        )
        for device in ("cpu", "cuda")
    ]
    cpu, cuda = results
    assert cuda.loss == pytest.approx(cpu.loss, rel=1e-5)
    np.testing.assert_allclose(cuda.eigenvalues, cpu.eigenvalues, rtol=1e-4 if dtype == "float32" else 1e-9)
    assert (cuda.intervals[:, 0] <= cpu.intervals[:, 1]).all()
    assert (cpu.intervals[:, 0] <= cuda.intervals[:, 1]).all()
    allowed = np.maximum(1e-3 * np.ma.getdata(cpu.standard_errors), 1e-9)
    assert (np.abs(np.ma.getdata(cuda.standard_errors - cpu.standard_errors)) <= allowed).all()


def test_precision_switches_are_as_before() -> None:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    model, data = cases()["resnet"]
    landscape.eigen(landscape.Problem(model, "cross_entropy", data, device="cuda"), k=1, seed=0)
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before


@pytest.mark.parametrize(
    "operator", ["gauss-newton", "fisher", "empirical-fisher", "noise", "finite-difference"]
)
def test_other_matrices_are_those_of_the_cpu(operator: str) -> None:
    model, data = cases()["mlp"]
    cpu, cuda = (
        landscape.eigen(
            landscape.Problem(model, "cross_entropy", data, device=device, dtype="float64"),
            operator=operator,
            k=3,
            seed=0,
        )
        for device in ("cpu", "cuda")
    )
    np.testing.assert_allclose(cuda.eigenvalues, cpu.eigenvalues, rtol=1e-4)


@pytest.mark.parametrize("method", ["power", "running-average", "dense", "pyhessian"])
def test_other_methods_run_there(method: str) -> None:
    model, data = cases()["mlp"]
    cpu, cuda = (
        landscape.eigen(
            landscape.Problem(model, "cross_entropy", data, device=device), method=method, k=1, seed=0
        )
        for device in ("cpu", "cuda")
    )
    np.testing.assert_allclose(cuda.eigenvalues, cpu.eigenvalues, rtol=1e-2)


@pytest.mark.parametrize("method", ["krylov", "hutchinson", "hutch++", "xtrace"])
def test_traces_and_densities_are_those_of_the_cpu(method: str) -> None:
    model, data = cases()["mlp"]
    problems = [
        landscape.Problem(model, "cross_entropy", data, device=device, dtype="float64")
        for device in ("cpu", "cuda")
    ]
    cpu, cuda = (landscape.trace(p, method=method, tol=0.0, max_products=30, seed=0) for p in problems)
    assert cuda.trace == pytest.approx(cpu.trace, rel=1e-6)
    first, second = (landscape.density(p, steps=20, per_layer=True, seed=0) for p in problems)
    assert second.trace == pytest.approx(first.trace, rel=1e-6)


@pytest.mark.parametrize("name", ["mlp", "resnet", "transformer", "lstm"])
def test_the_geometry_of_sam_is_that_of_the_cpu(name: str) -> None:
    """Classes of ratios, sharpness and weights of examples, in float64."""
    model, data = cases()[name]
    problems = [
        landscape.Problem(model, "cross_entropy", data, device=device, dtype="float64")
        for device in ("cpu", "cuda")
    ]
    cpu, cuda = (landscape.ratios(problem, seed=0) for problem in problems)
    moved = np.abs(cpu.counts - cuda.counts).sum() / 2
    assert moved <= (cpu.uncertain.sum() + cuda.uncertain.sum()) * cpu.parameters
    assert cuda.cosine == pytest.approx(cpu.cosine, rel=1e-9)
    cpu_random, cuda_random = (landscape.ratios(problem, seed=0, perturb="random") for problem in problems)
    assert cuda_random.cosine == pytest.approx(cpu_random.cosine, rel=1e-9)
    rises = [landscape.sharpness(problem, seed=0, expansion=False).increase for problem in problems]
    assert rises[1] == pytest.approx(rises[0], rel=1e-8)
    weights = [landscape.reweight(problem, seed=0).weight for problem in problems]
    np.testing.assert_allclose(np.ma.getdata(weights[1]), np.ma.getdata(weights[0]), rtol=1e-7)
    cosines = [landscape.noise(problem, seed=0, k=2).cosines for problem in problems]
    np.testing.assert_allclose(cosines[1], cosines[0], rtol=1e-6)


@pytest.mark.parametrize("name", ["mlp", "resnet", "transformer", "lstm"])
def test_slices_are_those_of_the_cpu(name: str) -> None:
    model, data = cases()[name]
    cpu, cuda = (
        landscape.loss_slice(
            landscape.Problem(model, "cross_entropy", data, device=device, dtype="float64"),
            along=["random", "gradient"],
            range=["-1:1:5", "-0.5:1:4"],
            seed=0,
        )
        for device in ("cpu", "cuda")
    )
    np.testing.assert_allclose(cuda.loss, cpu.loss, rtol=1e-9)
    np.testing.assert_allclose(cuda.standard_errors, cpu.standard_errors, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("name", ["mlp", "transformer"])
def test_points_in_batches_are_those_of_the_loop(name: str) -> None:
    model, data = cases()[name]
    problem = landscape.Problem(model, "cross_entropy", data, device="cuda", dtype="float64")
    made = surface.Surface(problem, torch.ones(1, problem.size).to(problem.selection.flat()), 20)
    points = [(t,) for t in (-0.1, 0.0, 0.05, 0.2)]
    np.testing.assert_allclose(batched.rows(made, points, 3), made.row(points), rtol=1e-10, atol=1e-12)
    assert batched.fastest_batch(made) >= 1


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two GPUs")
def test_gpus_share_a_grid() -> None:
    model, data = cases()["mlp"]
    problem = landscape.Problem(model, "cross_entropy", data, device="cuda", dtype="float64")
    one, two = (landscape.loss_slice(problem, range="-1:1:9", seed=0, jobs=jobs) for jobs in (1, 2))
    np.testing.assert_allclose(one.loss, two.loss, rtol=1e-12)
