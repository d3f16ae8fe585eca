"""Overlaps of a ratio class in words."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from landscape.results import CLASSES, OverlapResult

from ..console import Console
from ..numbers import at_least, at_most, duration, figure, value_and_error, with_error
from .common import counted

__all__ = ["print_result"]

#: Of more saved steps than this, only neighbours, and the first with all others, are listed.
MOST = 8
NONE = "—"


def print_result(console: Console, result: OverlapResult) -> None:
    """The sets, the lifts at a glance, every pair beside chance, and what stays in the class throughout."""
    console.out(_title(result))
    console.out()
    console.table(*_sets(result))
    console.out()
    if 2 < len(result.places) <= MOST:
        console.out("lift from row to column (1 is chance)")
        console.table(*_lifts(result))
        console.out()
    console.table(*_pairs(result))
    if len(result.places) > MOST:
        console.out("(neighbours, and the first with all others; --json has all pairs)")
    console.out()
    if result.common is not None and len(result.places) > 2:
        console.out(f"in {result.ratio_class} at every saved step from {result.labels()[0]} on")
        console.table(*_common(result))
        console.out()
    console.pairs(_summary(result))


def _title(result: OverlapResult) -> str:
    def said(name: str) -> str:
        return f"{name} ({CLASSES[name]})"

    other = "" if result.with_class is None else f" with {said(result.with_class)} at other steps"
    return f"overlap of {said(result.ratio_class)}{other}, {counted(result.parameters, 'parameter')}"


def _sets(result: OverlapResult) -> tuple[list[str], list[list[str]]]:
    rows = []
    for i, label in enumerate(result.labels()):
        size, error = int(result.sizes[i]), int(result.size_errors[i])
        row = [label, str(result.checkpoints[i]), _exact(size, error), _percent(size / result.parameters)]
        if result.with_sizes is not None:
            assert result.with_size_errors is not None
            other, error = int(result.with_sizes[i]), int(result.with_size_errors[i])
            row += [_exact(other, error), _percent(other / result.parameters)]
        rows.append([*row, str(result.runs[i])])
    second = [] if result.with_class is None else [result.with_class, "share of all"]
    return [_head(result), "checkpoint", result.ratio_class, "share of all", *second, "run"], rows


def _head(result: OverlapResult) -> str:
    return result.order if result.numbered else "saved"


def _lifts(result: OverlapResult) -> tuple[list[str], list[list[str]]]:
    labels = result.labels()
    rows = [[labels[i], *(_lift(result, i, j) for j in range(len(labels)))] for i in range(len(labels))]
    return [_head(result), *labels], rows


def _pairs(result: OverlapResult) -> tuple[list[str], list[list[str]]]:
    labels, rows = result.labels(), []
    for i, j in _listed(result):
        low, high = result.lift_intervals[i, j]
        between = NONE if np.ma.is_masked(low) else f"{at_least(float(low))} … {at_most(float(high))}"
        z = result.z[i, j]
        rows.append(
            [
                f"{labels[i]} → {labels[j]}",
                _exact(int(result.counts[i, j]), int(result.count_errors[i, j])),
                _chance(float(result.expected[i, j]), float(result.deviations[i, j])),
                _lift(result, i, j),
                between,
                _or_none(result.shares[i, j], _percent),
                _or_none(result.jaccards[i, j], figure),
                _or_none(result.kappas[i, j], figure),
                _or_none(z, lambda value: f"{value:+.1f}" if abs(value) < 1000 else f"{value:+.2e}"),
            ]
        )
    head = ["from → to", "both", "by chance", "lift", "chance, 95 %", "of the first", "Jaccard", "κ", "z"]
    return head, rows


def _listed(result: OverlapResult) -> Iterator[tuple[int, int]]:
    """Pairs in training order: all, or neighbours and the first with all others."""
    count = len(result.places)
    pairs = (
        itertools.combinations(range(count), 2)
        if result.with_class is None
        else (itertools.permutations(range(count), 2))
    )
    for i, j in pairs:
        if count <= MOST or i == 0 or abs(j - i) == 1:
            yield i, j


def _common(result: OverlapResult) -> tuple[list[str], list[list[str]]]:
    """From the first step on."""
    assert result.common is not None
    assert result.common_errors is not None
    assert result.common_expected is not None
    assert result.common_deviations is not None
    labels, rows = result.labels(), []
    for last in range(1, len(labels)):
        count, expected = int(result.common[0, last]), float(result.common_expected[0, last])
        deviation = float(result.common_deviations[0, last])
        lift = value_and_error(count / expected, deviation / expected)[0] if expected else NONE
        share = _percent(count / int(result.sizes[0])) if result.sizes[0] else NONE
        in_all = _exact(count, int(result.common_errors[0, last]))
        rows.append([labels[last], str(last + 1), in_all, _chance(expected, deviation), lift, share])
    return ["to", "sets", "in all", "by chance", "lift", "of the first"], rows


def _summary(result: OverlapResult) -> Iterator[tuple[str, str]]:
    if result.differing is None:
        yield "classes", f"of g'/g, {result.perturbation}"
    else:
        yield "differing", f"{result.differing}: these are not steps of one measurement"
    yield (
        "by chance",
        "what independent sets of these sizes have in common, ± its standard deviation (hypergeometric); "
        "their lift lies in the interval 95 % of the time",
    )
    yield (
        "z",
        "in those standard deviations, parameter by parameter; parameters of a model depend on each other, "
        "so read how much from the lift",
    )
    if (np.asarray(result.size_errors) > 0).any():
        yield "±", "of a count: how many parameters rounding of the gradients may have put in or out, at most"
    if result.order == "given":
        yield "order", "as given: not every checkpoint says its step or epoch"
    elif not result.numbered:
        yield "order", f"by {result.order}; several checkpoints are of the same one, so not of one training"
    yield "cost", duration(result.seconds)


def _lift(result: OverlapResult, i: int, j: int) -> str:
    """The lift to the digits that chance leaves."""
    lift = result.lifts[i, j]
    if np.ma.is_masked(lift):
        return NONE
    return value_and_error(float(lift), float(result.deviations[i, j] / result.expected[i, j]))[0]


def _chance(expected: float, deviation: float) -> str:
    """An expected count: whole where it is large, so that it reads like the count beside it."""
    if deviation < 10:
        return with_error(expected, deviation)
    return f"{expected:.0f} ± {math.ceil(deviation)}"


def _exact(count: int, error: int) -> str:
    return f"{count} ± {error}" if error else str(count)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _or_none(value: Any, write: Callable[[float], str]) -> str:
    return NONE if np.ma.is_masked(value) else write(float(value))
