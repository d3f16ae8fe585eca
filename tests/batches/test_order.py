"""In which order checkpoints are taken, and in which pieces they are shared out."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from landscape.batches.order import CHAIN, in_training_order, units
from landscape.batches.parts import Seen
from landscape.errors import InputError


def seen(path: str, step: int | None = None, epoch: int | None = None, error: str = "") -> Seen:
    return Seen(Path("/work") / path, sha256=path, step=step, epoch=epoch, error=error)


def run_of(count: int, name: str = "net") -> list[Seen]:
    return [seen(f"{name}-step{i}.pt", step=i) for i in range(count)]


def paths(runs: list[tuple[Seen, ...]]) -> list[list[str]]:
    return [[one.path.relative_to("/work").as_posix() for one in run] for run in runs]


def test_steps_go_before_epochs_and_names() -> None:
    listed = [seen("a9.pt", 1, 30), seen("a1.pt", 20, 10), seen("a5.pt", 3, 20)]
    assert paths(in_training_order(listed)) == [["a9.pt", "a5.pt", "a1.pt"]]


@pytest.mark.parametrize("step", [None, 7], ids=["none", "all the same"])
def test_epochs_go_before_names_where_steps_do_not_tell(step: int | None) -> None:
    listed = [seen("a9.pt", step, 1), seen("a1.pt", step, 10), seen("a5.pt", step, 2)]
    assert paths(in_training_order(listed)) == [["a9.pt", "a5.pt", "a1.pt"]]


def test_steps_of_some_only_do_not_tell() -> None:
    listed = [seen("a10.pt", step=1), seen("a9.pt"), seen("a1.pt", step=2)]
    assert paths(in_training_order(listed)) == [["a1.pt", "a9.pt", "a10.pt"]]


def test_numbers_in_names_are_numbers() -> None:
    listed = [seen("net-epoch10.pt"), seen("net-epoch9.pt"), seen("net-epoch100.pt")]
    assert paths(in_training_order(listed)) == [["net-epoch9.pt", "net-epoch10.pt", "net-epoch100.pt"]]


def test_nothing_tells_the_order() -> None:
    listed = [seen("a1.pt", step=3), seen("a01.pt", step=3)]
    with pytest.raises(InputError, match=r"(?s)in which order.*a1\.pt, a01\.pt.*--order given.*--order name"):
        in_training_order(listed)
    assert paths(in_training_order(listed, "given")) == [["a1.pt", "a01.pt"]]
    assert paths(in_training_order(listed[::-1], "given")) == [["a01.pt", "a1.pt"]]
    assert paths(in_training_order(listed[::-1], "name")) == paths(in_training_order(listed, "name"))


def test_names_in_an_error_are_harmless() -> None:
    with pytest.raises(InputError) as caught:
        in_training_order([seen("a\x1b[31m1.pt"), seen("a\x1b[31m01.pt")])
    assert "\x1b" not in str(caught.value)


def test_by_name_wins_over_steps_when_asked_for() -> None:
    listed = [seen("a10.pt", step=1), seen("a9.pt", step=2)]
    assert paths(in_training_order(listed)) == [["a10.pt", "a9.pt"]]
    assert paths(in_training_order(listed, "name")) == [["a9.pt", "a10.pt"]]


def test_training_runs_are_told_apart_by_folder_and_name() -> None:
    listed = [
        *(seen("b/sgd-step2.pt", 2), seen("a10/sgd-step1.pt", 1), seen("b/sgd-step1.pt", 1)),
        *(seen("a9/sgd-step1.pt", 1), seen("b/sam-step1.pt", 1), seen("a9/sgd-step0.pt", 0)),
    ]
    expected = [
        *(["a9/sgd-step0.pt", "a9/sgd-step1.pt"], ["a10/sgd-step1.pt"]),
        *(["b/sam-step1.pt"], ["b/sgd-step1.pt", "b/sgd-step2.pt"]),
    ]
    assert paths(in_training_order(listed)) == expected
    assert paths(in_training_order(listed[::-1])) == expected, "whatever the order of the arguments"


def test_folders_that_sort_alike_are_told_apart() -> None:
    listed = [seen("a1/net.pt"), seen("a01/net.pt")]
    assert paths(in_training_order(listed)) == paths(in_training_order(listed[::-1]))


def test_what_cannot_be_read_comes_last_and_hides_no_step() -> None:
    listed = [seen("a1.pt", error="truncated"), seen("a2.pt", step=9), seen("a3.pt", step=8)]
    assert paths(in_training_order(listed)) == [["a3.pt", "a2.pt", "a1.pt"]]
    broken = [seen("a2.pt", error="x"), seen("a1.pt", error="x")]
    assert paths(in_training_order(broken)) == [["a1.pt", "a2.pt"]]


@pytest.mark.parametrize("count", [1, 2, 4, 5, 6, 9, 10, 11, 23, 60])
def test_chains_are_short_nearly_equal_and_in_order(count: int) -> None:
    run = run_of(count)
    found = units([run], chained=True)
    lengths = [len(unit.checkpoints) for unit in found]
    assert [one for unit in found for one in unit.checkpoints] == run
    assert max(lengths) <= CHAIN
    assert max(lengths) - min(lengths) <= 1
    least = -(-count // CHAIN)
    assert len(lengths) == (max(least, 2) if count >= 4 else least), "no more than that, but two for two"


def test_without_warm_starts_each_checkpoint_is_a_piece() -> None:
    found = units([run_of(4), run_of(2, "other")], chained=False)
    assert [len(unit.checkpoints) for unit in found] == [1] * 6
    assert not any(unit.compared for unit in found)


def test_chains_do_not_cross_training_runs() -> None:
    found = units([run_of(3), run_of(4, "other")], chained=True)
    names = [{one.path.name[:3] for one in unit.checkpoints} for unit in found]
    assert names == [{"net"}, {"oth"}, {"oth"}]


@pytest.mark.parametrize(
    ("lengths", "compared"), [([3], 0), ([5], 1), ([10], 1), ([60], 1), ([1, 1, 1], 0), ([1, 2], 1)]
)
def test_a_warm_start_is_held_against_one_afresh_once(lengths: list[int], compared: int) -> None:
    found = units([run_of(n, f"net{'x' * i}") for i, n in enumerate(lengths)], chained=True)
    assert sum(unit.compared for unit in found) == compared
    assert all(len(unit.checkpoints) > 1 for unit in found if unit.compared)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 20])
def test_shares_are_all_of_the_work_and_do_not_meet(count: int) -> None:
    """As the shares are taken in a batch: every ``count``-th unit."""
    generator = random.Random(count)
    listed = [one for n in (7, 13, 1) for one in run_of(n, "net" + "y" * n)]
    whole = units(in_training_order(listed), True)
    parts = []
    for which in range(1, count + 1):
        generator.shuffle(listed)  # each job finds the files in its own order
        parts += units(in_training_order(listed), True)[which - 1 :: count]
    assert sorted(u.checkpoints[0].path for u in parts) == sorted(u.checkpoints[0].path for u in whole)
    assert {u.checkpoints for u in parts} == {u.checkpoints for u in whole}
