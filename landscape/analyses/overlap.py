"""``landscape overlap``: what a ratio class at one saved step has in common with that at others.

Made from stored ``ratios`` runs, without a model: it has no steps. Whatever is slow to import is imported
when the work begins: the options are shown without it.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from landscape.errors import InputError
from landscape.settings import option

if TYPE_CHECKING:
    import numpy as np

    from landscape.results import OverlapResult, RatiosResult, Result
    from landscape.sam.overlap import Counts

__all__ = ["SOURCE", "Settings", "combine", "kind", "ordered", "unusable"]

kind = "overlap"

#: The kind of the results that it is made from.
SOURCE = "ratios"

#: As in ``landscape.results.CLASSES``.
RatioClass = Literal[
    "ckpt1", "ckpt2", "ckpt3", "ckpt4", "equal", "opposite", "dead", "born", "killed", "nonfinite"
]

#: Probability of the interval of lifts.
_CONFIDENCE = 0.95
#: What makes another perturbation, beside the parameters of the problem.
_PERTURBATION = ("perturb", "p", "rho", "relative", "eta", "sigma")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Options of ``overlap``."""

    ratio_class: RatioClass = option(
        "ckpt1",
        "The class to follow: ckpt1 … ckpt4, equal, opposite, dead, born, killed or nonfinite.",
        short="--class",
        metavar="CLASS",
    )
    with_class: RatioClass | None = option(
        None,
        "Compare it with this class at the other steps instead of with itself.",
        short="--with",
        metavar="CLASS",
    )
    mixed: bool = option(
        False, "Compare runs also where perturbation, data, loss or anything else but the weights differs."
    )


def unusable(result: Result) -> str:
    """Why an overlap cannot be made from a run, in words; empty if it can."""
    masks = getattr(result, "masks_file", None)
    if masks is not None:
        return ""
    size = getattr(result, "minibatch", None)
    return "made with mini-batches" if size is not None else "made with --no-masks, or not finished"


def ordered(results: Sequence[RatiosResult]) -> tuple[list[RatiosResult], str, list[int]]:
    """(results in training order, what that is the order of, the place of each): steps where all have one.

    Else epochs, else the order given; equal places stay as they were given.
    """
    references = [result.provenance.checkpoint if result.provenance else None for result in results]
    for order in ("step", "epoch"):
        places = [getattr(reference, order, None) for reference in references]
        if None not in places:
            known = cast(list[int], places)
            found = sorted(range(len(known)), key=known.__getitem__)
            return [results[i] for i in found], order, [known[i] for i in found]
    return list(results), "given", list(range(len(results)))


def combine(results: Sequence[RatiosResult], settings: Settings) -> OverlapResult:
    """The overlaps of runs with their masks.

    Raises:
        InputError: fewer than two runs, runs that do not fit together, or masks that do not fit their run.
    """
    import numpy as np

    from landscape.results import OverlapResult
    from landscape.sam.overlap import common_counts, pair_counts

    began = time.perf_counter()
    if len(results) < 2:
        raise InputError(
            "an overlap is between two saved steps at least",
            found=f"{len(results)} ratios run{'' if len(results) == 1 else 's'} with masks",
            do="landscape ratios CHECKPOINT makes one of each checkpoint; name all their result files",
        )
    results, order, places = ordered(results)
    _one_training(results, places, settings)
    n = _parameters(results)
    differing = _differing(results, settings)
    own, other = settings.ratio_class, settings.with_class
    other = None if other == own else other
    masks = [_mask(result, own) for result in results]
    theirs = masks if other is None else [_mask(result, other) for result in results]
    counts = pair_counts(masks, theirs, n)
    sizes = _sizes(results, own)
    with_sizes = sizes if other is None else _sizes(results, other)
    errors = np.array([_uncertain(result, own) for result in results])
    with_errors = None if other is None else np.array([_uncertain(result, other) for result in results])
    return OverlapResult(
        status="complete",
        ratio_class=own,
        with_class=other,
        parameters=n,
        perturbation=_perturbation(results[0]) if differing is None else "differs",
        differing=differing,
        checkpoints=np.array([_name(result) for result in results], dtype=object),
        runs=np.array([_run(result) for result in results], dtype=object),
        order=order,
        places=np.array(places, dtype=np.int64),
        sizes=np.array(sizes, dtype=np.int64),
        size_errors=errors.max(axis=1),
        with_sizes=None if other is None else np.array(with_sizes, dtype=np.int64),
        with_size_errors=None if with_errors is None else with_errors.max(axis=1),
        counts=counts,
        count_errors=_count_errors(errors, with_errors),
        **_against_chance(counts, sizes, with_sizes, n),
        **(_common(common_counts(masks, n), errors, sizes, n) if other is None else {}),
        seconds=time.perf_counter() - began,
    )


