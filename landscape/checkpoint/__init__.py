"""A checkpoint, file or directory, becomes a state dict. No code in it runs."""

from landscape.checkpoint.formats import is_directory
from landscape.checkpoint.inspection import Inspection, StateSummary, TensorEntry, inspect_checkpoint
from landscape.checkpoint.matching import load_into
from landscape.checkpoint.reading import Checkpoint, load_checkpoint
from landscape.checkpoint.save import save_checkpoint

__all__ = [
    "Checkpoint",
    "Inspection",
    "StateSummary",
    "TensorEntry",
    "inspect_checkpoint",
    "is_directory",
    "load_checkpoint",
    "load_into",
    "save_checkpoint",
]
