from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from landscape.errors import ConfigurationError, DataError
from landscape.project.code import Importer, Source
from landscape.project.pieces import find_problem, make_data, make_loss, make_model

Write = Callable[[str, str], Path]


def source(project: Path, text: str, name: str = "model") -> Source:
    return Source(name, text, project, "options")


def test_a_file_is_loaded_by_path_and_leaves_no_trace(project: Path) -> None:
    before = (torch.random.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002
    path, cwd, modules = list(sys.path), os.getcwd(), set(sys.modules)
    model = make_model(source(project, "net.py:build"), Importer())
    assert isinstance(model, torch.nn.Linear)
    assert sys.path == path
    assert os.getcwd() == cwd
    assert {m for m in set(sys.modules) - modules if not m.startswith("_landscape_user_")} == set()
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]  # noqa: NPY002
    assert sorted(p.name for p in project.iterdir()) == [".git", "ckpt.pt", "net.py"]


def test_a_failed_import_leaves_no_module_behind(project: Path, write: Write) -> None:
    write("bad.py", "1 / 0")
    before = set(sys.modules)
    with pytest.raises(ConfigurationError):
        Importer().load(source(project, "bad.py:build"))
    assert set(sys.modules) == before


def test_a_file_named_twice_runs_once(project: Path, write: Write) -> None:
    write("once.py", "open('runs', 'a').write('x')\na = 1\nb = 2\n")
    importer = Importer()
    assert importer.load(source(project, "once.py:a")).value == 1
    assert importer.load(source(project, "./once.py:b")).value == 2
    assert (project / "runs").read_text() == "x"


def test_dataclasses_with_postponed_annotations_work(project: Path, write: Write) -> None:
    write(
        "dc.py",
        """
        from __future__ import annotations
        from dataclasses import dataclass
        from typing import ClassVar
        import torch

        @dataclass
        class Sizes:
            kind: ClassVar[str] = "mlp"
            width: int = 3

        def build():
            return torch.nn.Linear(Sizes().width, 1)
        """,
    )
    assert make_model(source(project, "dc.py:build"), Importer()).in_features == 3


