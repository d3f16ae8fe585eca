"""``landscape slice``: the loss along lines and planes through the weights.

Whatever is slow to import is imported when the work begins: the options are shown without it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from landscape.errors import ConfigurationError
from landscape.settings import option
from landscape.slices.axes import AxisChoice, parse_axis
from landscape.slices.coordinates import Range, parse_range

if TYPE_CHECKING:
    from landscape.analyses.base import Plan, Saved, Start, State
    from landscape.problem import Problem
    from landscape.results import Result, SliceResult

__all__ = ["Settings", "about", "finish", "kind", "needs", "plan", "steps", "usable", "vectors"]

kind = "slice"

#: Two random directions, the picture of Li et al. 2018.
_ALONG = ("random", "random")
#: Coordinates on an axis where no number is given: of a line, of a plane.
LINE, PLANE = 41, 25
#: More points than this are a slip of the finger.
LARGEST = 10_000_000


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Options of ``slice``.

    Raises:
        ConfigurationError: options that do not belong together.
    """

    along: tuple[str, ...] = option(
        (),
        "A direction, once for a line or twice for a plane: random, eigen[:K] (K-th largest Hessian "
        "eigenvalue, -1 the smallest), gradient, sam (the perturbation ε of --rho), to:CHECKPOINT (there at "
        "1), pca[:K] of --trajectory, saved:FILE[:K]. Without: random, twice.",
        metavar="DIRECTION",
        files=("to:", "saved:"),
    )
    range: tuple[str, ...] = option(
        (),
        "LOW:HIGH:COUNT in multiples of the direction, once for each axis or once for both; auto[:COUNT] "
        "grows until the loss has risen by --rise. Zero is a coordinate if the range holds it, one more "
        "where it lies between two. Without: -1:1 along scaled random directions, beyond the ends of to:, "
        f"the trajectory of pca, else auto; {LINE} coordinates on a line, {PLANE} on each axis of a plane.",
        metavar="LOW:HIGH:COUNT",
    )
    normalize: Literal["filter", "layer", "none"] = option(
        "filter",
        "Random directions: each filter (or each layer) as long as the weights' own (Li et al. 2018), or as "
        "drawn.",
    )
    biases: Literal["zero", "keep"] = option(
        "zero", "Random directions: leave biases and normalisation parameters where they are, or move them."
    )
    orthogonalize: bool = option(True, "Make the second direction orthogonal to the first.")
    rho: float = option(0.05, "Length of the perturbation of --along sam.", minimum=0.0)
    rise: float = option(
        4.0, "--range auto: the loss at the ends, in units of that at the centre.", metavar="FACTOR"
    )
    refine: bool = option(
        False,
        "Coarse to fine: interpolate where that is safe, and evaluate only where the interpolation is off by "
        "more than the standard error, or a thousandth of what the losses range over.",
    )
    gradient_norm: bool = option(
        False, "Measure the gradient's norm at each point, too (three times as dear)."
    )
    batchnorm: Literal["saved", "recalibrated"] | None = option(
        None,
        "Running statistics of BatchNorm: as saved in the checkpoint, or measured anew at each point. "
        "Without: recalibrated along to: and pca, else saved.",
    )
    trajectory: tuple[str, ...] = option(
        (),
        "Checkpoints (repeatable; a pattern in quotes) to draw on the slice, and what pca directions are of.",
        metavar="FILES",
        files=("",),
    )
    jobs: int = option(
        1, "Processes that share the grid, one a core.", metavar="N", minimum=1, identity=False
    )

    def __post_init__(self) -> None:
        if len(self.along) > 2:
            raise ConfigurationError(
                "a slice has one --along (a line) or two (a plane)", found=f"{len(self.along)} of them"
            )
        choices = self.axes
        if len(self.range) > len(choices):
            raise ConfigurationError(
                "there are more --range than --along",
                found=f"{len(self.range)} ranges, {len(choices)} directions",
            )
        if (points := math.prod(one.count or 1 for one in self.ranges)) > LARGEST:
            raise ConfigurationError(
                f"a slice has at most {LARGEST} points",
                found=f"{points}",
                do="give each axis a --range of its own, or a smaller COUNT",
            )
        if len(choices) == 2 and choices[0] == choices[1]:
            raise ConfigurationError(
                "both directions are the same", found=f"--along {choices[0].text} twice", do="choose another"
            )
        for one in self.ranges:
            if one.automatic and not (math.isfinite(self.rise) and self.rise > 1):
                raise ConfigurationError("--rise must be above 1", found=f"{self.rise:g}")
        names = {choice.name for choice in choices}
        if "sam" in names and not 0 < self.rho < math.inf:
            raise ConfigurationError("--rho must be positive and finite", found=f"{self.rho:g}")
        automatic = any(one.automatic for one in self.ranges)
        for flag, given, used, belongs in (
            ("--rho", self.rho != type(self).rho, "sam" in names, "--along sam"),
            ("--normalize", self.normalize != type(self).normalize, "random" in names, "--along random"),
            ("--biases", self.biases != type(self).biases, "random" in names, "--along random"),
            ("--rise", self.rise != type(self).rise, automatic, "--range auto"),
            ("--no-orthogonalize", not self.orthogonalize, len(choices) == 2, "a plane, two --along"),
        ):
            if given and not used:
                raise ConfigurationError(
                    f"{flag} belongs to {belongs}",
                    found=", ".join(f"--along {choice.text}" for choice in choices),
                    do=f"leave {flag} out",
                )
        if "pca" in names and not self.trajectory:
            raise ConfigurationError(
                "--along pca needs the checkpoints of a training run",
                do="name them: --trajectory 'runs/*.pt'",
            )

    @property
    def axes(self) -> tuple[AxisChoice, ...]:
        """What was chosen for each axis; the same kind twice counts on: eigen, eigen is eigen:1, eigen:2."""
        found: list[AxisChoice] = []
        for text in self.along or _ALONG:
            choice = parse_axis(text)
            found.append(choice.numbered([one for one in found if one.name == choice.name]))
        return tuple(found)

    @property
    def ranges(self) -> tuple[Range, ...]:
        """A range for each axis, with its number of coordinates."""
        axes = self.axes
        texts = self.range or tuple(axis.default_range(self.normalize) for axis in axes)
        if len(texts) < len(axes):
            texts = texts * len(axes)
        count = LINE if len(axes) == 1 else PLANE
        found = [parse_range(text) for text in texts]
        return tuple(Range(r.low, r.high, r.count or count) for r in found)

    @property
    def recalibrated(self) -> bool:
        """Whether BatchNorm is recalibrated, if there is any."""
        if self.batchnorm is not None:
            return self.batchnorm == "recalibrated"
        return any(axis.name in ("to", "pca") for axis in self.axes)


