"""The verbs as Python functions: the command line's names and defaults, frozen results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landscape.analyses import eigen as _eigen
from landscape.errors import ConfigurationError
from landscape.results import EigenResult, Result
from landscape.run import Observer, RunSettings, execute
from landscape.settings import from_mapping, options_of
from landscape.store import ResultFile

if TYPE_CHECKING:
    from landscape.problem import Problem

__all__ = ["eigen", "open"]


def eigen(problem: Problem, *, observer: Observer | None = None, **options: Any) -> EigenResult:
    """Certified eigenvalues of the Hessian of ``problem``'s loss at its weights.

    Keywords are the options of ``landscape eigen``: ``k=5, which="largest", tol=1e-3, max_products=1000,
    verify=0, standard_errors=True, eigenvectors=False`` and ``seed, time_limit, output, fresh``. Stored, and
    resumed or read back if it is there already, only where ``output`` names a file.

    Raises:
        LandscapeError: wrong options, or the computation failed.
    """
    result = _execute("eigen", _eigen.Settings, problem, options, observer)
    assert isinstance(result, EigenResult)
    return result


def _execute(
    kind: str, settings: type, problem: Problem, options: Mapping[str, Any], observer: Observer | None
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
    )


def open(path: str | Path) -> ResultFile:
    """Stored results: ``open(file).runs()`` lists them, ``.read(id)`` gives one."""
    return ResultFile(path)
