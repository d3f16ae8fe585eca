"""What ``landscape report`` costs: writing the page, its size, and how long a browser takes to open it.

    python -m tests.benchmarks.report [DIR] [--checkpoints 60] [--repeats 7] [--json FILE]

The runs are those of DIR, or made up: eigen, trace and ratios of so many checkpoints of two training runs.
*write* is CPU time of the process, once with every run drawn and once with those of the last checkpoints.
*open* is from the request to the end of the load event in a headless Chromium with its own fresh profile,
which the first opening pays for; given are the first, the median and the largest of the others (wall clock).
The aims are 10 MB and two seconds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from landscape.reports import FIGURES, write_report
from landscape.study import Runs, open_runs
from tests.reports.support import study
from tests.support.browser import browser, chromium

__all__ = ["Cost", "cost"]

_OPENED = """(() => {
    const [opened] = performance.getEntriesByType("navigation");
    return [opened.loadEventEnd, document.querySelectorAll("*").length];
})()"""


@dataclass(frozen=True)
class Cost:
    """Of one page: seconds, bytes and counts; ``opened`` has every opening, the first one cold."""

    figures: str
    runs: int
    checkpoints: int
    drawn: int
    size: int
    write: float
    elements: int
    opened: tuple[float, ...]

    def line(self) -> str:
        """As a row of the table."""
        warm = self.opened[1:]
        times = (self.opened[0], statistics.median(warm), max(warm)) if warm else ()
        opened = " ".join(f"{seconds:6.2f}" for seconds in times) or "no browser"
        return (
            f"{self.figures:8} {self.runs:5} {self.checkpoints:11} {self.drawn:8} {self.size / 1e6:6.2f} "
            f"{self.write:8.1f} {self.elements:9} {opened:>20}"
        )


def cost(runs: Runs, figures: str, repeats: int) -> Cost:
    """Write the page and open it so often, and once before."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.html"
        begin = time.process_time()
        written = write_report(runs, path, figures=figures)
        spent = time.process_time() - begin
        opened, elements = _opened(path, Path(folder) / "profile", repeats) if chromium() else ((), 0)
    return Cost(
        figures, written.runs, written.checkpoints, written.figures, written.size, spent, elements, opened
    )


def _opened(path: Path, profile: Path, repeats: int) -> tuple[tuple[float, ...], int]:
    """The seconds of each opening, and the number of elements on the page."""
    times: list[float] = []
    elements = 0
    with browser(profile) as page:
        for _ in range(1 + repeats):
            page.goto(path)
            milliseconds, elements = page.evaluate(_OPENED)
            times.append(milliseconds / 1000)
        assert page.problems == []
    return tuple(times), elements


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and size of the report.")
    parser.add_argument("folder", nargs="?", type=Path, metavar="DIR", help="result files; default: made up")
    parser.add_argument("--checkpoints", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    runs = open_runs(args.folder) if args.folder else study(args.checkpoints)
    print(f"{'figures':8} {'runs':>5} checkpoints pictures {'MB':>6} {'write':>8} {'elements':>9}", end="")
    print(f" {'open: first, median, largest':>20}")
    rows = []
    for figures in FIGURES:
        found = cost(runs, figures, args.repeats)
        rows.append(asdict(found))
        print(found.line(), flush=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