def needs(settings: Settings) -> tuple[str, ...]:
    """A stored eigen run, for its eigenvectors."""
    return ("eigen",) if any(axis.name == "eigen" for axis in settings.axes) else ()


def usable(settings: Settings, result: Result) -> bool:
    """An eigen run of the Hessian with the eigenvectors that are asked for."""
    from landscape.analyses.slice_directions import holds_pairs

    return holds_pairs(settings, result)


def about(problem: Problem, settings: Settings) -> Any:
    """What makes it this run beside problem and settings: the contents of the files that settings name."""
    from landscape.analyses.slice_directions import contents

    return contents(problem, settings)


def vectors(settings: Settings) -> tuple[str, ...]:
    """Stored directions, by file or by the hash of their contents."""
    from landscape.analyses.slice_directions import is_stored

    return tuple(axis.file for axis in settings.axes if is_stored(axis))


def plan(problem: Problem, settings: Settings) -> Plan:
    """Losses and memory that a run takes."""
    from landscape.analyses.slice_work import planned

    return planned(problem, settings)


def steps(
    problem: Problem, settings: Settings, inputs: Mapping[str, Result], start: Start
) -> Iterator[State]:
    """Measure the loss, make the directions, find the ranges, then the grid row by row."""
    from landscape.analyses.slice_work import SliceWork

    return SliceWork(problem, settings, inputs, start).run()


def finish(problem: Problem, settings: Settings, saved: Saved) -> SliceResult:
    """The result of a saved state, of as much as was done."""
    from landscape.analyses.slice_result import slice_result

    return slice_result(problem, settings, saved)