def _one_training(results: Sequence[RatiosResult], places: Sequence[int], settings: Settings) -> None:
    """Refuse checkpoints of the same step, which are of several trainings, unless ``--mixed``."""
    if settings.mixed:
        return
    files = [one.provenance.checkpoint if one.provenance else None for one in results]
    for i, place in enumerate(places[:-1]):
        one, other = files[i], files[i + 1]
        if place == places[i + 1] and one and other and one.sha256 != other.sha256:
            raise InputError(
                "several checkpoints are of the same step, so of several trainings",
                found=f"{_name(results[i])} and {_name(results[i + 1])} at {place}",
                do="name the result files of one of them, or compare all with --mixed",
            )


def _count_errors(own: np.ndarray, other: np.ndarray | None) -> np.ndarray:
    """By how many parameters, at most, rounding changed the counts (S, S), from ``_uncertain`` (S, 2).

    They may have left one of the two sets or the other, or have come into one of them. Two classes at one
    step never have a parameter in common.
    """
    import numpy as np

    errors = (own[:, None] + (own if other is None else other)[None, :]).max(axis=2)
    np.fill_diagonal(errors, own.max(axis=1) if other is None else 0)
    return cast("np.ndarray", errors)


def _against_chance(counts: Counts, a: Sequence[int], b: Sequence[int], n: int) -> dict[str, Any]:
    """The counts on every scale, and what they would be by chance, but on the diagonal."""
    import numpy as np

    from landscape.sam.overlap import chance, independent_interval, measures

    shape, found = counts.shape, measures(counts, a, b, n)
    itself = np.eye(len(a), dtype=bool)
    expected, deviations, intervals = np.zeros(shape), np.zeros(shape), np.zeros((*shape, 2))
    for i, j in zip(*np.nonzero(~itself), strict=True):
        law = chance((a[i], b[j]), n)
        expected[i, j], deviations[i, j] = law.expected, law.deviation
        if law.expected:
            intervals[i, j] = independent_interval(a[i], b[j], n, _CONFIDENCE)
            intervals[i, j] /= law.expected
    without = deviations == 0
    no_lift = itself | np.ma.getmaskarray(found.lift)
    return {
        "expected": np.ma.MaskedArray(expected, mask=itself),
        "deviations": np.ma.MaskedArray(deviations, mask=itself),
        "z": np.ma.MaskedArray((counts - expected) / np.where(without, 1.0, deviations), mask=without),
        "shares": found.share,
        "lifts": np.ma.MaskedArray(found.lift.data, mask=no_lift),
        "lift_intervals": np.ma.MaskedArray(intervals, mask=np.stack([no_lift, no_lift], axis=2)),
        "jaccards": found.jaccard,
        "kappas": found.kappa,
    }


def _common(counts: Counts, errors: np.ndarray, sizes: Sequence[int], n: int) -> dict[str, Any]:
    """The parameters in the class all the time from one step to another, and how many would be by chance."""
    import numpy as np

    from landscape.sam.overlap import chance

    none = np.tri(len(sizes), k=-1, dtype=bool)
    expected, deviations = np.zeros(counts.shape), np.zeros(counts.shape)
    until = np.concatenate([np.zeros((1, 2), dtype=np.int64), errors.cumsum(axis=0)])
    wrong = (until[None, 1:] - until[:-1, None]).max(axis=2)  # of all the sets from one to the other
    for first, last in itertools.combinations(range(len(sizes)), 2):
        law = chance(sizes[first : last + 1], n)
        expected[first, last], deviations[first, last] = law.expected, law.deviation
    single = none | np.eye(len(sizes), dtype=bool)
    return {
        "common": np.ma.MaskedArray(counts, mask=none),
        "common_errors": np.ma.MaskedArray(wrong, mask=none),
        "common_expected": np.ma.MaskedArray(expected, mask=single),
        "common_deviations": np.ma.MaskedArray(deviations, mask=single),
    }


def _parameters(results: Sequence[RatiosResult]) -> int:
    """The number of parameters, if all runs are about the same ones."""
    first = results[0]
    for result in results[1:]:
        found = _other_parameters(first, result)
        if found:
            raise InputError(
                "these are checkpoints of different models, or of other parameters of one: bit by bit they "
                "have nothing to do with each other",
                found=found,
                do="name result files of one training run, measured with the same --params",
            )
    return first.parameters


