"""Results in words, as ``eigen`` and ``show`` print them, and as the run objects of ``--json``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from landscape.results import EigenResult, Provenance, Result, jsonable

from .console import Console
from .numbers import at_least, at_most, duration, figure, quotient_interval, value_and_error, with_error

if TYPE_CHECKING:
    from landscape.results import Quantity

__all__ = ["ADVICE", "print_provenance", "print_result", "run_object"]

#: What a status other than complete means, and what to do about it.
ADVICE = {
    "not_converged": "not every pair is as accurate as asked for: allow more --max-products or loosen --tol",
    "oscillating": "the iteration runs in a cycle instead of converging: the figure is not an eigenvalue",
    "partial": "a limit stopped it early: give the same command again without the limit to go on",
    "failed": "the computation failed: what is stored is not a result",
}


def run_object(result: Result, file: Path | None = None) -> dict[str, Any]:
    """One entry of ``runs`` in the object that ``--json`` prints."""
    provenance = result.provenance
    reference = provenance.checkpoint if provenance else None
    return {
        "id": provenance.id if provenance else None,
        "kind": result.kind,
        "status": result.status,
        "checkpoint": None
        if reference is None
        else {
            "path": reference.path,
            "sha256": reference.sha256,
            "step": reference.step,
            "epoch": reference.epoch,
        },
        "settings": jsonable(provenance.settings) if provenance else {},
        "seed": provenance.seed if provenance else None,
        "file": None if file is None else str(file),
        "result": result.to_json(),
    }


def print_result(console: Console, result: Result) -> None:
    """The loss first, then the table and the summary that belong to the kind of result."""
    console.out(_loss_line(result))
    console.out()
    if isinstance(result, EigenResult) and not len(result.eigenvalues):
        console.out("no eigenvalue yet: a limit stopped the run before its first product")
    elif isinstance(result, EigenResult):
        console.table(*_eigen_table(result))
        console.out()
        console.pairs(_eigen_summary(result))
    else:
        console.pairs(_described(result))


def _loss_line(result: Result) -> str:
    accuracy = "" if result.accuracy is None else f"accuracy {100 * result.accuracy:.4g} %, "
    terms = "" if result.terms == result.examples else f"{result.terms} loss terms, "
    kinds = {
        "frozen, left out": result.frozen_parameters,
        "tied, counted once": result.tied_parameters,
        "unused by the loss": result.unused_parameters,
    }
    others = "".join(f"; {count} {kind}" for kind, count in kinds.items() if count)
    return (
        f"loss {figure(result.loss, 6)} ({accuracy}{result.examples} examples, {terms}"
        f"{result.parameters} parameters{others}, gradient norm {figure(result.gradient_norm, 4)}): "
        "is this my loss?"
    )


# -- eigenvalues -------------------------------------------------------------------------------------------


def _eigen_table(result: EigenResult) -> tuple[list[str], list[list[str]]]:
    header = ["pair", "eigenvalue", "±", "standard error over data", "converged"]
    half = np.diff(result.intervals, axis=1).ravel() / 2
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
                "yes" if result.converged[i] else "NO",
            ]
        )
    return header, rows


def _eigen_summary(result: EigenResult) -> Iterator[tuple[str, str]]:
    top = result.lambda_max_residual + result.noise_floor
    bottom = result.lambda_min_residual + result.noise_floor
    highest, lowest = with_error(result.lambda_max, top), with_error(result.lambda_min, bottom)
    yield "λmax", f"{highest}, the largest Ritz value: λmax is at least {at_least(result.lambda_max - top)}"
    yield "λmin", f"{lowest}, the smallest Ritz value: λmin is at most {at_most(result.lambda_min + bottom)}"
    if result.which in ("largest", "both") and _number_from_top(result) >= 5:
        yield "λ1/λ5", _ratio(result)
    if result.lambda_max > 0:
        step, limit = (_inverse(numerator, result.lambda_max, top) for numerator in (1, 2))
        yield "1/λmax", f"{step} (step to the bottom of the sharpest direction)"
        yield "2/λmax", f"{limit} (largest stable learning rate, local quadratic)"
    else:
        yield "1/λmax", "not available: no positive eigenvalue was found"
    yield "noise floor", f"{at_most(result.noise_floor, 2)} (what a product can be wrong by; part of every ±)"
    yield "missed", _missed(result)
    yield "repeated", _repeated(result)
    yield "data error", result.standard_error_method
    yield "cost", f"{result.products} products, {result.passes} passes, {duration(result.seconds)}"


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
        return f"not available: {result.missed_reason or 'it was not recorded'}"
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


# -- any kind ----------------------------------------------------------------------------------------------


def _described(result: Result) -> Iterator[tuple[str, str]]:
    """Every quantity by its own description."""
    for quantity, value in result:
        yield quantity.name, _shown(quantity, value)


def _shown(quantity: Quantity, value: Any) -> str:
    unit = f" {quantity.unit}" if quantity.unit else ""
    if value is None:
        return "not computed"
    if isinstance(value, np.ndarray):
        if value.size > 8:
            return f"array {' × '.join(map(str, value.shape))} ({', '.join(quantity.dims)}){unit}"
        return f"{', '.join(_number(v) for v in value.ravel())}{unit}"
    return f"{_number(value)}{unit}"


def _number(value: Any) -> str:
    if np.ma.is_masked(value):
        return "not computed"
    return figure(float(value), 6) if isinstance(value, float | np.floating) else str(value)


def print_provenance(console: Console, provenance: Provenance) -> None:
    """How a run was obtained: everything that was written down beside its result."""
    reference = provenance.checkpoint
    pairs = [("run", provenance.id), ("command", provenance.command)]
    if reference is not None:
        when = [
            f"{name} {n}"
            for name, n in (("step", reference.step), ("epoch", reference.epoch))
            if n is not None
        ]
        pairs.append(("checkpoint", ", ".join([reference.path, *when])))
        pairs.append(("sha-256", reference.sha256))
    pairs += [
        ("settings", _listed(provenance.settings)),
        ("problem", _listed(provenance.problem)),
        ("data", provenance.data_fingerprint),
        ("seed", f"{provenance.seed} ({'given' if provenance.seed_given else 'drawn'})"),
        ("computed", f"on {provenance.device} in {provenance.dtype}, {duration(provenance.seconds)}"),
        ("started", provenance.started),
        ("strategy", _listed(provenance.strategy)),
        ("versions", _listed(provenance.versions)),
    ]
    console.pairs(((name, text or "not recorded") for name, text in pairs))


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in values.items())
