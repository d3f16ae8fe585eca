"""Many results together: collections of stored runs, comparable series, comparisons, export."""

from landscape.study.collection import Runs, Stored, open_runs
from landscape.study.series import Run, Series, comparable

__all__ = ["Run", "Runs", "Series", "Stored", "comparable", "open_runs"]
