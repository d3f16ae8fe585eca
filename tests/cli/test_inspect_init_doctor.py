from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
import torch

from landscape_cli.commands import doctor
from tests.cli.support import call

pytestmark = pytest.mark.usefixtures("project")


def test_inspect_shows_keys_shapes_and_what_is_around() -> None:
    text = call("inspect", "ckpt.pt").stdout
    rows = [line.split() for line in text.splitlines()]
    assert ["0.weight", "5", "×", "4", "float32", "dense"] in rows
    assert "4 tensors (4 float32), 43 numbers" in text
    assert "model_state_dict" in text
    assert ["epoch", "3"] in rows


def test_inspect_as_json() -> None:
    printed = json.loads(call("inspect", "ckpt.pt", "--json").stdout)
    assert printed["command"] == "inspect"
    assert printed["runs"] == []
    inspection = printed["inspection"]
    assert inspection["numbers"] == 43
    assert {"name": "3.bias", "shape": [3], "dtype": "float32", "kind": "dense"} in inspection["tensors"]


def test_inspect_abridges_many_keys_and_says_so() -> None:
    torch.save({f"layer{i:03d}": torch.zeros(2) for i in range(50)}, "many.pt")
    short = call("inspect", "many.pt")
    assert "layer009" in short.stdout
    assert "layer025" not in short.stdout
    assert "layer040" in short.stdout
    assert "30 keys are not listed" in short.stderr
    whole = call("inspect", "many.pt", "--all")
    assert all(f"layer{i:03d}" in whole.stdout for i in range(50))
    assert "not listed" not in whole.stderr


def test_inspect_escapes_names_from_the_file() -> None:
    names = ("a\x1b[31m.weight", "[red]b", "\u202ec")
    torch.save({name: torch.zeros(2) for name in names}, "x.pt")
    shown = call("inspect", "x.pt")
    assert shown.exit_code == 0
    assert not {"\x1b", "\u202e"} & set(shown.stdout + shown.stderr)
    assert "[red]b" in shown.stdout
    assert r"a\x1b[31m.weight" in shown.stdout


class Runs:
    """Unpickling this would make a file."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("was-run"),))  # type: ignore[return-value]


def test_inspect_runs_nothing_and_says_that_the_file_would() -> None:
    torch.save({"w": torch.zeros(2), "x": Runs()}, "evil.pt")
    shown = call("inspect", "evil.pt")
    assert not Path("was-run").exists()
    assert shown.exit_code == 0
    assert "NO: needs " in shown.stdout
    assert "--trust-pickle" in shown.stdout


def test_init_writes_a_configuration_that_is_read() -> None:
    Path("landscape.toml").unlink()
    done = call("init", "ckpt.pt")
    assert (done.exit_code, done.stdout) == (0, "wrote landscape.toml\n")
    assert set(tomllib.loads(Path("landscape.toml").read_text())) == {"model", "data", "loss"}
    names = Path("train.py").read_text().replace("build_model", "model").replace("build_data", "data")
    Path("net.py").write_text(names)
    assert call("eigen", "ckpt.pt").exit_code == 0  # net.py has the names that the template suggests


def test_init_never_overwrites_silently() -> None:
    before = Path("landscape.toml").read_text()
    refused = call("init", "ckpt.pt")
    assert refused.exit_code == 2
    assert "--force" in refused.stderr
    assert Path("landscape.toml").read_text() == before
    assert call("init", "ckpt.pt", "-o", "other.toml", "--json").exit_code == 0
    assert Path("other.toml").exists()
    assert call("init", "ckpt.pt", "--force").exit_code == 0
    assert Path("landscape.toml").read_text() != before


def test_init_into_a_folder_that_is_not_there() -> None:
    done = call("init", "ckpt.pt", "-o", "no/where.toml")
    assert done.exit_code == 2
    assert "no/where.toml" in done.stderr


@pytest.mark.parametrize("command", ["inspect", "init"])
def test_what_is_no_checkpoint(command: str) -> None:
    Path("landscape.toml").unlink()
    Path("text.pt").write_text("not a checkpoint")
    for name in ("text.pt", "missing.pt"):
        done = call(command, name)
        assert (done.exit_code, done.stdout) == (2, "")
        assert done.stderr.startswith("error: ")
        assert name in done.stderr
    assert not Path("landscape.toml").exists()


def test_doctor_finds_this_machine_fit() -> None:
    done = call("doctor", "--json")
    printed = json.loads(done.stdout)
    checks = {check["name"]: check for check in printed["checks"]}
    assert {"python", "torch", "threads", "device", "memory", "results"} <= set(checks)
    assert checks["attention, twice"]["ok"]
    assert checks["convolution, twice"]["ok"]
    assert done.exit_code == (0 if all(check["ok"] for check in checks.values()) else 3)
    assert not Path("landscape-results").exists()


def test_doctor_advises_where_results_cannot_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "FOLDER", Path("ckpt.pt"))
    done = call("doctor")
    assert done.exit_code == 3
    assert "PROBLEM" in done.stdout
    assert "-o FILE" in done.stdout


def test_doctor_notices_a_wrong_second_derivative() -> None:
    wrong = doctor._second_derivative("wrong", lambda w: (w.detach() * w.square()).sum())
    assert not wrong.ok
    assert "relative error" in wrong.found
    none = doctor._second_derivative("none", lambda w: w.sum())
    assert not none.ok
    assert wrong.advice == none.advice == "upgrade torch"
