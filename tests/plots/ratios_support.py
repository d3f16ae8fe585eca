"""Made-up gradients and the results that their ratios give, counted naively."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from landscape.results import CLASSES, CheckpointReference, RatiosResult
from tests.results.samples import provenance

#: Octaves of |r| on either side of one that have a bin of their own.
OCTAVES = 12


def gradients(
    n: int = 6570, spread: float = 0.4, dead: float = 0.04, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """g and g' = g + spread·noise of about equal size; a share of both is exactly zero."""
    draw = np.random.default_rng(seed)
    g = draw.standard_normal(n)
    h = g + spread * draw.standard_normal(n)
    h[g.argmin()] = 0.0  # one that is killed
    zero = draw.random(n) < dead
    g[zero], h[zero] = 0.0, 0.0
    return g, h


def classified(g: np.ndarray, h: np.ndarray) -> np.ndarray:
    """(class,) counts, by the definitions."""
    finite = np.isfinite(g) & np.isfinite(h)
    with np.errstate(all="ignore"):
        r = np.where(finite & (g != 0), h / g, np.nan)
    found = {
        "ckpt1": r > 1,
        "ckpt2": (r > 0) & (r < 1),
        "ckpt3": r < -1,
        "ckpt4": (r > -1) & (r < 0),
        "equal": r == 1,
        "opposite": r == -1,
        "dead": finite & (g == 0) & (h == 0),
        "born": finite & (g == 0) & (h != 0),
        "killed": finite & (g != 0) & (h == 0),
        "nonfinite": ~finite,
    }
    return np.array([found[name].sum() for name in CLASSES], dtype=float)


def binned(g: np.ndarray, h: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(bins' lower ends, upper ends, counts); ±2^k belongs to the bin of larger |r|."""
    inner = 2.0 ** np.arange(-OCTAVES, OCTAVES + 1)
    low, high = np.concatenate([[0.0], inner]), np.concatenate([inner, [math.inf]])
    some = np.isfinite(g) & np.isfinite(h) & (g != 0) & (h != 0)
    r = h[some] / g[some]
    negative, positive = (
        np.array([((side >= a) & (side < b)).sum() for a, b in zip(low, high, strict=True)])
        for side in (-r[r < 0], r[r > 0])
    )
    ends = np.concatenate([-high[::-1], low]), np.concatenate([-low[::-1], high])
    return *ends, np.concatenate([negative[::-1], positive]).astype(float)


def ratios_result(
    g: np.ndarray | None = None,
    h: np.ndarray | None = None,
    *,
    error: float | None = None,
    layers: int = 3,
    step: int | None = 1200,
    epoch: int | None = 3,
    name: str = "mlp-sgd.pt",
    run: str = "ratios-0a1b",
    **changes: Any,
) -> RatiosResult:
    """The result of these gradients, in so many layers of falling size; an ``error`` is over mini-batches."""
    if g is None or h is None:
        g, h = gradients()
    counts, n = classified(g, h), len(g)
    low, high, histogram = binned(g, h)
    cuts = np.cumsum(_sizes(n, layers))[:-1]
    parts = list(zip(np.split(g, cuts), np.split(h, cuts), strict=True))
    unknown = np.ma.MaskedArray(np.zeros(len(CLASSES)), mask=True)
    errors = unknown if error is None else np.ma.MaskedArray(np.where(counts > 0, error, 0.0))
    finite = np.isfinite(g) & np.isfinite(h)
    a, b = g[finite], h[finite]
    norms = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    fields: dict[str, Any] = {
        "status": "complete",
        "loss": 0.25,
        "gradient_norm": norms[0],
        "examples": 1797,
        "terms": 1797.0,
        "parameters": n,
        "perturb": "gradient",
        "p": 2.0,
        "rho": 0.05,
        "relative": False,
        "length": 0.05,
        "minibatch": None if error is None else 128,
        "batches": 1 if error is None else 20,
        "classes": np.array(list(CLASSES), dtype=object),
        "counts": counts,
        "count_errors": errors * n,
        "fractions": counts / n,
        "fraction_errors": errors,
        "uncertain": np.where(counts > 0, 0.0003, 0.0) * (error is None),
        "rounding": 1e-7,
        "gradient_shares": counts / n,
        "gradient_share_errors": errors,
        "perturbed_shares": counts / n,
        "perturbed_share_errors": errors,
        "gradient_norm_ratio": norms[1] / norms[0] if norms[0] else math.nan,
        "gradient_norm_ratio_error": error,
        "cosine": float(a @ b) / (norms[0] * norms[1]) if norms[0] and norms[1] else math.nan,
        "cosine_error": error,
        "sign_agreement": 0.9,
        "sign_agreement_error": error,
        "directional_curvature": 1.5,
        "perturbed_loss": 0.3,
        "bin_low": low,
        "bin_high": high,
        "histogram": histogram,
        "layers": np.array([f"{2 * i}" for i in range(layers)], dtype=object),
        "layer_parameters": np.array([len(part) for part, _ in parts]),
        "layer_fractions": np.stack([classified(*part) / max(len(part[0]), 1) for part in parts]),
        "layer_fraction_errors": np.ma.stack([errors] * layers),
        "passes": 2,
        "seconds": 0.5,
        "provenance": provenance(
            run,
            command="landscape ratios runs/mlp-sgd.pt",
            settings={"rho": 0.05},
            checkpoint=CheckpointReference(
                path=f"runs/{name}", sha256=f"{hash_of(name)}", step=step, epoch=epoch
            ),
        ),
    }
    return RatiosResult(**fields | changes)


def hash_of(name: str) -> str:
    """Something like a SHA-256."""
    return name.encode().hex().ljust(64, "0")[-64:]


def _sizes(n: int, layers: int) -> np.ndarray:
    shares = 1.0 / np.arange(1, layers + 1)
    sizes: np.ndarray = np.floor(n * shares / shares.sum()).astype(int)
    sizes[0] += n - sizes.sum()
    return sizes


def swept(result_errors: float | None = None, **changes: Any) -> RatiosResult:
    """Shares at lengths from 1e-3 to 1."""
    rho = np.array([1e-3, 1e-2, 0.05, 0.2, 1.0])
    table = np.stack([classified(*gradients(spread=8 * r)) for r in rho])
    fractions = table / table.sum(axis=1, keepdims=True)
    errors = np.ma.MaskedArray(np.zeros(fractions.shape), mask=True)
    if result_errors is not None:
        errors = np.ma.MaskedArray(np.full(fractions.shape, result_errors))
    fields: dict[str, Any] = {"rho_sweep": rho, "sweep_fractions": fractions, "sweep_errors": errors}
    return ratios_result(error=result_errors, **fields | changes)


def over_training(count: int = 12, error: float | None = 0.004, **changes: Any) -> list[RatiosResult]:
    """Runs on checkpoints of one training run, turned signs growing."""
    return [
        ratios_result(
            *gradients(spread=0.2 + 0.15 * i, seed=i),
            error=error,
            step=100 * i,
            epoch=i,
            name=f"mlp-sgd-epoch{i:03}.pt",
            run=f"ratios-{i:04}",
            **changes,
        )
        for i in range(count)
    ]
