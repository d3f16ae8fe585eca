"""Marks of noisy labels: where they come from, which examples they belong to, and what they change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from landscape.errors import ConfigurationError, DataError
from landscape.identity import subject
from landscape.problem import Problem
from landscape.project import load_problem

Write = Callable[[str, str], Path]

X = np.arange(18, dtype=np.float32).reshape(6, 3)
Y = np.array([0, 1, 0, 1, 1, 0])
NOISY = np.array([0, 1, 0, 0, 1, 1])
CONFIG = 'model = "net.py:build"\nloss = "cross_entropy"\n'


def save(path: Path, **arrays: np.ndarray) -> Path:
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".safetensors":
        save_file({name: torch.tensor(array) for name, array in arrays.items()}, path)
    else:
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file[name] = array
    return path


def loaded(write: Write, data: str, **options: Any) -> list[bool] | None:
    write("landscape.toml", CONFIG)
    problem = load_problem(data=data, **options)
    return None if problem.noisy is None else problem.noisy.tolist()


def linear(**options: Any) -> Problem:
    return Problem(nn.Linear(3, 2), "cross_entropy", (X, Y), **options)


@pytest.mark.parametrize("suffix", [".npz", ".h5", ".safetensors"])
@pytest.mark.parametrize("marks", [NOISY, NOISY.astype(bool), NOISY.astype(np.uint8), NOISY.astype(float)])
def test_marks_beside_the_data(project: Path, write: Write, suffix: str, marks: np.ndarray) -> None:
    path = save(project / f"d{suffix}", x=X, y=Y, noisy=marks)
    assert loaded(write, path.name) == NOISY.astype(bool).tolist()


@pytest.mark.parametrize("suffix", [".npz", ".h5", ".safetensors"])
def test_the_right_labels_beside_the_wrong_ones(project: Path, write: Write, suffix: str) -> None:
    clean = np.where(NOISY == 1, 1 - Y, Y).astype(np.uint8)
    path = save(project / f"d{suffix}", x=X, y=Y, clean_y=clean)
    assert loaded(write, path.name) == NOISY.astype(bool).tolist()


def test_without_any_there_are_none(project: Path, write: Write) -> None:
    assert loaded(write, save(project / "d.npz", x=X, y=Y).name) is None
    assert linear().noisy is None


def test_marks_follow_a_mask_of_examples(project: Path, write: Write) -> None:
    mask = np.array([1, 1, 0, 1, 0, 1])
    path = save(project / "d.npz", x=X, y=Y, mask=mask, noisy=NOISY)
    assert loaded(write, path.name) == [False, True, False, True]
    write("marks.py", f"noisy = {NOISY.tolist()}\nleft = [0, 1, 0, 1]\n")
    for name in ("noisy", "left"):
        assert loaded(write, path.name, noisy=f"marks.py:{name}") == [False, True, False, True]


def test_a_token_that_is_masked_makes_no_example_noisy(project: Path, write: Write) -> None:
    y = np.array([[0, 1], [1, 0], [1, 1]])
    clean = np.array([[0, 1], [0, 0], [1, 0]])
    mask = np.array([[1, 1], [0, 1], [1, 1]])
    path = save(project / "d.npz", x=X[:3], y=y, mask=mask, clean_y=clean)
    assert loaded(write, path.name) == [False, False, True]


def test_marks_follow_a_subset(project: Path) -> None:
    problem = linear(samples=4, sample_seed=3, noisy=NOISY)
    assert problem.data.rows is not None
    rows = problem.data.rows
    assert problem.data.whole == 6
    assert len(rows) == problem.examples == 4
    assert problem.noisy is not None
    assert problem.noisy.tolist() == (NOISY[rows.numpy()] == 1).tolist()
    chosen = next(problem.pieces()).batch[0]
    assert torch.equal(chosen, torch.from_numpy(X)[rows])  # the rows are those of the data


def test_marks_follow_a_minibatch_and_a_twin() -> None:
    problem = linear(noisy=NOISY)
    part = problem.minibatch(torch.tensor([1, 2, 5]))
    assert part.noisy is not None
    assert part.noisy.tolist() == [True, False, True]
    assert part.data.rows is not None
    assert part.data.rows.tolist() == [1, 2, 5]
    twin = problem.in_dtype(torch.float64)
    assert twin.noisy is problem.noisy


FILE = """
    import numpy as np
    import torch

    def function():
        return [False, True, False, False]

    def tensor():
        return torch.tensor([0, 1, 0, 0])

    array = np.array([0.0, 1.0, 0.0, 0.0])

    def nothing(): pass

    def short():
        return [True]

    def three():
        return [0, 1, 2, 3]

    def words():
        return ["a", "b", "c", "d"]

    def square():
        return torch.zeros(4, 2)

    def needy(n): return [0] * n
    """


@pytest.mark.parametrize("name", ["function", "tensor", "array"])
def test_marks_from_the_users_code(project: Path, write: Write, name: str) -> None:
    write("marks.py", FILE)
    assert loaded(write, "net.py:data", noisy=f"marks.py:{name}") == [False, True, False, False]


@pytest.mark.parametrize("text", ["marks.npz", "marks.npz:noisy", "marks.npz:flipped"])
def test_marks_from_an_array_file_of_their_own(project: Path, write: Write, text: str) -> None:
    save(project / "marks.npz", noisy=NOISY[:4], flipped=NOISY[:4])
    assert loaded(write, "net.py:data", noisy=text) == [False, True, False, False]


def test_the_configuration_names_them_relative_to_itself(
    project: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("marks.py", FILE)
    write("landscape.toml", CONFIG + 'data = "net.py:data"\nnoisy = "marks.py:function"\n')
    (project / "below").mkdir()
    monkeypatch.chdir(project / "below")
    problem = load_problem()
    assert problem.noisy is not None
    assert problem.noisy.tolist() == [False, True, False, False]


def test_what_is_named_wins_over_what_stands_beside_the_data(project: Path, write: Write) -> None:
    path = save(project / "d.npz", x=X, y=Y, noisy=NOISY)
    write("marks.py", "marks = [1, 1, 1, 1, 1, 0]\n")
    assert loaded(write, path.name, noisy="marks.py:marks") == [True] * 5 + [False]


def test_marks_for_the_data_of_a_problem_factory(project: Path, write: Write) -> None:
    write("marks.py", FILE)
    write(
        "p.py",
        """
        import torch

        def problem():
            data = torch.ones(4, 3), torch.zeros(4, dtype=torch.long)
            return torch.nn.Linear(3, 2), "cross_entropy", data
        """,
    )
    problem = load_problem(problem="p.py", noisy="marks.py:function")
    assert problem.noisy is not None
    assert problem.noisy.tolist() == [False, True, False, False]


def test_a_finished_problem_has_its_own(project: Path, write: Write) -> None:
    write("marks.py", FILE)
    write(
        "p.py",
        """
        import landscape
        import torch

        def problem():
            data = torch.ones(4, 3), torch.ones(4, 2)
            return landscape.Problem(torch.nn.Linear(3, 2), "mse", data, noisy=[0, 0, 1, 0])
        """,
    )
    problem = load_problem(problem="p.py")
    assert problem.noisy is not None
    assert problem.noisy.tolist() == [False, False, True, False]
    with pytest.raises(ConfigurationError, match="--noisy"):
        load_problem(problem="p.py", noisy="marks.py:function")


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("short", DataError, "1 marks, 4 examples"),
        ("three", DataError, "true or false, 1 or 0\nfound: 2"),
        ("words", DataError, "true or false for each example"),
        ("nothing", ConfigurationError, "does not give marks of noisy labels"),
        ("square", DataError, r"an array \(4, 2\) marks, 4 examples"),
        ("needy", ConfigurationError, "needs arguments"),
        ("missing", ConfigurationError, "missing"),
    ],
)
def test_marks_that_do_not_fit(
    project: Path, write: Write, name: str, error: type[Exception], words: str
) -> None:
    write("marks.py", FILE)
    with pytest.raises(error, match=words):
        loaded(write, "net.py:data", noisy=f"marks.py:{name}")


def test_files_that_do_not_fit(project: Path, write: Write) -> None:
    path = save(project / "d.npz", x=X, y=Y, clean_y=Y[:3])
    with pytest.raises(DataError, match=r"clean_y \(3,\), y \(6,\)"):
        loaded(write, path.name)
    path = save(project / "e.npz", x=X, y=Y, noisy=NOISY[:3])
    with pytest.raises(DataError, match="3 marks, 6 examples"):
        loaded(write, path.name)
    with pytest.raises(DataError, match="no array called other"):
        loaded(write, path.name, noisy="e.npz:other")
    with pytest.raises(DataError, match="No data file"):
        loaded(write, path.name, noisy="nowhere.npz")


def test_marks_are_part_of_what_is_measured_only_where_there_are_any() -> None:
    model = nn.Linear(3, 2)

    def of(noisy: Any, **options: Any) -> str:
        return subject(Problem(model, "cross_entropy", (X, Y), noisy=noisy, **options))

    assert of(NOISY) == of(NOISY.tolist()) == of(torch.tensor(NOISY).bool())
    assert len({of(None), of(NOISY), of(1 - NOISY)}) == 3
    assert "noisy" not in linear().description
