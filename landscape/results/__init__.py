"""Frozen, self-describing results; NumPy only."""

from landscape.results.base import STATUSES, ProblemResult, Quantity, Result, jsonable, kinds, quantity
from landscape.results.density import DensityResult
from landscape.results.eigen import EigenResult
from landscape.results.matrix import MatrixResult
from landscape.results.provenance import CheckpointReference, Provenance
from landscape.results.ratios import CLASSES, RatiosResult
from landscape.results.trace import TraceResult

__all__ = [
    "CLASSES",
    "STATUSES",
    "CheckpointReference",
    "DensityResult",
    "EigenResult",
    "MatrixResult",
    "ProblemResult",
    "Provenance",
    "Quantity",
    "RatiosResult",
    "Result",
    "TraceResult",
    "jsonable",
    "kinds",
    "quantity",
]
