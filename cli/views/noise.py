"""The noise of gradients in words."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from landscape.results import NoiseResult

from ..console import Console
from ..numbers import at_most, duration, figure, value_and_error, with_error
from .common import counted, percent

__all__ = ["print_result"]

#: Where there is no figure.
_NONE = "—"
_LETTERS = {"gauss-newton": "G", "hessian": "H"}


def print_result(console: Console, result: NoiseResult) -> None:
    """Alignment with each matrix, what the figures mean, and the gradient's norm by batch size."""
    if result.undefined:
        console.out(result.undefined)
        console.out()
    if np.isfinite(result.cosines).any():
        console.table(*_alignment(result))
        console.out()
    if len(result.batch_sizes) and np.ma.count(result.gradient_squares):
        console.table(*_batches(result))
        console.out()
    console.pairs(_summary(result))


def _alignment(result: NoiseResult) -> tuple[list[str], list[list[str]]]:
    """A row for each matrix."""
    rows = []
    for i, name in enumerate(result.matrices):
        cosine = _interval(result.cosines[i], result.cosine_intervals[i])
        diagonal = _interval(result.diagonal_correlations[i], result.diagonal_intervals[i])
        share, error = _share(result, i)
        rows.append([str(name), *cosine, share, error, *diagonal])
    top = f"share in top {result.k}"
    header = ["noise against", "cosine", "± (95 %)", top, "± (95 %)", "diagonals", "± (95 %)"]
    return header, rows


def _interval(value: float, ends: np.ndarray) -> tuple[str, str]:
    """A value and the larger half of its interval."""
    if not math.isfinite(value):
        return _NONE, _NONE
    shown, error = value_and_error(
        float(value), float(max(value - ends[0], ends[1] - value)) if np.isfinite(ends).all() else math.nan
    )
    return shown, error.replace("?", _NONE)


def _share(result: NoiseResult, i: int) -> tuple[str, str]:
    """In percent; where eigenvectors are not told apart, no figure."""
    if not math.isfinite(result.shares[i]) or result.share_space_errors[i] >= 1:
        return _NONE, _NONE
    reach = 1.96 * float(result.share_errors[i]) + float(result.share_space_errors[i])
    share, error = value_and_error(100 * float(result.shares[i]), 100 * reach)
    return f"{share} %", f"{error} %"


def _batches(result: NoiseResult) -> tuple[list[str], list[list[str]]]:
    """Root mean squares of the gradient's norm; the error by the delta method."""
    rows = []
    squares, errors = result.gradient_squares, result.gradient_square_errors
    for i, size in enumerate(result.batch_sizes):
        expected = figure(math.sqrt(result.predicted_squares[i]), 4)
        if np.ma.is_masked(squares[i]):
            rows.append([str(size), str(result.batch_draws[i]), _NONE, _NONE, expected])
            continue
        root = math.sqrt(squares[i])
        shown = value_and_error(root, float(errors[i]) / (2 * root)) if root else ("0", "0")
        rows.append([str(size), str(result.batch_draws[i]), *shown, expected])
    return ["batch size", "drawn", "gradient norm", "± (1 s.e.)", "predicted"], rows


def _summary(result: NoiseResult) -> Iterator[tuple[str, str]]:
    yield "noise", _noise(result)
    if np.isfinite(result.cosines).any():
        yield "cosine", "Tr(CA)/(‖C‖‖A‖), A the matrix of the row: 1 if the noise is a multiple of it"
    if np.isfinite(result.shares).any():
        yield "share", _shares(result)
    if np.isfinite(result.diagonal_correlations).any():
        yield "diagonals", _diagonals(result)
    yield from _matrices(result)
    yield from _against_loss(result)
    yield "noise scale", _noise_scale(result)
    if len(result.batch_sizes):
        yield "batches", _batch_words(result)
    yield "method", _method(result)
    if math.isfinite(result.noise_floor):
        yield "noise floor", _floors(result)
    spent = f"{counted(result.products, 'product')}, {counted(result.passes, 'pass', 'passes')}"
    yield "cost", f"{spent}, {duration(result.seconds)}"


def _noise(result: NoiseResult) -> str:
    if not math.isfinite(result.noise_trace):
        return "not measured yet"
    known = math.isfinite(result.noise_trace_error)
    trace = with_error(result.noise_trace, result.noise_trace_error) if known else figure(result.noise_trace)
    error = "± is 1 standard error over the sampling of the data" if known else "too few for a standard error"
    one = " (gradients summed over an example's terms)" if result.terms != result.counted_examples else ""
    return (
        f"Tr C = {trace} over {result.counted_examples} examples{one}; {error}. "
        f"‖C‖ = {_between(result.noise_frobenius, result.noise_frobenius_interval)}"
    )


