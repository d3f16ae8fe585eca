from __future__ import annotations

import os
import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from landscape.checkpoint import inspect_checkpoint
from landscape.errors import CheckpointError, ConfigurationError
from landscape.project import (
    NothingToGoOn,
    ProblemSettings,
    Resolved,
    load_problem,
    read_config,
    resolve,
    template,
)

Write = Callable[[str, str], Path]

ALL = {"model": "net.py:build", "data": "net.py:data", "loss": "cross_entropy"}
LINES = "".join(f'{name} = "{text}"\n' for name, text in ALL.items())

TRIPLE = """
import torch
def problem():
    return torch.nn.Linear(3, 2), "mse", (torch.ones(4, 3), torch.ones(4, 2))
"""


def run(project: Path, checkpoint: str | Path = "ckpt.pt", **options: Any) -> Resolved:
    return resolve(project / checkpoint, ProblemSettings(**options), given=set(options), start=project)


def weight(resolved: Resolved) -> list[list[float]]:
    rows: list[list[float]] = resolved.problem.model.weight.detach().tolist()
    return rows


def test_options_alone(project: Path) -> None:
    resolved = run(project, **ALL, samples=3, memory="1GB", batch_size=2)
    assert weight(resolved) == [[0.5] * 3] * 2
    assert resolved.problem.examples == 3
    assert resolved.problem.memory == 10**9
    assert resolved.problem.batch_size == 2
    assert resolved.problem.checkpoint is not None
    assert Path(resolved.problem.checkpoint.path).name == "ckpt.pt"
    assert resolved.problem.description["model"] == "net.py:build"
    assert resolved.config is None
    assert resolved.notes[0] == "from options: model net.py:build, data net.py:data, loss cross_entropy"


def test_the_file_fills_in_what_options_leave_open(project: Path, write: Write) -> None:
    path = write("landscape.toml", LINES + "samples = 1\nexpect-loss = 0.5\n")
    resolved = run(project, data="net.py:half", samples=2)
    assert resolved.problem.examples == 2
    assert resolved.settings.expect_loss == 0.5
    assert resolved.settings.samples == 2
    assert resolved.notes[0].startswith(f"from {path}: model net.py:build")
    assert "from options: data net.py:half" in resolved.notes


def test_an_option_wins_also_with_its_default_value(project: Path, write: Write) -> None:
    write("landscape.toml", LINES + "samples = 1\n")
    assert run(project, samples=None).problem.examples == 4


def test_explicit_config_wins_over_the_folders(project: Path, write: Write) -> None:
    write("landscape.toml", 'model = "absent.py:x"\n')
    write("other/mine.toml", LINES.replace("net.py", "../net.py"))
    resolved = run(project, config="other/mine.toml")
    assert resolved.problem.examples == 4


def test_problem_wins_over_the_files_pieces_and_keeps_its_other_keys(project: Path, write: Write) -> None:
    write(
        "landscape.toml", 'model = "absent.py:x"\ndata = "absent.py:x"\nsamples = 1\nproblem = "absent.py"\n'
    )
    write(
        "p.py",
        TRIPLE,
    )
    resolved = run(project, problem="p.py")
    assert resolved.problem.examples == 1
    assert weight(resolved) == [[0.5] * 3] * 2


def test_the_files_problem_is_used_and_options_win_over_it(project: Path, write: Write) -> None:
    write("landscape.toml", 'problem = "p.py"\n')
    write(
        "p.py",
        TRIPLE,
    )
    assert run(project).problem.loss.name == "MSELoss"
    assert run(project, data="net.py:half", loss="cross_entropy").problem.examples == 2
    (project / "p.py").write_text("raise AssertionError('not needed')")
    assert run(project, **ALL).problem.examples == 4


def test_models_by_checkpoint_name(project: Path, write: Write) -> None:
    write("landscape.toml", LINES.replace("build", "absent") + '[models]\n"ck*.pt" = "net.py:build"\n')
    assert weight(run(project)) == [[0.5] * 3] * 2
    with pytest.raises(ConfigurationError, match="nothing is called 'other'"):
        run(project, model="net.py:other")


