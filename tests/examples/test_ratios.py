"""What the digits example's README says about gradient ratios and wrong labels, measured again.

The commands are the README's own, on the epochs that its figures are of; ``long`` does SAM's besides SGD's,
and the two slow ones.
"""

from __future__ import annotations

import json
import math
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest

from tests.cli.support import call

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits"
README = (EXAMPLE / "README.md").read_text()
EPOCHS = (1, 5, 10, 40, 300)
#: A row of the table of figures: run, epoch, then seven times figure ± error.
ROW = re.compile(r"^\| (SGD|SAM), (\d+) \|(.*)\|$", re.MULTILINE)
CLASSES = ["ckpt1", "ckpt2", "ckpt3", "ckpt4"]

Fields = Mapping[str, Any]
Series = Mapping[int, Fields]
Figure = tuple[float, float]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example with the checkpoints that the README's figures are of."""
    copied = Path(shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("examples") / "digits"))
    for path in (copied / "runs").iterdir():
        if int(path.stem[-3:]) not in EPOCHS:
            path.unlink()
    return copied


def commands() -> list[str]:
    """The README's commands that measure."""
    lines = [
        line for block in re.findall(r"^```\n(.*?)^```$", README, re.M | re.S) for line in block.split("\n")
    ]
    return [line for line in lines if re.match(r"landscape (ratios|overlap|reweight) ", line)]


def measured(command: str, folder: Path) -> list[Fields]:
    """The results of one command, with globs as a shell would see them."""
    with chdir(folder):
        words = [
            name
            for word in shlex.split(command)[1:]
            for name in (sorted(map(str, Path().glob(word))) if re.search(r"[*?]", word) else [word])
        ]
        one = [] if words[0] == "overlap" else ["--threads", "1"]  # the same sums on any machine
        done = call(*words, *one, "--json", "--quiet")
    assert done.exit_code == 0, f"{command}\n{done.output}"
    found: list[Fields] = [run["result"] for run in json.loads(done.stdout)["runs"]]
    return found


@pytest.fixture(scope="module")
def found(folder: Path) -> Callable[[str], list[Fields]]:
    """Results of the command that ends as said; each command runs once."""
    done: dict[str, list[Fields]] = {}

    def run(end: str) -> list[Fields]:
        (command,) = [command for command in commands() if command.endswith(end)]
        if end not in done:
            done[end] = measured(command, folder)
        return done[end]

    return run


@pytest.fixture(scope="module")
def series(found: Callable[[str], list[Fields]]) -> Callable[[str], Series]:
    return lambda name: dict(zip(EPOCHS, found(f"-o {name}.h5"), strict=True))


def share(result: Fields, *classes: str) -> Figure:
    """Percent of the parameters in these classes together; their errors as if independent."""
    chosen = [list(result["classes"]).index(name) for name in classes]
    error = math.hypot(*(result["fraction_errors"][i] or 0.0 for i in chosen))
    return 100 * sum(result["fractions"][i] for i in chosen), 100 * error


def ratio(result: Fields) -> Figure:
    return result["gradient_norm_ratio"], result["gradient_norm_ratio_error"]


def rises(before: Figure, after: Figure) -> bool:
    """By more than three standard errors."""
    return after[0] - before[0] > 3 * math.hypot(before[1], after[1])


def keeps(before: Figure, after: Figure) -> bool:
    """Within three standard errors, and these are small enough to say so."""
    error = math.hypot(before[1], after[1])
    return abs(after[0] - before[0]) < 3 * error < 5


both = pytest.mark.parametrize("run", ["sgd", pytest.param("sam", marks=pytest.mark.long)])


