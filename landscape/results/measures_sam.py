"""The measures of results about perturbed gradients: ratios, sharpness, weights of examples, noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from landscape.results.matrix import CURVATURE
from landscape.results.noise import NoiseResult
from landscape.results.ratios import CLASSES, RatiosResult
from landscape.results.reading import (
    INTERVAL,
    NORMAL,
    SQUARE,
    Measure,
    Reading,
    between,
    finite,
    rounding_or_spread,
    sampled,
    within,
)
from landscape.results.reweight import ReweightResult
from landscape.results.sharpness import SharpnessResult

__all__ = ["NOISE", "RATIOS", "REWEIGHT", "SHARPNESS"]

# -- ratios --------------------------------------------------------------------------------------------------


#: Classes that rounding puts nothing into: what nothing depends on has a gradient of exactly zero.
_EXACT = ("dead", "nonfinite")


def _fraction(name: str) -> Callable[[RatiosResult], Reading | None]:
    """The share of a class: what rounding may have moved out of it and into it, and a standard error.

    What may be missing from the class was counted in any of the others.
    """

    def read(result: RatiosResult) -> Reading | None:
        where = np.flatnonzero(np.asarray(result.classes) == name)
        if not len(where):
            return None
        share = float(result.fractions[where[0]])
        moved, every = finite(result.uncertain[where[0]]), finite(np.sum(result.uncertain))
        deviation = finite(result.fraction_errors[where[0]])
        if moved is None or every is None:
            return Reading(share, standard_error=deviation, sampling=_BATCHES)
        others = 0.0 if name in _EXACT else max(every - moved, 0.0)
        return Reading(
            share, max(moved, others), "what rounding may have moved", deviation, sampling=_BATCHES,
            interval=(share - moved, share + others),
        )  # fmt: skip

    return read


def _with_deviation(value: str, error: str) -> Callable[[RatiosResult], Reading | None]:
    """A figure whose error is one of rounding for all data at once, and a standard error over batches."""

    def read(result: RatiosResult) -> Reading | None:
        return rounding_or_spread(result, value, error, result.minibatch is None, _BATCHES)

    return read


_BATCHES = "over mini-batches"
RATIOS = (
    *(
        Measure(
            name, f"{name} ({rule})", f"Share of the parameters with {rule}.", "", _fraction(name), main=i < 4
        )
        for i, (name, rule) in enumerate(CLASSES.items())
    ),
    Measure(
        "gradient_norm_ratio", "‖g'‖/‖g‖", "Length of the perturbed gradient by that of the gradient.", "",
        _with_deviation("gradient_norm_ratio", "gradient_norm_ratio_error"),
    ),
    Measure(
        "cosine", "cos(g, g')", "Cosine of the angle between both gradients.", "",
        _with_deviation("cosine", "cosine_error"),
    ),
    Measure(
        "directional_curvature", "uᵀHu along ε", "Mean curvature between w and w + ε along ε.", CURVATURE,
        _with_deviation("directional_curvature", "directional_curvature_error"),
    ),
)  # fmt: skip


# -- sharpness -----------------------------------------------------------------------------------------------

_GROUPS = "over groups"


def _increase(result: SharpnessResult) -> Reading | None:
    """The rise: an interval over random directions, or rounding and a standard error at the ε found."""
    found, own = finite(result.increase), finite(result.increase_error)
    if found is None:
        return None
    if result.measure == "average":
        return Reading(found, own, INTERVAL, random=True)
    if result.m is not None:
        return Reading(found, standard_error=own, sampling=_GROUPS)
    return Reading(found, finite(result.noise), "rounding", own)


def _keskar(result: SharpnessResult) -> Reading | None:
    found, own = finite(result.keskar), finite(result.keskar_error)
    where = "over the data" if result.m is None else _GROUPS
    return None if found is None else Reading(found, standard_error=own, sampling=where)


def _term(name: str) -> Callable[[SharpnessResult], Reading | None]:
    """A term of the expansion."""

    def read(result: SharpnessResult) -> Reading | None:
        return rounding_or_spread(result, name, f"{name}_error", result.m is None, _GROUPS)

    return read


SHARPNESS = (
    Measure(
        "increase", "L(w+ε) − L(w)", "Rise of the loss within the ball, or its mean over random ε.", "loss",
        _increase, main=True,
    ),
    Measure("first_order", "εᵀg", "Its term of first order.", "loss", _term("first_order")),
    Measure("second_order", "½εᵀHε", "Its term of second order.", "loss", _term("second_order")),
    Measure("remainder", "remainder", "The rise without these two terms.", "loss", _term("remainder")),
    Measure(
        "random_mean", "mean rise", "Mean rise over isotropic random ε.", "loss",
        between("random_mean", "random_interval"),
    ),
    Measure("keskar", "Keskar's φ", "100 (L(w+ε) − L(w))/(1 + L(w)).", "percent", _keskar),
)  # fmt: skip


# -- noise ---------------------------------------------------------------------------------------------------


def _of_matrix(matrix: str, value: str, interval: str) -> Callable[[NoiseResult], Reading | None]:
    """A figure of one of the matrices that the noise is compared with."""

    def read(result: NoiseResult) -> Reading | None:
        where = np.flatnonzero(np.asarray(result.matrices) == matrix)
        found = finite(getattr(result, value)[where[0]]) if len(where) else None
        if found is None:
            return None
        return within(found, getattr(result, interval)[where[0]])

    return read


def _share(matrix: str) -> Callable[[NoiseResult], Reading | None]:
    """The share of the noise in the top eigenspace; none where there is no gap to tell the space by."""

    def read(result: NoiseResult) -> Reading | None:
        where = np.flatnonzero(np.asarray(result.matrices) == matrix)
        space = finite(result.share_space_errors[where[0]]) if len(where) else None
        found = finite(result.shares[where[0]]) if len(where) else None
        if found is None or space is None or space >= 1:
            return None
        return Reading(found, space, "error of the eigenvectors", finite(result.share_errors[where[0]]))

    return read


_MATRICES = (("gauss-newton", "G", "Gauss-Newton matrix"), ("hessian", "H", "Hessian"))
NOISE = (
    *(
        Measure(
            f"cosine_{matrix.replace('-', '_')}", f"cos(C, {letter})",
            f"Tr(C{letter})/(‖C‖‖{letter}‖), {letter} the {words}.", "",
            _of_matrix(matrix, "cosines", "cosine_intervals"), main=True,
        )
        for matrix, letter, words in _MATRICES
    ),
    *(
        Measure(
            f"share_{matrix.replace('-', '_')}", f"share of C in top {letter}",
            f"Share of the noise in the space of the top eigenvectors of {letter}.", "", _share(matrix),
        )
        for matrix, letter, _ in _MATRICES
    ),
    Measure(
        "noise_trace", "Tr C", "Variance of the gradient of one example.", SQUARE,
        sampled("noise_trace", "noise_trace_error"),
    ),
    Measure(
        "noise_scale", "Tr(C)/‖g‖²", "Batch size at which noise and gradient are as large.", "examples",
        sampled("noise_scale", "noise_scale_error"),
    ),
    Measure(
        "scaled_alignment", "Tr(CG)/(2L‖G‖²)", "Loss-scaled alignment of noise and Gauss-Newton matrix.", "",
        between("scaled_alignment", "scaled_alignment_interval"),
    ),
)  # fmt: skip


# -- reweight ------------------------------------------------------------------------------------------------

_EXAMPLES = "over the examples"


def _deviation(ends: Any) -> float | None:
    """The standard error that a 95 % interval comes to."""
    return None if ends is None else finite((float(ends[1]) - float(ends[0])) / (2 * NORMAL))


def _sampled_between(value: str, interval: str) -> Callable[[ReweightResult], Reading | None]:
    def read(result: ReweightResult) -> Reading | None:
        found = finite(getattr(result, value))
        if found is None:
            return None
        return Reading(found, standard_error=_deviation(getattr(result, interval)), sampling=_EXAMPLES)

    return read


def _median_weight(group: str) -> Callable[[ReweightResult], Reading | None]:
    def read(result: ReweightResult) -> Reading | None:
        where = np.flatnonzero(np.asarray(result.groups) == group)
        found = finite(result.median_weights[where[0]]) if len(where) else None
        if found is None:
            return None
        error = None if result.rounding is None else finite(abs(found) * result.rounding)
        deviation = _deviation(result.median_weight_intervals[where[0]])
        return Reading(found, error, "rounding", deviation, sampling=_EXAMPLES)

    return read


REWEIGHT = (
    Measure("median_weight", "median weight", "Median weight of an example in 1-SAM.", "",
            _median_weight("all"), main=True),
    Measure(
        "rank_correlation", "rank corr. with loss", "Spearman's correlation of weight and loss.", "",
        _sampled_between("rank_correlation", "rank_correlation_interval"), main=True,
    ),
    Measure("median_weight_clean", "median, clean", "The same of examples with right labels.", "",
            _median_weight("clean")),
    Measure("median_weight_noisy", "median, noisy", "The same of examples with wrong labels.", "",
            _median_weight("noisy")),
    Measure(
        "weight_area", "AUC of the weight", "Chance that a clean example weighs more than a noisy one.", "",
        _sampled_between("weight_area", "weight_area_interval"),
    ),
)  # fmt: skip
