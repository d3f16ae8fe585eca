"""What is done in a batch, and what is said of it: plain records that travel between processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from landscape.project import ProblemSettings
from landscape.results.measures import Reading
from landscape.run import RunSettings

__all__ = ["Analysis", "Begun", "Noted", "Progressed", "Report", "Seen", "Spec", "Unit"]


@dataclass(frozen=True)
class Analysis:
    """One analysis of a batch, as it is run on every checkpoint."""

    kind: str
    settings: Any
    run: RunSettings


@dataclass(frozen=True)
class Spec:
    """What a batch does to each checkpoint, and where its results go.

    Attributes:
        problem, given, start: as :func:`landscape.project.resolve` takes them.
        folder: of the result files.
        analyses: in the order in which they are run.
        warm: whether eigenvalues start from the checkpoint before.
        command: written beside the results.
        memory_share: processes that the free memory is divided among, where no option says how much it is.
        dry: only say what would be done, and about how long it takes.
    """

    problem: ProblemSettings
    given: frozenset[str]
    start: Path
    folder: Path
    analyses: tuple[Analysis, ...]
    warm: bool
    command: str
    memory_share: int = 1
    dry: bool = False


@dataclass(frozen=True)
class Seen:
    """A checkpoint that was looked at: its content and its place in training, or what is wrong with it."""

    path: Path
    sha256: str = ""
    step: int | None = None
    epoch: int | None = None
    error: str = ""
    exit_code: int = 0


@dataclass(frozen=True)
class Unit:
    """Checkpoints that one process works on in this order, each from the one before.

    Attributes:
        omitted: analyses of checkpoints that are left out.
        compared: whether the last one's eigenvalues are also found from a start afresh, to see what is saved.
    """

    checkpoints: tuple[Seen, ...]
    compared: bool = False
    omitted: frozenset[tuple[Path, str]] = frozenset()


@dataclass(frozen=True)
class Begun:
    """A process is at this analysis of this checkpoint."""

    path: Path
    kind: str


@dataclass(frozen=True)
class Progressed:
    """How far it is."""

    done: int
    total: int | None
    text: str


@dataclass(frozen=True)
class Noted:
    """Something worth saying of a checkpoint."""

    path: Path
    text: str


@dataclass(frozen=True)
class Report:
    """What came of one analysis of one checkpoint.

    Attributes:
        outcome: ``computed``, ``found`` (it was stored already), ``failed``, or ``planned`` in a dry run.
        status: of the result; empty if there is none.
        exit_code: what the single command would have ended with.
        warm: whether it started from another checkpoint's eigenvectors; None where that has no meaning.
        cold_products: of the same search begun afresh, where that was tried.
        seconds, products: what it took; in a dry run, what it would take.
        readings: the measures of a computed result.
    """

    path: Path
    kind: str
    outcome: str
    step: int | None = None
    epoch: int | None = None
    status: str = ""
    id: str = ""
    file: Path | None = None
    seconds: float = 0.0
    products: int | None = None
    warm: bool | None = None
    cold_products: int | None = None
    error: str = ""
    exit_code: int = 0
    readings: Mapping[str, Reading] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Without the readings: the results hold them."""
        return {
            "checkpoint": str(self.path),
            "kind": self.kind,
            "outcome": self.outcome,
            "step": self.step,
            "epoch": self.epoch,
            "status": self.status or None,
            "id": self.id or None,
            "file": None if self.file is None else str(self.file),
            "seconds": self.seconds,
            "products": self.products,
            "warm": self.warm,
            "cold_products": self.cold_products,
            "error": self.error or None,
        }
