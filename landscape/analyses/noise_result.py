"""The figures of ``landscape noise``, and its result from a saved state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from landscape.analyses.base import Saved
from landscape.analyses.noise import Settings
from landscape.analyses.work import problem_fields
from landscape.linalg.alignment import Estimate, JointTraces, Moment
from landscape.problem import Problem
from landscape.results import NoiseResult

__all__ = ["CONFIDENCE", "NOISE", "batch_draws", "ends", "figures", "noise_result"]

CONFIDENCE = 0.95
#: The covariance of the noise; the first of the matrices.
NOISE = "noise"
#: Figures of the joint traces, each a value and the two ends of its interval, by name.
Figures = Mapping[str, list[float]]
_UNKNOWN = [math.nan] * 4
#: Mini-batches of one size, unless more are asked for.
_MOST_DRAWS = 1024


def batch_draws(examples: int, least: int) -> list[tuple[int, int]]:
    """(size, mini-batches of that size): sizes 1, 2, 4, … up to half of the examples.

    Where a pass over the data makes more than ``least`` of them, as many as it makes: the squared norms of
    small mini-batches are so skew that the mean of a few dozen says little.
    """
    sizes = [1 << i for i in range(max(1, (examples // 2).bit_length()))]
    return [(size, max(least, min(_MOST_DRAWS, examples // size))) for size in sizes]


def figures(joint: JointTraces, matrices: tuple[str, ...], loss: float, risk: float) -> Figures:
    """All figures of the joint traces, whose first matrix is the covariance of the noise."""
    found = {"noise_frobenius": joint.frobenius(0, risk)}
    for a, name in enumerate(matrices, start=1):
        found[f"cosine_{name}"] = joint.cosine(0, a, risk)
        found[f"trace_{name}"] = joint.trace(a, risk)
        found[f"frobenius_{name}"] = joint.frobenius(a, risk)
    if len(matrices) == 2:
        found["curvature_cosine"] = joint.cosine(1, 2, risk)
    if "gauss-newton" in matrices:
        g = 1 + matrices.index("gauss-newton")
        found["noise_per_curvature"] = joint.monomial((0, g), {(g,): -1.0}, risk)
        if loss > 0:
            squares: dict[Moment, float] = {(g, g): -1.0}
            found["scaled_alignment"] = _times(1 / (2 * loss), joint.monomial((0, g), squares, risk))
            found["relative_size"] = _times(1 / (2 * loss), joint.size_ratio(0, g, risk))
    return {name: ends(estimate) for name, estimate in found.items()}


def _times(factor: float, estimate: Estimate) -> Estimate:
    return Estimate(factor * estimate.value, factor * estimate.low, factor * estimate.high)


def ends(estimate: Estimate) -> list[float]:
    return [estimate.value, estimate.low, estimate.high]


def noise_result(problem: Problem, settings: Settings, saved: Saved) -> NoiseResult:
    """The result of a saved state; what a run that was stopped early has not come to is NaN or left out."""
    c, a = saved.counters, saved.arrays
    names = settings.matrices
    complete = c["over"] and (c["silent"] or c["met"])
    return NoiseResult(
        **problem_fields(problem, saved),
        status="complete" if complete else "not_converged",
        method="exact on the top eigenspaces, random vectors for the rest",
        undefined=_undefined(c, names),
        matrices=np.array(names, dtype=object),
        confidence=CONFIDENCE,
        k=min(settings.k, problem.size),
        chance_share=min(settings.k, problem.size) / problem.size,
        **_joint_fields(c, names),
        **_space_fields(a, names, min(settings.k, problem.size)),
        **_noise_fields(problem, settings, saved),
        **_look_fields(c, names),
        exact_dimensions=c.get("rows", 0),
        probes=c.get("probes", 0),
        noise_floor=c["floors"].get(NOISE, math.nan),
        noise_floors=np.array([c["floors"].get(name, math.nan) for name in names]),
        products=c["products"],
        passes=c["passes"],
        seconds=c["seconds"],
    )


def _undefined(c: Mapping[str, Any], names: tuple[str, ...]) -> str:
    if c["silent"]:
        return "no noise: the gradients of all examples are the same to rounding"
    if "figures" not in c:
        return "" if c["over"] else "the run was stopped before it came to the alignment"
    zero = [name for name in names if math.isnan(c["figures"][f"cosine_{name}"][0])]
    return (
        "" if not zero else f"{' and '.join(zero)}: zero to rounding, so that there is no alignment with it"
    )


def _joint_fields(c: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Cosines, traces, norms and correlations of the diagonals."""
    found: Figures = c.get("figures", {})
    fields: dict[str, Any] = {}
    plural = {
        "cosine": ("cosines", "cosine_intervals"),
        "trace": ("traces", "trace_intervals"),
        "frobenius": ("frobenius", "frobenius_intervals"),
        "diagonal": ("diagonal_correlations", "diagonal_intervals"),
    }
    for one, (values, intervals) in plural.items():
        rows = np.array([found.get(f"{one}_{name}", _UNKNOWN)[:4] for name in names], dtype=float)
        fields |= {values: rows[:, 0], intervals: rows[:, 1:3]}
    fields["diagonal_reliabilities"] = np.array(
        [found.get(f"diagonal_{name}", _UNKNOWN)[3] for name in names], dtype=float
    )
    value, *interval = found.get("noise_frobenius", [0.0] * 3 if c["silent"] else _UNKNOWN[:3])
    fields |= {"noise_frobenius": value, "noise_frobenius_interval": np.array(interval)}
    for name in ("curvature_cosine", "noise_per_curvature", "scaled_alignment", "relative_size"):
        if name in found and math.isfinite(found[name][0]):
            value, *interval = found[name]
            fields |= {name: value, f"{name}_interval": np.array(interval)}
    return fields