@both
def test_the_table_of_figures(run: str, series: Callable[[str], Series]) -> None:
    plain, relative = series(run), series(f"{run}-relative")
    rows = {int(epoch): cells for name, epoch, cells in ROW.findall(README) if name == run.upper()}
    assert list(rows) == list(EPOCHS)
    for epoch, cells in rows.items():
        shown = [tuple(map(float, cell.split("±"))) for cell in cells.split("|")]
        expected = [share(plain[epoch], name) for name in CLASSES]
        expected += [ratio(plain[epoch]), *(share(relative[epoch], name) for name in ("ckpt3", "ckpt4"))]
        for (value, error), (now, now_error) in zip(shown, expected, strict=True):
            assert value == pytest.approx(now, abs=0.06)
            assert now_error * 0.98 <= error <= now_error + 0.11
        assert share(plain[epoch], "dead")[0] == pytest.approx(8, abs=0.5)


@both
def test_most_parameters_are_in_ckpt1_from_epoch_5_on(run: str, series: Callable[[str], Series]) -> None:
    shares = {epoch: share(result, "ckpt1") for epoch, result in series(run).items()}
    assert shares[1][0] < 45
    assert all(rises((60, 0), shares[epoch]) for epoch in EPOCHS[1:])


@both
def test_ckpt2_falls_from_40_percent_and_below_20(run: str, series: Callable[[str], Series]) -> None:
    shares = {epoch: share(result, "ckpt2") for epoch, result in series(run).items()}
    assert rises((40, 0), shares[1])
    assert rises(shares[10], (20, 0))
    assert rises(shares[300], shares[40])


@both
def test_ckpt3_rises_throughout_and_ckpt4_hardly(run: str, series: Callable[[str], Series]) -> None:
    results = series(run)
    three, four = ({e: share(results[e], name) for e in EPOCHS} for name in ("ckpt3", "ckpt4"))
    assert three[1][0] < 1
    assert rises(three[40], three[300])
    assert 4 < three[300][0] < 7
    assert four[10][0] > 1.5
    assert rises(four[300], (3.2, 0))


@both
def test_ckpt1_does_not_decrease_for_minibatches(run: str, series: Callable[[str], Series]) -> None:
    results = series(run)
    assert keeps(share(results[40], "ckpt1"), share(results[300], "ckpt1"))


@both
def test_ckpt1_decreases_in_these_runs_for_the_full_batch(run: str, series: Callable[[str], Series]) -> None:
    results = series(f"{run}-full")
    at = {epoch: round(share(results[epoch], "ckpt1")[0], 1) for epoch in (40, 300)}
    told = {"sgd": (78.4, 72.1), "sam": (79.6, 68.2)}[run]
    assert f"{told[0]} → {told[1]}" in README
    assert (at[40], at[300]) == pytest.approx(told, abs=0.4)  # of a parameter in 250 rounding cannot tell


@both
def test_gradient_norms_and_ckpt3_grow_only_because_the_gradient_shrinks(
    run: str, series: Callable[[str], Series]
) -> None:
    fixed, relative = series(run), series(f"{run}-relative")
    turned = {epoch: share(result, "ckpt3", "ckpt4") for epoch, result in relative.items()}
    assert rises(ratio(fixed[40]), ratio(fixed[300]))
    assert rises(ratio(relative[300]), ratio(relative[40]))
    assert rises(turned[300], turned[40])
    assert turned[40][0] > 2.5 * turned[300][0]
    assert rises(share(fixed[40], "ckpt3", "ckpt4"), share(fixed[300], "ckpt3", "ckpt4"))
    assert fixed[40]["gradient_norm"] > 20 * fixed[300]["gradient_norm"]


def test_larger_radii_turn_more_gradients_round(found: Callable[[str], list[Fields]]) -> None:
    (result,) = found("-o sweep.h5")
    chosen = [list(result["classes"]).index(name) for name in ("ckpt3", "ckpt4")]
    negative = [100 * sum(row[i] for i in chosen) for row in result["sweep_fractions"]]
    assert negative == sorted(negative)
    at = dict(zip((round(rho, 5) for rho in result["rho_sweep"]), negative, strict=True))
    assert (at[0.0005], at[0.05], at[0.5]) == pytest.approx((0.14, 9.0, 21.3), abs=0.06)


