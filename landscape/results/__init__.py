"""Frozen, self-describing results; NumPy only."""

from landscape.results.base import STATUSES, ProblemResult, Quantity, Result, jsonable, kinds, quantity
from landscape.results.density import DensityResult
from landscape.results.eigen import EigenResult
from landscape.results.matrix import MatrixResult
from landscape.results.noise import NoiseResult
from landscape.results.overlap import OverlapResult
from landscape.results.provenance import CheckpointReference, Provenance
from landscape.results.ratios import CLASSES, RatiosResult
from landscape.results.reweight import ReweightResult
from landscape.results.sharpness import SharpnessResult
from landscape.results.trace import TraceResult

__all__ = [
    "CLASSES",
    "STATUSES",
    "CheckpointReference",
    "DensityResult",
    "EigenResult",
    "MatrixResult",
    "NoiseResult",
    "OverlapResult",
    "ProblemResult",
    "Provenance",
    "Quantity",
    "RatiosResult",
    "Result",
    "ReweightResult",
    "SharpnessResult",
    "TraceResult",
    "jsonable",
    "kinds",
    "quantity",
]
