"""The verbs as Python functions: the command line's names and defaults, frozen results."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from landscape.analyses import density as _density
from landscape.analyses import eigen as _eigen
from landscape.analyses import noise as _noise
from landscape.analyses import overlap as _overlap
from landscape.analyses import ratios as _ratios
from landscape.analyses import reweight as _reweight
from landscape.analyses import sharpness as _sharpness
from landscape.analyses import slice as _slice
from landscape.analyses import trace as _trace
from landscape.errors import ConfigurationError
from landscape.joint import JointSettings, combine, read_sources
from landscape.results import (
    DensityResult,
    EigenResult,
    NoiseResult,
    OverlapResult,
    RatiosResult,
    Result,
    ReweightResult,
    SharpnessResult,
    SliceResult,
    TraceResult,
)
from landscape.run import Observer, RunSettings, execute
from landscape.settings import from_mapping, options_of

if TYPE_CHECKING:
    from torch import Tensor

    from landscape.problem import Problem

__all__ = [
    "density",
    "eigen",
    "loss_slice",
    "noise",
    "overlap",
    "ratios",
    "reweight",
    "sharpness",
    "trace",
]


def eigen(
    problem: Problem,
    *,
    start: EigenResult | np.ndarray | Tensor | None = None,
    observer: Observer | None = None,
    inputs: Sequence[Result] = (),
    **options: Any,
) -> EigenResult:
    """Certified eigenvalues of a curvature matrix of ``problem``'s loss at its weights.

    Keywords are the options of ``landscape eigen``: ``k=5, which="largest", tol=None, max_products=None,
    method="lanczos", operator="hessian", verify=0, …`` and ``seed, time_limit, output, fresh``. Stored, and
    resumed or read back if it is there already, only where ``output`` names a file.

    Args:
        start: eigenvectors to begin from, which saves products: the result of ``eigen(…, eigenvectors=True)``
            at a neighbouring checkpoint, or rows (j, n) in the order of the measured parameters. Nothing
            is then said about missed eigenvalues; ``verify=N`` looks for them. Like the seed that is not
            given, it is no part of what makes a stored run the same one.

    Raises:
        LandscapeError: wrong options, or the computation failed.
    """
    vectors = None
    if start is not None:
        vectors = {"start": _eigen.start_vectors(start, options.get("method", "lanczos"))}
    result = _execute("eigen", _eigen.Settings, problem, options, observer, inputs, vectors)
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


def ratios(problem: Problem, *, observer: Observer | None = None, **options: Any) -> RatiosResult:
    """Classes of the ratio of the gradient at SAM's perturbed weights to the gradient.

    Keywords are the options of ``landscape ratios``: ``rho=0.05, relative=False, p=2.0, perturb="gradient",
    minibatch="full", batches=None, rho_sweep=False, …`` and those of a run as for :func:`eigen`.
    """
    result = _execute("ratios", _ratios.Settings, problem, options, observer, ())
    assert isinstance(result, RatiosResult)
    return result


def overlap(results: Sequence[RatiosResult | str | Path], **options: Any) -> OverlapResult:
    """How far a class of gradient ratios holds the same parameters at several steps, against chance.

    Args:
        results: of :func:`ratios` on the full batch, of one model at several checkpoints; or files that hold
            such runs.
        options: of ``landscape overlap``, such as ``ratio_class="ckpt1"``.

    Raises:
        LandscapeError: wrong options, or results that cannot be compared.
    """
    settings = from_mapping(_overlap.Settings, options, "overlap()")
    files = [one for one in results if isinstance(one, str | Path)]
    given = [one for one in results if isinstance(one, Result)]
    stored = read_sources("overlap", files).results if files else ()
    result = combine(
        "overlap", [*given, *stored], settings, JointSettings(), command="landscape.overlap", store=False
    )
    assert isinstance(result, OverlapResult)
    return result


def sharpness(
    problem: Problem, *, observer: Observer | None = None, inputs: Sequence[Result] = (), **options: Any
) -> SharpnessResult:
    """How far the loss rises within a distance of the weights, and what gradient and Hessian predict of it.

    Keywords are the options of ``landscape sharpness``: ``kind="sam", rho=0.05, p=2.0, steps, m, …`` and
    those of a run as for :func:`eigen`. ``inputs`` may hold the result of :func:`trace`, to compare with.
    """
    result = _execute("sharpness", _sharpness.Settings, problem, options, observer, inputs)
    assert isinstance(result, SharpnessResult)
    return result


def reweight(problem: Problem, *, observer: Observer | None = None, **options: Any) -> ReweightResult:
    """The weight that 1-SAM gives to each example, and its logit and Jacobian parts.

    Keywords are the options of ``landscape reweight``, ``rho=0.05, relative=False, …``, and those of a run as
    for :func:`eigen`. Which labels are wrong is said by ``Problem(…, noisy=…)``.
    """
    result = _execute("reweight", _reweight.Settings, problem, options, observer, ())
    assert isinstance(result, ReweightResult)
    return result


def noise(
    problem: Problem, *, observer: Observer | None = None, inputs: Sequence[Result] = (), **options: Any
) -> NoiseResult:
    """How the covariance of per-example gradients is aligned with the Gauss–Newton matrix and the Hessian.

    Keywords are the options of ``landscape noise`` and those of a run as for :func:`eigen`. ``inputs`` may
    hold the result of ``eigen(problem, eigenvectors=True)``.
    """
    result = _execute("noise", _noise.Settings, problem, options, observer, inputs)
    assert isinstance(result, NoiseResult)
    return result


def loss_slice(
    problem: Problem, *, observer: Observer | None = None, inputs: Sequence[Result] = (), **options: Any
) -> SliceResult:
    """The loss along a line or over a plane through the weights.

    Keywords are the options of ``landscape slice``: ``along=("random", "random"), range=("-1:1:25",),
    normalize="filter", refine=False, jobs=1, …`` and those of a run as for :func:`eigen`. A direction may
    also be an array or tensor (n,) in the order of the measured parameters, or a mapping from their names to
    tensors (parameters that it leaves out stay). ``inputs`` may hold the result of
    ``eigen(problem, eigenvectors=True)``. Test data and metrics are said by ``Problem(…, test_data=…,
    metrics=…)``.
    """
    given = options.get("along", ())
    along, vectors = [], {}
    if not isinstance(given, list | tuple) or (given and isinstance(given[0], int | float)):
        given = [given]
    for one in given:
        if not isinstance(one, str):
            row = _flat(problem, one)
            name = hashlib.sha256(row.tobytes()).hexdigest()[:16]
            vectors[name], one = row, f"given:{name}"
        along.append(one)
    options = {**options, "along": along}
    if "range" in options:
        options["range"] = _ranges(options["range"])
    result = _execute("slice", _slice.Settings, problem, options, observer, inputs, vectors)
    assert isinstance(result, SliceResult)
    return result


def _ranges(given: Any) -> Any:
    """Ranges as text, from text or from (low, high, count), one or several."""
    if isinstance(given, str):
        return given
    one = len(given) in (2, 3) and all(isinstance(part, int | float) for part in given)
    return [r if isinstance(r, str) else ":".join(map(repr, r)) for r in ([given] if one else given)]


def _flat(problem: Problem, direction: Any) -> np.ndarray:
    """A direction as one row (1, n), float64."""
    import torch

    if isinstance(direction, Mapping):
        names = problem.selection.layout.names
        if unknown := sorted(set(direction) - set(names)):
            raise ConfigurationError(
                f"a direction names a parameter that is not measured: {unknown[0]!r}",
                do=f"measured are {', '.join(names[:4])}{', …' if len(names) > 4 else ''}",
            )
        parts = []
        for name, own in zip(names, problem.selection.tensors, strict=True):
            part = _real(direction.get(name, torch.zeros_like(own)), name)
            if part.shape != own.shape:
                raise ConfigurationError(
                    f"the direction's {name} is not shaped as the parameter",
                    found=f"{tuple(part.shape)}, the parameter is {tuple(own.shape)}",
                )
            parts.append(part.reshape(-1))
        direction = torch.cat(parts)
    return np.ascontiguousarray(_real(direction, "along").reshape(1, -1).numpy())


def _real(values: Any, name: str) -> Tensor:
    """Real numbers as a float64 tensor on the CPU."""
    import torch

    try:
        found = torch.as_tensor(values).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigurationError(
            f"a direction is text, an array of numbers, or a mapping from parameters to them: {name} is not",
            found=type(values).__name__,
        ) from error
    if found.is_complex():
        raise ConfigurationError(f"a direction is of real numbers: {name} is complex")
    return found.double()


def _execute(
    kind: str,
    settings: type,
    problem: Problem,
    options: Mapping[str, Any],
    observer: Observer | None,
    inputs: Sequence[Result],
    vectors: Mapping[str, np.ndarray] | None = None,
) -> Result:
    if isinstance(problem, str | Path) or not hasattr(problem, "selection"):
        raise ConfigurationError(
            f"{kind}() takes a landscape.Problem",
            found=type(problem).__name__,
            do="landscape.load_problem(checkpoint=…) makes one as the command line does",
        )
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
        vectors=vectors,
    )
