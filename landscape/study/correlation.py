"""Rank correlations of one measure with another over checkpoints, with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray

from landscape.errors import InputError
from landscape.files import printable
from landscape.results import Result
from landscape.results.comparison import Coefficient, Correlation
from landscape.results.measures import MEASURES, Measure, Reading, measures_of
from landscape.results.reading import NORMAL
from landscape.study.series import Run
from landscape.study.sides import Side, Source, pick, refuse, time_of, trainings_of

__all__ = ["correlate", "correlated", "kendall", "spearman"]

#: Fewer pairs have no coefficient; fewer than the second have no interval.
FEWEST, _WITH_INTERVAL = 4, 5
_ALL = "all together"
_DEPENDENT = (
    "checkpoints of one training run follow from each other: they count as fewer than they are, and the "
    "intervals, which take them as independent, are too narrow"
)
_POOLED = "over several training runs, a difference between the runs is correlation too"
_ERRORS = "errors of the figures themselves are not in the intervals; they draw correlations towards zero"

Floats = NDArray[np.float64]


def correlate(*sources: Source, x: str, y: str, mixed: bool = False) -> tuple[Correlation, ...]:
    """Rank correlations of measure ``x`` with measure ``y`` over checkpoints.

    One for each training run, and one over all checkpoints if there are several training runs. Measures are
    named as ``trace``, that of the first kind that has it, or ``density.trace``; each checkpoint's two may be
    of different kinds of results.

    Raises:
        InputError: a measure that there is not, fewer than four checkpoints with both, or runs that were not
            measured alike.
        StoreError: a source that cannot be read, or holds no such runs.
    """
    return correlated(sources, x, y, mixed=mixed)[0]


def correlated(
    sources: Sequence[Source], x: str, y: str, *, mixed: bool = False
) -> tuple[tuple[Correlation, ...], tuple[Result, ...]]:
    """The same, with the results that the figures are of."""
    sides = trainings_of(sources)
    first, second = (_resolve(name, sides) for name in (x, y))
    if first == second:
        raise InputError(f"a measure is correlated with another, not with itself: {printable(x)}")
    values = [_values(sides, measured, mixed) for measured in (first, second)]
    pairs = [_pairs(*both) for both in zip(*values, strict=True)]
    if sum(map(len, pairs)) < FEWEST:
        raise InputError(
            f"a correlation of {_key(first)} with {_key(second)} needs {FEWEST} checkpoints with both",
            found=str(sum(map(len, pairs))),
            do="measure more checkpoints: landscape batch",
        )
    found = [
        _correlation(side.name, first, second, of, trained=True)
        for side, of in zip(sides, pairs, strict=True)
        if len(of) >= FEWEST
    ]
    if len([of for of in pairs if of]) > 1:
        together = [pair for of in pairs for pair in of]
        found.append(_correlation(_ALL, first, second, together, trained=False))
    every = {run.provenance.id: run.result for of in values for one in of for run, _ in one.values()}
    return tuple(found), tuple(every.values())


_Measured = tuple[str, Measure]
#: Checkpoint, its time, and its two values.
_Pair = tuple[str, int | None, Reading, Reading]


def _key(measured: _Measured) -> str:
    return f"{measured[0]}.{measured[1].name}"


def _resolve(name: str, sides: Sequence[Side]) -> _Measured:
    """The kind and measure of that name: of the first kind that has a figure of it."""
    there = {run.result.kind for side in sides for run in side.runs}
    known = [(kind, m) for kind in MEASURES if kind in there for m in measures_of(kind)]
    for kind, measure in known:
        if name in (measure.name, f"{kind}.{measure.name}"):
            of = [run.result for side in sides for run in side.runs if run.result.kind == kind]
            if any(measure.read(result) is not None for result in of):
                return kind, measure
    raise InputError(
        f"these runs have no measure {printable(name)!r}",
        do=f"there are: {', '.join(dict.fromkeys(m.name for _, m in known))}",
    )


#: Runs and what was measured by checkpoint.
_Values = dict[str, tuple[Run, Reading]]


def _values(sides: Sequence[Side], measured: _Measured, mixed: bool) -> list[_Values]:
    """The values of a measure by checkpoint, for each side; none of sides without such runs."""
    kind, measure = measured
    having = [side for side in sides if any(run.result.kind == kind for run in side.runs)]
    picked = pick(having, kind)
    if not mixed:
        refuse(picked)
    runs = dict(zip((side.name for side in having), picked.runs, strict=True))
    return [
        {
            run.checkpoint: (run, reading)
            for run in runs.get(side.name, ())
            if (reading := measure.read(run.result)) is not None
        }
        for side in sides
    ]


def _pairs(first: _Values, second: _Values) -> list[_Pair]:
    """Checkpoints with both values, in the order of training."""
    both = [(run, value, second[key][1]) for key, (run, value) in first.items() if key in second]
    found = [(_name(run), time_of(run), x, y) for run, x, y in both]
    return sorted(found, key=lambda pair: (pair[1] is None, pair[1] or 0, pair[0]))


def _name(run: Run) -> str:
    reference = run.provenance.checkpoint
    return run.provenance.id if reference is None else PurePath(reference.path.replace("\\", "/")).name


def _correlation(
    name: str, first: _Measured, second: _Measured, pairs: Sequence[_Pair], *, trained: bool
) -> Correlation:
    x = np.array([reading.value for _, _, reading, _ in pairs], dtype=np.float64)
    y = np.array([reading.value for _, _, _, reading in pairs], dtype=np.float64)
    steps = spearman(np.diff(x), np.diff(y)) if trained and len(pairs) > FEWEST else None
    return Correlation(
        name,
        _key(first),
        _key(second),
        (first[1].label, second[1].label),
        tuple(pair[0] for pair in pairs),
        tuple(pair[1] for pair in pairs),
        tuple(pair[2:] for pair in pairs),
        spearman(x, y),
        kendall(x, y),
        steps,
        (_DEPENDENT if trained else _POOLED, _ERRORS),
    )


def spearman(x: Floats, y: Floats) -> Coefficient:
    """Spearman's correlation of two samples (n,) with its 95 % interval.

    The interval is Fisher's z with the variance (1 + r²/2)/(n − 3) of Bonett & Wright (2000), for five pairs
    or more; a perfect order is taken, on its inner side, for one that lacks an exchange of neighbours. NaN
    for fewer than four pairs, or where one sample does not vary.
    """
    from landscape.sam.reweight import rank_correlation

    value, interval = rank_correlation(x, y)
    known = len(x) >= _WITH_INTERVAL and math.isfinite(interval[0])
    return Coefficient(float(value), (float(interval[0]), float(interval[1])) if known else None)


def kendall(x: Floats, y: Floats) -> Coefficient:
    """Kendall's τ_b of two samples (n,) with its 95 % interval.

    The interval is Fisher's z with the larger of two variances: 0.437/(n − 4) of Fieller, Hartley & Pearson
    (1957), which is too small where there are ties or τ is large, and that of the jackknife. For five pairs
    or more; a perfect order as in :func:`spearman`. NaN for fewer than four pairs, or where one sample does
    not vary.
    """
    n = len(x)
    if n < FEWEST or np.ptp(x) == 0 or np.ptp(y) == 0:
        return Coefficient(math.nan, None)
    a, b = (np.sign(np.subtract.outer(v, v)) for v in (x, y))
    both, one, other = (a * b).sum(axis=1), (a * a).sum(axis=1), (b * b).sum(axis=1)
    found = float(both.sum() / math.sqrt(one.sum() * other.sum()))
    if n < _WITH_INTERVAL:
        return Coefficient(found, None)
    most = 1 - 4 / (n * (n - 1))
    inner = max(-most, min(most, found))
    sizes = (one.sum() - 2 * one) * (other.sum() - 2 * other)  # of the tables without each pair
    without = np.divide(both.sum() - 2 * both, np.sqrt(sizes), out=np.full(n, found), where=sizes > 0)
    jackknife = math.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum()) / (1 - inner**2)
    half = NORMAL * max(math.sqrt(0.437 / (n - 4)), jackknife)
    z = math.atanh(inner)
    return Coefficient(found, (min(math.tanh(z - half), found), max(math.tanh(z + half), found)))