def _shares(result: NoiseResult) -> str:
    chance = f"by chance {percent(result.chance_share)} %"
    off = []
    for name, error in zip(result.matrices, result.share_space_errors, strict=True):
        if error >= 1:
            off.append(f"the top {result.k} eigenvectors of {name} are not told from the next one")
        elif math.isfinite(error):
            off.append(f"the error of {name}'s eigenvectors moves it by {percent(error)} % of Tr C at most")
    return "; ".join([f"Tr(VᵀCV)/Tr C, V the top {result.k} eigenvectors; {chance}", *off])


def _diagonals(result: NoiseResult) -> str:
    kept = ", ".join(
        f"{percent(share)} % of {_LETTERS[name]}'s"
        for name, share in zip(result.matrices, result.diagonal_reliabilities, strict=True)
        if math.isfinite(share)
    )
    noise = f" (signal in the variance as estimated: {kept})" if kept else ""
    return f"correlation over the parameters, corrected for the noise of the random vectors{noise}"


def _matrices(result: NoiseResult) -> Iterator[tuple[str, str]]:
    for i, name in enumerate(result.matrices):
        if math.isfinite(result.traces[i]):
            letter = _LETTERS[name]
            trace = _between(result.traces[i], result.trace_intervals[i])
            size = _between(result.frobenius[i], result.frobenius_intervals[i])
            yield str(name), f"Tr {letter} = {trace}, ‖{letter}‖ = {size} (95 %)"
    if result.curvature_cosine is not None:
        value = _between(result.curvature_cosine, result.curvature_cosine_interval)
        yield "G and H", f"cosine {value} (95 %)"


def _against_loss(result: NoiseResult) -> Iterator[tuple[str, str]]:
    """The noise along the curvature beside the loss (Wu, Wang & Su 2022)."""
    loss = f"loss {figure(result.data_loss, 4)}"
    if result.noise_per_curvature is not None:
        value = _between(result.noise_per_curvature, result.noise_per_curvature_interval)
        yield "along G", f"Tr(CG)/Tr(G) = {value}, {loss}"
    if result.scaled_alignment is not None and result.relative_size is not None:
        value = _between(result.scaled_alignment, result.scaled_alignment_interval)
        size = _between(result.relative_size, result.relative_size_interval)
        yield (
            "loss-scaled",
            f"Tr(CG)/(2L‖G‖²) = {value}: cosine × size, ‖C‖/(2L‖G‖) = {size} "
            "(Wu, Wang & Su 2022, made for the squared loss)",
        )


def _noise_scale(result: NoiseResult) -> str:
    if result.noise_scale is None or result.noise_scale_error is None:
        return "not defined: " + ("the gradient is zero" if not result.gradient_norm else "not measured yet")
    value = with_error(result.noise_scale, result.noise_scale_error)
    return f"Tr(C)/‖gradient‖² = {value} examples (McCandlish et al. 2018, eq. 2.9; ± from Tr C alone)"


def _batch_words(result: NoiseResult) -> str:
    if result.batch_reason:
        return f"none drawn: {result.batch_reason}"
    formula = "‖g‖² + (N − B)/(N − 1)·Tr(C)/B"
    exact = (
        ""
        if result.terms == result.counted_examples
        else ", to first order: a mini-batch's mean is over its terms"
    )
    return f"root mean square norms; predicted is the root of {formula}{exact}"


def _method(result: NoiseResult) -> str:
    if not result.exact_dimensions and not result.probes:
        return result.method
    exact = counted(result.exact_dimensions, "dimension")
    if result.exact_dimensions == result.parameters:
        return f"exact, on all {exact}"
    return f"exact on {exact}, {counted(result.probes, 'random vector')} for the rest"


def _floors(result: NoiseResult) -> str:
    floors = [
        f"C {at_most(result.noise_floor, 2)}",
        *(
            f"{_LETTERS[name]} {at_most(float(floor), 2)}"
            for name, floor in zip(result.matrices, result.noise_floors, strict=True)
        ),
    ]
    wrong = "what a product can be wrong by; part of every 95 % interval but the diagonals'"
    return f"{', '.join(floors)} ({wrong})"


def _between(value: float, interval: np.ndarray | None) -> str:
    """A value with the larger of its two distances to the ends of its interval, if there is one."""
    if interval is None or not np.isfinite(interval).all():
        return figure(value)
    return with_error(float(value), float(max(value - interval[0], interval[1] - value)))
