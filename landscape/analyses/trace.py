"""``landscape trace``: the trace of a curvature matrix and of its layers, with intervals that hold.

Whatever is slow to import is imported when the work begins: the options are shown without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from landscape.analyses.matrix import MatrixSettings
from landscape.errors import ConfigurationError
from landscape.settings import option

if TYPE_CHECKING:
    from landscape.analyses.base import Plan, Saved, Start, State
    from landscape.problem import Problem
    from landscape.results import Result, TraceResult

__all__ = ["Settings", "finish", "kind", "needs", "plan", "steps", "usable"]

kind = "trace"


@dataclass(frozen=True, kw_only=True)
class Settings(MatrixSettings):
    """Options of ``trace``."""

    tol: float = option(
        0.02,
        "Stop when the 95 % interval is this narrow: half its width as a share of the trace.",
        minimum=0.0,
    )
    atol: float = option(0.0, "Or when half its width is at most this (for traces near zero).", minimum=0.0)
    max_products: int = option(
        1000,
        "Stop after this many products; if the interval is wider than asked for, that is exit 4.",
        minimum=1,
    )
    method: Literal["krylov", "hutchinson", "hutch++", "xtrace"] = option(
        "krylov",
        "krylov: exact on a Lanczos space, random vectors on the rest; hutchinson; hutch++; xtrace (without "
        "layers).",
        metavar="METHOD",
    )
    reuse: bool = option(
        True, "Go on from the Krylov basis of a stored eigen run (landscape eigen --krylov), if there is one."
    )
    per_layer: bool = option(True, "Give the trace of each layer's block, at no further product.")
    diagonal: bool = option(
        False, "Keep the diagonal and its standard errors, in a file of their own beside the results."
    )
    spatial_average: bool = option(
        False,
        "Average the diagonal over the positions of each convolution kernel, as AdaHessian does (Yao et al. "
        "2021).",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.spatial_average and not self.diagonal:
            raise ConfigurationError(
                "--spatial-average is about the diagonal", do="add --diagonal, or leave it out"
            )
        if self.diagonal and self.method == "xtrace":
            raise ConfigurationError("xtrace gives no diagonal", do="use --method krylov")


def needs(settings: Settings) -> tuple[str, ...]:
    """Kinds of earlier results that are passed in where there are any."""
    return ("eigen",) if settings.reuse and settings.method == "krylov" else ()


def usable(settings: Settings, result: Result) -> bool:
    """An eigen run of the same matrix whose Krylov basis was kept."""
    from landscape.analyses.inputs import same_matrix

    kept = getattr(result, "krylov_basis", None) is not None
    return kept and same_matrix(settings, result)


def plan(problem: Problem, settings: Settings) -> Plan:
    """Products, gradients and memory that a run is likely to take."""
    from landscape.analyses.base import Plan
    from landscape.analyses.work import itemsize

    # On trained nets 30 products gave 1.3 % and each doubling half of it (95 % intervals: twice that).
    likely = min(settings.max_products, 64 if settings.tol else settings.max_products)
    vectors = min(problem.memory // 2, problem.size * itemsize(problem) * 2 * likely)
    return Plan(
        products=likely,
        at_most=settings.max_products,
        gradients=3.0 * likely,
        memory_bytes=vectors + min(problem.memory, problem.size * 8 * 4),
        notes=("how many products the interval takes depends on the spectrum",),
    )


def steps(
    problem: Problem, settings: Settings, inputs: Mapping[str, Result], start: Start
) -> Iterator[State]:
    """Measure the loss, then product by product until the interval is narrow enough."""
    from landscape.analyses.trace_work import TraceWork

    return TraceWork(problem, settings, inputs, start).run()


def finish(problem: Problem, settings: Settings, saved: Saved) -> TraceResult:
    """The result of a saved state, whether or not the interval is narrow enough."""
    from landscape.analyses.trace_work import trace_result

    return trace_result(problem, settings, saved)
