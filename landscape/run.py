"""The one place that makes an analysis happen: identity, seed, partial state, signals, limits, store."""

from __future__ import annotations

from dataclasses import dataclass

from landscape.settings import option

__all__ = ["RunSettings"]


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """How a run is carried out and where its result goes; none of it but the seed changes a figure."""

    seed: int | None = option(
        None, "Seed of every random choice; without it a fresh one is drawn, printed and stored.", minimum=0
    )
    time_limit: float | None = option(
        None, "Stop after this many seconds, keep what there is (exit 4).", metavar="SECONDS", minimum=0.0,
        identity=False,
    )
    output: str | None = option(
        None, "Result file; default landscape-results/<checkpoint>-<hash>.h5.", short="-o", metavar="FILE",
        identity=False,
    )
    fresh: bool = option(
        False, "Compute again, also when the same run is stored or was interrupted.", identity=False
    )
