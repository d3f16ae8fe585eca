"""Traces and densities: landscape beside other libraries, by products and time to the same error.

    python -m tests.benchmarks.estimators [WORKLOAD ...] [--seeds 10] [--exact FILE] [--json FILE]

One thread, CPU time of the process, means over seeds. A method with a budget is given more and more of it
until the rms error over the seeds is at most 1 % of the trace, or the mean Wasserstein-1 distance to the
exact spectrum at most 2e-4 of its range; the last line of each says at what budget that was, or that it was
not reached. Methods that stop by themselves, landscape's trace among them, have one line.

On the digits the truth is the dense matrix in float64 (a minute; ``--exact`` keeps its eigenvalues).
On larger nets it is a trace by far more products than are compared, whose own error is printed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import wasserstein_distance

import landscape
from landscape.machine import brief
from tests.benchmarks.peers import (
    Estimate,
    Floats,
    Quadrature,
    curvlinops_density,
    curvlinops_smoothed,
    curvlinops_trace,
    eigenthings_density,
    eigenthings_trace,
    in_double,
    pyhessian_density,
    pyhessian_trace,
)
from tests.benchmarks.product import KeptProduct
from tests.benchmarks.workloads import WORKLOADS, Workload, measured, workload

__all__ = ["Figures", "densities", "traces"]

#: What every method is asked to reach: relative rms error of the trace; W1 of the density over the range.
TRACE, DENSITY = 0.01, 2e-4
#: Budgets tried; divisible by 6, as Hutch++ and XTrace want them.
BUDGETS = (12, 30, 60, 90, 120, 240, 480, 960)
#: Probes tried for densities, each of so many steps.
PROBES, STEPS = (2, 4, 8, 16), 50


@dataclass(frozen=True)
class Figures:
    """One method on one workload with one budget; ``error`` is relative and has the target ``target``."""

    workload: str
    quantity: str
    method: str
    products: float
    seconds: float
    target: float
    error: float | None = None
    worst: float | None = None
    failure: str = ""

    @property
    def reached(self) -> bool:
        return self.error is not None and self.error <= self.target

    def line(self) -> str:
        if self.failure:
            return f"  {self.method:44} {self.failure}"
        mark = "reached" if self.reached else ""
        return (
            f"  {self.method:44} {self.products:9.1f} {self.seconds:9.3f} "
            f"{self.error:9.2e} {self.worst:9.2e} {mark}"
        )


def our_trace(work: Workload, *, seed: int, **goal: float) -> Estimate:
    """``landscape.trace`` as a user calls it: loss, gradient and choice of strategy included."""
    found = landscape.trace(_problem(work), seed=seed, **goal)
    return Estimate(float(found.trace), found.products)


def our_density(work: Workload, *, seed: int, probes: int, steps: int) -> Quadrature:
    """``landscape.density`` as a user calls it."""
    found = landscape.density(_problem(work), probes=probes, steps=steps, seed=seed)
    nodes, weights = np.ma.compressed(found.nodes), np.ma.compressed(found.weights)
    kept = np.isfinite(nodes)
    return Quadrature(nodes[kept], weights[kept] / weights[kept].sum(), found.products)


def _problem(work: Workload) -> landscape.Problem:
    return landscape.Problem(work.model, "cross_entropy", list(work.batches), memory=8 << 30)


def traces() -> dict[str, list[Callable[..., Estimate]]]:
    """Name to the estimators ``(work, seed=…)`` of growing budget."""

    def growing(estimator: Callable[..., Estimate], method: str) -> list[Callable[..., Estimate]]:
        return [partial(estimator, budget=budget, method=method) for budget in BUDGETS]

    return {
        "landscape, 95 % interval of 1 %": [partial(our_trace, tol=TRACE)],
        "landscape, fixed budgets": [partial(our_trace, tol=0.0, max_products=b) for b in BUDGETS],
        "pyhessian, defaults": [pyhessian_trace],
        "pyhessian, fixed budgets": [partial(pyhessian_trace, max_products=b, tol=0) for b in BUDGETS],
        "hessian-eigenthings, Hutchinson": growing(eigenthings_trace, "hutchinson"),
        "hessian-eigenthings, Hutch++": growing(eigenthings_trace, "hutch++"),
        "curvlinops, Hutchinson": growing(curvlinops_trace, "hutchinson_trace"),
        "curvlinops, Hutch++": growing(curvlinops_trace, "hutchpp_trace"),
        "curvlinops, XTrace": growing(curvlinops_trace, "xtrace"),
    }


def densities() -> dict[str, list[Callable[..., Quadrature]]]:
    """Name to the densities ``(work, seed=…)`` of growing budget."""

    def growing(method: Callable[..., Quadrature]) -> list[Callable[..., Quadrature]]:
        return [partial(method, probes=probes, steps=STEPS) for probes in PROBES]

    return {
        "landscape": growing(our_density),
        "pyhessian": growing(pyhessian_density),
        "hessian-eigenthings, nodes and weights": growing(eigenthings_density),
        "curvlinops, nodes and weights": growing(curvlinops_density),
        "curvlinops, smoothed as it gives it": growing(curvlinops_smoothed),
    }


def exact_spectrum(work: Workload) -> Floats:
    """All eigenvalues (n,) of the dense Hessian in float64, ascending."""
    model, batches = in_double(work.model, work.batches)
    product = KeptProduct(model, work.loss_fn, batches)
    matrix = np.empty((work.size, work.size))
    for row, unit in enumerate(torch.eye(work.size, dtype=torch.float64)):
        matrix[row] = product(unit).numpy()
    matrix = (matrix + matrix.T) / 2
    return np.linalg.eigvalsh(matrix)


def reference_trace(work: Workload, *, sketch: int = 100, probes: int = 400) -> tuple[float, float]:
    """(trace, standard error): exact on the range of ``sketch`` products, Rademacher probes on the rest."""
    model, batches = in_double(work.model, work.batches)
    product = KeptProduct(model, work.loss_fn, batches)
    g = torch.Generator().manual_seed(2**31)

    def signs() -> torch.Tensor:
        return torch.randint(2, (work.size,), generator=g).double() * 2 - 1

    basis = torch.linalg.qr(torch.stack([product(signs()) for _ in range(sketch)], dim=1)).Q
    inside = sum(float(column @ product(column.contiguous())) for column in basis.T)
    rest = []
    for _ in range(probes):
        z = signs()
        z -= basis @ (basis.T @ z)
        rest.append(float(z @ product(z)))
    return inside + float(np.mean(rest)), float(np.std(rest, ddof=1)) / probes**0.5


def repeat(
    method: Callable[..., Any], work: Workload, seeds: Sequence[int], error: Callable[[Any], float]
) -> tuple[list[float], list[int], float]:
    """(errors, products, mean CPU seconds) of a method over seeds."""
    errors, products, seconds = [], [], 0.0
    for seed in seeds:
        start = time.process_time()
        found = method(work, seed=seed)
        seconds += time.process_time() - start
        errors.append(error(found))
        products.append(found.products)
    return errors, products, seconds / len(seeds)


def compare(
    work: Workload,
    quantity: str,
    methods: dict[str, list[Callable[..., Any]]],
    seeds: Sequence[int],
    error: Callable[[Any], float],
) -> Iterator[Figures]:
    """Every method with more and more budget until it reaches the target."""
    target = TRACE if quantity == "trace" else DENSITY
    for name, budgets in methods.items():
        for method in budgets:
            try:
                errors, products, seconds = repeat(method, work, seeds, error)
            except RuntimeError as failure:
                yield Figures(work.name, quantity, name, 0, 0, target, failure=f"fails: {brief(failure, 80)}")
                break
            typical = np.sqrt(np.mean(np.square(errors))) if quantity == "trace" else np.mean(errors)
            row = Figures(
                work.name,
                quantity,
                name,
                products=float(np.mean(products)),
                seconds=seconds,
                error=float(typical),
                worst=float(np.max(np.abs(errors))),
                target=target,
            )
            yield row
            if row.reached:
                break


def warm_up(work: Workload, skipped: str) -> None:
    """Imports and first calls, so that no method pays for them."""
    for methods in (chosen(traces(), skipped), chosen(densities(), skipped)):
        for budgets in methods.values():
            try:
                budgets[0](work, seed=0)
            except RuntimeError:
                continue


def spectrum_of(work: Workload, file: Path | None) -> Floats:
    if file is not None and file.exists():
        return np.load(file)
    values = exact_spectrum(work)
    if file is not None:
        np.save(file, values)
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description="Traces and densities, beside other libraries.")
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=", ".join(WORKLOADS))
    parser.add_argument("--seeds", type=int, default=10, help="number of repetitions")
    parser.add_argument(
        "--exact", type=Path, help="eigenvalues of the digits Hessian (.npy), made if missing"
    )
    parser.add_argument("--only", nargs="+", default=["trace", "density"], choices=["trace", "density"])
    parser.add_argument("--skip", default="", help="leave out methods whose name begins so")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in args.workloads or ["digits-full"]:
        work = workload(name)
        with measured():
            for row in figures(work, args):
                print(row.line(), flush=True)
                rows.append(asdict(row))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


def figures(work: Workload, args: argparse.Namespace) -> Iterator[Figures]:
    """Traces, and densities where the exact spectrum is known."""
    small = work.size <= 10_000
    spectrum = spectrum_of(work, args.exact) if small else np.array([])
    exact, known_to = (float(spectrum.sum()), 0.0) if small else reference_trace(work)
    print(f"{work.name}: trace {exact:.6g}, known to {known_to / abs(exact):.1e}")
    warm_up(work, args.skip)
    seeds = range(1, args.seeds + 1)
    if "trace" in args.only:
        print(f"{'  trace to 1 %':46} {'products':>9} {'seconds':>9} {'rms':>9} {'worst':>9}")
        yield from compare(
            work, "trace", chosen(traces(), args.skip), seeds, lambda found: (found.value - exact) / exact
        )
    if "density" in args.only and small:
        width = float(spectrum[-1] - spectrum[0])

        def distance(found: Quadrature) -> float:
            return float(wasserstein_distance(found.nodes, spectrum, found.weights)) / width

        print(f"{'  density to W1 of 2e-4':46} {'products':>9} {'seconds':>9} {'mean W1':>9} {'worst':>9}")
        yield from compare(work, "density", chosen(densities(), args.skip), seeds, distance)


def chosen(methods: dict[str, Any], skipped: str) -> dict[str, Any]:
    return {name: m for name, m in methods.items() if not (skipped and name.startswith(skipped))}


if __name__ == "__main__":
    main()
