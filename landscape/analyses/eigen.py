"""``landscape eigen``: certified eigenvalues of the Hessian at a checkpoint.

Whatever is slow to import is imported when the work begins: the options are shown without it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from landscape.settings import option

if TYPE_CHECKING:
    from landscape.analyses.base import Plan, Saved, Start, State
    from landscape.problem import Problem
    from landscape.results import EigenResult, Result

__all__ = ["Settings", "finish", "kind", "needs", "plan", "steps"]

kind = "eigen"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Options of ``eigen``."""

    k: int = option(5, "How many eigenpairs (with --which both: from each end).", short="-k", minimum=1)
    which: Literal["largest", "smallest", "both", "magnitude"] = option(
        "largest", "Which end of the spectrum: algebraically largest or smallest, both, or largest |λ|."
    )
    tol: float = option(
        1e-3, "A pair has converged when its residual ≤ tol·|θ| (or the noise floor).", minimum=0.0
    )
    max_products: int = option(
        1000, "Stop after this many Hessian products; what has not converged is marked (exit 4).", minimum=1
    )
    method: Literal["lanczos"] = option("lanczos", "How the pairs are found.")
    operator: Literal["hessian"] = option("hessian", "Which curvature matrix.")
    verify: int = option(
        0,
        "Spend N more products from a random vector orthogonal to the pairs found, which finds repeated "
        "eigenvalues, and one product per pair to recompute every residual.",
        metavar="N",
        minimum=0,
    )
    standard_errors: bool = option(
        True, "Estimate how far each eigenvalue would move on another sample of the data."
    )
    eigenvectors: bool = option(False, "Keep the eigenvectors, in a file of their own beside the results.")


def needs(settings: Settings) -> tuple[str, ...]:
    """Kinds of earlier results that are passed in: none."""
    return ()


def plan(problem: Problem, settings: Settings) -> Plan:
    """Products, gradients and memory that a run is likely to take.

    The number of products depends on the spectrum: on trained networks about 2k + 5 were needed at 1e-3.
    """
    from landscape.analyses.base import Plan
    from landscape.linalg.eigenpairs import wanted_count

    wanted = wanted_count(settings.k, settings.which, problem.size)
    products = min(settings.max_products, 2 * wanted + 5) + settings.verify + wanted * bool(settings.verify)
    itemsize = 8 if str(problem.dtype).endswith("64") else 4
    search = max(4 * settings.verify, 64) + wanted if settings.verify else 0
    basis = problem.size * itemsize * (3 * wanted + 12 + search)
    return Plan(
        products=products,
        at_most=settings.max_products,
        gradients=3.0 * products,
        memory_bytes=basis + min(problem.memory, problem.size * 8 * 4),
        notes=("at most 3 gradients a product, 2 where the graphs fit in memory",),
    )


def steps(
    problem: Problem, settings: Settings, inputs: Mapping[str, Result], start: Start
) -> Iterator[State]:
    """Measure the loss, search, verify, estimate standard errors; a state after each product."""
    from landscape.analyses.eigen_work import Work

    return Work(problem, settings, start).run()


def finish(problem: Problem, settings: Settings, saved: Saved) -> EigenResult:
    """The result of a saved state, whether or not the search was over."""
    import numpy as np

    from landscape.linalg.bounds import intervals, missed_value, refined_intervals
    from landscape.linalg.eigenpairs import has_converged
    from landscape.results import EigenResult

    c, a = saved.counters, saved.arrays
    values, residuals, floor = a["values"], a["residuals"], float(c["floor"])
    every = np.concatenate([values, a["other_values"]])
    order = np.argsort(-every, kind="stable")
    every_residuals = np.concatenate([residuals, a["other_residuals"]])[order]
    every, wanted = every[order], np.argsort(order)[: len(values)]
    missed = missed_value(c["first_top"], c["first_bottom"], problem.size, c["first_steps"])
    few = (
        "" if missed else f"{c['first_steps']} products before the first restart are too few for a statement"
    )
    converged = has_converged(values, residuals, settings.tol, floor)
    errors = np.ma.array(a.get("standard_errors", np.full(len(values), np.nan)))
    if "standard_errors" not in a:
        errors[:] = np.ma.masked
    complete = c["phase"] == "over" and c["verified_all"] and bool(converged.all())
    return EigenResult(
        status="complete" if complete else "not_converged",
        loss=c["loss"],
        gradient_norm=c["gradient_norm"],
        accuracy=c["accuracy"],
        examples=problem.examples,
        terms=problem.terms,
        parameters=problem.size,
        frozen_parameters=problem.selection.frozen,
        tied_parameters=problem.selection.tied,
        unused_parameters=c["unused"],
        method=settings.method,
        operator=settings.operator,
        which=settings.which,
        eigenvalues=values,
        residuals=residuals,
        intervals=intervals(values, residuals, floor),
        refined_intervals=refined_intervals(every, every_residuals, floor, wanted),
        standard_errors=errors,
        standard_error_method=c["standard_error_method"],
        noise_floor=floor,
        converged=converged,
        lambda_max=float(every[0]) if len(every) else math.nan,
        lambda_max_residual=float(every_residuals[0]) if len(every) else math.nan,
        lambda_min=float(every[-1]) if len(every) else math.nan,
        lambda_min_residual=float(every_residuals[-1]) if len(every) else math.nan,
        missed_reason=few,
        missed_epsilon=missed[0] if missed else None,
        missed_above=missed[1] + floor if missed else None,
        missed_below=missed[2] - floor if missed else None,
        products=c["products"],
        passes=c["passes"],
        seconds=c["seconds"],
        verified=c["verified"],
        residual_history=a["history"],
        eigenvectors=a.get("eigenvectors"),
    )
