"""The example of the digits runs, and what it writes can be shown."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from landscape.store import ResultFile
from tests.cli.support import call

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits"


def test_the_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    output = tmp_path / "monitor.h5"
    runpy.run_path(str(EXAMPLE / "monitor.py"))["main"](2, str(output))
    assert "<Monitor: " in capsys.readouterr().out
    (header,) = ResultFile(output).runs()
    assert (header.kind, header.status) == ("monitor", "complete")
    shown = call("show", output, header.id)
    assert shown.exit_code == 0
    assert "36 steps" in shown.stdout
