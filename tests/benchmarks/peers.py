"""Eigenpairs, traces and densities by other libraries, for the scripts beside this file.

Every adapter of eigenpairs has one form, ``(model, loss_fn, batches, k, seed=…, …) -> Pairs``; those of
traces and densities take ``(work, …, seed=…)``. The extra ``bench`` installs what they import.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import nn

from tests.benchmarks.product import KeptProduct, rebuilt_product
from tests.benchmarks.workloads import Batch, LossFn, Workload

__all__ = [
    "Estimate",
    "Pairs",
    "Quadrature",
    "curvlinops",
    "curvlinops_density",
    "curvlinops_smoothed",
    "curvlinops_trace",
    "eigenthings",
    "eigenthings_density",
    "eigenthings_trace",
    "eigsh_pairs",
    "kept_eigsh",
    "pyhessian",
    "pyhessian_density",
    "pyhessian_trace",
    "true_residuals",
]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Pairs:
    """Eigenvalues (k,) algebraically descending, eigenvectors in columns (n, k), and products spent."""

    eigenvalues: Floats
    eigenvectors: Floats
    products: int


def descending(values: Any, vectors: Any, products: int) -> Pairs:
    """Pairs in order; ``vectors`` has one eigenvector to a column."""
    theta, columns = np.asarray(values, dtype=np.float64), np.asarray(vectors, dtype=np.float64)
    order = np.argsort(-theta)
    return Pairs(theta[order], columns[:, order], products)


class Counted:
    """A function that counts its calls."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.calls = function, 0

    def __call__(self, *args: Any) -> Any:
        self.calls += 1
        return self.function(*args)


