"""What a slice shows beside the loss: test data, metrics, and how other checkpoints are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from landscape.errors import CheckpointError, ConfigurationError, DataError
from landscape.identity import subject
from landscape.problem import Problem
from landscape.project import ProblemSettings, Resolved, load_problem, resolve
from landscape.settings import options_of

Write = Callable[[str, str], Path]

CONFIG = 'model = "net.py:build"\ndata = "net.py:data"\nloss = "cross_entropy"\n'

FIGURES = """
def margin(outputs, targets):
    return outputs[:, 0]


def other(outputs, targets):
    return outputs.mean()


def alone(outputs):
    return outputs


number = 3


class Made:
    def __init__(self, outputs, targets):
        pass
"""

TRIPLE = """
import torch
def problem():
    return torch.nn.Linear(3, 2), "mse", (torch.ones(4, 3), torch.ones(4, 2))


def finished():
    from landscape import Problem
    return Problem(torch.nn.Linear(3, 2), "mse", (torch.ones(4, 3), torch.ones(4, 2)))


def from_file(path):
    net = torch.nn.Linear(3, 2)
    state = torch.load(path)
    with torch.no_grad():
        net.weight.copy_(2 * state["weight"])
    return net, "mse", (torch.ones(4, 3), torch.ones(4, 2))
