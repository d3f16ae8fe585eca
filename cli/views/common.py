"""Results in words, whatever their kind, and as the run objects of ``--json``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from landscape.results import MatrixResult, ProblemResult, Provenance, Result, SliceResult

from ..console import Console
from ..numbers import at_most, duration, figure

if TYPE_CHECKING:
    from landscape.results import Quantity

__all__ = [
    "cost",
    "counted",
    "described",
    "floor_line",
    "loss_line",
    "matrix_lines",
    "percent",
    "print_provenance",
]


def loss_line(result: ProblemResult | SliceResult) -> str:
    """The loss first, and of what: is it the user's?"""
    loss = result.own_loss if isinstance(result, SliceResult) else result.loss
    accuracy = "" if result.accuracy is None else f"accuracy {100 * result.accuracy:.4g} %, "
    terms = "" if result.terms == result.examples else f"{figure(result.terms, 12)} loss terms, "
    kinds = {
        "frozen, left out": result.frozen_parameters,
        "tied, counted once": result.tied_parameters,
        "unused by the loss": result.unused_parameters,
    }
    others = "".join(f"; {count} {kind}" for kind, count in kinds.items() if count)
    return (
        f"loss {figure(loss, 6)} ({accuracy}{counted(result.examples, 'example')}, {terms}"
        f"{counted(result.parameters, 'parameter')}{others}, "
        f"gradient norm {figure(result.gradient_norm, 4)}): is this my loss?"
    )


def matrix_lines(result: MatrixResult) -> Iterator[tuple[str, str]]:
    """Which matrix it is, unless it is the Hessian itself."""
    if result.operator != "hessian":
        draws = (
            ""
            if result.label_samples is None
            else f", {counted(result.label_samples, 'label')} drawn for each example"
        )
        yield "matrix", f"{result.operator}{draws}"
    if result.rho is None:
        return
    found = (
        ""
        if result.rho_error is None
        else (
            f"; a product is off by {figure(100 * result.rho_error, 2)} %, measured against "
            f"{result.rho_against}"
        )
    )
    yield "rho", f"{figure(result.rho)}, {result.difference} differences{found}"


def floor_line(result: MatrixResult) -> tuple[str, str]:
    """What products are wrong by."""
    return (
        "noise floor",
        f"{at_most(result.noise_floor, 2)} (what a product can be wrong by; part of every ±)",
    )


def cost(result: MatrixResult) -> tuple[str, str]:
    """What it took."""
    spent = f"{counted(result.products, 'product')}, {counted(result.passes, 'pass', 'passes')}"
    return "cost", f"{spent}, {duration(result.seconds)}"


def counted(count: int, one: str, many: str = "") -> str:
    """``1 product``, ``2 products``."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def percent(share: float) -> str:
    """A share as a percentage to two digits, never with an exponent: ``0.12``, ``3.4``, ``120``."""
    value = 100 * share
    return figure(value, 2) if abs(value) < 99.5 else f"{value:.0f}"


def described(result: Result) -> Iterator[tuple[str, str]]:
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
        ("seed", _seed(provenance)),
        ("computed", f"on {provenance.device} in {provenance.dtype}, {duration(provenance.seconds)}"),
        ("started", provenance.started),
        ("strategy", _listed(provenance.strategy)),
        ("versions", _listed(provenance.versions)),
    ]
    console.pairs(((name, text or "not recorded") for name, text in pairs))


def _seed(provenance: Provenance) -> str:
    if provenance.checkpoint is None and "inputs" in provenance.strategy and len(provenance.strategy) == 1:
        return "none: made from stored runs"
    return f"{provenance.seed} ({'given' if provenance.seed_given else 'drawn'})"


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in values.items())
