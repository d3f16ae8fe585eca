"""Made-up ``ratios`` runs whose classes are known, in memory and in result files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from landscape.inputs import with_vectors_apart
from landscape.results import CLASSES, CheckpointReference, Provenance, RatiosResult
from landscape.store import ResultFile

NAMES = list(CLASSES)


def ratios_run(
    classes: Sequence[int] | np.ndarray,
    *,
    step: int | None = 10,
    epoch: int | None = None,
    run: str = "",
    problem: Mapping[str, Any] | None = None,
    uncertain: Mapping[str, float] | None = None,
    **changes: Any,
) -> RatiosResult:
    """A run on a checkpoint at this step, parameter i being in class number ``classes[i]``."""
    held = np.asarray(classes)
    n = len(held)
    members = held[None, :] == np.arange(len(NAMES))[:, None]
    counts = members.sum(axis=1).astype(float)
    exact = np.ma.masked_all(len(NAMES))
    name = f"net-{step if step is not None else epoch}.pt"
    sha256 = hashlib.sha256(name.encode()).hexdigest()
    provenance = Provenance(
        id=run or f"ratios-{step if step is not None else epoch or 0:04d}",
        command=f"landscape ratios {name}",
        checkpoint=CheckpointReference(path=name, sha256=sha256, step=step, epoch=epoch),
        settings={"rho": 0.05},
        problem={"model": "net.py:net", "loss": "cross_entropy", **(problem or {})},
        data_fingerprint="c0ffee",
        seed=1,
        seed_given=False,
        device="cpu",
        dtype="float32",
        started=f"2026-01-01T00:00:{(step or 0) % 60:02d}+00:00",
        subject=f"subject of {name}",
    )
    fields: dict[str, Any] = {
        "status": "complete",
        "loss": 0.5,
        "gradient_norm": 0.1,
        "examples": 50,
        "terms": 50.0,
        "parameters": n,
        "perturb": "gradient",
        "p": 2.0,
        "rho": 0.05,
        "relative": False,
        "length": 0.05,
        "batches": 1,
        "classes": np.array(NAMES, dtype=object),
        "counts": counts,
        "count_errors": exact,
        "fractions": counts / n,
        "fraction_errors": exact,
        "uncertain": np.array([(uncertain or {}).get(name, 0.0) for name in NAMES]),
        "rounding": 1e-7,
        "gradient_shares": counts / n,
        "gradient_share_errors": exact,
        "perturbed_shares": counts / n,
        "perturbed_share_errors": exact,
        "gradient_norm_ratio": 1.1,
        "cosine": 0.9,
        "sign_agreement": 0.9,
        "directional_curvature": 2.0,
        "perturbed_loss": 0.6,
        "bin_low": np.array([0.0, 1.0]),
        "bin_high": np.array([1.0, 2.0]),
        "histogram": np.array([1.0, 2.0]),
        "layers": np.array(["0", "2"], dtype=object),
        "layer_parameters": np.array([n - n // 3, n // 3]),
        "passes": 2,
        "seconds": 0.1,
        "masks": np.packbits(members, axis=1, bitorder="little"),
        "provenance": provenance,
    }
    return RatiosResult(**fields | changes)


def random_runs(
    n: int, steps: Sequence[int], seed: int = 0, shares: Sequence[float] = (0.5, 0.3, 0.1, 0.1)
) -> list[RatiosResult]:
    """Runs whose classes are drawn for each step and parameter on its own."""
    rng = np.random.default_rng(seed)
    return [ratios_run(rng.choice(len(shares), n, p=shares), step=step) for step in steps]


def stored(path: Path, *results: RatiosResult) -> Path:
    """The runs in a result file, their masks beside it."""
    for result in results:
        ResultFile(path).add(with_vectors_apart(result, path))
    return path