"""


def run(project: Path, *, beside: bool = True, **options: Any) -> Resolved:
    settings = ProblemSettings(**options)
    return resolve(project / "ckpt.pt", settings, given=set(options), start=project, beside=beside)


def test_these_options_belong_to_some_commands_only() -> None:
    assert {o.name for o in options_of(ProblemSettings) if o.special} == {"test_data", "metric"}


def test_test_data_of_a_function_or_a_file(project: Path, write: Write) -> None:
    write("landscape.toml", CONFIG)
    problem = run(project, test_data="net.py:half").problem
    assert problem.test is not None
    assert (problem.examples, problem.test.examples) == (4, 2)
    np.savez(project / "test.npz", x=np.ones((3, 3), np.float32), y=np.array([0, 1, 1]))
    of_file = run(project, test_data="test.npz").problem
    assert of_file.test is not None
    assert of_file.test.examples == 3
    assert of_file.test.model is of_file.model


def test_samples_choose_of_the_first_data_only(project: Path, write: Write) -> None:
    write("landscape.toml", CONFIG)
    problem = run(project, test_data="net.py:data", samples=2).problem
    assert problem.test is not None
    assert (problem.examples, problem.test.examples) == (2, 4)


def test_a_mask_of_an_array_file_holds_for_test_data_too(project: Path, write: Write) -> None:
    write("landscape.toml", CONFIG)
    x, y, mask = np.ones((3, 3), np.float32), np.array([0, 1, 1]), np.array([1, 0, 1])
    np.savez(project / "test.npz", x=x, y=y, mask=mask)
    test = run(project, test_data="test.npz").problem.test
    assert test is not None
    assert test.terms == 2


def test_metrics_by_the_name_of_their_function(project: Path, write: Write) -> None:
    write("landscape.toml", CONFIG)
    write("figures.py", FIGURES)
    metrics = run(project, metric=("figures.py:margin", "figures.py:other")).problem.metrics
    assert list(metrics) == ["margin", "other"]
    assert float(metrics["other"](torch.ones(2, 2), None)) == 1.0


def test_the_configuration_names_them_relative_to_itself(
    project: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("landscape.toml", CONFIG + 'test-data = "net.py:half"\nmetric = ["figures.py:margin"]\n')
    write("figures.py", FIGURES)
    (project / "deeper").mkdir()
    monkeypatch.chdir(project / "deeper")
    settings = ProblemSettings()
    found = resolve(project / "ckpt.pt", settings, given=(), start=project / "deeper", beside=True)
    assert found.problem.test is not None
    assert list(found.problem.metrics) == ["margin"]
    assert "test_data net.py:half" in found.notes[0]
    assert "metric figures.py:margin" in found.notes[0]


def test_a_command_that_has_no_use_for_them_does_not_load_them(project: Path, write: Write) -> None:
    write("landscape.toml", CONFIG + 'test-data = "none.py:f"\nmetric = ["none.py:g"]\n')
    problem = run(project, beside=False).problem
    assert problem.test is None
    assert problem.metrics == {}


def test_in_python_they_are_part_of_the_problem(project: Path, write: Write) -> None:
    write("landscape.toml", CONFIG)
    write("figures.py", FIGURES)
    problem = load_problem(checkpoint="ckpt.pt", test_data="net.py:half", metric=["figures.py:other"])
    assert problem.test is not None
    assert list(problem.metrics) == ["other"]


def test_what_is_shown_beside_the_loss_changes_nothing_of_what_is_measured(
    project: Path, write: Write
) -> None:
    write("landscape.toml", CONFIG)
    write("figures.py", FIGURES)
    plain = run(project).problem
    more = run(project, test_data="net.py:half", metric=("figures.py:margin",)).problem
    assert subject(plain) == subject(more)
    assert plain.description == more.description


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("alone", "gives a function, not a metric"),
        ("number", "not a metric"),
        ("Made", "not a metric"),
        ("missing", "missing"),
    ],
)
def test_what_can_be_no_metric(project: Path, write: Write, name: str, words: str) -> None:
    write("landscape.toml", CONFIG)
    write("figures.py", FIGURES)
    with pytest.raises(ConfigurationError) as caught:
        run(project, metric=(f"figures.py:{name}",))
    assert words.split()[-1] in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 5


def test_two_metrics_of_one_name_are_refused(project: Path, write: Write) -> None:
    write("landscape.toml", CONFIG)
    write("figures.py", FIGURES)
    write("more.py", FIGURES)
    with pytest.raises(ConfigurationError, match="two metrics are called 'margin'"):
        run(project, metric=("figures.py:margin", "more.py:margin"))


def test_test_data_that_do_not_exist(project: Path, write: Write) -> None:
    write("landscape.toml", CONFIG)
    with pytest.raises((ConfigurationError, DataError)):
        run(project, test_data="none.npz")


# --- other checkpoints -----------------------------------------------------------------------------------


def other(project: Path, name: str = "b.pt", **more: Any) -> Path:
    path = project / name
    torch.save({"weight": torch.full((2, 3), 7.0), "bias": torch.zeros(2), **more}, path)
    return path


def read(problem: Problem, path: Path) -> torch.Tensor:
    model = torch.nn.Linear(3, 2)
    reference = problem.reader(path, model)
    assert Path(reference.path).name == path.name
    return model.weight.detach()


def test_another_checkpoint_is_read_as_the_first_one_was(project: Path, write: Write) -> None:
    write("landscape.toml", CONFIG)
    problem = run(project).problem
    assert bool((read(problem, other(project)) == 7).all())
    assert bool((problem.model.weight == 0.5).all())
    extra = other(project, "extra.pt", stale=torch.zeros(1))
    with pytest.raises(CheckpointError):
        read(problem, extra)
    assert bool((read(run(project, ignore_keys=("stale",)).problem, extra) == 7).all())


def test_another_checkpoint_of_another_entry(project: Path, write: Write) -> None:
    write("landscape.toml", CONFIG)
    held = {"weight": torch.full((2, 3), 7.0), "bias": torch.zeros(2)}
    for name in ("ckpt.pt", "b.pt"):
        torch.save({"model": {key: -w for key, w in held.items()}, "ema": held}, project / name)
    problem = run(project, state_key="ema").problem
    assert bool((read(problem, project / "b.pt") == 7).all())


def test_another_checkpoint_of_a_factory_that_takes_the_path(project: Path, write: Write) -> None:
    write("triple.py", TRIPLE)
    problem = run(project, problem="triple.py:from_file").problem
    assert bool((problem.model.weight == 1.0).all())
    assert bool((read(problem, other(project)) == 14).all())


@pytest.mark.parametrize("name", ["problem", "finished"])
def test_another_checkpoint_of_a_factory_that_does_not(project: Path, write: Write, name: str) -> None:
    write("triple.py", TRIPLE)
    problem = run(project, problem=f"triple.py:{name}").problem
    assert bool((read(problem, other(project)) == 7).all())


def test_a_finished_problem_takes_no_test_data(project: Path, write: Write) -> None:
    write("triple.py", TRIPLE)
    with pytest.raises(ConfigurationError, match="finished"):
        run(project, problem="triple.py:finished", test_data="net.py:data")


def test_a_problem_factory_with_test_data_beside_it(project: Path, write: Write) -> None:
    write("triple.py", TRIPLE)
    write("more.py", "import torch\ndef data():\n    return torch.ones(5, 3), torch.ones(5, 2)\n")
    problem = run(project, problem="triple.py", test_data="more.py:data").problem
    assert problem.test is not None
    assert problem.test.examples == 5
