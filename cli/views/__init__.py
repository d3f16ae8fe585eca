"""Results in words, as the measuring commands and ``show`` print them, and as objects of ``--json``."""

from __future__ import annotations

import importlib
import math
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from landscape.results import (
    DensityResult,
    EigenResult,
    MonitorResult,
    NoiseResult,
    ProblemResult,
    RatiosResult,
    Result,
    ReweightResult,
    SharpnessResult,
    SliceResult,
    TraceResult,
)
from landscape.study.export import run_object

from ..console import Console
from .common import described, loss_line, print_provenance
from .density import print_density
from .eigen import print_eigen
from .trace import print_trace

__all__ = ["advice", "drawable", "print_provenance", "print_result", "print_together", "run_object"]

#: Kinds whose module of this package says them by its ``print_result(console, result)``.
_OTHERS = ("ratios", "overlap", "sharpness", "reweight", "noise", "slice", "monitor")
#: What a status other than complete means, and what to do about it.
_ADVICE = {
    "oscillating": "the iteration runs in a cycle instead of converging, so the figure is not an eigenvalue: "
    "use a smaller --new-weight, or --method lanczos",
    "partial": "a limit stopped it early: give the same command again without the limit to go on",
    "failed": "the computation failed: what is stored is not a result",
}
_NOT_CONVERGED = {
    "eigen": "not every pair is as accurate as asked for: allow more --max-products or loosen --tol",
    "trace": "the interval is wider than asked for: allow more --max-products, or loosen --tol or --atol",
    "density": "not all probes were made",
    "ratios": "not all mini-batches were taken",
    "sharpness": "the interval is wider than asked for: allow more directions, or loosen --tol",
    "noise": "the interval is wider than asked for: allow more --max-products, or loosen --tol",
}


def advice(result: Result) -> str:
    """What a status other than complete means, and what to do about it."""
    if isinstance(result, EigenResult) and result.method == "pyhessian" and result.status != "partial":
        return "pyhessian stops by a rule of its own, farther off than asked for: use --method lanczos"
    if isinstance(result, EigenResult) and result.history is not None and result.status == "not_converged":
        return "the running average has not settled: allow more --max-products, or larger mini-batches"
    if result.status == "not_converged":
        if isinstance(result, TraceResult) and result.interval_reason:
            return "there were too few products for an interval: allow more --max-products"
        return _NOT_CONVERGED.get(result.kind, "it is not as accurate as asked for")
    return _ADVICE.get(result.status, "see landscape show")


def drawable(result: Result) -> bool:
    """Whether there is anything to see in a picture yet."""
    if isinstance(result, EigenResult):
        return bool(len(result.eigenvalues))
    if isinstance(result, RatiosResult):
        return bool(result.batches)
    if isinstance(result, MonitorResult):
        return bool(len(result.steps))
    if isinstance(result, NoiseResult):
        return bool(len(result.batch_sizes))
    if isinstance(result, SharpnessResult):
        return math.isfinite(result.increase)
    if isinstance(result, ReweightResult):
        return bool(np.ma.count(result.weight))
    if isinstance(result, SliceResult):
        return bool(np.ma.count(np.ma.masked_invalid(result.loss)))
    return not math.isnan(getattr(result, "trace", 0.0))


def print_result(console: Console, result: Result) -> None:
    """The loss first, then the tables and the summary that belong to the kind of result."""
    if isinstance(result, ProblemResult):
        console.out(loss_line(result))
        console.out()
    if isinstance(result, EigenResult):
        print_eigen(console, result)
    elif isinstance(result, TraceResult):
        print_trace(console, result)
    elif isinstance(result, DensityResult):
        print_density(console, result)
    elif result.kind in _OTHERS:
        importlib.import_module(f".{result.kind}", __package__).print_result(console, result)
    else:
        console.pairs(described(result))


def print_together(console: Console, done: Sequence[tuple[Result, Path]]) -> None:
    """Several results of one kind in one table, where the kind has one."""
    results = [result for result, _ in done]
    if all(isinstance(result, RatiosResult) for result in results):
        ratios = importlib.import_module(".ratios", __package__)
        ratios.print_together(console, results)
        files = " ".join(dict.fromkeys(shlex.quote(str(file)) for _, file in done))
        console.out(f"to see them: landscape plot {files} --view training")
