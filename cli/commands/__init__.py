"""One module per command; each has ``command``, a function whose docstring is its help."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from . import (
    batch,
    compare,
    density,
    doctor,
    eigen,
    export,
    init,
    inspect,
    noise,
    overlap,
    plot,
    ratios,
    report,
    reweight,
    rm,
    sharpness,
    show,
    slice,
    trace,
)

__all__ = ["COMMANDS"]

#: The commands by name, in the order of the help page.
COMMANDS: Mapping[str, Callable[..., None]] = {
    "inspect": inspect.command,
    "init": init.command,
    "eigen": eigen.command,
    "trace": trace.command,
    "density": density.command,
    "ratios": ratios.command,
    "overlap": overlap.command,
    "sharpness": sharpness.command,
    "reweight": reweight.command,
    "noise": noise.command,
    "slice": slice.command,
    "batch": batch.command,
    "show": show.command,
    "plot": plot.command,
    "report": report.command,
    "compare": compare.command,
    "export": export.command,
    "rm": rm.command,
    "doctor": doctor.command,
}