def test_a_factory_that_takes_the_path_loads_the_weights_itself(project: Path, write: Write) -> None:
    write(
        "p.py",
        """
        import torch
        def problem(path):
            net = torch.nn.Linear(3, 2)
            torch.nn.init.constant_(net.weight, len(path.name))
            return net, "mse", (torch.ones(4, 3), torch.ones(4, 2))
        """,
    )
    resolved = run(project, problem="p.py")
    assert weight(resolved) == [[7.0] * 3] * 2
    assert resolved.problem.checkpoint is not None
    with pytest.raises(ConfigurationError, match="loads it itself\nfound: --state-key"):
        run(project, problem="p.py", state_key="model")


FINISHED = """
import torch, landscape.problem
def problem({arguments}):
    net = torch.nn.Linear(3, 2)
    torch.nn.init.constant_(net.weight, 9.0)
    return landscape.problem.Problem(net, "mse", (torch.ones(4, 3), torch.ones(4, 2)))
"""


@pytest.mark.parametrize(("arguments", "value"), [("", 0.5), ("path", 9.0)])
def test_a_finished_problem(project: Path, write: Write, arguments: str, value: float) -> None:
    write("p.py", FINISHED.format(arguments=arguments))
    resolved = run(project, problem="p.py")
    assert weight(resolved) == [[value] * 3] * 2
    assert torch.equal(resolved.problem.selection.tensors[0].detach(), torch.full((2, 3), value))
    assert resolved.problem.checkpoint is not None
    assert resolved.problem.description["problem"] == "p.py"


@pytest.mark.parametrize("option", [{"samples": 2}, {"loss": "mse"}, {"dtype": "float64"}])
def test_options_that_come_too_late_are_refused(project: Path, write: Write, option: dict[str, Any]) -> None:
    write("p.py", FINISHED.format(arguments=""))
    with pytest.raises(
        ConfigurationError, match=f"finished landscape.Problem.*\nfound: --{next(iter(option))}"
    ):
        run(project, problem="p.py", **option)


def test_arrays_as_data(project: Path) -> None:
    import numpy as np

    np.savez(project / "d ä.npz", x=np.ones((3, 3)), y=np.array([0, 1, 1]), mask=np.array([1, 1, 0]))
    resolved = run(project, model="net.py:build", data="d ä.npz", loss="cross_entropy")
    assert resolved.problem.examples == 2
    assert resolved.problem.dtype == torch.float32


def test_nothing_to_go_on_gives_a_template(project: Path) -> None:
    with pytest.raises(NothingToGoOn) as error:
        run(project)
    message = str(error.value)
    assert "which model, data and loss belong to ckpt.pt" in message
    assert "give --model --data --loss" in message
    assert len(message.splitlines()) <= 5
    assert error.value.exit_code == 2
    assert tomllib.loads(error.value.template)["loss"] == "cross_entropy"


def test_what_is_missing_is_named_beside_what_is_there(project: Path) -> None:
    with pytest.raises(
        NothingToGoOn, match=r"which data and loss belong to ckpt.pt\nfound: model net.py:build"
    ):
        run(project, model="net.py:build")


