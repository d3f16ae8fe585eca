from __future__ import annotations

import io
import json
import sys

import pytest

from landscape_cli import console as module
from landscape_cli.console import Console, Reporter, safe, table


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def stderr_as_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """stderr as a terminal of 80 columns (within the test: pytest sets its own between the phases)."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    return stream


def test_safe_spells_out_what_a_terminal_would_act_on() -> None:
    assert safe("a\x1b[31mb\x07\r\t\x9b") == r"a\x1b[31mb\x07\r\t\x9b"
    assert safe("\u202egnp.exe\u2066") == r"\u202egnp.exe\u2066"
    assert safe("\udcff") == r"\udcff"
    assert safe("λ₁ ± 2 % [bold]\nnext") == "λ₁ ± 2 % [bold]\nnext"


def test_table_aligns_wide_characters_too() -> None:
    text = table(["key", "n"], [["層.weight", 1], ["b", 22]])
    assert text.splitlines() == ["key        n", "層.weight  1", "b          22"]


def test_table_cuts_nothing_when_it_is_too_narrow() -> None:
    header, rows = ["pair", "eigenvalue"], [["1", "12.345678901"], ["2", "3.5"]]
    assert table(header, rows, width=10) == "pair: 1\neigenvalue: 12.345678901\n\npair: 2\neigenvalue: 3.5"
    assert table(header, rows, width=18) == table(header, rows, width=None)


def test_sentences_are_wrapped_to_the_terminal_and_whole_elsewhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = " ".join(["word"] * 12)
    Console("show").pairs([("name", words), ("n", "x")])
    assert capsys.readouterr().out == f"name  {words}\nn     x\n"
    monkeypatch.setenv("COLUMNS", "40")
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    Console("show").pairs([("name", words), ("n", "x")])
    lines = stream.getvalue().splitlines()
    assert lines[0] == "name  word word word word word word word"
    assert lines[1] == "      word word word word word"


def test_a_line_break_in_a_cell_adds_no_row() -> None:
    assert len(table(["key"], [["a\nb"]]).splitlines()) == 2


def test_json_prints_one_object_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console("show", json=True)
    console.out("words")
    console.table(["a"], [["b"]])
    console.emit([{"id": "x"}], more=1)
    printed = json.loads(capsys.readouterr().out)
    assert printed == {"format_version": 1, "command": "show", "runs": [{"id": "x"}], "more": 1}


def test_without_json_no_object(capsys: pytest.CaptureFixture[str]) -> None:
    Console("show").emit([{"id": "x"}])
    assert capsys.readouterr().out == ""


def test_quiet_keeps_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console("show", quiet=True)
    console.note("note")
    console.warn("warning")
    assert capsys.readouterr().err == "warning\n"


@pytest.mark.parametrize("no_color", ["", "1"])
def test_bold_only_on_a_terminal_that_may(
    monkeypatch: pytest.MonkeyPatch, no_color: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Console("show").table(["a"], [["b"]])
    assert capsys.readouterr().out == "a\nb\n"
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", no_color)
    Console("show").table(["a"], [["b"]])
    assert ("\033[1m" in stream.getvalue()) == (no_color == "")


def test_no_bar_off_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BAR_AFTER_SECONDS", 0.0)
    with Reporter(Console("eigen")) as reporter:
        reporter.progress(1, 10, "products")
        reporter.note("a note")
    assert capsys.readouterr().err == "a note\n"


def test_bar_after_two_seconds_with_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = stderr_as_terminal(monkeypatch)
    with Reporter(Console("eigen")) as reporter:
        reporter.progress(1, 10, "products")
        assert terminal.getvalue() == ""
        monkeypatch.setattr(module, "BAR_AFTER_SECONDS", 0.0)
        reporter.progress(2, 10, "products [bold]\x1b[31m")
        reporter.note("[red]a note\x1b[31m")
    written = terminal.getvalue()
    assert r"products [bold]\x1b[31m" in written
    assert r"[red]a note\x1b[31m" in written
    assert "2/10" in written
    assert "left" in written


def test_bar_of_unknown_length(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = stderr_as_terminal(monkeypatch)
    monkeypatch.setattr(module, "BAR_AFTER_SECONDS", 0.0)
    with Reporter(Console("eigen")) as reporter:
        reporter.progress(3, None, "products")
    assert "3/?" in terminal.getvalue()


def test_quiet_has_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = stderr_as_terminal(monkeypatch)
    monkeypatch.setattr(module, "BAR_AFTER_SECONDS", 0.0)
    with Reporter(Console("eigen", quiet=True)) as reporter:
        reporter.progress(3, 10, "products")
        reporter.note("note")
    assert terminal.getvalue() == ""
