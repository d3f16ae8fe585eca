"""The command ``landscape``: its commands, its exit codes, and the one place where errors become messages."""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from landscape.errors import BAD_INPUT, DONE, FAILED, INTERRUPTED, LandscapeError

from .commands import COMMANDS
from .console import safe

__all__ = ["app", "main"]

HELP = """Measure the loss landscape around a saved PyTorch model, every figure with its error.

First look at the checkpoint, then write a landscape.toml that says what model, loss and data belong to it,
then measure, then look at the picture.

Examples:
  landscape inspect ckpt.pt
  landscape init ckpt.pt
  landscape eigen ckpt.pt
  landscape plot landscape-results/ckpt-1a2b3c4d.h5
"""
EPILOG = """Exit codes: 0 done; 2 bad input or usage; 3 the computation failed; 4 finished, but not to the \
accuracy asked for (stored and marked); 130 interrupted (progress kept)."""


class Program(TyperGroup):
    """The group of commands; errors of any command leave it as a few lines on stderr and an exit code."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **options: Any) -> NoReturn:
        """Run the command line ``args`` (default: the process's own) and exit with its code."""
        given = list(sys.argv[1:] if args is None else args)
        debug = "--debug" in given
        options |= {"standalone_mode": False, "obj": tuple(given)}
        try:
            code = super().main(given, *rest, **options)
            sys.stdout.flush()
        except BrokenPipeError:
            code = _nobody_reads()
        except LandscapeError as error:
            code = _report(str(error), error.exit_code, debug)
        except Exception as error:
            code = _report_other(error, debug)
        sys.exit(code if isinstance(code, int) else DONE)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; what Typer would turn into an exit code of its own is settled here."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise typer.Exit(_nobody_reads()) from None
        except (KeyboardInterrupt, EOFError):
            _say("interrupted")
            raise typer.Exit(INTERRUPTED) from None


def _report_other(error: Exception, debug: bool) -> int:
    """A mistake in the command line, a file that cannot be used, or a fault of this program."""
    if hasattr(error, "format_message"):  # what Typer raises for wrong usage
        usage = getattr(error, "ctx", None)
        if not error.format_message():  # bare "landscape": the help was printed instead
            return BAD_INPUT
        message = error.format_message()
        if message.startswith("Got unexpected extra argument"):  # a pattern that the shell has filled in
            name = "" if usage is None else usage.command_path
            other = "--along to:FILE is another checkpoint; " if name.endswith(" slice") else ""
            hint = f"\ndo: {other}put patterns in quotes, as in 'runs/*.pt'; {name} --help lists the options"
        else:
            hint = f"\ndo: {usage.command_path} --help" if usage is not None else ""
        return _report(f"{_shortened(message)}{hint}", BAD_INPUT, debug=False)
    if isinstance(error, OSError) and error.filename is not None:
        return _report(f"{error.strerror}: {error.filename}", BAD_INPUT, debug)
    detail = " ".join(str(error).split())[:200]
    advice = "" if debug else "; run with --debug"
    return _report(f"internal error: {type(error).__name__}: {detail}{advice}", FAILED, debug)


def _shortened(message: str, limit: int = 300) -> str:
    """A message that may list as many files as a pattern matches."""
    return message if len(message) <= limit else message[:limit] + " …"


def _report(message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    _say(f"error: {message}")
    return code


def _say(message: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        print(safe(message), file=sys.stderr)


def _nobody_reads() -> int:
    """The reader of stdout has gone, which is no error: let the last flush go nowhere instead of failing."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return DONE


def unwrapped(text: str) -> str:
    """``text`` with each paragraph on one line, for the help page to wrap; indented lines stay."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(p if "\n  " in p else p.replace("\n", " ") for p in paragraphs)


app = typer.Typer(
    name="landscape",
    cls=Program,
    help=unwrapped(HELP),
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"landscape {version('landscape-diagnostics')}")
        raise typer.Exit()


@app.callback()
def _program(
    _version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and stop.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    pass


for _name, _command in COMMANDS.items():
    app.command(_name, help=unwrapped(_command.__doc__ or ""))(_command)


def main() -> NoReturn:
    """Entry point of the installed command."""
    # Read by OpenMP when torch is loaded: threads that wait by spinning made small models many times slower
    # on a machine that had other work.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    app()
    raise AssertionError("unreachable: the program exits by itself")
