"""What a problem is made of: the options shared by every verb, and sizes such as ``4GB``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from landscape.errors import ConfigurationError
from landscape.settings import option

__all__ = ["PIECES", "ProblemSettings", "parse_size"]

#: The options that say what is measured; each may come from elsewhere than the others.
PIECES = ("model", "data", "loss")


@dataclass(frozen=True, kw_only=True)
class ProblemSettings:
    """What is measured: the model, the loss and the data, and how they are evaluated."""

    model: str | None = option(
        None,
        "Factory of the model: 'package.module:function' or 'file.py:function'. A Hugging Face directory "
        "needs none.",
        metavar="FACTORY",
    )
    data: str | None = option(
        None,
        "Factory of the data, or an array file (.npz, .h5, .safetensors with x and y; tokens: x alone).",
        metavar="DATA",
    )
    loss: str | None = option(
        None,
        "cross_entropy, mse, bce_with_logits, nll, causal_lm, or a factory of a callable that returns a "
        "mean.",
        metavar="LOSS",
    )
    noisy: str | None = option(
        None,
        "Which labels are noisy: 'file.py:function', an array file[:NAME], or noisy or clean_y in that of "
        "--data.",
        metavar="MARKS",
    )
    test_data: str | None = option(
        None, "A second data set, shown beside the first; named as --data is.", metavar="DATA", special=True
    )
    metric: tuple[str, ...] = option(
        (),
        "A figure of your own beside the loss, 'file.py:function' of (outputs, targets) that returns a mean,"
        " or a number for each example (repeatable).",
        metavar="FUNCTION",
        special=True,
    )
    problem: str | None = option(
        None, "Factory of a whole landscape.Problem: 'file.py[:name]'.", metavar="FACTORY"
    )
    config: str | None = option(
        None,
        "Configuration file; without it, landscape.toml here or above, up to the repository's root.",
        metavar="FILE",
    )
    state_key: str | None = option(
        None, "Which entry of the checkpoint holds the weights, such as 'ema.state_dict'.", metavar="KEY"
    )
    ignore_keys: tuple[str, ...] = option(
        (),
        "Checkpoint keys to leave out, as a pattern such as '*.position_ids' (repeatable).",
        metavar="PATTERN",
    )
    allow_global: tuple[str, ...] = option(
        (),
        "Class of an installed package that the file may construct (repeatable); runs its constructor.",
        metavar="NAME",
    )
    trust_pickle: bool = option(
        False, "Unpickle the file in full. This can run any code in it: only for files you made yourself."
    )
    params: tuple[str, ...] = option(
        (),
        "Measure only parameters whose names match a pattern such as 'layers.0.*' (repeatable).",
        metavar="PATTERN",
    )
    samples: int | None = option(
        None, "Use a seeded random subset of N examples instead of all.", metavar="N", minimum=1
    )
    sample_seed: int = option(0, "Seed that draws the subset of --samples.", minimum=0)
    batch_size: int | None = option(
        None,
        "Largest piece evaluated at once; splits sums, changes no figure beyond rounding.",
        metavar="N",
        minimum=1,
        identity=False,
    )
    expect_loss: float | None = option(
        None, "Stop (exit 2) unless the loss is this, to 1 %: is this my loss?", metavar="X", identity=False
    )
    weight_decay: float = option(
        0.0, "Add ½·D·‖w‖² to the loss, and D to every eigenvalue.", metavar="D", minimum=0.0
    )
    train_mode: bool = option(
        False, "Evaluate in train mode (batch statistics, seeded dropout) instead of eval mode."
    )
    device: Literal["auto", "cpu", "cuda"] = option("auto", "Where to compute.")
    dtype: Literal["float32", "float64"] | None = option(
        None,
        "Arithmetic of the products; sums are float64 always. Default: the model's own, at least float32.",
    )
    memory: str | None = option(
        None, "Memory to use, such as 4GB; default half of what is free.", metavar="SIZE", identity=False
    )
    threads: int | None = option(None, "Threads for the arithmetic.", metavar="N", minimum=1, identity=False)


_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(?:([kmgt])(i)?)?b?\s*", re.IGNORECASE)


def parse_size(text: str) -> int:
    """Bytes from ``"4GB"``, ``"512 MiB"`` or ``"1000000"`` (KB = 1000, KiB = 1024 bytes; case is ignored).

    Raises:
        ConfigurationError: not a size, or less than a byte.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ConfigurationError(
            "A size is a number with a unit",
            found=repr(text),
            do="write it as 4GB, 512MiB or a number of bytes",
        )
    number, prefix, binary = match.groups()
    power = " kmgt".index(prefix.lower()) if prefix else 0
    size = int(float(number) * (1024 if binary else 1000) ** power)
    if size < 1:
        raise ConfigurationError("A size is at least one byte", found=repr(text))
    return size
