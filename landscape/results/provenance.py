"""How a result was obtained: everything needed to trust it and to make it again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["CheckpointReference", "Provenance"]


@dataclass(frozen=True, kw_only=True)
class CheckpointReference:
    """Which file, by content."""

    path: str
    sha256: str
    step: int | None = None
    epoch: int | None = None


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """The record of one run, written beside its result.

    ``subject`` is the hash of what was measured, whatever was asked about it: results of the same subject
    belong together. ``settings`` are the analysis's own; ``problem`` says what was measured (model, loss,
    data, samples, parameters, mode, in words and numbers); ``strategy`` is what was chosen by measurement
    (micro-batch, graphs kept or not, threads), used again on resumption. ``recipe``, if there is one, is the
    hash by which a batch knows this run without loading the model again.
    """

    id: str
    command: str
    checkpoint: CheckpointReference | None
    settings: dict[str, Any]
    problem: dict[str, Any]
    data_fingerprint: str
    seed: int
    seed_given: bool
    device: str
    dtype: str
    strategy: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    started: str = ""
    seconds: float = 0.0
    subject: str = ""
    recipe: str = ""
