from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from landscape.errors import InputError, StoreError
from landscape.reports.contents import gathered
from landscape.reports.drawing import drawn_views, spoken
from landscape.reports.overview import head_line, summary
from landscape.reports.tables import brief, measures, quantities, shown
from landscape.reports.words import guide
from landscape.results import STATUSES, CheckpointReference, Result, kinds
from landscape.results.measures import Reading
from landscape.study import Runs
from tests.reports.support import Kept, runs_of, study
from tests.reports.test_markup import Reader
from tests.results.samples import eigen_result, provenance, trace_result


def test_runs_are_grouped_by_checkpoint_in_their_order() -> None:
    contents = gathered(study(4))
    names = [checkpoint.name for checkpoint in contents.checkpoints]
    assert names == [f"net-{t}-epoch00{e}.pt" for t in ("sgd", "sam") for e in (1, 2)]
    assert [[e.result.kind for e in c.entries] for c in contents.checkpoints] == [
        ["eigen", "trace", "ratios"]
    ] * 4
    assert contents.trainings == ("net-sgd", "net-sam")
    assert contents.last == {contents.checkpoints[1].anchor, contents.checkpoints[3].anchor}
    assert contents.checkpoints[1].at == "step 20, epoch 2"
    anchors = [entry.anchor for entry in contents.entries]
    assert len(set(anchors)) == 12


def test_comparable_runs_are_the_latest_of_the_most_frequent_question() -> None:
    runs = study(4)
    first = runs[0].read()
    assert first.provenance is not None
    again = dataclasses.replace(first.provenance, id="eigen-later", started="2031-01-01T00:00:00+00:00")
    other = dataclasses.replace(first.provenance, id="eigen-other", settings={"k": 7})
    more = runs_of(dataclasses.replace(first, provenance=again), dataclasses.replace(first, provenance=other))
    series = gathered(Runs((*runs, *more))).series["eigen"]
    assert [run.provenance.id for run in series.runs].count("eigen-later") == 1
    assert len(series.runs) == 4
    assert len(series.left_out) == 2


def test_a_run_that_cannot_be_read_is_listed_and_the_others_are_there() -> None:
    class Broken(Kept):
        def read(self) -> Result:
            raise StoreError("it is torn")

    good = study(2)
    bad = Broken(Path("torn.h5"), good[0].header, good[0].read())
    contents = gathered(Runs((bad, *good[1:]), ("gone.h5: it is no result file",)))
    assert len(contents.entries) == len(good) - 1
    assert contents.unreadable == (
        "gone.h5: it is no result file",
        f"run {bad.header.id} in torn.h5: it is torn",
    )
    with pytest.raises(InputError, match="no runs"):
        gathered(Runs((bad,)))


def test_runs_without_a_checkpoint_have_a_place_of_their_own() -> None:
    loose = eigen_result(provenance=provenance("eigen-loose", checkpoint=None))
    contents = gathered(Runs((*study(2), *runs_of(loose))))
    assert contents.checkpoints[-1].name == "Not of one checkpoint"
    assert contents.checkpoints[-1].anchor in contents.last
    assert contents.trainings == ("net-sgd", "net-sam")


def test_checkpoints_named_by_a_number_alone_are_checkpoints() -> None:
    made = [
        provenance(f"eigen-{n}", checkpoint=CheckpointReference(path=f"runs/epoch{n}.pt", sha256=f"{n:064}"))
        for n in (1, 2)
    ]
    contents = gathered(runs_of(*(eigen_result(provenance=one) for one in made)))
    assert [checkpoint.name for checkpoint in contents.saved] == ["epoch1.pt", "epoch2.pt"]
    assert contents.trainings == ("",)
    assert contents.last == {contents.checkpoints[1].anchor}
    rows = [name for name, _ in Reader(summary(contents)).elements].count("tr")
    assert rows == 2 + 2
    assert head_line(contents).startswith("2 runs · 2 checkpoints · 1 training run")


def test_what_was_measured_on_few_checkpoints_has_no_column() -> None:
    runs = [*study(10, kinds=["eigen"]), *study(2, kinds=["trace"], trainings=["net-sgd"])]
    assert "Trace" not in summary(gathered(Runs(tuple(runs))))
    assert "Trace" in summary(gathered(Runs(tuple(runs[:8] + runs[10:]))))  # two of eight


def test_what_could_not_be_computed_is_no_number_to_sort_by() -> None:
    contents = gathered(runs_of(trace_result(trace=float("nan"), status="partial", accuracy=None)))
    assert "nan" not in summary(contents)


def test_numbers_are_shown_with_their_errors() -> None:
    assert shown(Reading(-12.3456, 0.0021)) == "−12.3456 ± 0.0021"
    assert shown(Reading(0.123456789), 6) == "0.123457"
    assert brief(Reading(2.0, 1e-15)) == "2.0000000 ± 0.0000020"


def test_measures_say_what_their_errors_are() -> None:
    read = Reader(measures(eigen_result()))
    assert "9.5000 ± 0.0011" in read.text
    assert "residual and noise floor" in read.text
    assert "0.48 over the data" in read.text  # 0.05 of 9.5
    assert "loss / weight²" in read.text


def test_every_short_quantity_is_in_the_tables() -> None:
    result = eigen_result()
    read = Reader(quantities(result))
    single = [q for q, v in result if v is not None and not isinstance(v, np.ndarray) and q.name != "status"]
    for quantity in single:
        assert quantity.name in read.text
        assert quantity.text in read.text
    for i, value in enumerate(result.eigenvalues):
        assert f"{value:g}".replace("-", "−") in read.text
        assert ("yes" if result.converged[i] else "no") in read.text
    assert "not computed" in read.text  # the third standard error
    assert "12 in [11.75, 12.25]" in Reader(quantities(trace_result())).text
    heads = [attributes.get("title") for name, attributes in read.elements if name == "abbr"]
    assert any(title is not None and "algebraically descending" in title for title in heads)


def test_long_arrays_are_left_to_the_pictures() -> None:
    assert "residual_history" in quantities(eigen_result())
    long = eigen_result(residual_history=np.full(25, 0.5))
    assert "residual_history" not in quantities(long)


def test_what_is_said_of_a_run_begins_with_its_first_measures() -> None:
    assert spoken(eigen_result()).startswith("λmax 9.5000 ± 0.0011, λmin (seen) −0.25")


def test_every_kind_status_and_picture_is_explained() -> None:
    assert set(guide().statuses) == set(STATUSES)
    for kind in kinds():
        words = guide().kinds[kind]
        assert words.what, kind
        assert words.cautions, kind
        assert all(text and "\n" not in text for text in (words.read, *words.cautions))


def test_pictures_have_words_and_none_contains_another() -> None:
    for result in study(2).results():
        for view in drawn_views(result):
            assert guide().of(result.kind).views[view]
    assert "layers" not in drawn_views(
        eigen_result(
            layers=np.array(["0"], dtype=object),
            layer_parameters=np.array([30]),
            layer_eigenvalues=np.array([[9.0]]),
            layer_intervals=np.array([[[8.9, 9.1]]]),
            layer_converged=np.array([[True]]),
        )
    )
