"""``landscape eigen``: certified eigenvalues of a curvature matrix at a checkpoint.

Whatever is slow to import is imported when the work begins: the options are shown without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from landscape.analyses.matrix import MatrixSettings
from landscape.errors import ConfigurationError
from landscape.settings import option

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from landscape.analyses.base import Plan, Saved, Start, State
    from landscape.analyses.eigen_work import Work
    from landscape.linalg.eigenpairs import Which
    from landscape.problem import Problem
    from landscape.results import EigenResult, Result

__all__ = ["Settings", "end_vectors", "finish", "kind", "needs", "plan", "start_vectors", "steps", "usable"]

kind = "eigen"

_AVERAGE = "The running average (--method running-average)"


@dataclass(frozen=True, kw_only=True)
class Settings(MatrixSettings):
    """Options of ``eigen``."""

    k: int = option(5, "How many eigenpairs (with --which both: from each end).", short="-k", minimum=1)
    which: Literal["largest", "smallest", "both", "magnitude"] = option(
        "largest",
        "Which end of the spectrum: algebraically largest or smallest, both, or largest |λ| (which is what "
        "pyhessian finds in any case).",
    )
    tol: float | None = option(
        None,
        "A pair has converged when its residual ≤ tol·|θ| (or the noise floor). 1e-3 without, and 1e-4 "
        "for the running average.",
        minimum=0.0,
    )
    max_products: int | None = option(
        None,
        "Stop after this many products, 1000 without; what has not converged is marked (exit 4). Each layer, "
        "and the running average, may spend as many. dense needs one for each parameter.",
        minimum=1,
    )
    method: Literal["lanczos", "power", "running-average", "pyhessian", "dense"] = option(
        "lanczos",
        "How the pairs are found: lanczos; power iteration with deflation; the running-average of "
        "curvature products; the package pyhessian; dense, all of a small matrix.",
        metavar="METHOD",
    )
    verify: int = option(
        0,
        "Spend N more products from a random vector orthogonal to the pairs found, which finds repeated "
        "eigenvalues, and one product per pair to recompute every residual.",
        metavar="N",
        minimum=0,
    )
    check: Literal["pyhessian"] | None = option(
        None, "Find the same figures with another package, too, and print both and their difference."
    )
    per_layer: bool = option(
        False,
        "Also the extreme eigenvalue of each layer's own block, a layer being a module with parameters.",
    )
    standard_errors: bool = option(
        True, "Estimate how far each eigenvalue would move on another sample of the data."
    )
    eigenvectors: bool = option(False, "Keep the eigenvectors, in a file of their own beside the results.")
    krylov: bool = option(
        False, "Keep the Krylov basis, in a file of its own: trace goes on from it at no cost."
    )
    perturb: Literal["iterate", "gradient"] | None = option(
        None,
        "Perturb along the running vector (iterate, LeCun et al. 1993: finds λmax; the default) or along the "
        "gradient (as in accelerated SAM: finds ‖Hu‖ along the gradient, no eigenvalue).",
        panel=_AVERAGE,
    )
    new_weight: float | None = option(
        None,
        "β, the weight of the new value in the average, above 0 and at most 1; 0.1 without.",
        panel=_AVERAGE,
    )
    minibatch: str | None = option(
        None,
        "Examples of each step: a number (1 in the original), or full (the default).",
        metavar="M|full",
        number=True,
        panel=_AVERAGE,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        averages = {"perturb": self.perturb, "new-weight": self.new_weight, "minibatch": self.minibatch}
        given = [name for name, value in averages.items() if value is not None]
        if given and self.method != "running-average":
            raise _misplaced(given[0], "--method running-average", f"--method {self.method}")
        if self.new_weight is not None and not 0 < self.new_weight <= 1:
            raise ConfigurationError(
                "--new-weight must be above 0 and at most 1",
                found=repr(self.new_weight),
                do="it is the weight of the new value: small averages long",
            )
        if self.minibatch is not None and self.minibatch != "full" and not self.minibatch.isdecimal():
            raise ConfigurationError("--minibatch takes a number or full", found=repr(self.minibatch))
        if self.minibatch is not None and self.minibatch.isdecimal() and int(self.minibatch) < 1:
            raise ConfigurationError("--minibatch must be at least 1", found=self.minibatch)
        if self.check is not None and self.method == "pyhessian":
            raise ConfigurationError(
                "--check pyhessian would compare --method pyhessian with itself", do="leave one of them out"
            )
        if self.method != "lanczos":
            self._check_method()
        if self.operator != "hessian" and (self.check or self.method in ("pyhessian", "running-average")):
            what = "--check pyhessian" if self.check else f"--method {self.method}"
            raise ConfigurationError(
                f"{what} knows the Hessian only",
                found=f"--operator {self.operator}",
                do="leave one of them out",
            )

    def _check_method(self) -> None:
        """Options that only Lanczos has, and ends that others cannot see."""
        for name, value in (("verify", self.verify), ("krylov", self.krylov)):
            if value:
                raise _misplaced(name, "--method lanczos", f"--method {self.method}")
        ends = {
            "power": ("largest", "smallest", "magnitude"),
            "running-average": ("largest",),
            "pyhessian": ("largest", "magnitude"),
        }.get(self.method)
        if ends is not None and self.which not in ends:
            raise ConfigurationError(
                f"--method {self.method} does not find --which {self.which}",
                do=f"choose --which {' or '.join(ends)}, or --method lanczos",
            )

    @property
    def uses_differences(self) -> bool:
        return super().uses_differences or self.method == "running-average"

    @property
    def end(self) -> Which:
        """The end of the spectrum that the method looks at: pyhessian knows one only."""
        return "magnitude" if self.method == "pyhessian" else self.which

    @property
    def product_limit(self) -> int:
        """``max_products``, or 1000."""
        return 1000 if self.max_products is None else self.max_products

    @property
    def tolerance(self) -> float:
        """``tol``, or the method's own."""
        if self.tol is not None:
            return self.tol
        return 1e-4 if self.method == "running-average" else 1e-3


