"""The program as a whole: help, exit codes, what is imported, and how errors look."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from landscape.errors import ComputationError, DataError, Interrupted
from landscape_cli.app import app
from landscape_cli.commands import COMMANDS
from tests.cli.support import call, stored

HEAVY = {"torch", "scipy", "matplotlib", "pyhessian", "safetensors"}


def commands() -> list[tuple[str, Any]]:
    group: Any = typer.main.get_command(app)
    inner = [(f"landscape {name}", command) for name, command in group.commands.items()]
    return [("landscape", group), *inner]


def run(*args: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """The program in a process of its own."""
    line = [sys.executable, "-c", "from landscape_cli.app import main; main()", *args]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, **options)


def heavy(*args: str) -> set[str]:
    """Which of the slow packages ``landscape args`` imports."""
    code = (
        "import sys, atexit\n"
        "atexit.register(lambda: print('\\n' + ' '.join({m.partition('.')[0] for m in sys.modules})))\n"
        "from landscape_cli.app import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return HEAVY & set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(("name", "command"), commands())
def test_everything_has_help(name: str, command: Any) -> None:
    assert command.help, name
    assert "Examples:\n  landscape" in command.help, name
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{name}: {parameter.name}"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_speaks_json(name: str) -> None:
    command = dict(commands())[f"landscape {name}"]
    flags = {flag for parameter in command.params for flag in parameter.opts}
    assert {"--json", "--debug", "--quiet", "-q"} <= flags


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command(name: str) -> None:
    shown = call(name, "--help")
    assert shown.exit_code == 0
    assert f"landscape {name}" in shown.output.replace("root", "landscape")


def test_help_documents_exit_codes() -> None:
    text = " ".join(call("--help").output.split())
    for words in ("0 done", "2 bad input", "3 the computation failed", "4 finished", "130 interrupted"):
        assert words in text


def test_a_pattern_that_the_shell_has_filled_in_is_explained() -> None:
    files = [f"runs/net-epoch{i:03d}.pt" for i in range(100)]
    shown = call("eigen", *files)
    assert shown.exit_code == 2
    assert "put patterns in quotes, as in 'runs/*.pt'" in shown.stderr
    assert len(shown.stderr) < 500


@pytest.mark.parametrize("args", [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)])
def test_help_imports_nothing_heavy(args: list[str]) -> None:
    assert heavy(*args) == set()


def test_show_plot_and_rm_do_without_torch(tmp_path: Path) -> None:
    file = str(stored(tmp_path, "eigen-a", "eigen-b"))
    for args in (["show", file], ["show", file, "eigen-a"], ["rm", file, "eigen-b", "--yes"]):
        assert heavy(*args) == set(), args
    assert "torch" not in heavy("plot", file)


def test_version_is_the_installed_one() -> None:
    from importlib.metadata import version

    assert call("--version").output == f"landscape {version('landscape-diagnostics')}\n"


def test_bare_command_shows_help() -> None:
    shown = call()
    assert shown.exit_code == 2
    assert "Usage" in shown.output
    assert "error:" not in shown.output


@pytest.mark.parametrize(
    "args",
    [
        ["show", "--nonsense"],
        ["nonsense"],
        ["eigen"],
        ["eigen", "ckpt.pt", "--samples", "few"],
        ["rm", "file.h5"],
    ],
)
def test_usage_errors_are_short(args: list[str]) -> None:
    shown = call(*args)
    assert shown.exit_code == 2
    assert shown.stdout == ""
    assert shown.stderr.startswith("error: ")
    assert "do: " in shown.stderr
    assert len(shown.stderr.splitlines()) <= 5


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let ``landscape show`` meet ``error``."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("landscape_cli.commands.show.open_file", fail)


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (
            DataError("bad\x1b[31m", found="this", do="that"),
            2,
            "error: bad\\x1b[31m\nfound: this\ndo: that\n",
        ),
        (ComputationError("the loss is NaN"), 3, "error: the loss is NaN\n"),
        (Interrupted("interrupted", do="same again"), 130, "error: interrupted\ndo: same again\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (PermissionError(13, "Permission denied", "x.h5"), 2, "error: Permission denied: x.h5\n"),
        (ValueError("odd\nthing"), 3, "error: internal error: ValueError: odd thing; run with --debug\n"),
    ],
)
def test_errors_become_a_message_and_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, words: str
) -> None:
    failing(monkeypatch, error)
    shown = call("show", "x.h5")
    assert (shown.exit_code, shown.stderr, shown.stdout) == (code, words, "")
    assert call("show", "x.h5", "--json").stdout == ""


@pytest.mark.parametrize("error", [DataError("bad"), ValueError("odd")])
def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    failing(monkeypatch, error)
    shown = call("show", "x.h5", "--debug")
    assert "Traceback" in shown.stderr
    assert str(error) in shown.stderr.splitlines()[-1]
    assert "Traceback" not in call("show", "x.h5").stderr


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    file = stored(tmp_path, *(f"eigen-{i:08d}" for i in range(3)))
    code = "from landscape_cli.app import main; main()"
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, "show", str(file)], stdout=write, stderr=subprocess.PIPE, timeout=60
        )
    finally:
        os.close(write)
    assert done.stderr == b""
    assert done.returncode == 0


def test_a_terminal_without_unicode_gets_escapes(tmp_path: Path) -> None:
    file = str(stored(tmp_path, "eigen-a"))
    done = run("show", file, "eigen-a", env=os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert done.returncode == 0, done.stderr
    assert r"\u03bbmax" in done.stdout


def test_json_survives_an_ascii_stdout(tmp_path: Path) -> None:
    file = str(stored(tmp_path, "eigen-a"))
    done = run("show", file, "--json", env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert json.loads(done.stdout)["runs"][0]["id"] == "eigen-a"