def pyhessian(
    model: nn.Module,
    loss_fn: LossFn,
    batches: Sequence[Batch],
    k: int,
    *,
    seed: int = 0,
    tol: float = 1e-3,
    max_iterations: int = 100,
) -> Pairs:
    """Power iteration with deflation. One batch: graph kept; several: its data loader mode.

    The model is copied, because the library writes ``.grad``; its start vectors come from the global
    generator, which is seeded here and put back.
    """
    import pyhessian as library

    own = copy.deepcopy(model)
    implementation = sys.modules["pyhessian.hessian"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if len(batches) == 1:
            count = Counted(implementation.hessian_vector_product)
            with mock.patch.object(implementation, "hessian_vector_product", count):
                solver = library.hessian(own, loss_fn, data=batches[0], cuda=False)
                values, vectors = solver.eigenvalues(max_iterations, tol, k)
        else:
            solver = library.hessian(own, loss_fn, dataloader=batches, cuda=False)
            count = solver.dataloader_hv_product = Counted(solver.dataloader_hv_product)
            values, vectors = solver.eigenvalues(max_iterations, tol, k)
    own.zero_grad()
    columns = [torch.cat([part.detach().flatten() for part in vector]).numpy() for vector in vectors]
    return descending(values, np.stack(columns, axis=1), count.calls)


def eigenthings(
    model: nn.Module,
    loss_fn: LossFn,
    batches: Sequence[Batch],
    k: int,
    *,
    seed: int = 0,
    steps: int | None = None,
    reorthogonalize: bool | None = None,
) -> Pairs:
    """Lanczos of hessian-eigenthings, graph rebuilt; None for ``steps`` is its default of 2k.

    It counts every batch alike: a ragged last batch moves its eigenvalues (give it equal batches).
    """
    import hessian_eigenthings as library

    operator = library.HessianOperator(model, batches, library.supervised_loss(loss_fn))
    found = library.lanczos(
        operator, k=k, max_iter=steps, which="LA", seed=seed, reorthogonalize=reorthogonalize
    )
    return descending(found.eigenvalues, found.eigenvectors.T, found.iterations)


def eigsh_pairs(
    matvec: Callable[[Floats], Any],
    n: int,
    k: int,
    *,
    seed: int = 0,
    tol: float = 1e-3,
    ncv: int | None = None,
) -> Pairs:
    """ARPACK's implicitly restarted Lanczos on any product; None for ``ncv`` is max(2k + 1, 20)."""
    count = Counted(matvec)
    start = np.random.default_rng(seed).standard_normal(n)
    operator = LinearOperator((n, n), matvec=count, dtype=np.float64)
    values, vectors = eigsh(operator, k, which="LA", tol=tol, v0=start, ncv=ncv)
    return descending(values, vectors, count.calls)


def curvlinops(
    model: nn.Module,
    loss_fn: LossFn,
    batches: Sequence[Batch],
    k: int,
    *,
    seed: int = 0,
    tol: float = 1e-3,
    ncv: int | None = None,
) -> Pairs:
    """``HessianLinearOperator`` under :func:`eigsh_pairs`, its check of determinism switched off."""
    import curvlinops as library

    parameters = list(model.parameters())
    operator = library.HessianLinearOperator(model, loss_fn, parameters, batches, check_deterministic=False)
    return eigsh_pairs(operator.to_scipy().matvec, operator.shape[0], k, seed=seed, tol=tol, ncv=ncv)


def kept_eigsh(
    model: nn.Module,
    loss_fn: LossFn,
    batches: Sequence[Batch],
    k: int,
    *,
    seed: int = 0,
    tol: float = 1e-3,
    ncv: int | None = None,
) -> Pairs:
    """:func:`eigsh_pairs` on the bare double backward with graphs kept."""
    product = KeptProduct(model, loss_fn, batches)
    parameter = product.parameters[0]

    def matvec(v: Floats) -> NDArray[Any]:
        return product(torch.from_numpy(v.ravel()).to(parameter.dtype)).numpy()

    return eigsh_pairs(matvec, sum(p.numel() for p in product.parameters), k, seed=seed, tol=tol, ncv=ncv)


def in_double(model: nn.Module, batches: Sequence[Batch]) -> tuple[nn.Module, list[Batch]]:
    """Copies in float64; integer inputs stay as they are."""
    exact = [(x.double() if x.is_floating_point() else x, y) for x, y in batches]
    return copy.deepcopy(model).double(), exact


def true_residuals(model: nn.Module, loss_fn: LossFn, batches: Sequence[Batch], pairs: Pairs) -> Floats:
    """‖Hv − θv‖ of each pair (k,), v normalised, from a plain double backward in float64."""
    exact, data = in_double(model, batches)
    residuals = []
    for theta, column in zip(pairs.eigenvalues, pairs.eigenvectors.T, strict=True):
        v = torch.from_numpy(column / np.linalg.norm(column))
        residuals.append(float((rebuilt_product(exact, loss_fn, data, v) - theta * v).norm()))
    return np.array(residuals)


@dataclass(frozen=True)
class Estimate:
    """A trace, and the products it took."""

    value: float
    products: int


@dataclass(frozen=True)
class Quadrature:
    """A density as point masses: nodes and weights, both (m,), the weights of sum 1, and the products."""

    nodes: Floats
    weights: Floats
    products: int


def _masses(nodes: Any, weights: Any, products: int) -> Quadrature:
    """All probes' nodes in one list, padding left out."""
    theta, mass = np.ravel(np.asarray(nodes, np.float64)), np.ravel(np.asarray(weights, np.float64))
    kept = np.isfinite(theta)
    return Quadrature(theta[kept], mass[kept] / mass[kept].sum(), products)


def pyhessian_trace(work: Workload, *, seed: int, max_products: int = 100, tol: float = 1e-3) -> Estimate:
    """Hutchinson's method until the running mean agrees with itself (never, if ``tol`` is 0)."""
    solver = _pyhessian_solver(work)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        samples = solver.trace(max_products, tol)
    solver.model.zero_grad()
    return Estimate(float(np.mean(samples)), len(samples))


def pyhessian_density(work: Workload, *, seed: int, probes: int, steps: int) -> Quadrature:
    """Stochastic Lanczos quadrature; on current PyTorch it raises, see ``landscape.curvature.peer``."""
    solver = _pyhessian_solver(work)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        nodes, weights = solver.density(steps, probes)
    solver.model.zero_grad()
    return _masses(nodes, weights, probes * steps)


def _pyhessian_solver(work: Workload) -> Any:
    import pyhessian as library

    (batch,) = work.batches
    return library.hessian(copy.deepcopy(work.model), work.loss_fn, data=batch, cuda=False)


def eigenthings_trace(work: Workload, *, seed: int, budget: int, method: str) -> Estimate:
    """``method`` is hutchinson or hutch++."""
    import hessian_eigenthings as library

    matrix, count = _eigenthings_operator(work)
    found = library.trace(matrix, num_matvecs=budget, method=method, seed=seed)
    return Estimate(found.estimate, count.calls)


def eigenthings_density(work: Workload, *, seed: int, probes: int, steps: int) -> Quadrature:
    """Stochastic Lanczos quadrature with reorthogonalisation: its raw nodes and weights.

    A run's start vector is drawn from seed + run, so seeds are spread to keep repetitions independent.
    """
    import hessian_eigenthings as library

    matrix, count = _eigenthings_operator(work)
    found = library.spectral_density(matrix, num_runs=probes, lanczos_steps=steps, seed=1000 * seed)
    return _masses(found.raw_eigenvalues, found.raw_weights, count.calls)


def _eigenthings_operator(work: Workload) -> tuple[Any, Counted]:
    import hessian_eigenthings as library

    own = library.HessianOperator(work.model, work.batches, library.supervised_loss(work.loss_fn))
    count = Counted(own.matvec)
    counted = library.LambdaOperator(count, size=own.size, device=own.device, dtype=own.dtype)
    return counted, count


def curvlinops_trace(work: Workload, *, seed: int, budget: int, method: str) -> Estimate:
    """``method`` is the name of its function: hutchinson_trace, hutchpp_trace or xtrace."""
    import curvlinops as library

    matrix, columns = _curvlinops_operator(work)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        value = float(getattr(library, method)(matrix, budget))
    return Estimate(value, sum(columns))


def curvlinops_density(work: Workload, *, seed: int, probes: int, steps: int) -> Quadrature:
    """Raw nodes and weights of its Lanczos runs, which do not reorthogonalise."""
    from curvlinops.papyan2020traces.spectrum import fast_lanczos

    matrix, columns = _curvlinops_operator(work)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        runs = [fast_lanczos(matrix, steps) for _ in range(probes)]
    nodes = np.stack([values.numpy() for values, _ in runs])
    weights = np.stack([vectors[0].numpy() ** 2 for _, vectors in runs])
    return _masses(nodes, weights, sum(columns))


def curvlinops_smoothed(work: Workload, *, seed: int, probes: int, steps: int) -> Quadrature:
    """Its density as it gives it: smoothed, on a grid between bounds that cost products of their own."""
    from curvlinops.papyan2020traces.spectrum import lanczos_approximate_spectrum

    matrix, columns = _curvlinops_operator(work)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        grid, density = lanczos_approximate_spectrum(matrix, steps, num_repeats=probes)
    return _masses(grid, density, sum(columns))


def _curvlinops_operator(work: Workload) -> tuple[Any, list[int]]:
    """Its operator, and a list that each call adds its number of vectors to."""
    import curvlinops as library

    parameters, columns = work.parameters, []

    class Counting(library.HessianLinearOperator):  # type: ignore[misc]
        def _matmat(self, X: Any) -> Any:
            columns.append(X[0].shape[-1])
            return super()._matmat(X)

    matrix = Counting(work.model, work.loss_fn, parameters, work.batches, check_deterministic=False)
    return matrix, columns