def test_what_user_code_prints_goes_to_stderr(
    project: Path, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    write(
        "loud.py",
        "import torch\nprint('one')\ndef build():\n    print('two')\n    return torch.nn.Linear(1, 1)",
    )
    make_model(source(project, "loud.py:build"), Importer())
    assert capsys.readouterr() == ("", "one\ntwo\n")


def test_installed_modules_classes_and_instances(project: Path, write: Write) -> None:
    assert isinstance(make_model(source(project, "torch.nn:ReLU"), Importer()), torch.nn.ReLU)
    write("inst.py", "import torch\nclass Nets:\n    small = torch.nn.Linear(1, 1)\n")
    importer = Importer()
    model = make_model(source(project, "inst.py:Nets.small"), importer)
    assert model is not importer.load(source(project, "inst.py:Nets.small")).value
    assert isinstance(model, torch.nn.Linear)


MISUSE = {
    "net.py:biuld": ("nothing is called 'biuld' there", "did you mean build?"),
    "net.py": ("names a file or module, but nothing in it", "known: build, data, half"),
    "nat.py:build": ("no file", "did you mean net.py"),
    "net:build": ("no installed module net", "--model net.py:build (the current folder is not searched)"),
    "nowhere.sub:build": ("no installed module nowhere", "a file is named by its path"),
    "build": ("names no factory", "file.py:NAME"),
    "": ("names no factory", "file.py:NAME"),
    "dir/net:build": ("names no factory", "file.py:NAME"),
    "bad.py:syntax": ("failed to import with SyntaxError", "bad.py:1)"),
    "div.py:zero": ("failed to import with ZeroDivisionError", "div.py:2)"),
    "exit.py:build": ("failed to import with SystemExit", '__name__ == "__main__"'),
    "sib.py:build": ("failed to import with ModuleNotFoundError", "helper.py lies beside it"),
    "pkg.py:build": ("No module named 'parts'", "the folder parts lies beside it"),
    "rel.py:build": ("failed to import with ImportError", "install the package"),
    "miss.py:build": ("No module named 'absent_x'", "install absent_x"),
    "fun.py:raises": ("raised ValueError", "boom \\x1b[31m red (", "fun.py:5)"),
    "fun.py:silent": ("raised KeyError", "fun.py:8)"),
    "fun.py:none": ("does not give a torch.nn.Module", "None (is a return missing?)"),
    "fun.py:pair": ("does not give a torch.nn.Module", "found: tuple"),
    "fun.py:Net": ("is a class that needs arguments", "found: width"),
    "fun.py:needs": ("is a function that needs arguments", "found: a, b"),
    "fun.py:number": ("does not give a model", "found: int"),
}

FILES = {
    "bad.py": "def (\n",
    "div.py": "x = 0\n1 / x\n",
    "exit.py": "import sys\nsys.exit(3)\n",
    "sib.py": "from helper import Net\n",
    "helper.py": "open('ran', 'w')\n",
    "pkg.py": "import parts.net\n",
    "parts/net.py": "",
    "rel.py": "from .helper import Net\n",
    "miss.py": "import absent_x.y\n",
    "fun.py": """\
import torch
number = 3

def raises():
    raise ValueError("boom \\x1b[31m\\nred")

def silent():
    return {}[()]

def none():
    pass

def pair():
    return torch.nn.Linear(1, 1), 3

class Net(torch.nn.Module):
    def __init__(self, width):
        super().__init__()

def needs(a, b, c=1):
    pass
""",
}


@pytest.mark.parametrize("text", MISUSE)
def test_a_misused_factory_is_explained(project: Path, write: Write, text: str) -> None:
    for name, content in FILES.items():
        write(name, content)
    with pytest.raises(ConfigurationError) as error:
        make_model(source(project, text), Importer())
    message = str(error.value)
    for part in MISUSE[text]:
        assert part in message
    assert 1 <= len(message.splitlines()) <= 5
    assert "\x1b" not in message
    assert not (project / "ran").exists()


def test_the_cause_is_chained_for_debugging(project: Path, write: Write) -> None:
    write("fun.py", FILES["fun.py"])
    with pytest.raises(ConfigurationError) as error:
        make_model(source(project, "fun.py:raises"), Importer())
    assert isinstance(error.value.__cause__, ValueError)


def test_errors_of_ours_pass_through(project: Path, write: Write) -> None:
    write("own.py", "from landscape.errors import DataError\ndef build():\n    raise DataError('empty')")
    with pytest.raises(DataError, match=r"^empty$"):
        make_model(source(project, "own.py:build"), Importer())


def test_a_configuration_is_named_as_the_origin(project: Path) -> None:
    named = Source("model", "net.py:biuld", project, "landscape.toml")
    with pytest.raises(ConfigurationError, match=r'model = "net.py:biuld" \(landscape.toml\): nothing'):
        make_model(named, Importer())


LOSSES = """\
import torch
from torch.nn.functional import mse_loss
def two(outputs, targets): return mse_loss(outputs, targets)
def factory(): return torch.nn.MSELoss()
def whole(model, batch): return model(batch[0]).mean()
module = torch.nn.L1Loss()
def named(): return "mse"
def one(outputs): return outputs
def bad(): return 3
def flexible(*arguments): return two
"""


def test_losses(project: Path, write: Write) -> None:
    write("losses.py", LOSSES)
    importer = Importer()

    def loss(text: str) -> object:
        return make_loss(source(project, text, "loss"), importer)

    assert loss("cross_entropy") == "cross_entropy"
    for name in ("two", "whole", "module"):
        found = importer.load(source(project, f"losses.py:{name}"))
        assert loss(f"losses.py:{name}") is found.value
    assert isinstance(loss("losses.py:factory"), torch.nn.MSELoss)
    assert isinstance(loss("torch.nn:HuberLoss"), torch.nn.HuberLoss)
    assert loss("losses.py:named") == "mse"
    assert callable(loss("losses.py:flexible"))
    with pytest.raises(ConfigurationError, match="needs arguments"):
        loss("losses.py:one")
    with pytest.raises(ConfigurationError, match="does not give a loss"):
        loss("losses.py:bad")


DATA = """\
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset
x, y = torch.zeros(4, 3), torch.zeros(4, dtype=torch.long)
pair = (x, y)
def function(): return x, y
batches = [(x, y), (x, y)]
dataset = TensorDataset(x, y)
loader = DataLoader(dataset)
class Own(Dataset):
    def __len__(self): return 4
    def __getitem__(self, i): return x[i], y[i]
class Strange(Own):
    def __call__(self): raise AssertionError
strange = Strange()
number = 3
def text(): return "x"
def tensor(): return x
def none(): pass
def model(): return torch.nn.Linear(1, 1)
"""


def test_data(project: Path, write: Write) -> None:
    write("d.py", DATA)
    importer = Importer()

    def data(text: str) -> object:
        return make_data(source(project, text, "data"), importer, "mse")

    for name in ("pair", "batches", "dataset", "loader", "strange"):
        assert data(f"d.py:{name}") is importer.load(source(project, f"d.py:{name}")).value
    assert isinstance(data("d.py:function"), tuple)
    assert type(data("d.py:Own")).__name__ == "Own"
    for name in ("number", "text", "tensor", "none", "model"):
        with pytest.raises(ConfigurationError, match="does not give data"):
            data(f"d.py:{name}")
    with pytest.raises(ConfigurationError, match="or an array file"):
        data("d.csv")


PROBLEMS = """\
import torch
net = torch.nn.Linear(3, 2)
x, y = torch.zeros(4, 3), torch.zeros(4, dtype=torch.long)
def problem(): return net, "cross_entropy", (x, y)
def with_path(path): return net, lambda o, t: o.sum() * len(path.name), (x, y)
def with_default(width=3): return problem()
def two(a, b): pass
def pair(): return net, "mse"
def wrong_loss(): return net, 3, (x, y)
def wrong_data(): return net, "mse", 3
instance = problem()
"""


def test_problem_factories(project: Path, write: Write) -> None:
    write("p.py", PROBLEMS)

    def problem(text: str) -> tuple[object, bool]:
        factory = find_problem(source(project, text, "problem"), Importer())
        return factory.make(project / "ckpt.pt"), factory.takes_path

    assert problem("p.py")[1] is False
    assert problem("p.py:with_default")[1] is False
    assert problem("p.py:with_path")[1] is True
    for name, message in {
        "two": "takes 2 arguments",
        "pair": r"neither a landscape.Problem nor \(model, loss, data\)\nfound: tuple of Linear, str",
        "wrong_loss": "a loss as its second part",
        "wrong_data": "does not give data",
        "instance": "does not give a problem",
    }.items():
        with pytest.raises(ConfigurationError, match=message):
            problem(f"p.py:{name}")
    with pytest.raises(ConfigurationError, match="no checkpoint was given"):
        find_problem(source(project, "p.py:with_path", "problem"), Importer()).make(None)
