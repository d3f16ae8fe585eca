"""From a saved state of ``landscape eigen`` to its result."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from landscape.analyses.base import Saved
from landscape.analyses.eigen import Settings
from landscape.analyses.eigen_work import layer_intervals
from landscape.analyses.work import common_fields
from landscape.linalg.bounds import intervals, missed_value, refined_intervals
from landscape.linalg.eigenpairs import has_converged, wanted_count
from landscape.parameters import layers
from landscape.problem import Problem
from landscape.results import EigenResult

__all__ = ["eigen_result"]

#: Why methods other than Lanczos make no statement about what they missed.
_SILENT = {
    "power": "power iteration makes none",
    "pyhessian": "pyhessian makes none",
    "dense": "not needed: these are taken from all the eigenvalues",
}
#: Why a search that did not begin at random makes none either.
_WARM = "warm start, of which the theorem does not speak; --verify N looks for what was missed"
#: Matrices without negative eigenvalues: nothing can be missed below zero.
_SEMIDEFINITE = ("fisher", "empirical-fisher", "noise")


def eigen_result(problem: Problem, settings: Settings, saved: Saved) -> EigenResult:
    """The result of a saved state, whether or not the search was over."""
    c, a = saved.counters, saved.arrays
    values, residuals, floor = a["values"], a["residuals"], float(c["floor"])
    every = np.concatenate([values, a["other_values"]])
    order = np.argsort(-every, kind="stable")
    every_residuals = np.concatenate([residuals, a["other_residuals"]])[order]
    every, wanted = every[order], np.argsort(order)[: len(values)]
    converged = has_converged(values, residuals, settings.tolerance, floor)
    errors = np.ma.array(a.get("standard_errors", np.full(len(values), np.nan)))
    if "standard_errors" not in a:
        errors[:] = np.ma.masked
    wanted_pairs = wanted_count(settings.k, settings.which, problem.size)
    each_layer = _layers(problem, settings, a)
    return EigenResult(
        status=_status(settings, c, converged, wanted_pairs, each_layer),
        method=settings.method,
        which=settings.end,
        tolerance=settings.tolerance,
        eigenvalues=values,
        residuals=residuals,
        intervals=intervals(values, residuals, floor),
        refined_intervals=refined_intervals(every, every_residuals, floor, wanted),
        standard_errors=errors,
        standard_error_method=c["standard_error_method"],
        converged=converged,
        lambda_max=float(every[0]) if len(every) else math.nan,
        lambda_max_residual=float(every_residuals[0]) if len(every) else math.nan,
        lambda_min=float(every[-1]) if len(every) else math.nan,
        lambda_min_residual=float(every_residuals[-1]) if len(every) else math.nan,
        verified=c["verified"],
        warm=c.get("warm", False),
        residual_history=a["history"],
        eigenvectors=a.get("eigenvectors"),
        krylov_relation=a.get("krylov_relation"),
        krylov_basis=a.get("krylov_basis"),
        asymmetry=c.get("asymmetry"),
        **common_fields(problem, settings, saved),
        **_missed(problem, settings, c, floor),
        **each_layer,
        **_average(settings, c, a),
        **_peer(c, a),
    )


def _status(
    settings: Settings, c: dict[str, Any], converged: np.ndarray, wanted: int, each: dict[str, Any]
) -> str:
    """Complete, if everything asked for is there and as accurate as asked for."""
    if settings.method == "running-average" and c["phase"] == "over":
        verdict = c["average_status"]
        return "complete" if verdict == "converged" else str(verdict)
    found = len(converged) == wanted and bool(converged.all())
    layers_found = bool(np.all(each.get("layer_converged", True)))
    complete = c["phase"] == "over" and c["verified_all"] and found and layers_found
    return "complete" if complete else "not_converged"


def _missed(problem: Problem, settings: Settings, c: dict[str, Any], floor: float) -> dict[str, Any]:
    """What a random start proves about eigenvalues that were not seen."""
    if settings.method in _SILENT:
        return {"missed_reason": _SILENT[settings.method]}
    if c.get("warm", False):
        return {"missed_reason": _WARM}
    missed = missed_value(c["first_top"], c["first_bottom"], problem.size, c["first_steps"])
    if missed is None:
        few = f"{c['first_steps']} products are too few for a statement"
        return {"missed_reason": few}
    return {
        "missed_epsilon": missed[0],
        "missed_above": missed[1] + floor,
        "missed_below": None if settings.operator in _SEMIDEFINITE else missed[2] - floor,
    }


def _layers(problem: Problem, settings: Settings, a: dict[str, np.ndarray]) -> dict[str, Any]:
    if "layer_figures" not in a:
        return {}
    figures, layout = a["layer_figures"], problem.selection.layout
    groups = list(layers(layout).items())[: len(figures)]
    return {
        "layers": np.array([name for name, _ in groups], dtype=object),
        "layer_parameters": np.array([layout.count(members) for _, members in groups]),
        "layer_eigenvalues": figures[:, 0],
        "layer_intervals": layer_intervals(figures),
        "layer_converged": np.array(
            [has_converged(v, r, settings.tolerance, float(f[0])) | np.isnan(v) for v, r, f in figures]
        ).reshape(figures[:, 0].shape),
    }


def _average(settings: Settings, c: dict[str, Any], a: dict[str, np.ndarray]) -> dict[str, Any]:
    if settings.method != "running-average":
        return {}
    length, iterations = float(a["average_norms"][-1]), len(a["average_norms"]) - 1
    bound = None
    if settings.perturb == "gradient" and c["minibatch"] == c["examples"] and iterations:
        bound = max(0.0, float(a["average_lengths"][-1]) - c["difference_error"])
    found = {
        "perturb": settings.perturb or "iterate",
        "new_weight": c["new_weight"],
        "minibatch": c["minibatch"],
        "history": a["average_norms"][1:],
        "rayleigh": a["average_rayleigh"][1:],
        "evaluation_residuals": a["average_residuals"][1:],
        "learning_rate": 1 / length if iterations and length > 0 and a["average_lengths"][-1] > 0 else None,
        "bound": bound,
    }
    if "reference_values" in a:
        reference = {
            "reference_eigenvalues": a["reference_values"],
            "reference_intervals": intervals(
                a["reference_values"], a["reference_residuals"], float(c["reference_floor"])
            ),
            "gradient_share": c.get("gradient_share"),
        }
        found |= reference
    return found


def _peer(c: dict[str, Any], a: dict[str, np.ndarray]) -> dict[str, Any]:
    if "peer_values" not in a:
        return {}
    return {
        "peer_eigenvalues": a["peer_values"],
        "peer_residuals": a["peer_residuals"],
        "peer_products": c["peer_products"],
        "peer_notes": c["peer_notes"],
    }
