"""Frozen, self-describing results; NumPy only."""

from landscape.results.base import STATUSES, Quantity, Result, jsonable, kinds, quantity
from landscape.results.eigen import EigenResult
from landscape.results.provenance import CheckpointReference, Provenance

__all__ = [
    "STATUSES",
    "CheckpointReference",
    "EigenResult",
    "Provenance",
    "Quantity",
    "Result",
    "jsonable",
    "kinds",
    "quantity",
]
