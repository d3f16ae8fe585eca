"""The errors users meet. Each says what is wrong, what was found and what to do, in at most five lines."""

from __future__ import annotations

__all__ = [
    "BusyError",
    "CheckpointError",
    "ComputationError",
    "ConfigurationError",
    "DataError",
    "InputError",
    "Interrupted",
    "LandscapeError",
    "OutOfMemory",
    "StoreError",
    "UntrustedError",
]

#: Exit codes of the command line (also the ``exit_code`` of the errors below).
DONE, BAD_INPUT, FAILED, NOT_REACHED, INTERRUPTED = 0, 2, 3, 4, 130


class LandscapeError(Exception):
    """Base class: ``what`` went wrong, what was ``found``, what to ``do`` about it.

    ``str(error)`` is one line for each of the three that was given.
    """

    exit_code = BAD_INPUT

    def __init__(self, what: str, *, found: str = "", do: str = "") -> None:
        self.what, self.found, self.do = what, found, do
        lines = [what, f"found: {found}" if found else "", f"do: {do}" if do else ""]
        super().__init__("\n".join(line for line in lines if line))


class InputError(LandscapeError):
    """Bad input or usage: nothing was computed."""


class CheckpointError(InputError):
    """A checkpoint that cannot be read, or does not fit the model."""


class UntrustedError(CheckpointError):
    """A file that would run code, or needs classes that were not allowed."""


class ConfigurationError(InputError):
    """An option, ``landscape.toml`` or factory that is missing or wrong."""


class DataError(InputError):
    """A data set that is empty, misshapen or does not fit the loss."""


class StoreError(InputError):
    """A result file that cannot be read or written."""


class BusyError(StoreError):
    """Another process is at this very run."""


class ComputationError(LandscapeError):
    """The computation failed: non-finite loss, not twice differentiable, not deterministic."""

    exit_code = FAILED


class OutOfMemory(ComputationError):
    """Memory ran out, also with the smallest pieces."""


class Interrupted(LandscapeError):
    """Stopped by Ctrl-C or SIGTERM; what was done is kept."""

    exit_code = INTERRUPTED
