"""Differences of measures with their errors, and which runs are held against which."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from landscape.errors import InputError, StoreError
from landscape.results.comparison import Comparison, Difference, Row
from landscape.results.measures import Reading, readings
from landscape.store import ResultFile
from landscape.study.collection import open_runs
from landscape.study.compare import compare, compared, difference
from landscape.study.sides import sides_of
from tests.plots.ratios_support import ratios_result
from tests.results.samples import provenance
from tests.support.slice_results import line_result
from tests.support.training_results import at_checkpoint, eigen_at, store, trace_at, trainings

Z = 1.959963984540054


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two checkpoints: λmax 8 and 5, each ± 0.001 and a standard error of 0.5; traces 40 and 39 ± 0.25."""
    results = [
        eigen_at("a.pt", 5, 8.0), trace_at("a.pt", 5, 40.0), eigen_at("b.pt", 7, 5.0),
        trace_at("b.pt", 7, 39.0),
    ]  # fmt: skip
    return store(tmp_path_factory.mktemp("pair"), results)


@pytest.fixture
def pair(made: list[Path], tmp_path: Path) -> list[Path]:
    """A copy of them, to be changed."""
    return [Path(shutil.copy(file, tmp_path)) for file in made]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two training runs, not to be changed."""
    place = tmp_path_factory.mktemp("trainings")
    store(place, trainings(4))
    return place


# -- the arithmetic ------------------------------------------------------------------------------------------


def test_bounds_add_up() -> None:
    found = difference(Reading(3.0, 0.5, "bound"), Reading(1.0, 0.25, "bound"))
    assert (found.value, found.bound, found.spread) == (-2.0, 0.75, 0.0)
    assert (found.error, found.differs) == (0.75, True)
    assert (found.standard_error, found.half_width, found.z, found.differs_beyond_sampling) == (None,) * 4


def test_intervals_over_random_draws_add_in_quadrature() -> None:
    found = difference(Reading(3.0, 0.3, "95 %", random=True), Reading(3.45, 0.4, "95 %", random=True))
    assert (found.bound, found.spread) == (0.0, pytest.approx(0.5))
    assert found.differs is False
    mixed = difference(Reading(3.0, 0.3, "95 %", random=True), Reading(3.45, 0.4, "bound"))
    assert (mixed.bound, mixed.spread, mixed.error) == (0.4, 0.3, pytest.approx(0.7))


def test_standard_errors_add_in_quadrature_and_the_bound_on_top() -> None:
    found = difference(Reading(0.0, 0.1, "bound", 0.3), Reading(1.5, 0.1, "bound", 0.4))
    assert found.standard_error == pytest.approx(0.5)
    assert found.half_width == pytest.approx(0.2 + Z * 0.5)
    assert found.z == pytest.approx((1.5 - 0.2) / 0.5)
    assert found.differs is True
    assert found.differs_beyond_sampling is True
    near = difference(Reading(0.0, 0.1, "bound", 0.3), Reading(-1.1, 0.1, "bound", 0.4))
    assert near.differs_beyond_sampling is False
    assert near.z == pytest.approx(-(1.1 - 0.2) / 0.5)


@pytest.mark.parametrize("value", [0.0, 0.3, 0.999, 1.001, 2.0, -5.0])
def test_the_verdict_is_that_of_z(value: float) -> None:
    """|d| > bound + √(spread² + (1.96 se)²) says the same as |z| > 1.96."""
    found = difference(Reading(0.0, 0.2, "r", 0.3, random=True), Reading(value, 0.1, "b", 0.25))
    assert found.z is not None
    assert found.differs_beyond_sampling == (abs(found.z) > Z)


def test_what_is_not_known_is_not_claimed() -> None:
    none = difference(Reading(1.0), Reading(2.0))
    assert (none.error, none.differs, none.differs_beyond_sampling, none.z) == (None,) * 4
    one = difference(Reading(1.0, 0.1, "b", 0.1), Reading(2.0, None, "", 0.1))
    assert (one.error, one.differs) == (None, None)
    assert one.differs_beyond_sampling is True  # of the sampling alone
    assert difference(Reading(1.0, 0.1, "b", 0.1), Reading(2.0, 0.1, "b")).standard_error is None
    exact = difference(Reading(1.0, 0.0, "b", 0.0), Reading(1.0, 0.0, "b", 0.0))
    assert (exact.differs, exact.z) == (False, None)


def test_a_ratio_holds_all_ratios_of_its_intervals() -> None:
    found = difference(Reading(4.0, 0.5, "b", 0.1), Reading(-2.0, 0.25, "b", 0.2))
    assert found.ratio == -0.5
    corners = [b / a for a in (3.5, 4.5) for b in (-2.25, -1.75)]
    assert found.ratio_error == pytest.approx(max(abs(c + 0.5) for c in corners))
    assert found.ratio_standard_error == pytest.approx(math.hypot(0.2, 0.5 * 0.1) / 4)
    near = difference(Reading(0.1, 0.2, "b"), Reading(1.0, 0.1, "b"))
    assert (near.ratio, near.ratio_error) == (None, None)
    assert difference(Reading(1.0), Reading(3.0)).ratio == 3.0
    assert difference(Reading(0.0), Reading(3.0)).ratio is None


def test_intervals_of_differences_hold_the_truth_as_often_as_they_say() -> None:
    """Independent normal errors of both kinds: 95 % or more."""
    draw = np.random.default_rng(0)
    hits = []
    for _ in range(4000):
        random, sampled = draw.standard_normal((2, 2)) * [[0.5, 1.0], [2.0, 0.7]]
        bound = draw.uniform(-0.3, 0.3)
        a = Reading(1.0 + random[0] + sampled[0], Z * 0.5, "r", 2.0, random=True)
        b = Reading(4.0 + random[1] + sampled[1] + bound, Z * 1.0, "r", 0.7, random=True)
        found = difference(a, b)
        wide = dataclasses.replace(found, bound=0.3)
        assert wide.half_width is not None
        hits.append(abs(wide.value - 3.0) <= wide.half_width)
    assert 0.945 < np.mean(hits) < 0.99


# -- which runs ----------------------------------------------------------------------------------------------


def test_two_checkpoints(pair: list[Path]) -> None:
    found = compare(*pair)
    assert [column.name for column in found.columns] == ["a", "b"]
    assert found.over == ""
    row = found.row("lambda_max")
    assert row == found.row("eigen.lambda_max")
    (one,) = row.differences
    assert one is not None
    assert one.value == -3.0
    assert one.bound == pytest.approx(0.002)
    assert one.standard_error == pytest.approx(math.hypot(0.5, 0.5))
    assert [run.id.partition("-")[0] for run in found.columns[0].runs] == ["eigen", "trace"]
    (trace,) = found.row("trace").differences
    assert trace is not None
    assert (trace.value, trace.spread) == (-1.0, pytest.approx(math.hypot(0.25, 0.25)))
    assert found.differing == ()
    assert any("same examples" in note for note in found.notes)
    with pytest.raises(KeyError):
        found.row("nothing")


def test_what_is_of_the_problem_is_there_once(pair: list[Path]) -> None:
    names = [row.measure for row in compare(*pair)]
    assert len(names) == len(set(names))
    assert {"loss", "accuracy", "gradient_norm"} <= set(names)


def test_the_loss_is_taken_where_its_error_is_known(tmp_path: Path) -> None:
    results = [eigen_at("a.pt", 1, 8.0), eigen_at("b.pt", 1, 5.0)]
    slices = [at_checkpoint(line_result(), name, 1, run=f"slice-{name}") for name in ("a.pt", "b.pt")]
    found = compare(*store(tmp_path, [*results, *slices]))
    assert [row.kind for row in found if row.measure == "loss"] == ["slice"]
    assert [row.kind for row in found if row.measure == "accuracy"] == ["eigen"]


def test_kinds_and_measures_are_chosen(pair: list[Path]) -> None:
    assert {row.kind for row in compare(*pair, kind="trace")} == {"trace"}
    found = compare(*pair, kind=["eigen", "trace"], measure=["lambda_max", "trace.trace"])
    assert [(row.kind, row.measure) for row in found] == [("eigen", "lambda_max"), ("trace", "trace")]


def test_empty_classes_are_left_out(tmp_path: Path) -> None:
    results = [at_checkpoint(ratios_result(), f"{n}.pt", 1) for n in "ab"]
    names = [row.measure for row in compare(*store(tmp_path, results))]
    assert "ckpt1" in names
    assert "nonfinite" not in names
    chosen = [dataclasses.replace(r, fractions=np.zeros(10)) for r in results]
    (tmp_path / "x").mkdir()
    assert "ckpt1" not in [row.measure for row in compare(*store(tmp_path / "x", chosen))]


def test_a_folder_is_its_training_runs(folder: Path) -> None:
    found = compare(folder)
    assert (found.over, [column.name for column in found.columns]) == ("step", ["sam", "sgd"])
    rows = [row for row in found if row.measure == "lambda_max"]
    assert [row.at for row in rows] == [0, 10, 20, 30]
    values = [row.differences[0].value for row in rows if row.differences[0] is not None]
    np.testing.assert_allclose(values, [4, 4.5, 5, 5.5])
    assert {row.measure for row in found} == {"lambda_max", "trace"}  # the main ones
    assert found.row("lambda_max", 20).differences[0] == rows[2].differences[0]
    assert [run.at for run in found.columns[0].runs if run.kind == "eigen"] == [0, 10, 20, 30]


def test_files_of_two_training_runs_are_told_apart_by_their_names(folder: Path) -> None:
    files = sorted(folder.glob("*.h5"))
    assert compare(*files).to_json() == compare(folder).to_json()
    one = compare(*[file for file in files if "epoch000" in file.name])
    assert [column.name for column in one.columns] == ["sam-epoch000", "sgd-epoch000"]
    three = compare(*[file for file in files if "sgd" in file.name][:3])
    assert [len(row.differences) for row in three] == [2] * len(three.rows)


def test_a_pattern_and_stored_runs(folder: Path) -> None:
    pattern = compare(str(folder / "sgd-*.h5"), str(folder / "sam-*.h5"))
    assert [column.name for column in pattern.columns] == ["sgd", "sam"]
    runs = open_runs(folder)
    sgd = runs.where(training="sgd")
    sam = runs.where(training="sam")
    assert compare(sgd, sam).to_json() == pattern.to_json()


def test_folders_of_the_same_names(tmp_path: Path) -> None:
    for name, largest in (("first", 8.0), ("second", 4.0)):
        (tmp_path / name).mkdir()
        results = [eigen_at(f"net-epoch{k}.pt", k, largest + k, content=name) for k in range(3)]
        store(tmp_path / name, results)
    found = compare(tmp_path / "first", tmp_path / "second")
    assert [column.name for column in found.columns] == ["first/net", "second/net"]
    assert [row.differences[0].value for row in found if row.differences[0]] == [-4.0] * 3


def test_results_in_memory_and_single_stored_runs(pair: list[Path]) -> None:
    results = [eigen_at("a.pt", 5, 8.0), eigen_at("b.pt", 7, 5.0)]
    found = compare(*results)
    assert [row.differences for row in found] == [row.differences for row in compare(*pair, kind="eigen")]
    stored = [next(e for e in open_runs(file) if e.header.kind == "eigen") for file in pair]
    assert compare(*stored).to_json() == compare(*pair, kind="eigen").to_json()
    with pytest.raises(InputError, match="does not say what it is of"):
        compare(results[0], dataclasses.replace(results[1], provenance=None))


def test_runs_of_one_file_by_their_ids(pair: list[Path]) -> None:
    ResultFile(pair[0]).add(eigen_at("a.pt", 5, 7.5, run="eigen-other", settings={"which": "both"}))
    first = next(
        e.header.id for e in open_runs(pair[0]) if e.header.kind == "eigen" and "other" not in e.header.id
    )
    found = compare(f"{pair[0]}#{first}", f"{pair[0]}#eigen-other")
    assert [column.name for column in found.columns] == [f"a#{first}", "a#eigen-other"]
    (one,) = found.row("lambda_max").differences
    assert one is not None
    assert one.value == -0.5


def test_a_hash_in_a_file_name(tmp_path: Path) -> None:
    (tmp_path / "run#1").mkdir()
    files = store(tmp_path / "run#1", [eigen_at("a.pt", 1, 8.0), eigen_at("b.pt", 1, 8.0)])
    assert compare(*files).row("lambda_max").differences[0] is not None


def test_the_same_question_is_put_to_both_sides(pair: list[Path]) -> None:
    """A later run with other settings on one side alone is passed over."""
    later = eigen_at(
        "a.pt", 5, 99.0, run="eigen-late", settings={"which": "both"}, started="2027-01-01T00:00:00+00:00"
    )
    ResultFile(pair[0]).add(later)
    found = compare(*pair)
    assert found.row("lambda_max").readings[0] == Reading(8.0, 0.001, "residual and noise floor", 0.5)
    assert any("1 run with other settings" in note for note in found.notes)


def test_the_latest_of_each_checkpoint(pair: list[Path]) -> None:
    again = eigen_at("a.pt", 5, 7.0, run="eigen-late", started="2027-01-01T00:00:00+00:00")
    ResultFile(pair[0]).add(again)
    (one,) = compare(*pair).row("lambda_max").differences
    assert one is not None
    assert one.value == -2.0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data_fingerprint": "other"}, "data = c0ffee / other"),
        ({"settings": {"operator": "fisher"}}, "operator = None / fisher"),
        ({"problem": {"loss": "mse", "parameters": 2410}}, "loss = cross_entropy / mse"),
    ],
)
def test_other_questions_are_refused_or_said(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    files = store(tmp_path, [eigen_at("a.pt", 1, 8.0), eigen_at("b.pt", 1, 5.0, **changes)])
    with pytest.raises(InputError, match=r"(?s)not measured alike.*--mixed") as caught:
        compare(*files)
    assert words in str(caught.value)
    found = compare(*files, mixed=True)
    assert any(words in text for text in found.differing)
    assert any("same examples" in note for note in found.notes) == (words[:4] != "data")


def test_other_sizes_are_refused(tmp_path: Path) -> None:
    small = dataclasses.replace(eigen_at("b.pt", 1, 5.0), parameters=9)
    with pytest.raises(InputError, match="parameters = 2410 / 9"):
        compare(*store(tmp_path, [eigen_at("a.pt", 1, 8.0), small]))


def test_other_precision_is_no_other_question(tmp_path: Path) -> None:
    results = [
        eigen_at("a.pt", 1, 8.0, settings={"tol": 1e-3, "k": 5}),
        eigen_at("b.pt", 1, 5.0, settings={"tol": 1e-6, "k": 3}),
    ]
    assert compare(*store(tmp_path, results)).differing == ("eigen: k = 5 / 3",)


def test_steps_without_a_counterpart_are_counted(tmp_path: Path) -> None:
    results = [r for r in trainings(4) if r.kind == "eigen"][:7]
    store(tmp_path, results)
    found = compare(tmp_path)
    assert [row.at for row in found if row.measure == "lambda_max"] == [0, 10, 20]
    assert "sgd: 1 run without a counterpart" in found.notes


def test_two_checkpoints_of_one_step_are_not_both_compared(tmp_path: Path) -> None:
    steps = {"a1.pt": 10, "a2.pt": 20, "a3.pt": 20, "b1.pt": 10, "b2.pt": 20}
    for name, step in steps.items():
        store(tmp_path / name[0], [eigen_at(name, step, 4.0)])
    found = compare(tmp_path / "a", tmp_path / "b", measure="lambda_max")
    assert [row.at for row in found] == [10, 20]
    assert "a: 1 run without a counterpart" in found.notes
    assert not any(note.startswith("b:") for note in found.notes)


@pytest.mark.parametrize(
    ("step", "epoch", "over"), [(True, None, "step"), (False, 1, "epoch"), (False, None, "number")]
)
def test_training_runs_are_matched_by_what_matches(
    tmp_path: Path, step: bool, epoch: int | None, over: str
) -> None:
    """Steps that no two have in common are no match."""
    results = [
        eigen_at(f"{n}-{k}.pt", k * 10 if step else k * 10 + i + 1, 8.0, epoch=None if epoch is None else k)
        for i, n in enumerate(("a", "b"))
        for k in range(3)
    ]
    store(tmp_path, results)
    assert compare(tmp_path).over == over


def test_nothing_to_match(tmp_path: Path) -> None:
    results = [
        eigen_at(f"{n}-{k + 10 * i}.pt", k + 10 * i, 8.0) for i, n in enumerate("ab") for k in range(2)
    ]
    store(tmp_path, results)
    with pytest.raises(InputError, match="counterpart"):
        compare(tmp_path)


def test_results_come_with_the_comparison_in_training_order(folder: Path) -> None:
    found = compared([folder])
    assert list(found.results) == ["sam", "sgd"]
    assert [readings(r)["lambda_max"].value for r in found.results["sgd"]["eigen"]] == [8, 9, 10, 11]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: [f[0]], "two checkpoints or two training runs"),
        (lambda f: [f[0], f[0].with_name("none.h5")], "no results at"),
        (lambda f: [f"{f[0]}#sharpness", f[1]], "(?s)whose id begins with 'sharpness'"),
        (
            lambda f: [f"{f[0]}#eigen", f"{f[1]}#trace"],
            "(?s)no kind of result that all sides have.*a: eigen; b: trace",
        ),
        (lambda f: [f[0].parent / "nothing-*.h5", f[1]], "holds nothing to compare"),
    ],
)
def test_what_cannot_be_compared(
    pair: list[Path], make: Callable[[list[Path]], list[str | Path]], message: str
) -> None:
    with pytest.raises((InputError, StoreError), match=message):
        compare(*make(pair))


def test_kinds_and_measures_that_there_are_not(pair: list[Path]) -> None:
    with pytest.raises(InputError, match=r"(?s)kind 'overlap'.*eigen"):
        compare(*pair, kind="overlap")
    with pytest.raises(InputError, match="nothing to compare"):
        compare(*pair, measure="nothing")
    with pytest.raises(StoreError, match=r"(?s)nothing to compare.*found: .*eigen"):
        compare(*pair, kind="density")


def test_failed_runs_are_not_compared(tmp_path: Path) -> None:
    failed = dataclasses.replace(eigen_at("a.pt", 1, 8.0), status="failed")
    with pytest.raises(StoreError, match=r"(?s)nothing to compare.*eigen that failed"):
        compare(*store(tmp_path, [failed, eigen_at("b.pt", 1, 8.0)]))


def test_weights_without_a_checkpoint_are_named_by_their_runs(tmp_path: Path) -> None:
    files = []
    for name in ("one", "two"):
        result = dataclasses.replace(
            eigen_at("a.pt", 1, 8.0), provenance=provenance(f"eigen-{name}", checkpoint=None, subject=name)
        )
        files.append(tmp_path / f"{name}.h5")
        ResultFile(files[-1]).add(result)
    sides, training = sides_of(files)
    assert ([side.name for side in sides], training) == (["eigen-one", "eigen-two"], False)


# -- several tests at once -----------------------------------------------------------------------------------


def test_so_many_tests_have_a_higher_threshold() -> None:
    rows = _rows([5.0, 2.5, 0.1, 3.0])
    found = Comparison((), rows, "")
    assert found.tests == 4
    assert found.threshold == pytest.approx(2.4977, abs=1e-4)  # Φ⁻¹(1 − 0.05/8)
    assert (found.marked, found.remaining) == (3, 3)
    assert Comparison((), _rows([2.3, 0.1, 0.1, 0.1]), "").remaining == 0
    assert Comparison((), (), "").tests == 0


def _rows(z: list[float]) -> tuple[Row, ...]:
    """Rows of differences that are so many standard errors."""
    return tuple(
        Row("eigen", f"m{i}", "", "", None, (None, None), (Difference(one, 0.0, 0.0, 1.0),))
        for i, one in enumerate(z)
    )


def test_json_has_everything_and_no_nan(pair: list[Path]) -> None:
    found = compare(*pair)
    text = json.dumps(found.to_json(), allow_nan=False)
    read = json.loads(text)
    assert [column["name"] for column in read["columns"]] == ["a", "b"]
    row = next(row for row in read["rows"] if row["measure"] == "lambda_max")
    assert row["differences"][0]["differs_beyond_sampling"] is True
    assert row["readings"][0]["standard_error"] == 0.5
    assert read["multiple"]["tests"] == found.tests
    assert repr(found) == f"<Comparison of a, b: {len(found.rows)} rows>"
