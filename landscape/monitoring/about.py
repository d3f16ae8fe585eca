"""What is written down about a monitor's run before anything is measured."""

from __future__ import annotations

import secrets
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import torch

from landscape.identity import run_id, subject, versions
from landscape.monitoring.probe import CONFIDENCE, Probe
from landscape.monitoring.settings import Settings
from landscape.results import Provenance, jsonable

__all__ = ["fixed", "provenance"]


def fixed(probe: Probe, settings: Settings) -> dict[str, Any]:
    """Quantities of the result that are known from the beginning."""
    problem = probe.problem
    return {
        "examples": problem.examples,
        "terms": problem.terms,
        "parameters": problem.size,
        "frozen_parameters": problem.selection.frozen,
        "tied_parameters": problem.selection.tied,
        "unused_parameters": problem.selection.layout.count(probe.evaluation.unused),
        "confidence": CONFIDENCE,
        "new_weight": settings.new_weight,
        "as_written": settings.as_written,
        "average_every_step": settings.average_every_step,
    }


def provenance(probe: Probe, settings: Settings, seed: int, given: bool) -> Provenance:
    """How the run was obtained; each monitor is a run of its own, of the weights that it began with."""
    problem, started = probe.problem, datetime.now(UTC).isoformat(timespec="milliseconds")
    of = subject(problem)
    return Provenance(
        id=run_id("monitor", of, settings, seed, [started, secrets.token_hex(8)]),
        command="landscape.Monitor",
        checkpoint=None,
        settings=jsonable(asdict(settings)),
        problem=jsonable(problem.description),
        data_fingerprint=problem.data.fingerprint,
        seed=seed,
        seed_given=given,
        device=str(problem.device),
        dtype=str(problem.dtype).removeprefix("torch."),
        strategy=jsonable({**probe.strategy.to_json(), "threads": torch.get_num_threads()}),
        versions=versions(),
        started=started,
        subject=of,
    )
