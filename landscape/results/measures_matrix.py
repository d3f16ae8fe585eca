"""The measures of results about a curvature matrix: eigenvalues, traces and densities."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from landscape.results.density import DensityResult
from landscape.results.eigen import EigenResult
from landscape.results.matrix import CURVATURE
from landscape.results.reading import BOUND, Measure, Reading, between, finite
from landscape.results.trace import TraceResult

__all__ = ["DENSITY", "EIGEN", "TRACE"]

#: Matrices whose λmax bounds the step of gradient descent.
_HESSIANS = ("hessian", "finite-difference")

# -- eigen ---------------------------------------------------------------------------------------------------


def _extreme(value: str, residual: str) -> Callable[[EigenResult], Reading | None]:
    """λmax or λmin as far as it was seen, with the standard error of the pair that has it, if one has."""

    def read(result: EigenResult) -> Reading | None:
        theta = finite(getattr(result, value))
        if theta is None:
            return None
        reach = finite(getattr(result, residual) + result.noise_floor)
        own = np.flatnonzero(np.asarray(result.eigenvalues) == theta)
        error = finite(result.standard_errors[own[0]]) if len(own) else None
        return Reading(theta, reach, BOUND, error)

    return read


def _norm(result: EigenResult) -> Reading | None:
    """The end of the history of a running average."""
    found = None if result.history is None or not len(result.history) else finite(result.history[-1])
    return None if found is None else Reading(found)


def _stability_limit(result: EigenResult) -> Reading | None:
    """2/λmax of a Hessian with a positive one: both errors of λmax carried over."""
    largest = _extreme("lambda_max", "lambda_max_residual")(result)
    if largest is None or largest.value <= 0 or result.operator not in _HESSIANS:
        return None
    value, off = largest.value, largest.error
    error = None if off is None or off >= value else 2 / (value - off) - 2 / value  # the longer side
    deviation = None if largest.standard_error is None else 2 * largest.standard_error / value**2
    return Reading(2 / value, error, largest.meaning, deviation)


EIGEN = (
    Measure(
        "lambda_max", "λmax", "Largest eigenvalue.", CURVATURE, _extreme("lambda_max", "lambda_max_residual"),
        main=True,
    ),
    Measure(
        "lambda_min", "λmin (seen)", "Smallest Ritz value seen: λmin is at most this.", CURVATURE,
        _extreme("lambda_min", "lambda_min_residual"),
    ),
    Measure(
        "stability_limit", "2/λmax", "Largest stable step of gradient descent on the local quadratic.",
        "weight² / loss", _stability_limit,
    ),
    Measure("running_average", "‖v‖", "Norm of the running average.", CURVATURE, _norm, main=True),
)  # fmt: skip


# -- trace ---------------------------------------------------------------------------------------------------


def _trace(result: TraceResult) -> Reading | None:
    found, meaning = finite(result.trace), f"{100 * result.confidence:g} % interval"
    return None if found is None else Reading(found, finite(result.half_width), meaning, random=True)


TRACE = (
    Measure("trace", "Tr", "Sum of the eigenvalues.", CURVATURE, _trace, main=True),
    Measure(
        "frobenius", "‖·‖F", "Frobenius norm, √Σλ².", CURVATURE, between("frobenius", "frobenius_interval")
    ),
    Measure(
        "effective_dimension", "(Σλ)²/Σλ²", "As many equal eigenvalues would give the same two sums.", "",
        between("effective_dimension", "effective_dimension_interval"),
    ),
)  # fmt: skip


# -- density -------------------------------------------------------------------------------------------------

_BOUNDS = "bounds, two standard errors over probes"


def _end(value: str) -> Callable[[DensityResult], Reading | None]:
    """An extreme Ritz value of a density."""

    def read(result: DensityResult) -> Reading | None:
        theta = finite(getattr(result, value))
        residual = finite(getattr(result, f"{value}_residual"))
        error = None if residual is None else residual + result.noise_floor
        return None if theta is None else Reading(theta, error, BOUND)

    return read


DENSITY = (
    Measure(
        "lambda_max", "λmax", "Largest Ritz value: λmax is at least this.", CURVATURE, _end("lambda_max"),
        main=True,
    ),
    Measure(
        "lambda_min", "λmin (seen)", "Smallest Ritz value: λmin is at most this.", CURVATURE,
        _end("lambda_min"),
    ),
    Measure(
        "trace", "Tr", "Sum of the eigenvalues.", CURVATURE, between("trace", "trace_interval"), main=True
    ),
    Measure(
        "negative_share", "share of λ < 0", "Share of the eigenvalues below −(noise floor).", "",
        between("negative_share", "negative_share_bounds", _BOUNDS, random=False), main=True,
    ),
    Measure(
        "effective_dimension", "Σ λ/(λ + z)", "Effective dimension for the z asked for.", "",
        between("effective_dimension", "effective_dimension_bounds", _BOUNDS, random=False),
    ),
)  # fmt: skip
