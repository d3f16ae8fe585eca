"""Frozen, self-describing results; NumPy only."""

from landscape.results.base import (
    STATUSES,
    DataResult,
    ProblemResult,
    Quantity,
    Result,
    jsonable,
    kinds,
    quantity,
)
from landscape.results.density import DensityResult
from landscape.results.eigen import EigenResult
from landscape.results.matrix import MatrixResult
from landscape.results.monitor import MonitorResult
from landscape.results.noise import NoiseResult
from landscape.results.overlap import OverlapResult
from landscape.results.provenance import CheckpointReference, Provenance
from landscape.results.ratios import CLASSES, RatiosResult
from landscape.results.reweight import ReweightResult
from landscape.results.sharpness import SharpnessResult
from landscape.results.slice import SliceResult
from landscape.results.trace import TraceResult

__all__ = [
    "CLASSES",
    "STATUSES",
    "CheckpointReference",
    "DataResult",
    "DensityResult",
    "EigenResult",
    "MatrixResult",
    "MonitorResult",
    "NoiseResult",
    "OverlapResult",
    "ProblemResult",
    "Provenance",
    "Quantity",
    "RatiosResult",
    "Result",
    "ReweightResult",
    "SharpnessResult",
    "SliceResult",
    "TraceResult",
    "jsonable",
    "kinds",
    "quantity",
]