def test_a_config_beside_a_foreign_checkpoint_runs_nothing(project: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "down loads"
    foreign.mkdir()
    marker = tmp_path / "ran"
    (foreign / "evil.py").write_text(f"open({str(marker)!r}, 'w')\n")
    (foreign / "landscape.toml").write_text('model = "evil.py:m"\ndata = "evil.py:d"\nloss = "mse"\n')
    (foreign / "w.pt").write_bytes((project / "ckpt.pt").read_bytes())
    modules = set(sys.modules)
    with pytest.raises(NothingToGoOn) as error:
        run(project, foreign / "w.pt")
    assert f"--config '{foreign / 'landscape.toml'}'" in str(error.value)
    assert not marker.exists()
    assert not {m for m in set(sys.modules) - modules if "landscape_user" in m}
    with pytest.raises(ConfigurationError, match="nothing is called 'm'"):
        run(project, foreign / "w.pt", config=str(foreign / "landscape.toml"))
    assert marker.exists()


def test_names_inside_a_checkpoint_run_nothing(project: Path, write: Write) -> None:
    write("evil.py", "open('ran', 'w')\n")
    path = project / "named.pt"
    torch.save(
        {
            "state_dict": {"weight": torch.ones(2, 3)},
            "model": "evil.py:m",
            "problem": "evil.py",
            "config": "x.toml",
        },
        path,
    )
    with pytest.raises((NothingToGoOn, CheckpointError)):
        run(project, path)
    assert not (project / "ran").exists()


def test_a_bad_checkpoint_is_found_before_user_code_runs(project: Path, write: Write) -> None:
    write("net.py", "open('ran', 'w')\n")
    with pytest.raises(CheckpointError):
        run(project, "absent.pt", **ALL)
    assert not (project / "ran").exists()


BROKEN = """
from torch.utils.data import Dataset
class Broken(Dataset):
    def __len__(self):
        return 3
    def __getitem__(self, index):
        print("reading")
        raise OSError("the disk is gone")
def generator():
    raise KeyError("late")
    yield
"""


@pytest.mark.parametrize(
    ("name", "message"), [("Broken", "OSError\nfound: the disk"), ("generator", "KeyError")]
)
def test_data_that_fail_when_they_are_read(
    project: Path, write: Write, name: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write("broken.py", BROKEN)
    with pytest.raises(ConfigurationError, match=f"--data broken.py:{name} raised {message}"):
        run(project, **{**ALL, "data": f"broken.py:{name}"})
    assert capsys.readouterr().out == ""


def test_data_of_an_importable_module_that_fail(
    project: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("sources/broken_on_path.py", BROKEN)
    monkeypatch.syspath_prepend(project / "sources")
    with pytest.raises(ConfigurationError, match=r"broken_on_path.py:8\)"):
        run(project, **{**ALL, "data": "broken_on_path:Broken"})


def test_a_bad_size_is_found_before_user_code_runs(project: Path, write: Write) -> None:
    write("net.py", "open('ran', 'w')\n")
    with pytest.raises(ConfigurationError, match="4GB"):
        run(project, **ALL, memory="lots")
    assert not (project / "ran").exists()


def test_nothing_of_the_process_changes(project: Path, write: Write) -> None:
    write("landscape.toml", LINES)
    path, cwd, state = list(sys.path), os.getcwd(), torch.random.get_rng_state()
    run(project)
    public = {m for m in sys.modules if not m.startswith("_landscape_user_")}
    run(project)
    assert sys.path == path
    assert os.getcwd() == cwd
    assert torch.equal(torch.random.get_rng_state(), state)
    assert {m for m in sys.modules if not m.startswith("_landscape_user_")} == public
    assert "net" not in sys.modules


def test_load_problem(project: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write("landscape.toml", LINES)
    assert load_problem().checkpoint is None
    assert load_problem(checkpoint="ckpt.pt", samples=2).examples == 2
    assert load_problem(checkpoint="ckpt.pt").model.weight.tolist() == [[0.5] * 3] * 2
    monkeypatch.chdir(project.parent)
    assert load_problem(project).examples == 4
    assert load_problem(project / "landscape.toml", project / "ckpt.pt").examples == 4
    with pytest.raises(NothingToGoOn, match="which model, data and loss belong to this problem"):
        load_problem()
    with pytest.raises(ConfigurationError, match="No configuration file"):
        load_problem(project / "other.toml")
    with pytest.raises(ConfigurationError, match="does not know 'sample'"):
        load_problem(project, sample=3)


def uncommented(text: str) -> str:
    return re.sub(r'^#(?=[\w\["])', "", text, flags=re.MULTILINE)


def test_the_template_is_valid_as_it_is_and_uncommented(project: Path, write: Write) -> None:
    text = template(inspect_checkpoint(project / "ckpt.pt"))
    assert tomllib.loads(text).keys() == ALL.keys()
    assert "weight (2, 3): 3 inputs to 2 outputs" in text
    write("landscape.toml", uncommented(text))
    config = read_config(None, project)
    assert config is not None
    names = {field for field in ProblemSettings.__dataclass_fields__ if field != "config"}
    assert set(config.values) == names
    assert config.verb("eigen") == {"k": 10}
    assert config.models
    assert config.checkpoints


def test_the_template_escapes_what_the_file_says(project: Path) -> None:
    torch.save({"a\x1b[31m\nloss = 'x'\n.weight": torch.ones(1, 2)}, project / "odd.pt")
    text = template(inspect_checkpoint(project / "odd.pt"))
    assert "\x1b" not in text
    assert tomllib.loads(text)["loss"] == "mse"


def test_the_template_without_a_checkpoint(project: Path) -> None:
    assert tomllib.loads(uncommented(template(None)))["checkpoints"] == ["checkpoints/*.pt"]
