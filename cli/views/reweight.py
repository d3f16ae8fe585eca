"""The weights of examples in words."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from landscape.results import ReweightResult

from ..console import Console
from ..numbers import duration, figure
from .common import counted, percent

__all__ = ["print_result"]

#: Where there is no figure.
_NONE = "—"


def print_result(console: Console, result: ReweightResult) -> None:
    """Medians of each group of examples, then what weight and loss have to do with each other."""
    if not result.group_examples[0]:
        console.out("no example has a weight")
    else:
        console.table(*_groups(result))
    console.out()
    console.pairs(_summary(result))


def _groups(result: ReweightResult) -> tuple[list[str], list[list[str]]]:
    columns = [
        (result.median_losses, result.median_loss_intervals),
        (result.median_weights, result.median_weight_intervals),
    ]
    header = ["labels", "examples", "median loss", "median weight"]
    if result.separable:
        header += ["logit part", "Jacobian part"]
        columns += [
            (result.median_logit_weights, result.median_logit_weight_intervals),
            (result.median_jacobian_weights, result.median_jacobian_weight_intervals),
        ]
    rows = [
        [str(name), str(count), *(_with_interval(float(values[i]), ends[i]) for values, ends in columns)]
        for i, (name, count) in enumerate(zip(result.groups, result.group_examples, strict=True))
    ]
    return header, rows


def _with_interval(value: float, ends: np.ndarray, digits: int = 4) -> str:
    """``value (low … high)``; without an interval where there were too few values for one."""
    if not math.isfinite(value):
        return _NONE
    if not np.isfinite(ends).all():
        return figure(value, digits)
    low, high = (figure(float(end), digits) for end in ends)
    return f"{figure(value, digits)} ({low} … {high})"


def _summary(result: ReweightResult) -> Iterator[tuple[str, str]]:
    yield "weight", _definition(result)
    if result.group_examples[0]:
        few = " (none of a median of fewer than 6)" if min(result.group_examples) < 6 else ""
        yield "intervals", f"95 %, in brackets{few}"
        yield "rank", _rank(result)
        yield from _marks(result)
        yield "rounding", _rounding(result)
    yield from _left_out(result)
    if result.weight_decay:
        yield "decay", "weight decay belongs to no example: the examples' losses are without it"
    if not result.separable:
        yield "parts", "logit and Jacobian parts are not available: no single tensor of outputs is known"
    yield "method", _method(result)
    yield "cost", duration(result.seconds)


def _definition(result: ReweightResult) -> str:
    norm = "" if result.p == 2 else f" in the {'∞' if math.isinf(result.p) else figure(result.p)}-norm"
    unit = " ‖∇l‖" if result.relative else ""
    sums = "" if result.terms == result.examples else "; l is summed over the terms of an example"
    return (
        f"‖∇l(w+ε)‖/‖∇l(w)‖ of each example, ε along its own ∇l, ρ = {figure(result.rho)}{unit}{norm}{sums}"
    )


def _rank(result: ReweightResult) -> str:
    if not math.isfinite(result.rank_correlation):
        return f"{_NONE}: fewer than 4 examples, or weights or losses that are all the same"
    shown = _with_interval(result.rank_correlation, result.rank_correlation_interval, 3)
    return f"{shown}: Spearman's correlation of weight and loss"


def _marks(result: ReweightResult) -> Iterator[tuple[str, str]]:
    """How well weight and loss tell clean labels from noisy ones."""
    if result.noisy is None:
        yield "noisy", "no labels are marked as wrong: --noisy does, or an array noisy in the data"
        return
    marked = counted(int(np.sum(result.noisy)), "label")
    if result.weight_area is None or result.loss_area is None:
        yield "noisy", f"{marked} marked as noisy: clean and noisy examples are not both there to compare"
        return
    assert result.weight_area_interval is not None
    assert result.loss_area_interval is not None
    weight = _with_interval(result.weight_area, result.weight_area_interval, 3)
    loss = _with_interval(result.loss_area, result.loss_area_interval, 3)
    yield "noisy", f"{marked} marked as noisy ({percent(float(np.mean(result.noisy)))} %)"
    yield "AUC", f"{weight}: chance that a clean example weighs more than a noisy one (½: no telling)"
    yield "loss AUC", f"{loss}: chance that it has the smaller loss, to compare with"


def _rounding(result: ReweightResult) -> str:
    if result.rounding is None or result.rounding_typical is None:
        return "not measured"
    worst, typical = (f"{percent(error)} %" for error in (result.rounding, result.rounding_typical))
    found = f"a weight is wrong by at most {worst}, typically {typical}"
    advice = "; --dtype float64 is better" if result.rounding > 0.01 else ""
    return (
        f"{found}, on {counted(result.rounding_examples, 'example')} of low to high loss, against "
        f"{result.rounding_against}{advice}"
    )


def _left_out(result: ReweightResult) -> Iterator[tuple[str, str]]:
    """Examples without a weight."""
    for name, count, why in (
        ("zero", result.zero_gradients, "whose gradient is zero: no weight"),
        ("masked", result.without_terms, "all of whose terms are masked: no weight"),
        ("overflow", result.overflowed, "whose gradient at w + ε is not finite: use a smaller --rho"),
        ("not yet", result.not_reached, "that a limit came before"),
    ):
        if count:
            yield name, f"{counted(count, 'example')} {why}"


def _method(result: ReweightResult) -> str:
    if not result.method_reason:
        return f"{result.method}, {counted(result.chunk, 'example')} at once"
    return f"{result.method}, for it cannot be vectorised: {result.method_reason}"
