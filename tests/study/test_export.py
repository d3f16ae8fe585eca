"""What is exported, read back by other means."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landscape.errors import InputError, StoreError
from landscape.results import Provenance, Result
from landscape.results.measures import readings
from landscape.store import ResultFile
from landscape.study import Runs, open_runs
from landscape.study.export import csv_text, export, json_text, npz_bytes, run_object
from tests.results.samples import density_result, eigen_result, provenance, trace_result
from tests.study.folder import put, study

NASTY = ["=1+1", "+1", "-1", "@SUM(A1)", "  =1", "\t=1", "a,b", 'say "x"', "two\nlines", "\x1b[31m", "plain"]


def stored(folder: Path, *results: Result) -> Runs:
    for i, result in enumerate(results):
        own = dataclasses.replace(result.provenance or provenance(), id=f"{result.kind}-{i}")
        ResultFile(folder / "x.h5").add(dataclasses.replace(result, provenance=own))
    return open_runs(folder / "x.h5")


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def npz(contents: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(contents), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def test_measures_as_csv_keep_every_digit(tmp_path: Path) -> None:
    runs = stored(tmp_path, eigen_result([1 / 3, 0.1], loss=2 / 3), trace_result(trace=math.pi * 1e-200))
    found = rows(csv_text(runs))
    for entry in runs:
        own = {row["measure"]: row for row in found if row["run"] == entry.header.id}
        expected = readings(entry.read())
        assert list(own) == list(expected)
        for name, reading in expected.items():
            assert float(own[name]["value"]) == reading.value
            for column, number in (("error", reading.error), ("standard_error", reading.standard_error)):
                assert own[name][column] == ("" if number is None else repr(number))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.floats(), st.booleans()), min_size=1, max_size=8))
def test_numbers_survive_csv(
    tmp_path_factory: pytest.TempPathFactory, elements: list[tuple[float, bool]]
) -> None:
    values, mask = map(list, zip(*elements, strict=True))
    array = np.ma.MaskedArray(values, mask=mask)
    runs = stored(tmp_path_factory.mktemp("csv"), eigen_result(np.ones(len(values)), standard_errors=array))
    found = rows(csv_text(runs, "standard_errors"))
    for row, value, missing in zip(found, values, mask, strict=True):
        assert row["computed"] == str(not missing)
        if missing:
            assert row["value"] == ""
        else:
            back = float(row["value"])
            assert np.float64(back).tobytes() == np.float64(value).tobytes() or (
                back != back and value != value
            )


def test_pandas_reads_the_csv_as_we_make_the_table(tmp_path: Path) -> None:
    runs = stored(tmp_path, density_result(), density_result())
    for name in ("nodes", "outliers", "layer_traces"):
        text = csv_text(runs, name)
        read = pandas.read_csv(io.StringIO(text), dtype={"layer": str})
        pandas.testing.assert_frame_equal(read, runs.pandas(name), check_dtype=False, rtol=1e-15)


@pytest.mark.parametrize("name", NASTY)
def test_text_in_csv_is_one_harmless_line(tmp_path: Path, name: str) -> None:
    put(tmp_path, f"{name}.pt", "eigen", run="eigen-a")
    (row, *_) = rows(csv_text(open_runs(tmp_path)))
    cell = row["checkpoint"]
    assert cell.isprintable()
    assert not cell.lstrip().startswith(("=", "+", "-", "@"))
    if name in ("plain", "a,b", 'say "x"'):
        assert cell == f"{name}.pt"


def test_negative_numbers_are_no_formulas(tmp_path: Path) -> None:
    (row,) = rows(csv_text(stored(tmp_path, eigen_result([-2.5])), "eigenvalues"))
    assert row["value"] == "-2.5"


def test_json_is_the_object_of_the_command_line_with_provenance(tmp_path: Path) -> None:
    runs = stored(tmp_path, eigen_result([2.0, math.nan, 1.0]), trace_result())
    found = json.loads(json_text(runs), parse_constant=pytest.fail)
    assert (found["format_version"], found["command"]) == (1, "export")
    for run, entry in zip(found["runs"], runs, strict=True):
        result = entry.read()
        printed = json.loads(json.dumps(run_object(result, entry.file)))
        assert {**printed, "provenance": run["provenance"]} == run
        assert printed["result"] == json.loads(json.dumps(result.to_json()))
        whole = {**run, **run["provenance"]}
        assert result.provenance is not None
        names = {f.name for f in dataclasses.fields(Provenance)}
        assert {name: whole[name] for name in names} == dataclasses.asdict(result.provenance)
    assert found["runs"][0]["result"]["eigenvalues"] == [2.0, None, 1.0]


def test_npz_of_one_run_holds_every_quantity(tmp_path: Path) -> None:
    result = density_result(accuracy=None)
    found = npz(npz_bytes(stored(tmp_path, result)))
    masks = set()
    for q, value in result:
        if value is None:
            assert q.name not in found
            continue
        array = found[q.name]
        expected = np.ma.asanyarray(value)
        assert array.shape == expected.shape
        if isinstance(value, np.ma.MaskedArray):
            masks.add(f"{q.name}_mask")
            np.testing.assert_array_equal(found[f"{q.name}_mask"], np.ma.getmaskarray(value))
            array, expected = array[~value.mask], value.compressed()
        assert array.dtype.kind == {"O": "U"}.get(expected.dtype.kind, expected.dtype.kind)
        np.testing.assert_array_equal(array, np.asarray(expected))
    assert set(found) == {q.name for q, value in result if value is not None} | masks | {"provenance"}
    assert np.isnan(found["nodes"][found["nodes_mask"]]).all()
    whole = json.loads(str(found["provenance"]))
    assert (whole["id"], whole["settings"]) == ("density-0", {"probes": 2})


def test_npz_of_several_runs_says_whose(tmp_path: Path) -> None:
    runs = open_runs(study(tmp_path))
    found = npz(npz_bytes(runs, ["lambda_max", "trace"]))
    assert found["eigen-sam-step9/lambda_max"] == 109.0
    assert found["trace-sgd-step10/trace"] == 20.0
    assert len(found) == 12


def test_runs_of_one_id_are_told_apart_by_their_files(tmp_path: Path) -> None:
    for folder, top in (("a", 1.0), ("b", 2.0)):
        (tmp_path / folder).mkdir()
        put(tmp_path / folder, "x.pt", "eigen", lambda_max=top)
    runs = open_runs(tmp_path / "a") + open_runs(tmp_path / "b")
    found = npz(npz_bytes(runs, ["lambda_max"]))
    assert found == {"a/x.h5/eigen-x/lambda_max": 1.0, "b/x.h5/eigen-x/lambda_max": 2.0}


def test_nothing_is_ever_pickled(tmp_path: Path) -> None:
    result = eigen_result([1.0], layers=np.array(["é", "b\0c"], dtype=object))
    contents = npz_bytes(stored(tmp_path, result))
    assert npz(contents)["layers"].tolist() == ["é", "b\0c"]
    assert b"O'" not in contents


def test_the_same_runs_give_the_same_bytes(tmp_path: Path) -> None:
    file = study(tmp_path) / "sgd-step9.h5"
    for make in (npz_bytes, json_text, csv_text):
        assert make(open_runs(file)) == make(open_runs(file))


@pytest.mark.parametrize("ending", ["csv", "json", "npz"])
def test_the_ending_says_the_format(tmp_path: Path, ending: str) -> None:
    file = study(tmp_path) / "sgd-step9.h5"
    runs = open_runs(file)
    path = tmp_path / "new" / f"all.{ending}"
    assert export(file, path) == (path,)
    contents: Any = {"csv": csv_text, "json": json_text, "npz": npz_bytes}[ending](runs)
    assert path.read_bytes() == (contents if ending == "npz" else contents.encode())
    assert export(runs, str(path), format=ending) == (path,)  # replaces what it wrote
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_quantities_chosen_by_name(tmp_path: Path) -> None:
    runs = open_runs(study(tmp_path))
    (file,) = export(runs, tmp_path / "one.csv", quantities=["eigenvalues"])
    assert {row["kind"] for row in rows(file.read_text())} == {"eigen"}
    (file,) = export(runs, tmp_path / "one.json", quantities=["eigenvalues", "trace"])
    results = [run["result"] for run in json.loads(file.read_text())["runs"]]
    assert {tuple(result) for result in results} == {("eigenvalues",), ("trace",)}
    with pytest.raises(InputError, match="near it: eigenvalues"):
        export(runs, tmp_path / "one.json", quantities=["eigenvalue"])


def test_several_quantities_are_a_folder_of_tables(tmp_path: Path) -> None:
    runs = stored(tmp_path, eigen_result(), trace_result())
    folder = tmp_path / "tables"
    assert export(runs, folder, quantities=["residuals", "layer_traces"]) == (
        folder / "residuals.csv",
        folder / "layer_traces.csv",
    )
    assert (folder / "residuals.csv").read_text() == csv_text(runs, "residuals")
    written = export(runs, folder, quantities=["all"])
    arrays = {q.name for e in runs for q, value in e.read() if np.ndim(value)}
    assert {path.stem for path in written} == arrays
    for path in (tmp_path / "x.csv", tmp_path / "x.h5"):
        with pytest.raises(InputError, match="name a folder"):
            export(runs, path, format="csv", quantities=["all"])


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("x.txt", {}, "cannot export as 'txt'"),
        ("x.csv", {"format": "json"}, "ends in .json"),
        ("x", {}, "ends in .csv"),
        ("x.csv", {"format": "hdf"}, "cannot export as 'hdf'"),
    ],
)
def test_a_name_that_does_not_fit(tmp_path: Path, name: str, options: dict[str, Any], words: str) -> None:
    runs = open_runs(study(tmp_path) / "sgd-step9.h5")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=words):
        export(runs, tmp_path / name, **options)
    assert sorted(tmp_path.iterdir()) == before


def test_a_result_file_is_never_replaced(tmp_path: Path) -> None:
    runs = open_runs(study(tmp_path))
    other = tmp_path / "results.csv"
    other.write_bytes((tmp_path / "sgd-step9.h5").read_bytes())
    link = tmp_path / "link.json"
    os.symlink(tmp_path / "sgd-step9.h5", link)
    for path in (other, link):
        with pytest.raises(StoreError, match="would be lost"):
            export(runs, path)
    assert len(ResultFile(other).runs()) == len(ResultFile(link).runs()) == 2


def test_what_cannot_be_written_is_said_and_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = open_runs(study(tmp_path) / "sgd-step9.h5")
    path = tmp_path / "x.csv"
    path.write_text("old")
    with pytest.raises(StoreError, match="a part of the path is a file"):
        export(runs, path / "y.csv")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="the disk is full"):
        export(runs, path)
    assert path.read_text() == "old"
    assert not list(tmp_path.glob(".*"))


def test_nothing_to_export(tmp_path: Path) -> None:
    for make in (csv_text, json_text, npz_bytes):
        with pytest.raises(InputError, match="no runs"):
            make(Runs(()))
    with pytest.raises(InputError, match="no runs"):
        export(Runs(()), tmp_path / "x.csv")
    with pytest.raises(StoreError, match="there are no results"):
        export(tmp_path / "none", tmp_path / "x.csv")


def test_a_result_without_provenance_has_an_object() -> None:
    found = run_object(eigen_result(provenance=None))
    assert (found["id"], found["checkpoint"], found["settings"], found["file"]) == (None, None, {}, None)