def _other_parameters(one: RatiosResult, other: RatiosResult) -> str:
    """In what the parameters of two runs differ, in words; empty if they are the same ones."""
    if one.parameters != other.parameters:
        return f"{one.parameters} parameters in {_name(one)}, {other.parameters} in {_name(other)}"
    if one.layers is None or other.layers is None:
        return ""
    assert one.layer_parameters is not None
    assert other.layer_parameters is not None
    ours = list(zip(one.layers.tolist(), one.layer_parameters.tolist(), strict=True))
    theirs = list(zip(other.layers.tolist(), other.layer_parameters.tolist(), strict=True))
    for ours_of, theirs_of in itertools.zip_longest(ours, theirs, fillvalue=("nothing", 0)):
        if ours_of != theirs_of:
            layers = [f"{name} ({count} parameters)" for name, count in (ours_of, theirs_of)]
            return f"{layers[0]} in {_name(one)} is {layers[1]} in {_name(other)}"
    return ""


def _differing(results: Sequence[RatiosResult], settings: Settings) -> str | None:
    """In what the runs differ beside the weights; None for nothing.

    Raises:
        InputError: in something, and that was not asked for.
    """
    asked = [_asked(result) for result in results]
    names = dict.fromkeys(name for one in asked for name in one)
    found = []
    for name in names:
        values = dict.fromkeys(str(one.get(name)) for one in asked)
        if len(values) > 1:
            found.append(f"{name}: {', '.join(list(values)[:4])}{', …' if len(values) > 4 else ''}")
    if found and not settings.mixed:
        raise InputError(
            "the runs differ in more than the weights, so that their overlap would say little",
            found="; ".join(found),
            do="measure them alike, choose with --run, or add --mixed to compare them all the same",
        )
    return "; ".join(found) or None


def _asked(result: RatiosResult) -> dict[str, Any]:
    """What was asked of a run: perturbation, data and problem, whatever the weights."""
    asked: dict[str, Any] = {name: getattr(result, name) for name in _PERTURBATION}
    provenance = result.provenance
    if provenance is None:
        return asked
    return {**asked, **provenance.problem, "data": provenance.data_fingerprint, "dtype": provenance.dtype}


def _perturbation(result: RatiosResult) -> str:
    """The perturbation in words."""
    unit = "‖g‖" if result.relative else ""
    more = {"p": None if result.perturb == "random" else result.p, "η": result.eta, "σ": result.sigma}
    rest = "".join(f", {name} = {value:g}" for name, value in more.items() if value is not None)
    return f"{result.perturb}, ρ = {result.rho:g}{unit and ' ' + unit}{rest}"


def _mask(result: RatiosResult, ratio_class: str) -> np.ndarray:
    """The packed set of the parameters in a class.

    Raises:
        InputError: the masks are not those of the run.
    """
    from landscape.sam.overlap import packed_size, pair_counts

    index = result.classes.tolist().index(ratio_class)
    masks, shape = result.masks, (len(result.classes), packed_size(result.parameters))
    if masks is None or masks.shape != shape or masks.dtype.kind != "u":
        found = "none" if masks is None else f"{masks.dtype} {masks.shape}, not uint8 {shape}"
        raise InputError(
            f"the masks of {_run(result)} are not those of its model",
            found=found,
            do=_again(result) if masks is not None else "name its file: the masks lie beside it",
        )
    held, counted = int(pair_counts([masks[index]], [masks[index]], result.parameters)[0, 0]), result.counts
    if held != round(float(counted[index])):
        raise InputError(
            f"the masks of {_run(result)} do not fit its figures",
            found=f"{held} parameters in {ratio_class} by the masks, {counted[index]:.0f} by the run",
            do=_again(result),
        )
    return cast("np.ndarray", masks[index])


def _again(result: RatiosResult) -> str:
    return f"landscape ratios {_name(result)} --fresh makes them again"


def _sizes(results: Sequence[RatiosResult], ratio_class: str) -> list[int]:
    """Parameters in the class."""
    return [round(float(result.counts[result.classes.tolist().index(ratio_class)])) for result in results]


def _uncertain(result: RatiosResult, ratio_class: str) -> tuple[int, int]:
    """How many parameters rounding may have put into the class, and how many into another instead of it."""
    shares = dict(zip(result.classes.tolist(), result.uncertain.tolist(), strict=True))
    inside = shares.pop(ratio_class)
    return round(inside * result.parameters), round(sum(shares.values()) * result.parameters)


def _name(result: RatiosResult) -> str:
    """The checkpoint's path, or the run where there was none."""
    reference = result.provenance.checkpoint if result.provenance else None
    return reference.path if reference else _run(result)


def _run(result: RatiosResult) -> str:
    return result.provenance.id if result.provenance else "a run that is not stored"
