"""Eigenvalues in words."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from landscape.results import EigenResult

from ..console import Console
from ..numbers import at_least, at_most, figure, quotient_interval, value_and_error, with_error
from .common import cost, counted, matrix_lines

__all__ = ["print_eigen"]

#: Matrices whose λmax bounds the step of gradient descent.
_CURVATURES = ("hessian", "finite-difference")


def print_eigen(console: Console, result: EigenResult) -> None:
    """The table of the pairs, what follows from them, and whatever else was asked for."""
    averaged = result.history is not None and len(result.history) > 0
    if len(result.eigenvalues):
        console.table(*_table(result))
        console.out()
    if averaged:
        console.pairs(_average(result))
        console.out()
    if not len(result.eigenvalues):
        found = "v was not yet measured" if averaged else "a limit stopped the run before its first product"
        console.out(f"no eigenvalue yet: {found}")
        return
    if result.layers is not None:
        console.table(*_layers(result))
        console.out()
    if result.peer_eigenvalues is not None and result.method != "pyhessian":
        console.table(*_peer(result))
        console.out()
    console.pairs(_summary(result))


def _table(result: EigenResult) -> tuple[list[str], list[list[str]]]:
    header = ["pair", "eigenvalue", "±", "standard error over data", "converged"]
    half = np.diff(result.intervals, axis=1).ravel() / 2
    missing = "NO (Hu is no eigenvector)" if result.perturb == "gradient" else "NO"
    rows = []
    for i, value in enumerate(result.eigenvalues):
        shown, error = value_and_error(float(value), float(half[i]))
        sampling = result.standard_errors[i]
        rows.append(
            [
                str(i + 1),
                shown,
                error,
                "not computed" if np.ma.is_masked(sampling) else figure(float(sampling), 2),
                "yes" if result.converged[i] else missing,
            ]
        )
    return header, rows


def _summary(result: EigenResult) -> Iterator[tuple[str, str]]:
    yield from matrix_lines(result)
    yield from _ends(result)
    if result.which in ("largest", "both") and _number_from_top(result) >= 5:
        yield "λ1/λ5", _ratio(result)
    if result.operator in _CURVATURES:
        yield from _rates(*_top(result))
    yield (
        "noise floor",
        (f"{at_most(result.noise_floor, 2)} (what a product can be wrong by; part of the ± of the pairs)"),
    )
    yield "missed", _missed(result)
    if result.method == "lanczos":
        yield "repeated", _repeated(result)
    if result.asymmetry is not None:
        yield "asymmetry", f"{figure(result.asymmetry, 2)} (‖M − Mᵀ‖ of the matrix as computed)"
    if result.peer_notes:
        yield "pyhessian", f"{counted(result.peer_products or 0, 'product')}; {result.peer_notes}"
    yield "data error", result.standard_error_method
    for what, file in (("eigenvectors", result.eigenvectors_file), ("Krylov", result.krylov_file)):
        if file is not None:
            yield what, f"kept in {file}"
    yield cost(result)


def _top(result: EigenResult) -> tuple[float, float]:
    """(λmax as far as it was found, its error)."""
    reference, intervals = result.reference_eigenvalues, result.reference_intervals
    if reference is not None and intervals is not None and len(reference):
        return float(reference[0]), float(np.diff(intervals[0])[0]) / 2
    return result.lambda_max, result.lambda_max_residual + result.noise_floor


def _ends(result: EigenResult) -> Iterator[tuple[str, str]]:
    """The ends of the spectrum, as far as the method looks there."""
    if result.method in ("power", "pyhessian"):
        return
    top, error = _top(result)
    highest = with_error(top, error)
    yield "λmax", f"{highest}, the largest Ritz value: λmax is at least {at_least(top - error)}"
    bottom = result.lambda_min_residual + result.noise_floor
    most = f"λmin is at most {at_most(result.lambda_min + bottom)}"
    if result.which in ("smallest", "both") or result.method == "dense":
        yield "λmin", f"{with_error(result.lambda_min, bottom)}, the smallest Ritz value: {most}"
    else:
        yield "λmin", f"not looked for; {most} (--which smallest finds it)"


def _rates(top: float, error: float) -> Iterator[tuple[str, str]]:
    """What λmax says about steps of gradient descent."""
    if top > 0:
        step, limit = (_inverse(numerator, top, error) for numerator in (1, 2))
        yield "1/λmax", f"{step} (step to the bottom of the sharpest direction)"
        yield "2/λmax", f"{limit} (largest stable learning rate, local quadratic)"
    else:
        yield "1/λmax", "not available: no positive eigenvalue was found"


def _number_from_top(result: EigenResult) -> int:
    """How many of the pairs were asked for as the largest."""
    count = len(result.eigenvalues)
    return count if result.which == "largest" else count - count // 2


def _ratio(result: EigenResult) -> str:
    first, fifth = result.intervals[0], result.intervals[4]
    span = quotient_interval((float(first[0]), float(first[1])), (float(fifth[0]), float(fifth[1])))
    if span is None:
        return "not available: the interval of λ5 holds zero"
    quotient = float(result.eigenvalues[0] / result.eigenvalues[4])
    error = max(span[1] - quotient, quotient - span[0])
    return f"{with_error(quotient, error)} (of the pairs above)"


def _inverse(numerator: float, value: float, error: float) -> str:
    """numerator/value when the value may be off by ``error``."""
    if error >= value:
        return f"about {figure(numerator / value, 1)}"
    return with_error(numerator / value, numerator / (value - error) - numerator / value)


def _missed(result: EigenResult) -> str:
    """What can be said about a larger (or smaller) eigenvalue that the iteration did not see."""
    if result.missed_epsilon is None:
        reason = result.missed_reason or "it was not recorded"
        return reason if reason.startswith("not needed") else f"not available: {reason}"
    above, below = result.missed_above, result.missed_below
    bounds = [] if above is None else [f"λmax above {at_most(above)}"]
    bounds += [] if below is None else [f"λmin below {at_least(below)}"]
    share = at_most(100 * result.missed_epsilon, 2)
    said = "".join(f"{bound} has probability at most 5 %; " for bound in bounds)
    return f"{said}ε = {share} % of λmax − λmin at 95 % (Kuczyński & Woźniakowski 1992)"


def _repeated(result: EigenResult) -> str:
    if result.verified:
        return f"{result.verified} products spent looking for further and repeated eigenvalues"
    return "not looked for; --verify N does"


def _layers(result: EigenResult) -> tuple[list[str], list[list[str]]]:
    """The extreme eigenvalues of each layer's block."""
    assert result.layers is not None
    assert result.layer_parameters is not None
    assert result.layer_eigenvalues is not None
    assert result.layer_intervals is not None
    assert result.layer_converged is not None
    names = {"both": ["λmax", "λmin"], "smallest": ["λmin"], "magnitude": ["largest |λ|"]}
    ends = names.get(result.which, ["λmax"])
    header = ["layer", "parameters", *(word for end in ends for word in (f"{end} of its block", "±"))]
    rows = []
    for i, layer in enumerate(result.layers):
        row = [str(layer), str(result.layer_parameters[i])]
        for j, value in enumerate(result.layer_eigenvalues[i]):
            half = float(np.diff(result.layer_intervals[i, j])[0]) / 2
            shown, error = value_and_error(float(value), half)
            row += [shown, error if result.layer_converged[i, j] else f"{error} (not converged)"]
        rows.append(row)
    return header, rows


