"""Certified top eigenpairs: landscape beside other libraries at settings that reach the same residual.

    python -m tests.benchmarks.certified [WORKLOAD ...] [-k 1 5 10] [--seeds 3] [--json FILE]

One thread, CPU time of the process, means over start vectors; the residual is recomputed in float64 and is
the worst over pairs and starts. *Ratio*: the other's time over landscape's. Solvers take turns, start vector
by start vector, so that a change of the machine's pace meets all of them. ARPACK's ``ncv`` is tuned: the
fastest of those tried that reaches the residual counts. pyhessian, which takes minutes, gets one start.
Peak memory (``--memory``) is by how much a fresh process grows at most while it solves the workload.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

import landscape
from landscape.curvature.hessian import HessianOperator
from landscape.curvature.strategy import choose_strategy
from landscape.linalg.operator import as_linear_operator
from tests.benchmarks.peers import (
    Pairs,
    curvlinops,
    descending,
    eigenthings,
    eigsh_pairs,
    kept_eigsh,
    pyhessian,
    true_residuals,
)
from tests.benchmarks.workloads import WORKLOADS, Batch, LossFn, Workload, measured, workload

__all__ = ["Figures", "compare", "ours"]

#: What every solver is asked to reach, relative to its eigenvalue.
RESIDUAL = 1e-3


def ours(
    model: nn.Module,
    loss_fn: LossFn,
    batches: Sequence[Batch],
    k: int,
    *,
    seed: int = 0,
    standard_errors: bool = False,
) -> Pairs:
    """``landscape.eigen`` as a user calls it: loss, gradient, choice of strategy, noise floor included."""
    problem = landscape.Problem(model, "cross_entropy", list(batches), memory=8 << 30)
    found = landscape.eigen(
        problem, k=k, tol=RESIDUAL, seed=seed, standard_errors=standard_errors, eigenvectors=True
    )
    assert found.eigenvectors is not None
    return descending(found.eigenvalues, found.eigenvectors.T, found.products)


def own_eigsh(
    model: nn.Module,
    loss_fn: LossFn,
    batches: Sequence[Batch],
    k: int,
    *,
    seed: int = 0,
    ncv: int | None = None,
) -> Pairs:
    """ARPACK on landscape's own product, prepared alike: only the search differs from :func:`ours`."""
    problem = landscape.Problem(model, "cross_entropy", list(batches), memory=8 << 30)
    problem.check_deterministic()
    strategy, _ = choose_strategy(problem)
    product = as_linear_operator(HessianOperator(problem, strategy))
    return eigsh_pairs(product.matvec, problem.size, k, seed=seed, tol=RESIDUAL, ncv=ncv)


def solvers(k: int) -> dict[str, Callable[..., Pairs]]:
    """Name to solver, ``(model, loss_fn, batches, k, seed=…)``; ARPACK once for each ``ncv``."""
    sizes = sorted({k + 7, 2 * k + 2, 2 * k + 5, 2 * k + 9, 3 * k + 10})
    arpack = {f"eigsh on our product, ncv {ncv}": partial(own_eigsh, ncv=ncv) for ncv in sizes}
    return {
        "landscape": ours,
        "landscape, with standard errors": partial(ours, standard_errors=True),
        **arpack,
        f"eigsh on a bare product, ncv {2 * k + 5}": partial(kept_eigsh, ncv=2 * k + 5),
        "curvlinops + eigsh": curvlinops,
        "hessian-eigenthings, 3k+10 steps": partial(eigenthings, steps=3 * k + 10, reorthogonalize=True),
        "pyhessian, tol 1e-6": partial(pyhessian, tol=1e-6, max_iterations=1000),
    }


@dataclass
class Figures:
    """One solver on one workload."""

    workload: str
    k: int
    solver: str
    products: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    residuals: list[float] = field(default_factory=list)
    peak_mib: float = float("nan")
    ratio: float = float("nan")

    def line(self) -> str:
        return (
            f"  {self.solver:36} {np.mean(self.products):9.1f} {np.mean(self.seconds):9.3f} "
            f"{max(self.residuals):9.1e} {self.peak_mib:9.0f} {self.ratio:6.2f}"
        )


def compare(short: str, work: Workload, k: int, seeds: Sequence[int], *, memory: bool) -> list[Figures]:
    """Every solver on one workload, taking turns."""
    chosen = solvers(k)
    rows = {name: Figures(work.name, k, name) for name in chosen}
    for turn in [None, *seeds]:  # the first turn warms up
        for name, solve in chosen.items():
            if turn is None and name != "landscape":
                continue
            if name.startswith("pyhessian") and turn != seeds[0]:
                continue
            start = time.process_time()
            pairs = solve(work.model, work.loss_fn, work.batches, k, seed=turn or 0)
            seconds = time.process_time() - start
            if turn is None:
                continue
            norms = true_residuals(work.model, work.loss_fn, work.batches, pairs)
            rows[name].seconds.append(seconds)
            rows[name].products.append(pairs.products)
            rows[name].residuals.append(float(np.max(norms / np.abs(pairs.eigenvalues))))
    base = float(np.mean(rows["landscape"].seconds))
    for name, row in rows.items():
        row.ratio = float(np.mean(row.seconds)) / base
        if memory and not name.startswith("eigsh on our"):
            row.peak_mib = peak(short, k, name)
    return list(rows.values())


def peak(short: str, k: int, solver: str) -> float:
    """By how many MiB a fresh process grows at most while it solves a workload (Linux)."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_solve, args=(short, k, solver, sender))
    process.start()
    sender.close()
    grown: float = receiver.recv()
    process.join()
    return grown


def _solve(short: str, k: int, solver: str, sender: Connection) -> None:
    work, solve = workload(short), solvers(k)[solver]
    if solver.startswith("pyhessian"):  # its memory does not grow with the iterations
        solve = partial(pyhessian, max_iterations=3)
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    with measured():
        solve(work.model, work.loss_fn, work.batches, k, seed=0)
    sender.send(_resident("VmHWM") - before)


def _resident(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description="Certified top eigenpairs, beside other libraries.")
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=", ".join(WORKLOADS))
    parser.add_argument("-k", type=int, nargs="+", default=[1, 5, 10])
    parser.add_argument("--seeds", type=int, default=3, help="number of start vectors")
    parser.add_argument("--memory", action="store_true", help="measure peak memory, too")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    print(f"{'top k':38} {'products':>9} {'seconds':>9} {'residual':>9} {'peak MiB':>9} {'ratio':>6}")
    rows: list[dict[str, Any]] = []
    for name in args.workloads or ["digits-full", "resnet-32", "transformer-16"]:
        work = workload(name)
        for k in args.k:
            print(f"{work.name}, k = {k}")
            with measured():
                found = compare(name, work, k, range(args.seeds), memory=args.memory)
            for row in found:
                print(row.line(), flush=True)
                rows.append(asdict(row))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
