"""``landscape batch``: what it prints, its one JSON object, its exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from landscape.store import ResultFile
from landscape_cli.batches import BatchReporter
from landscape_cli.console import Console
from tests.batches.support import names, stored, train, write_project
from tests.cli.support import call

COUNT = 3


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Result]]:
    """(a project, what the first batch on it said), the current folder being that project."""
    folder = tmp_path_factory.mktemp("project")
    write_project(folder, COUNT)
    (folder / "runs" / "net-step10.pt").write_text("no checkpoint \x1b[31m")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("OMP_NUM_THREADS", "1")
        yield folder, call("batch", "runs/*.pt", "--run", "eigen,ratios", "--seed", "0")


def test_text(computed: tuple[Path, Result]) -> None:
    _, result = computed
    first, second, *rest = result.stdout.splitlines()
    assert first.startswith("4 computed in ")
    assert first.endswith(", 2 failed; 2 result files in landscape-results")
    assert second.startswith("to see it: landscape")
    assert rest == []
    assert "net-step5.pt eigen: λmax 0.885" in result.stderr
    assert "net-step15.pt ratios: ckpt1 " in result.stderr
    assert result.exit_code == 2


def test_failures_are_said_at_the_end_each_once(computed: tuple[Path, Result]) -> None:
    _, result = computed
    last = result.stderr.split("failed: net-step10.pt (eigen, ratios)\n")
    assert len(last) == 2
    assert "is not a checkpoint" in last[1]
    assert "\x1b" not in result.stderr


def test_json_is_one_object_and_nothing_else(computed: tuple[Path, Result]) -> None:
    folder, _ = computed
    again = call("batch", "runs/*.pt", "--run", "eigen,ratios", "--seed", "0", "--json")
    assert again.exit_code == 2
    found: dict[str, Any] = json.loads(again.stdout)
    assert found["format_version"] == 1
    assert found["command"] == "batch"
    assert found["folder"] == str(folder / "landscape-results")
    assert found["stopped"] is None
    kept = stored(folder / "landscape-results")
    assert {run["id"] for run in found["runs"]} == {run for _, run in kept}
    by_id = {run["id"]: run for run in found["runs"]}
    for (name, run), result in kept.items():
        assert by_id[run]["status"] == result.status
        assert by_id[run]["result"]["loss"] == result.loss
        assert name in json.dumps(by_id[run]["checkpoint"])
    outcomes = {(Path(one["checkpoint"]).name, one["kind"]): one["outcome"] for one in found["analyses"]}
    assert outcomes == {
        ("net-step5.pt", "eigen"): "found",
        ("net-step5.pt", "ratios"): "found",
        ("net-step15.pt", "eigen"): "found",
        ("net-step15.pt", "ratios"): "found",
        ("net-step10.pt", "eigen"): "failed",
        ("net-step10.pt", "ratios"): "failed",
    }
    assert [one["error"] for one in found["analyses"] if one["outcome"] == "found"] == [None] * 4


def test_dry_run(computed: tuple[Path, Result]) -> None:
    folder, _ = computed
    train(folder / "more", ["more-1.pt"], seed=4)
    before = names(folder / "landscape-results")
    result = call(
        "batch", "runs/*5.pt", "more/*.pt", "--run", "eigen,ratios", "--seed", "0", "--dry-run", "--quiet"
    )
    assert result.exit_code == 0, result.stderr
    rows = {tuple(line.split()[i] for i in (0, 2)): line for line in result.stdout.splitlines()[1:7] if line}
    assert "about" in rows["more-1.pt", "eigen"]
    assert "stored already" in rows["net-step5.pt", "ratios"]
    assert "2 to compute, about " in result.stdout
    assert "4 stored already, in " in result.stdout
    assert names(folder / "landscape-results") == before


def test_quiet_and_exit_code_0(computed: tuple[Path, Result]) -> None:
    line = ("batch", "runs/net-step5.pt", "--run", "eigen,ratios", "--seed", "0")
    result = call(*line, "--quiet")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert result.stdout.startswith("0 computed in ")
    assert "2 were stored already; 1 result files" in result.stdout


def test_the_command_is_stored_with_the_results(computed: tuple[Path, Result]) -> None:
    folder, _ = computed
    (path,) = folder.glob("landscape-results/net-step5-????????.h5")
    commands = {header.command for header in ResultFile(path).runs()}
    assert commands == {"landscape batch 'runs/*.pt' --run eigen,ratios --seed 0"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("runs/*.ckpt",), "no checkpoint matches"),
        (("runs/*.pt", "--run", "eigen,spectrum"), "spectrum"),
        (("runs/*.pt", "--set", "k=3"), "KIND.OPTION=VALUE"),
        (("runs/*.pt", "--shard", "3/2"), "--shard"),
        (("runs/*.pt", "--jobs", "0"), "--jobs"),
        (("runs/*.pt", "--order", "sideways"), "--order"),
        (("runs/*.pt", "-o", "problem.py/x"), "cannot write"),
        ((), "no checkpoint was given"),
    ],
)
def test_bad_input(computed: tuple[Path, Result], arguments: tuple[str, ...], said: str) -> None:
    result = call("batch", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


def test_a_note_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    with BatchReporter(Console("batch", json=False, quiet=False), 1) as reporter:
        for name in ("a.pt", "b.pt"):
            reporter.note(f"{name}: 3 examples were left out")
    assert capsys.readouterr().err.count("left out") == 1


HELP = """
import sys
from typer.testing import CliRunner
from landscape_cli.app import app
result = CliRunner().invoke(app, ["batch", "--help"])
assert result.exit_code == 0
assert "--shard" in result.stdout and "KIND.OPTION=VALUE" in result.stdout
print(sorted({"torch", "matplotlib", "h5py"} & set(sys.modules)))
"""


def test_help_loads_nothing_heavy() -> None:
    run = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, env={"COLUMNS": "200"})
    assert run.stdout.strip() == "[]", run.stderr
