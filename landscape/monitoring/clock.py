"""What the monitor takes of the time, and what it may take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Clock"]

#: Parts of the budget: for measuring, and for writing results to their file. What is left is for what takes
#: longer than it did the last time.
_MEASURING, _WRITING = 0.65, 0.25
#: Without a budget, writing takes at most this share of the time.
_WRITING_ALONE = 0.01


class Clock:
    """Time since the monitor was made, and how much of it was the monitor's own.

    Each part may take an equal share of the budget, so that cheap parts leave something to dear ones, and
    more while all of them together keep to it. What a part took the last time says what it will take the next
    time. The first time of each, when much is done that is done once, is counted apart, and the budget does
    not know of it.

    Attributes:
        own: seconds that were the monitor's.
        once: those of them that will not come again.

    Args:
        budget: the share of the training time that may be spent; None for any.
        parts: how many parts share it, writing aside.
        settle: waits until the device has done what it was given before.
    """

    def __init__(
        self,
        budget: float | None,
        parts: int = 1,
        settle: Callable[[], None] = lambda: None,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._budget, self._settle, self._now = budget, settle, now
        self._all = _MEASURING * (budget or 0.0)
        self._each = self._all / max(1, parts)
        self._began = now()
        self.own = self.once = 0.0
        self._spent: dict[str, float] = {}
        self._last: dict[str, float] = {}
        self._inside = False

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning, the monitor's own among them."""
        return self._now() - self._began

    @property
    def training(self) -> float:
        """Seconds that were not the monitor's."""
        return max(0.0, self.elapsed - self.own)

    @property
    def percent(self) -> float:
        """What recurs of the monitor's own time, in percent of the training's."""
        training = self.training
        return 100 * (self.own - self.once) / training if training > 0 else 0.0

    @contextmanager
    def spending(self, block: str) -> Iterator[None]:
        """Count what happens inside as the monitor's own, under a name; only the outermost block counts."""
        if self._inside:
            yield
            return
        self._settle()
        start, self._inside = self._now(), True
        try:
            yield
        finally:
            self._inside = False
            self._settle()
            self._count(block, self._now() - start)

    def _count(self, block: str, seconds: float) -> None:
        self.own += seconds
        self._last[block] = seconds
        if block in self._spent:
            self._spent[block] += seconds
        else:
            self.once += seconds
            self._spent[block] = 0.0

    def allows(self, *blocks: str) -> bool:
        """Whether a part that is made up of these blocks can be measured now."""
        if self._budget is None:
            return True
        coming, before = (
            sum(times.get(block, 0.0) for block in blocks) for times in (self._last, self._spent)
        )
        together = sum(spent for block, spent in self._spent.items() if block != "write")
        training = self.training
        return (
            coming == 0
            or before + coming <= self._each * training
            or together + coming <= self._all * training
        )

    def allows_writing(self) -> bool:
        """Whether all can be written to the file now."""
        share = _WRITING_ALONE if self._budget is None else _WRITING * self._budget
        spent = self._spent.get("write", 0.0) + self._last.get("write", 0.0)
        return spent <= share * self.training