def test_what_stays_in_ckpt1_is_near_chance(
    series: Callable[[str], Series], found: Callable[[str], list[Fields]]
) -> None:
    series("sgd-full")
    (result,) = found("overlap sgd-full.h5")
    late = range(1, len(EPOCHS) - 1)
    assert all(0.99 < result["lifts"][i][i + 1] < 1.13 for i in late)
    assert all(0.7 < result["shares"][i][i + 1] < 0.87 for i in late)


def test_ckpt2_does_not_become_ckpt3(
    series: Callable[[str], Series], found: Callable[[str], list[Fields]]
) -> None:
    series("sgd-full")
    (result,) = found("-o turned.h5")
    before, after = EPOCHS.index(40), EPOCHS.index(300)
    uncertain = result["count_errors"][before][after]
    assert result["counts"][before][after] == pytest.approx(83, abs=uncertain)
    assert result["expected"][before][after] == pytest.approx(101, abs=5)
    assert result["z"][before][after] < 2, "more of ckpt2 than by chance would be a transition"


def test_weights_tell_wrong_labels_as_the_loss_does(found: Callable[[str], list[Fields]]) -> None:
    (early,), (late,) = found("-o early.h5"), found("-o late.h5")
    for result, told, of_loss in ((early, 0.997, 0.997), (late, 0.853, 0.945)):
        assert result["group_examples"] == [1797, 1477, 320]
        assert f"{told}" in README
        assert f"{of_loss}" in README
        assert result["weight_area"] == pytest.approx(told, abs=0.002)
        assert result["loss_area"] == pytest.approx(of_loss, abs=0.002)
        assert result["rank_correlation_interval"][1] < -0.65
    assert late["weight_area_interval"][1] < late["loss_area_interval"][0], "late, the loss tells more"
    assert early["median_weight_intervals"][2][1] < 1.01 < early["median_weight_intervals"][1][0]


def test_the_table_of_weights(found: Callable[[str], list[Fields]]) -> None:
    rows = re.findall(r"^\| (20|300) \| (clean|wrong) \|(.*)\|$", README, re.MULTILINE)
    assert len(rows) == 4
    for epoch, group, cells in rows:
        (result,) = found("-o early.h5" if epoch == "20" else "-o late.h5")
        place = {"clean": 1, "wrong": 2}[group]
        for name, cell in zip(
            ("losse", "weight", "logit_weight", "jacobian_weight"), cells.split("|"), strict=True
        ):
            value, low, high = map(float, re.findall(r"[\d.]+\d", cell))
            name = name.removesuffix("e") if name == "losse" else name
            plural = {"loss": "losses"}.get(name, f"{name}s")
            assert value == pytest.approx(result[f"median_{plural}"][place], rel=0.02)
            assert [low, high] == pytest.approx(result[f"median_{name}_intervals"][place], rel=0.02)


@pytest.mark.long
def test_asam_does_not_raise_ckpt1_more_than_sam(folder: Path, series: Callable[[str], Series]) -> None:
    (train,) = re.findall(r"^python (train\.py --out asam .*)$", README, re.MULTILINE)
    subprocess.run([sys.executable, *shlex.split(train)], cwd=folder, check=True)
    (command,) = [command for command in commands() if command.endswith("-o asam.h5")]
    before, after = measured(command, folder)
    assert keeps(share(before, "ckpt1"), share(after, "ckpt1"))
    assert rises(share(before, "ckpt3"), share(after, "ckpt3"))
    assert share(after, "ckpt3")[0] > 2 * share(series("sam")[300], "ckpt3")[0]


@pytest.mark.long
def test_six_minibatches_have_more_of_ckpt1_in_common_than_by_chance(folder: Path) -> None:
    (loop,) = re.findall(r"^for k in ([\d ]+); do (.*); done$", README, re.MULTILINE)
    for k in loop[0].split():
        measured(loop[1].replace("$k", k), folder)
    (result,) = measured("landscape overlap batch?.h5 --mixed", folder)
    assert result["common"][0][-1] == pytest.approx(1582, abs=10)
    assert result["common_expected"][0][-1] == pytest.approx(756, abs=10)
