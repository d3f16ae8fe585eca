"""A ``landscape.toml`` to fill in, with what a checkpoint's shapes give away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from landscape.project.pretrained import loss_for
from landscape.project.text import shown
from landscape.settings import Option, options_of

if TYPE_CHECKING:
    from landscape.checkpoint import Inspection

__all__ = ["template"]

Shapes = Mapping[str, tuple[int, ...]]

_HEAD = """\
# landscape.toml: which model, data and loss the checkpoints of this folder belong to.
# Paths are relative to this file. Lines that begin with '#' and a key are options: remove the '#' to use one.
"""

#: What the commented options show; the rest show their default.
_EXAMPLES = {
    "params": '["layers.0.*"]',
    "ignore_keys": '["*.position_ids"]',
    "allow_global": '["package.module.Class"]',
    "state_key": '"model_state_dict"',
    "samples": "1000",
    "batch_size": "256",
    "expect_loss": "0.1",
    "dtype": '"float32"',
    "memory": '"4GB"',
    "threads": "2",
    "problem": '"net.py:problem"',
    "noisy": '"net.py:wrong_labels"',
    "test_data": '"net.py:test_data"',
    "metric": '["net.py:score"]',
}


def template(inspection: Inspection | None) -> str:
    """A commented ``landscape.toml`` for a checkpoint (or none), to be completed with the user's own names.

    Prose stands after ``# ``, options after ``#``: it stays valid when every ``#`` before a key is removed.
    The guesses (numbers of inputs and outputs, the loss) come from shapes alone.
    """
    from landscape.project.settings import ProblemSettings

    shapes = {} if inspection is None else {t.name: t.shape for t in inspection.tensors}
    architecture = _architecture(inspection)
    loss = loss_for(architecture) or _loss(shapes)
    findings = _findings(shapes, known=bool(architecture))
    lines: list[str | None] = [_HEAD, *(f"# {line}" for line in findings), "" if shapes else None]
    lines += [
        "# The model, without its weights: a function without arguments that returns a torch.nn.Module.",
        *([f"# Without one it is the {shown(architecture)} of config.json."] if architecture else []),
        f'{"#" if architecture else ""}model = "net.py:model"',
        "",
        "# The data: a function that returns (x, y), a Dataset, a DataLoader (not shuffled) or batches;",
        "# or an array file (.npz, .h5, .safetensors) that holds x and y (tokens for causal_lm: x alone).",
        'data = "tokens.npz"' if loss == "causal_lm" else 'data = "net.py:data"',
        "",
        "# The loss: cross_entropy, mse, bce_with_logits, nll, causal_lm (of the next token),",
        "# or a function loss(outputs, targets) -> mean.",
        f'loss = "{loss}"',
        "",
    ]
    for option in options_of(ProblemSettings):
        if option.name not in ("model", "data", "loss", "config"):
            lines += [f"# {option.help}", f"#{option.name.replace('_', '-')} = {_value(option)}", ""]
    lines += [
        "# Which checkpoints belong together, in order of training.",
        '#checkpoints = ["checkpoints/*.pt"]',
        "",
        "# Models by file name; the first pattern that matches wins over 'model' above.",
        "#[models]",
        '#"cnn-*.pt" = "net.py:cnn"',
        "",
        "# Options of one command.",
        "#[eigen]",
        "#k = 10",
        "",
    ]
    return "\n".join(line for line in lines if line is not None)


def _architecture(inspection: Inspection | None) -> str:
    """What builds the model if nobody else does; "" where the checkpoint does not say."""
    found = "" if inspection is None else inspection.metadata.get("architecture", "")
    return str(found) if inspection is not None and inspection.format == "transformers" else ""


def _value(option: Option) -> str:
    """The option's example, or its default, as TOML."""
    if option.name in _EXAMPLES:
        return _EXAMPLES[option.name]
    if isinstance(option.default, bool):
        return str(option.default).lower()
    return f'"{option.default}"' if isinstance(option.default, str) else str(option.default)


def _findings(shapes: Shapes, known: bool) -> list[str]:
    """What the shapes give away, in sentences; of a ``known`` architecture no more than how much there is."""
    weights = [(name, shape) for name, shape in shapes.items() if len(shape) >= 2]
    if not weights:
        return []
    total = sum(_product(shape) for shape in shapes.values())
    (first, begin), (last, end) = weights[0], weights[-1]
    numbers = f"The checkpoint holds {len(shapes)} arrays with {total:,} numbers."
    if known:
        return [numbers]
    return [
        numbers,
        f"First layer {_layer(first, begin)}.",
        f"Last layer {_layer(last, end)}.",
    ]


def _layer(name: str, shape: tuple[int, ...]) -> str:
    words = f"{shown(name, 80)} {shape}"
    if len(shape) > 2:
        return f"{words}: {shape[1]} channels (or groups of them) to {shape[0]}"
    if "emb" in name.lower() or "wte" in name.lower():
        return f"{words}: a vocabulary of {shape[0]}, vectors of {shape[1]}"
    return f"{words}: {shape[1]} inputs to {shape[0]} outputs"


def _loss(shapes: Shapes) -> str:
    """Class labels are likeliest; a single output is a regression."""
    ends = [shape[0] for shape in shapes.values() if len(shape) == 2]
    return "mse" if ends and ends[-1] == 1 else "cross_entropy"


def _product(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