def _misplaced(name: str, belongs: str, found: str) -> ConfigurationError:
    return ConfigurationError(
        f"--{name} belongs to {belongs}", found=found, do=f"add {belongs}, or leave it out"
    )


def needs(settings: Settings) -> tuple[str, ...]:
    """Kinds of earlier results that are passed in: none."""
    return ()


def usable(settings: Settings, result: Result) -> bool:
    """Whether an earlier result can be used: none is."""
    return False


def plan(problem: Problem, settings: Settings) -> Plan:
    """Products, gradients and memory that a run is likely to take.

    The number of products depends on the spectrum: on trained networks about 2k + 5 were needed at 1e-3.
    """
    from landscape.analyses.base import Plan
    from landscape.analyses.work import itemsize
    from landscape.linalg.dense import dense_bytes
    from landscape.linalg.eigenpairs import wanted_count
    from landscape.parameters import layers

    wanted = wanted_count(settings.k, settings.which, problem.size)
    likely = {"power": 20 * wanted, "running-average": 100 + 2 * wanted, "dense": problem.size}
    products = min(settings.product_limit, likely.get(settings.method, 2 * wanted + 5))
    if settings.method == "dense":
        products = problem.size
    products += settings.verify + wanted * bool(settings.verify)
    if settings.per_layer:
        products += 8 * len(layers(problem.selection.layout))
    search = max(4 * settings.verify, 64) + wanted if settings.verify else 0
    memory = problem.size * itemsize(problem) * (3 * wanted + 12 + search)
    if settings.method == "dense":
        memory = dense_bytes(problem.size, 64)
    return Plan(
        products=products,
        at_most=products if settings.method == "dense" else max(products, settings.product_limit),
        gradients=3.0 * products,
        memory_bytes=memory + min(problem.memory, problem.size * 8 * 4),
        notes=("at most 3 gradients a product, 2 where the graphs fit in memory",),
    )


def steps(
    problem: Problem, settings: Settings, inputs: Mapping[str, Result], start: Start
) -> Iterator[State]:
    """Measure the loss, search, verify, estimate standard errors; a state after each product."""
    from landscape.analyses.eigen_average import AverageWork
    from landscape.analyses.eigen_lanczos import LanczosWork
    from landscape.analyses.eigen_others import DenseWork, PeerWork, PowerWork

    works: dict[str, Callable[..., Work]] = {
        "lanczos": LanczosWork,
        "power": PowerWork,
        "running-average": AverageWork,
        "pyhessian": PeerWork,
        "dense": DenseWork,
    }
    return works[settings.method](problem, settings, start).run()


def finish(problem: Problem, settings: Settings, saved: Saved) -> EigenResult:
    """The result of a saved state, whether or not the search was over."""
    from landscape.analyses.eigen_result import eigen_result

    return eigen_result(problem, settings, saved)


def end_vectors(problem: Problem, settings: Settings, saved: Saved) -> np.ndarray | None:
    """What a search at a neighbouring checkpoint can start from: the Ritz vectors of a state, (k, n).

    Orthonormal, in the model's dtype; None for methods other than Lanczos, and before the first product.
    """
    from landscape.analyses import eigen_warm

    return eigen_warm.end_vectors(problem, settings, saved)


def start_vectors(given: EigenResult | np.ndarray | Tensor, method: str = "lanczos") -> np.ndarray:
    """The rows (j, n) of ``eigen(…, start=given)``: those of a result that holds eigenvectors, or as given.

    Raises:
        ConfigurationError: a result without eigenvectors, no array of real numbers, or another method.
    """
    from landscape.analyses import eigen_warm

    if method != "lanczos":
        raise ConfigurationError(
            "start= belongs to method='lanczos'", found=f"method={method!r}", do="leave one of them out"
        )
    return eigen_warm.start_vectors(given)
