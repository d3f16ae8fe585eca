"""From options and configuration to what a batch does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from landscape.batches import BatchPlan, planned_batch
from landscape.errors import ConfigurationError, InputError
from tests.batches.support import planned, write_project

CONFIG = """\
model = "problem.py:model"
data = "problem.py:data"
loss = "cross_entropy"
checkpoints = ["later/*.pt", "runs/*.pt"]
threads = 3

[eigen]
k = 7
max-products = 50
seed = 11

[batch]
run = ["eigen", "ratios"]
jobs = 4
output = "from-the-table"
set = ["eigen.tol=1e-2"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "landscape.toml").write_text(CONFIG)
    for name in ("runs/a10.pt", "runs/a9.pt", "later/b.pt", "runs/a9.txt", "runs/[x].pt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    return tmp_path


def plan(folder: Path, *checkpoints: str, problem: Any = None, own: Any = None, **batch: Any) -> BatchPlan:
    names = checkpoints or ("runs/a9.pt",)
    return planned_batch(names, problem or {}, batch, start=folder, command="", own=own)


def settings_of(made: BatchPlan, kind: str = "eigen") -> Any:
    (found,) = [one.settings for one in made.spec.analyses if one.kind == kind]
    return found


def test_options_win_over_the_table_and_that_over_defaults(folder: Path) -> None:
    made = plan(folder, jobs=2)
    assert made.settings.jobs == 2
    assert made.settings.kinds == ("eigen", "ratios")
    assert made.settings.order == "auto"
    assert made.spec.folder == folder / "from-the-table"
    assert plan(folder, output="here").spec.folder == folder / "here"
    assert plan(folder, output=str(folder / "there")).spec.folder == folder / "there"
    assert plan(folder, run=("trace",), set=()).settings.kinds == ("trace",)
    assert made.threads == 3
    assert plan(folder, problem={"threads": 5}).threads == 5


def test_set_wins_over_the_analysis_table_and_that_over_defaults(folder: Path) -> None:
    found = settings_of(plan(folder))
    assert (found.k, found.max_products, found.tol) == (7, 50, 1e-2)
    found = settings_of(plan(folder, set=("eigen.k=2", "eigen.k=3")))
    assert (found.k, found.max_products, found.tol) == (3, 50, None), (
        "the last of two; --set replaces that of [batch]"
    )
    assert settings_of(plan(folder, own={"eigen": {"k": 4}})).k == 4
    assert settings_of(plan(folder, own={"eigen": {"k": 4}}, set=("eigen.k=5",))).k == 5


def test_seeds(folder: Path) -> None:
    seeds = {one.kind: one.run.seed for one in plan(folder).spec.analyses}
    assert seeds == {"eigen": 11, "ratios": None}
    assert {one.run.seed for one in plan(folder, seed=5).spec.analyses} == {5}


def test_without_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_text("")
    made = plan(tmp_path, "x.pt")
    assert made.settings.kinds == ("eigen", "trace", "ratios")
    assert made.spec.folder == tmp_path / "landscape-results"
    assert made.threads is None


def test_patterns_in_natural_order_each_file_once(folder: Path) -> None:
    made = plan(folder, "runs/a*.pt", "runs/a9.pt", "later/../later/b.pt")
    assert made.checkpoints == tuple(folder / name for name in ("runs/a9.pt", "runs/a10.pt", "later/b.pt"))
    assert plan(folder, "**/b.pt").checkpoints == (folder / "later/b.pt",)
    assert plan(folder, str(folder / "runs" / "a1?.pt")).checkpoints == (folder / "runs/a10.pt",)


def test_a_name_that_looks_like_a_pattern_is_a_name_first(folder: Path) -> None:
    assert plan(folder, "runs/[x].pt").checkpoints == (folder / "runs/[x].pt",)


def test_without_any_those_that_the_configuration_names(folder: Path) -> None:
    made = planned_batch([], {}, {}, start=folder, command="")
    names = ["b.pt", "[x].pt", "a9.pt", "a10.pt"]
    assert sorted(path.name for path in made.checkpoints) == sorted(names)


@pytest.mark.parametrize("pattern", ["runs/*.ckpt", "nowhere/a.pt", "runs/\x1b[31m*"])
def test_nothing_matches(folder: Path, pattern: str) -> None:
    with pytest.raises(InputError, match="no checkpoint") as caught:
        plan(folder, "runs/a9.pt", pattern)
    assert "\x1b" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"run": ("eigen,spectrum",)}, "(?s)does not know 'spectrum'.*eigen.*trace"),
        ({"set": ("trace.tol=0.1",)}, "given for trace, which is no analysis of this batch"),
        ({"set": ("spectrum.k=1",)}, "given for spectrum"),
        ({"set": ("eigen.kk=1",)}, "kk"),
        ({"set": ("eigen.k=many",)}, "k"),
        ({"set": ("eigen.k=0",)}, "k"),
        ({"set": ("eigen.output=x.h5",)}, "output"),
        ({"set": ("eigen.which=widest",)}, "which"),
        ({"shard": "3/2"}, "--shard"),
        ({"job": 3}, "job"),
    ],
)
def test_wrong_options(folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        plan(folder, **options)
    assert 1 <= len(str(caught.value).splitlines()) <= 5


def test_a_result_file_for_all_is_refused(folder: Path) -> None:
    (folder / "landscape.toml").write_text('[eigen]\noutput = "one.h5"\n')
    with pytest.raises(ConfigurationError, match=r"(?s)one result file.*--output FOLDER"):
        plan(folder)


@pytest.mark.parametrize(
    "table", ["jobs = 0", "runs = 2", 'shard = "9/3"', 'run = ["nothing"]', "seed = 1.5"]
)
def test_a_wrong_table(folder: Path, table: str) -> None:
    (folder / "landscape.toml").write_text(f"[batch]\n{table}\n")
    with pytest.raises(ConfigurationError):
        plan(folder)


IMPORTS = """
import sys
from pathlib import Path
from landscape.batches import planned_batch
planned_batch(["runs/a9.pt"], {}, {}, start=Path.cwd(), command="")
print(sorted({"torch", "matplotlib", "problem"} & set(sys.modules)))
"""


def test_planning_loads_neither_torch_nor_code_of_the_user(folder: Path) -> None:
    (folder / "problem.py").write_text("raise AssertionError\n")
    run = subprocess.run([sys.executable, "-c", IMPORTS], cwd=folder, capture_output=True, text=True)
    assert run.stdout.strip() == "[]", run.stderr


@pytest.mark.parametrize(("name", "value"), [("test_data", "problem.py:data"), ("metric", ("m.py:f",))])
def test_what_only_slices_show_is_refused_without_one(tmp_path: Path, name: str, value: object) -> None:
    write_project(tmp_path, 1)
    with pytest.raises(ConfigurationError, match=r"belongs to slices(?s:.*)add slice to --run"):
        planned(tmp_path, problem={name: value}, run=("eigen",))
    assert planned(tmp_path, problem={name: value}, run=("eigen", "slice")).spec.analyses[1].kind == "slice"
