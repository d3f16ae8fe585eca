"""Top eigenpairs by other libraries, side by side: products, CPU time and true residuals.

    python -m tests.benchmarks.peers [WORKLOAD ...] [-k 1 5 10] [--seeds 3] [--json FILE]

Every adapter has one form: ``(model, loss_fn, batches, k, seed=…, …) -> Pairs``. The extra ``bench`` installs
what they import.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import nn

from tests.benchmarks.product import KeptProduct, rebuilt_product
from tests.benchmarks.workloads import WORKLOADS, Batch, LossFn, Workload, measured, workload

__all__ = [
    "PEERS",
    "Pairs",
    "curvlinops",
    "eigenthings",
    "eigsh_pairs",
    "kept_eigsh",
    "pyhessian",
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


#: Name to solver; each takes ``(model, loss_fn, batches, k, seed=…)``.
PEERS: dict[str, Callable[..., Pairs]] = {
    "pyhessian, defaults": pyhessian,
    "pyhessian, tol 1e-6": partial(pyhessian, tol=1e-6, max_iterations=1000),
    "hessian-eigenthings, defaults": eigenthings,
    "hessian-eigenthings, 3k+10 steps": lambda *args, seed: eigenthings(
        *args, seed=seed, steps=3 * args[3] + 10, reorthogonalize=True
    ),
    "curvlinops + eigsh, tol 1e-3": curvlinops,
    "kept graph + eigsh, tol 1e-3": kept_eigsh,
    "kept graph + eigsh, ncv 2k+6": lambda *args, seed: kept_eigsh(*args, seed=seed, ncv=2 * args[3] + 6),
}


@dataclass(frozen=True)
class PeerFigures:
    """One solver on one workload; means over the start vectors, worst of the errors."""

    workload: str
    k: int
    peer: str
    products: float
    seconds: float
    residual: float
    value_error: float


def compare(work: Workload, k: int, peer: str, exact: Floats, seeds: Sequence[int]) -> PeerFigures:
    """Time one peer and recompute what it claims; ``exact`` holds the true top eigenvalues."""
    products, seconds, residuals, errors = [], [], [], []
    for seed in seeds:
        start = time.process_time()
        pairs = PEERS[peer](work.model, work.loss_fn, work.batches, k, seed=seed)
        seconds.append(time.process_time() - start)
        products.append(pairs.products)
        norms = true_residuals(work.model, work.loss_fn, work.batches, pairs)
        residuals.append(np.max(norms / np.abs(pairs.eigenvalues)))
        errors.append(np.max(np.abs(pairs.eigenvalues - exact[:k]) / np.abs(exact[:k])))
    return PeerFigures(
        work.name,
        k,
        peer,
        float(np.mean(products)),
        float(np.mean(seconds)),
        float(np.max(residuals)),
        float(np.max(errors)),
    )


def reference(work: Workload, k: int) -> Floats:
    """The top ``k`` eigenvalues by ARPACK in float64 to 1e-9."""
    model, batches = in_double(work.model, work.batches)
    return kept_eigsh(model, work.loss_fn, batches, k, tol=1e-9, ncv=4 * k + 10).eigenvalues


def main() -> None:
    parser = argparse.ArgumentParser(description="Top Hessian eigenpairs by other libraries.")
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=", ".join(WORKLOADS))
    parser.add_argument("-k", type=int, nargs="+", default=[1, 5, 10])
    parser.add_argument("--seeds", type=int, default=3, help="number of start vectors")
    parser.add_argument("--peer", choices=PEERS, action="append", help="only this one (repeatable)")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    print(f"{'top k':38} {'products':>9} {'seconds':>9} {'residual':>9} {'value error':>12}")
    rows: list[PeerFigures] = []
    for name in args.workloads or ["digits", "resnet-32", "transformer-16"]:
        work = workload(name)
        with measured():
            exact = reference(work, max(args.k))
            for k in args.k:
                print(f"{work.name}, k = {k}")
                for peer in args.peer or PEERS:
                    row = compare(work, k, peer, exact, range(args.seeds))
                    rows.append(row)
                    print(
                        f"  {peer:36} {row.products:9.1f} {row.seconds:9.3f} {row.residual:9.1e} "
                        f"{row.value_error:12.1e}",
                        flush=True,
                    )
    if args.json:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
