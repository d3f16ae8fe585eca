"""The verbs as Python functions: the command line's names and defaults, frozen results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landscape.analyses import density as _density
from landscape.analyses import eigen as _eigen
from landscape.analyses import trace as _trace
from landscape.errors import ConfigurationError
from landscape.results import DensityResult, EigenResult, Result, TraceResult
from landscape.run import Observer, RunSettings, execute
from landscape.settings import from_mapping, options_of
from landscape.store import ResultFile

if TYPE_CHECKING:
    from landscape.problem import Problem

__all__ = ["density", "eigen", "open", "trace"]


def eigen(
    problem: Problem, *, observer: Observer | None = None, inputs: Sequence[Result] = (), **options: Any
) -> EigenResult:
    """Certified eigenvalues of a curvature matrix of ``problem``'s loss at its weights.

    Keywords are the options of ``landscape eigen``: ``k=5, which="largest", tol=None, max_products=None,
    method="lanczos", operator="hessian", verify=0, …`` and ``seed, time_limit, output, fresh``. Stored, and
    resumed or read back if it is there already, only where ``output`` names a file.

    Raises:
        LandscapeError: wrong options, or the computation failed.
    """
    result = _execute("eigen", _eigen.Settings, problem, options, observer, inputs)
    assert isinstance(result, EigenResult)
    return result


def trace(
    problem: Problem, *, observer: Observer | None = None, inputs: Sequence[Result] = (), **options: Any
) -> TraceResult:
    """The trace of a curvature matrix, in all and layer by layer, with confidence intervals.

    Keywords are the options of ``landscape trace``: ``tol=0.02, atol=0.0, max_products=1000,
    method="krylov", operator="hessian", …`` and those of a run as for :func:`eigen`. ``inputs`` may hold the
    result of ``eigen(problem, krylov=True)``, to go on from.
    """
    result = _execute("trace", _trace.Settings, problem, options, observer, inputs)
    assert isinstance(result, TraceResult)
    return result


def density(
    problem: Problem, *, observer: Observer | None = None, inputs: Sequence[Result] = (), **options: Any
) -> DensityResult:
    """The spectral density of a curvature matrix, by stochastic Lanczos quadrature.

    Keywords are the options of ``landscape density``: ``probes=2, steps=50, operator="hessian", …`` and those
    of a run as for :func:`eigen`. ``inputs`` may hold results of :func:`eigen` and :func:`trace`
    to compare with.
    """
    result = _execute("density", _density.Settings, problem, options, observer, inputs)
    assert isinstance(result, DensityResult)
    return result


def _execute(
    kind: str,
    settings: type,
    problem: Problem,
    options: Mapping[str, Any],
    observer: Observer | None,
    inputs: Sequence[Result],
) -> Result:
    run_names = {o.name for o in options_of(RunSettings)}
    known = run_names | {o.name for o in options_of(settings)}
    if unknown := [name for name in options if name not in known]:
        raise ConfigurationError(
            f"{kind}() does not know {unknown[0]!r}", do=f"it knows {', '.join(sorted(known))}"
        )
    own = {name: value for name, value in options.items() if name not in run_names}
    run = from_mapping(RunSettings, {name: value for name, value in options.items() if name in run_names})
    return execute(
        kind,
        problem,
        from_mapping(settings, own),
        run,
        observer=observer,
        command=f"landscape.{kind}",
        store=run.output is not None,
        inputs=inputs,
    )


def open(path: str | Path) -> ResultFile:
    """Stored results: ``open(file).runs()`` lists them, ``.read(id)`` gives one."""
    return ResultFile(path)