def _peer(result: EigenResult) -> tuple[list[str], list[list[str]]]:
    """pyhessian's values beside ours, each with the nearest of ours that was found."""
    assert result.peer_eigenvalues is not None
    assert result.peer_residuals is not None
    compared = result.eigenvalues if result.reference_eigenvalues is None else result.reference_eigenvalues
    rows, own = [], np.array(compared)
    for value, residual in zip(result.peer_eigenvalues, result.peer_residuals, strict=True):
        shown, error = value_and_error(float(value), float(residual) + result.noise_floor)
        nearest = float(own[np.abs(own - value).argmin()])
        rows.append([shown, error, figure(nearest, 6), f"{value - nearest:+.2g}"])
    return ["pyhessian", "± (residual by our product)", "nearest of ours", "difference"], rows


def _average(result: EigenResult) -> Iterator[tuple[str, str]]:
    """What the running average came to, and what that means."""
    assert result.history is not None
    assert result.rayleigh is not None
    assert result.evaluation_residuals is not None
    length, gradient = float(result.history[-1]), result.perturb == "gradient"
    batch = "full batch" if result.minibatch == result.examples else f"mini-batches of {result.minibatch}"
    what = "gradient-direction curvature ‖Hu‖, not λmax" if gradient else "the running estimate of λmax"
    yield "‖v‖", f"{figure(length, 6)} after {len(result.history)} iterations: {what}"
    yield (
        "method",
        (
            f"running average along the {'gradient (as written)' if gradient else 'vector itself'}, "
            f"{batch}, new weight {figure(result.new_weight)}"
        ),
    )
    yield "verdict", _verdict(result)
    if result.bound is not None:
        yield "bound", f"the largest |λ| is at least {at_least(result.bound)} (‖Hu‖ ≤ max |λ|)"
    elif gradient:
        yield "bound", "none: on mini-batches the limit depends on new weight and batch size"
    if result.reference_eigenvalues is not None and len(result.reference_eigenvalues):
        assert result.reference_intervals is not None
        top = float(result.reference_eigenvalues[0])
        half = float(np.diff(result.reference_intervals[0])[0]) / 2
        yield "Lanczos", f"λmax {with_error(top, half)}"
        if top:
            yield "‖v‖/λmax", _quotient(length / top)
        if result.gradient_share is not None:
            k = len(result.reference_eigenvalues)
            yield (
                "gradient",
                f"{figure(100 * result.gradient_share)} % of ‖g‖² lies in the space of the top {k}",
            )
    rate = (
        "not available: there is nothing to perturb along, or ‖v‖ is 0"
        if result.learning_rate is None
        else f"{figure(result.learning_rate)} (the step that the method proposes)"
    )
    yield "1/‖v‖", rate


def _quotient(quotient: float) -> str:
    """How far the average is from λmax, in words."""
    if abs(quotient - 1) <= 0.1:
        return f"{figure(quotient, 4)}: within 10 % of λmax"
    where = "far below" if quotient < 0.5 else "below" if quotient < 1 else "above"
    return f"{figure(quotient, 4)}: {where} λmax"


def _verdict(result: EigenResult) -> str:
    if result.status == "oscillating":
        return (
            "oscillating: v flips its sign at each step, so ‖v‖ is no eigenvalue; |λmin| is too large for "
            "this new weight (needed: |λmin| < λmax (2/β − 1))"
        )
    if result.status == "complete":
        meant = "‖v‖ has settled" if result.perturb == "gradient" else "the residual is within the tolerance"
        return f"converged: {meant}"
    return "not converged: ‖v‖ still moves, or the residual is above the tolerance"
