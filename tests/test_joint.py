"""Results made from stored results: which runs are chosen, what is refused, what is found done."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from landscape.analyses.overlap import Settings
from landscape.errors import InputError, StoreError
from landscape.joint import JointSettings, combine, read_sources, stored_path
from landscape.results import OverlapResult, Provenance, RatiosResult, Result
from landscape.store import ResultFile
from tests.results.samples import assert_same, eigen_result
from tests.run.support import Listener, assert_same_bits
from tests.support.ratio_runs import random_runs, ratios_run, stored

N = 205


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def files(*steps: int) -> list[Path]:
    """A result file for each checkpoint."""
    return [stored(Path(f"r/net-{run.provenance.checkpoint.step}.h5"), run) for run in runs(*steps)]  # type: ignore[union-attr]


def runs(*steps: int) -> list[RatiosResult]:
    return random_runs(N, steps)


def ids(results: tuple[Result, ...]) -> list[str]:
    return [made_by(result).id for result in results]


def made_by(result: Result) -> Provenance:
    assert result.provenance is not None
    return result.provenance


def test_files_of_single_checkpoints_and_one_of_several_give_the_same() -> None:
    apart = read_sources("overlap", files(1, 2, 3))
    together = read_sources("overlap", [stored(Path("all.h5"), *runs(1, 2, 3))])
    assert ids(apart.results) == ids(together.results) == ["ratios-0001", "ratios-0002", "ratios-0003"]
    assert apart.notes == together.notes == ()
    results = [combine("overlap", one.results, Settings(), store=False) for one in (apart, together)]
    assert_same_bits(*results)
    assert isinstance(results[0], OverlapResult)
    assert results[0].counts.shape == (3, 3)


def test_masks_are_read_where_they_are_used() -> None:
    for result in read_sources("overlap", files(1, 2)).results:
        assert isinstance(result, RatiosResult)
        assert isinstance(result.masks, np.memmap)


def test_all_files_of_a_folder_will_do() -> None:
    """Those of masks are no result files, and others hold no ratios."""
    files(1, 2)
    ResultFile("r/net-9.h5").add(eigen_result())
    found = read_sources("overlap", sorted(Path("r").glob("*.h5")))
    assert len(list(Path("r").glob("*.h5"))) == 5
    assert ids(found.results) == ["ratios-0001", "ratios-0002"]
    (note,) = found.notes
    assert "r/net-9.h5 holds no ratios run" in note


def test_the_latest_run_with_masks_of_each_checkpoint_is_taken_and_said() -> None:
    first, second = runs(1, 2)
    again = ratios_run([0] * N, step=2, run="ratios-zzzz", rho=0.1)
    without = ratios_run([0] * N, step=2, run="ratios-zzzzz", masks=None)
    path = stored(Path("a.h5"), first, second, again, without)
    found = read_sources("overlap", [path])
    assert ids(found.results) == ["ratios-0001", "ratios-zzzz"]
    (note,) = found.notes
    assert "holds 3 ratios runs of one checkpoint" in note
    assert "ratios-zzzz (--run" in note


def test_runs_are_chosen_by_the_start_of_their_ids() -> None:
    path = stored(Path("a.h5"), *runs(1, 2, 12))
    other = stored(Path("b.h5"), ratios_run([1] * N, step=30, run="ratios-b"))
    found = read_sources("overlap", [path, other], ["ratios-0002", "ratios-b", "ratios-0012"])
    assert ids(found.results) == ["ratios-0002", "ratios-b", "ratios-0012"]
    for run, words in (
        ("ratios-00", "start of several runs"),
        ("nothing", "in none of the files"),
        ("", "in none"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            read_sources("overlap", [path, other], [run])
        assert "found: ratios-00" in str(caught.value)


def test_the_same_run_twice_counts_once() -> None:
    (one, other) = runs(1, 2)
    paths = [stored(Path("a.h5"), one, other), stored(Path("b.h5"), other)]
    found = read_sources("overlap", [*paths, paths[0]])
    assert ids(found.results) == ["ratios-0001", "ratios-0002"]
    assert found.notes == ("ratios-0002 in b.h5 is the same run again: left out",)


@pytest.mark.parametrize(("batch", "words"), [(16, "mini-batches"), (None, "--no-masks")])
def test_runs_without_masks_say_why_and_what_to_do(batch: int | None, words: str) -> None:
    path = stored(Path("a.h5"), runs(1)[0], ratios_run([0] * N, step=2, masks=None, minibatch=batch))
    for chosen in ([], ["ratios-0002"]):
        with pytest.raises(InputError, match=r"ratios-0002 in a\.h5 keeps no masks") as caught:
            read_sources("overlap", [path], chosen)
        assert words in str(caught.value)
        assert "landscape ratios" in str(caught.value)
        assert "net-2.pt" in str(caught.value)
        assert len(str(caught.value).splitlines()) <= 5


@pytest.mark.parametrize("damage", ["gone", "cut", "changed"])
def test_masks_that_are_gone_or_damaged(damage: str) -> None:
    paths = files(1, 2)
    (masks,) = Path("r").glob("net-2-*.h5")
    if damage == "gone":
        masks.unlink()
    else:
        contents = bytearray(masks.read_bytes())
        with h5py.File(masks) as file:
            place = file["vectors"].id.get_offset()
        contents[place] ^= 0xFF
        masks.write_bytes(contents[: len(contents) // 2] if damage == "cut" else contents)
    with pytest.raises(StoreError) as caught:
        read_sources("overlap", paths)
    assert masks.name in str(caught.value)
    assert "--fresh" in str(caught.value) or damage == "cut"
    assert ids(read_sources("overlap", paths[:1]).results) == ["ratios-0001"]


def test_files_that_are_none() -> None:
    Path("text.h5").write_text("no HDF5")
    Path("r").mkdir()
    for path, words in (
        ("no.h5", "cannot read no.h5"),
        ("text.h5", "not a landscape file"),
        ("r", r"r/\*.h5"),
    ):
        with pytest.raises(StoreError, match=words):
            read_sources("overlap", [path])


def test_what_is_stored_says_how_it_was_obtained() -> None:
    sources = read_sources("overlap", files(1, 2))
    result = combine("overlap", sources.results, Settings(), command="landscape overlap r/*.h5")
    path = stored_path("overlap", sources.results, JointSettings())
    made = made_by(result)
    assert path.parent == Path("landscape-results")
    assert path.name.startswith("overlap-")
    assert made.checkpoint is None
    assert made.strategy["inputs"] == ["ratios-0001", "ratios-0002"]
    assert made.settings == {"ratio_class": "ckpt1", "with_class": None, "mixed": False}
    assert made.problem == {"model": "net.py:net", "loss": "cross_entropy"}
    assert (made.data_fingerprint, made.command) == ("c0ffee", "landscape overlap r/*.h5")
    assert {"numpy", "python"} <= set(made.versions)
    assert_same(result, ResultFile(path).read(made.id))


def test_what_differs_between_the_runs_is_not_said_of_all() -> None:
    one, other = (ratios_run([0, 1], step=s, problem={"weight_decay": s, "mode": "eval"}) for s in (1, 2))
    made = made_by(combine("overlap", [one, other], Settings(mixed=True), store=False))
    assert "weight_decay" not in made.problem
    assert made.problem["mode"] == "eval"
    assert made.id == "overlap-unstored"
    assert not Path("landscape-results").exists()


def test_what_is_there_already_is_read_back_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    sources = read_sources("overlap", files(1, 2)).results
    first = combine("overlap", sources, Settings(), JointSettings(output="x.h5"))
    listener = Listener()
    with monkeypatch.context() as patched:
        patched.setattr("landscape.sam.overlap.pair_counts", None)
        again = combine("overlap", sources, Settings(), JointSettings(output="x.h5"), observer=listener)
    assert_same(first, again)
    assert "the same run is stored" in listener.notes[0]
    fresh = combine(
        "overlap", sources, Settings(), JointSettings(output="x.h5", fresh=True), observer=listener
    )
    assert len(listener.notes) == 1
    assert_same_bits(first, fresh)
    assert len(ResultFile("x.h5").runs()) == 1


def test_what_makes_it_another_run() -> None:
    one, two, three = runs(1, 2, 3)
    moved = ratios_run([0] * N, step=2)  # the same id, other masks
    given = [
        ([one, two], Settings()),
        ([one, two, three], Settings()),
        ([one, moved], Settings()),
        ([one, two], Settings(ratio_class="ckpt2")),
        ([one, two], Settings(with_class="ckpt2")),
    ]
    for results, settings in given:
        combine("overlap", results, settings, JointSettings(output="x.h5"))
    assert len(ResultFile("x.h5").runs()) == len(given)
    combine("overlap", [one, two], Settings(), JointSettings(output="x.h5"), command="again")
    assert len(ResultFile("x.h5").runs()) == len(given)


def test_a_result_joins_others_in_a_file() -> None:
    paths = files(1, 2)
    combine(
        "overlap", read_sources("overlap", paths).results, Settings(), JointSettings(output=str(paths[0]))
    )
    assert [header.kind for header in ResultFile(paths[0]).runs()] == ["ratios", "overlap"]
    assert ids(read_sources("overlap", paths).results) == ["ratios-0001", "ratios-0002"]


def test_nothing_is_stored_where_runs_do_not_fit() -> None:
    with pytest.raises(InputError, match="two saved steps"):
        combine("overlap", runs(1), Settings())
    assert not Path("landscape-results").exists()


def test_no_torch_is_needed() -> None:
    paths = files(1, 2)
    code = (
        "import sys\n"
        "from landscape.analyses.overlap import Settings\n"
        "from landscape.joint import combine, read_sources\n"
        "combine('overlap', read_sources('overlap', sys.argv[1:]).results, Settings())\n"
        "print({'torch', 'scipy', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, *map(str, paths)], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr
