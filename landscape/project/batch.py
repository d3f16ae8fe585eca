"""Options of ``landscape batch``: of the command line, and of the table ``[batch]`` in ``landscape.toml``."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from typing import Any, Literal

from landscape.errors import ConfigurationError
from landscape.settings import option

__all__ = ["BATCH", "BatchSettings"]

#: The table's name.
BATCH = "batch"

_SHARD = re.compile(r"(\d+)/(\d+)")
_SET = re.compile(r"\s*([a-z]+)\.([A-Za-z][\w-]*)\s*=\s*(.*)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class BatchSettings:
    """What is run on each checkpoint, by how many processes, and where the results go."""

    run: tuple[str, ...] = option(
        ("eigen", "trace", "ratios"),
        "Analyses to run on each checkpoint, in this order, separated by commas (repeatable).",
        metavar="KIND,…",
    )
    set: tuple[str, ...] = option(
        (),
        "An option of one of them, such as eigen.k=10 (repeatable); goes before its table in landscape.toml.",
        metavar="KIND.OPTION=VALUE",
    )
    jobs: int = option(
        1, "Processes that share the checkpoints, and the threads among them.", short="-j", minimum=1
    )
    shard: str | None = option(
        None,
        "Do the I-th of N shares of the work, as one job of a cluster's array; they meet in the folder.",
        metavar="I/N",
    )
    order: Literal["auto", "name", "given"] = option(
        "auto",
        "The order of training: auto is by the step (else the epoch) in the files, else by the numbers in "
        "their names; or by name, or as given.",
    )
    warm_starts: bool = option(
        True,
        "Start the eigenvalues of a checkpoint from the eigenvectors of the one before it, which saves "
        "products; every fifth at least begins afresh.",
    )
    output: str | None = option(
        None, "Folder of the result files; default landscape-results.", short="-o", metavar="FOLDER"
    )
    seed: int | None = option(
        None, "Seed of every run; without it each run draws a fresh one, and stores it.", minimum=0
    )
    time_limit: float | None = option(
        None,
        "Stop after this many seconds; what was done is kept, and the same command goes on (exit 4).",
        metavar="SECONDS",
        minimum=0.0,
    )
    fresh: bool = option(False, "Compute again what is stored, or was interrupted.")

    def __post_init__(self) -> None:
        if not self.kinds:
            raise ConfigurationError("--run names no analysis", do="write it as --run eigen,trace")
        _ = self.share, self.assignments

    @property
    def kinds(self) -> tuple[str, ...]:
        """The analyses, each once."""
        named = (name.strip() for text in self.run for name in text.split(","))
        return tuple(dict.fromkeys(name for name in named if name))

    @property
    def share(self) -> tuple[int, int]:
        """(which, of how many), from 1; (1, 1) is all."""
        if self.shard is None:
            return 1, 1
        match = _SHARD.fullmatch(self.shard.strip())
        which, count = (int(match[1]), int(match[2])) if match else (0, 0)
        if not 1 <= which <= count:
            raise ConfigurationError(
                "--shard is I/N with I from 1 to N",
                found=repr(self.shard),
                do="write the second of four as 2/4",
            )
        return which, count

    @property
    def assignments(self) -> tuple[tuple[str, str, Any], ...]:
        """(kind, option, value) of every ``--set``; a value that is no number, list or truth is text."""
        found = []
        for text in self.set:
            match = _SET.fullmatch(text)
            if match is None:
                raise ConfigurationError(
                    "--set is KIND.OPTION=VALUE", found=repr(text), do="such as eigen.k=10"
                )
            found.append((match[1], match[2].replace("-", "_"), _value(match[3])))
        return tuple(found)


def _value(text: str) -> Any:
    """A value as TOML writes it, or the text itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