def _space_fields(a: Mapping[str, np.ndarray], names: tuple[str, ...], k: int) -> dict[str, Any]:
    """Top eigenspaces and the share of the noise in them."""
    known = all(f"{name}_values" in a for name in names)
    nothing = np.full((len(names), k), math.nan)
    shares = a.get("shares", np.full((len(names), 2), math.nan))
    return {
        "top_eigenvalues": np.stack([a[f"{name}_values"] for name in names]) if known else nothing,
        "top_residuals": np.stack([a[f"{name}_residuals"] for name in names]) if known else nothing,
        "shares": shares[:, 0],
        "share_errors": shares[:, 1],
        "share_space_errors": np.array([_space_error(a, name) for name in names])
        if known
        else np.full(len(names), math.nan),
    }


def _space_error(a: Mapping[str, np.ndarray], name: str) -> float:
    """‖sin Θ‖ ≤ ‖R‖_F/gap (Davis & Kahan 1970): |Tr C(V̂V̂ᵀ − VVᵀ)| ≤ ‖sin Θ‖·Tr C, as C is semi-definite."""
    values, residuals, following = a[f"{name}_values"], a[f"{name}_residuals"], a[f"{name}_next"]
    if not following.size:  # the whole space, or nothing known of what follows
        return 0.0 if len(values) == a[f"{name}_vectors"].shape[1] else 1.0
    gap = float(values[-1] - following[0, 0] - following[1, 0])
    off = float(np.linalg.norm(residuals))
    return min(1.0, off / gap) if gap > off else 1.0


def _noise_fields(problem: Problem, settings: Settings, saved: Saved) -> dict[str, Any]:
    """Tr C, the noise scale, and the gradient's norm against batch size."""
    c, a = saved.counters, saved.arrays
    trace, error = c.get("noise_trace", math.nan), c.get("noise_trace_error", math.nan)
    squared = c["gradient_norm"] ** 2
    fields: dict[str, Any] = {
        "noise_trace": trace,
        "noise_trace_error": error,
        "data_loss": c["data_loss"],
        "batch_reason": c["batch_reason"],
        "counted_examples": len(a["examples_terms"]) if "shares" in a else 0,
    }
    if math.isfinite(trace) and squared > 0:
        fields |= {"noise_scale": trace / squared, "noise_scale_error": error / squared}
    return fields | _batch_fields(a, settings.draws, squared, trace)


def _batch_fields(a: Mapping[str, np.ndarray], least: int, squared: float, trace: float) -> dict[str, Any]:
    count = len(a["examples_terms"]) if "shares" in a else 0
    plan = batch_draws(count, least) if count else []
    sizes, draws = np.array(plan, dtype=np.int64).reshape(len(plan), 2).T
    means, errors = np.full(len(plan), math.nan), np.full(len(plan), math.nan)
    for i, wanted in enumerate(draws):
        values = a.get(f"batches_{i}", np.zeros(0))
        if len(values) == wanted:
            means[i], errors[i] = values.mean(), values.std(ddof=1) / math.sqrt(wanted)
    missing = np.isnan(means)
    return {
        "batch_sizes": sizes,
        "batch_draws": draws,
        "gradient_squares": np.ma.MaskedArray(means, mask=missing),
        "gradient_square_errors": np.ma.MaskedArray(errors, mask=missing),
        "predicted_squares": squared + (count - sizes) / max(1, count - 1) * trace / np.maximum(sizes, 1),
    }


def _look_fields(c: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    looks = c["looks"]
    pairs = np.array([look[1:] for look in looks], dtype=float).reshape(len(looks), len(names), 2)
    return {
        "look_products": np.array([look[0] for look in looks], dtype=np.int64),
        "look_cosines": pairs[:, :, 0],
        "look_half_widths": pairs[:, :, 1],
    }
