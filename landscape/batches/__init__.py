"""Every analysis on every checkpoint: planned, shared among processes, resumed."""

from landscape.batches.batch import BatchObserver, BatchResult, Running, Snapshot, WarmStarts, run_batch
from landscape.batches.parts import Report, Seen
from landscape.batches.planning import BatchPlan, planned_batch

__all__ = [
    "BatchObserver",
    "BatchPlan",
    "BatchResult",
    "Report",
    "Running",
    "Seen",
    "Snapshot",
    "WarmStarts",
    "planned_batch",
    "run_batch",
]
