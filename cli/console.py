"""What reaches the terminal: results on stdout, notes and progress on stderr, every text made harmless."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
import time
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["FORMAT_VERSION", "Console", "Reporter", "is_terminal", "safe", "table"]

#: Version of the object that ``--json`` prints.
FORMAT_VERSION = 1
#: A progress bar appears for what lasts longer than this.
BAR_AFTER_SECONDS = 2.0
#: Where less is left for a sentence beside its name, it is not wrapped.
MIN_SENTENCE = 30


def safe(text: object) -> str:
    """``text`` with what a terminal could act on (control, bidi and unassigned characters) spelt out."""
    return "".join(c if c == "\n" or c.isprintable() else _spelt(c) for c in str(text))


def _spelt(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def _cells(text: str) -> int:
    """Columns that ``text`` takes on a terminal."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(bool(unicodedata.combining(c)) for c in text)


def table(header: Sequence[str], rows: Iterable[Sequence[object]], width: int | None = None) -> str:
    """Aligned columns; where they do not fit into ``width``, one block of ``name: value`` lines per row.

    Nothing is ever cut: a number that lost its end would be another number.
    """
    cells = [[safe(cell).replace("\n", " ") for cell in row] for row in rows]
    lines = [list(header), *cells]
    widths = [max(_cells(line[i]) for line in lines) for i in range(len(header))]
    if width is not None and sum(widths) + 2 * (len(widths) - 1) > width:
        blocks = ["\n".join(f"{h}: {c}" for h, c in zip(header, row, strict=True)) for row in cells]
        return "\n\n".join(blocks)
    return "\n".join(
        "  ".join(c + " " * (w - _cells(c)) for c, w in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def is_terminal(stream: TextIO) -> bool:
    """Whether somebody looks at it who can see what is drawn over."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


@dataclass(frozen=True)
class Console:
    """Where a command speaks. ``json``: stdout gets one object and nothing else; ``quiet``: no notes."""

    command: str
    json: bool = False
    quiet: bool = False

    @property
    def width(self) -> int | None:
        """Columns of the terminal that stdout is; None where it is a file or a pipe (nothing to fit into)."""
        return shutil.get_terminal_size().columns if sys.stdout.isatty() else None

    def out(self, text: str = "") -> None:
        """One piece of the result, in words. Silent with ``--json``."""
        if not self.json:
            print(safe(text), file=sys.stdout)

    def table(self, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """A table of the result, its header in bold on a terminal."""
        if self.json:
            return
        first, *rest = table(header, rows, self.width).split("\n")
        aligned = ": " not in first
        print(
            f"\033[1m{first}\033[0m" if aligned and self._colour() else first,
            *rest,
            sep="\n",
            file=sys.stdout,
        )

    def pairs(self, pairs: Iterable[tuple[str, str]]) -> None:
        """``name  sentence`` lines, wrapped to a terminal that leaves room for it."""
        listed = list(pairs)
        margin = max(_cells(safe(name)) for name, _ in listed) + 2
        for name, sentence in listed:
            line = f"{name:<{margin}}{safe(sentence)}"
            if self.width is not None and self.width >= margin + MIN_SENTENCE:
                line = textwrap.fill(line, self.width, subsequent_indent=" " * margin, break_long_words=False)
            self.out(line)

    def emit(self, runs: Sequence[dict[str, Any]] = (), **more: Any) -> None:
        """The one object of ``--json``; silent otherwise."""
        if self.json:
            payload = {"format_version": FORMAT_VERSION, "command": self.command, "runs": list(runs), **more}
            print(json.dumps(payload, allow_nan=False, indent=2), file=sys.stdout)

    def note(self, text: str) -> None:
        """Something worth knowing that is not the result."""
        if not self.quiet:
            print(safe(text), file=sys.stderr)

    def warn(self, text: str) -> None:
        """Something that must be known, ``--quiet`` or not."""
        print(safe(text), file=sys.stderr)

    @staticmethod
    def _colour() -> bool:
        return is_terminal(sys.stdout) and not os.environ.get("NO_COLOR")


class Reporter:
    """An observer of a run: notes on stderr and, on a terminal, a progress bar once two seconds have passed.

    Use it as a context manager, so that the bar is gone before anything else is printed.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()
        self._shows = is_terminal(sys.stderr) and not console.quiet
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Reporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def note(self, text: str) -> None:
        """A line on stderr, above the bar if there is one."""
        if self._bar is None:
            self._console.note(text)
        else:
            self._bar.console.print(safe(text), markup=False, highlight=False, soft_wrap=True)

    def progress(self, done: int, total: int | None, text: str) -> None:
        """``done`` of ``total`` (None: not known) are done; ``text`` says of what."""
        if not self._shows or time.monotonic() - self._started < BAR_AFTER_SECONDS:
            return
        if self._bar is None:
            self._bar = _progress_bar()
            self._task = self._bar.add_task(safe(text), total=total, completed=done)
            self._bar.start()
        assert self._task is not None
        self._bar.update(self._task, completed=done, total=total, description=safe(text))


def _progress_bar() -> Progress:
    from rich.console import Console as RichConsole
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=RichConsole(stderr=True),
        transient=True,
    )
