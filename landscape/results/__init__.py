"""Frozen, self-describing results; NumPy only."""

from landscape.results.base import STATUSES, Quantity, Result, jsonable, kinds, quantity
from landscape.results.density import DensityResult
from landscape.results.eigen import EigenResult
from landscape.results.matrix import MatrixResult
from landscape.results.provenance import CheckpointReference, Provenance
from landscape.results.trace import TraceResult

__all__ = [
    "STATUSES",
    "CheckpointReference",
    "DensityResult",
    "EigenResult",
    "MatrixResult",
    "Provenance",
    "Quantity",
    "Result",
    "TraceResult",
    "jsonable",
    "kinds",
    "quantity",
]
