"""Tidy tables and datasets of stored runs, held against the results themselves."""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import xarray

from landscape.errors import InputError
from landscape.results import CheckpointReference, Result
from landscape.results.measures import measures_of, readings
from landscape.store import ResultFile
from landscape.study import Runs, open_runs
from landscape.study.tables import measures_table, quantity_table
from tests.plots.test_reweight import result as reweight_result
from tests.results.samples import density_result, eigen_result, provenance, trace_result
from tests.study.folder import study
from tests.support.slice_results import line_result, plane_result


def stored(folder: Path, *results: Result) -> Runs:
    """The results as runs on the checkpoints net-0.pt, net-1.pt, … at the steps 0, 10, …, a file of each."""
    for i, result in enumerate(results):
        reference = CheckpointReference(path=f"net-{i}.pt", sha256=f"{i:064x}", step=10 * i)
        own = provenance(f"{result.kind}-{i}", checkpoint=reference)
        ResultFile(folder / f"net-{i}.h5").add(dataclasses.replace(result, provenance=own))
    return open_runs(folder)


def test_measures_are_those_of_the_results(tmp_path: Path) -> None:
    runs = open_runs(study(tmp_path))
    table = measures_table(runs)
    expected = []
    for entry in runs:
        for name, reading in readings(entry.read()).items():
            expected.append((entry.header.id, name, reading.value, reading.error, reading.standard_error))
    columns = ("run", "measure", "value", "error", "standard_error")
    assert list(zip(*map(table.column, columns), strict=True)) == expected
    units = {measure.name: measure.unit for measure in measures_of("eigen")}
    for row in table.dicts():
        assert (row["error_meaning"] is None) == (row["error"] is None)
        if row["kind"] == "eigen":
            assert row["unit"] == units[row["measure"]]
        assert row["run"] == f"{row['kind']}-{row['training']}-step{row['step']}"


def test_units_of_second_moments_are_squared(tmp_path: Path) -> None:
    table = measures_table(stored(tmp_path, eigen_result(operator="fisher"), eigen_result()))
    units = [row["unit"] for row in table.dicts() if row["measure"] == "lambda_max"]
    assert units == ["loss² / weight²", "loss / weight²"]


def test_a_frame_of_measures_is_tidy(tmp_path: Path) -> None:
    frame = open_runs(study(tmp_path)).pandas()
    wide = frame.pivot(index=["training", "step"], columns=["kind", "measure"], values="value")
    assert wide.loc[("sam", 9), ("eigen", "lambda_max")] == 109.0
    assert wide.loc[("sgd", 10), ("trace", "trace")] == 20.0
    assert frame.dtypes[["value", "error", "standard_error"]].tolist() == [np.float64] * 3
    assert frame["step"].dtype == np.int64
    assert frame["epoch"].isna().all()


def test_steps_that_are_missing_stay_whole_numbers(tmp_path: Path) -> None:
    stored(tmp_path, eigen_result())
    ResultFile(tmp_path / "joint.h5").add(trace_result(provenance=provenance("joint", checkpoint=None)))
    steps = open_runs(tmp_path).pandas()["step"]
    assert steps.dtype == pandas.Int64Dtype()
    assert set(steps.dropna()) == {0}
    assert steps.isna().any()


def test_elements_of_an_array_with_their_errors(tmp_path: Path) -> None:
    result = eigen_result([9.5, 4.0, 0.5, math.nan])
    frame = stored(tmp_path, result, eigen_result([1.0])).pandas("eigenvalues")
    assert frame["pair"].tolist() == [0, 1, 2, 3, 0]
    first = frame[frame["run"] == "eigen-0"]
    np.testing.assert_array_equal(first["value"], result.eigenvalues)
    np.testing.assert_array_equal(first[["low", "high"]], result.intervals)
    np.testing.assert_array_equal(first["standard_error"], result.standard_errors.filled(np.nan))
    assert frame["computed"].all()  # the NaN came out as one
    assert set(frame["unit"]) == {"loss / weight²"}
    assert "holds an eigenvalue" in first["error_meaning"].iloc[0]


def test_what_was_not_computed_is_told_from_nan(tmp_path: Path) -> None:
    values = np.ma.MaskedArray([0.1, np.nan, 0.3, 0.4], mask=[False, False, True, False])
    frame = stored(tmp_path, eigen_result(standard_errors=values)).pandas("standard_errors")
    assert frame["value"].isna().tolist() == [False, True, True, False]
    assert frame["computed"].tolist() == [True, True, False, True]


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (np.ma.MaskedArray([1, 2, 3, 4], mask=[0, 1, 0, 0]), "Int64"),
        (np.array([1, 2, 3, 4]), "int64"),
        (np.ma.MaskedArray([True, False, True, True], mask=[0, 1, 0, 0]), "boolean"),
        (np.array([True, False, True, True]), "bool"),
        (np.array(["a", "b", "c", "d"], dtype=object), "object"),
        (np.ma.MaskedArray([1.5, 2, 3, 4], mask=True), "float64"),
    ],
)
def test_types_of_values(tmp_path: Path, values: np.ndarray, dtype: str) -> None:
    frame = stored(tmp_path, eigen_result(converged=values)).pandas("converged")
    assert str(frame["value"].dtype) == dtype
    plain: list[Any] = [None if missing is pandas.NA else missing for missing in frame["value"]]
    if dtype != "float64":
        assert plain == values.tolist()
    assert frame["computed"].tolist() == (~np.ma.getmaskarray(values)).tolist()


def test_places_are_called_by_their_names_or_coordinates(tmp_path: Path) -> None:
    line = line_result()
    runs = stored(tmp_path, trace_result(), line, plane_result(x=[0.0, 0.5], y=[0.25, 1.0, 2.0]))
    layers = runs.pandas("layer_traces")
    assert layers[["layer", "value", "low", "high"]].to_numpy().tolist() == [
        ["0", 10.0, 9.5, 10.5],
        ["2", 2.0, 1.9, 2.1],
    ]
    ends = runs.pandas("layer_intervals")
    assert ends[["layer", "end", "value"]].to_numpy().tolist()[:2] == [["0", "low", 9.5], ["0", "high", 10.5]]
    loss = runs.pandas("loss")
    scalar, along, plane = (
        loss[loss["run"] == f"{kind}-{i}"] for i, kind in enumerate(("trace", "slice", "slice"))
    )
    assert scalar[["value", "x", "y"]].isna().to_numpy().tolist() == [[False, True, True]]
    np.testing.assert_array_equal(along["x"], line.x)
    np.testing.assert_array_equal(along["standard_error"], line.standard_errors)
    assert plane[["x", "y"]].to_numpy().tolist() == [[x, y] for x in (0.0, 0.5) for y in (0.25, 1.0, 2.0)]


def test_a_relative_error_of_all_elements_says_that_it_is_one(tmp_path: Path) -> None:
    frame = stored(tmp_path, reweight_result(rounding=0.125)).pandas("weight")
    assert set(frame["error"]) == {0.125}
    assert "relative error" in frame["error_meaning"].iloc[0]


def test_a_quantity_that_no_run_has(tmp_path: Path) -> None:
    runs = stored(tmp_path, eigen_result())
    with pytest.raises(InputError, match=r"(?s)'eigenvalue'.*near it: eigenvalues"):
        runs.pandas("eigenvalue")
    with pytest.raises(InputError, match="'trace'"):
        quantity_table(runs, "trace")
    with pytest.raises(InputError, match="'x'"):
        quantity_table(Runs(()), "x")
    assert len(runs.pandas("history")) == 0  # its kind has it, this run does not


@pytest.mark.parametrize("package", ["pandas", "xarray"])
def test_without_the_extra(tmp_path: Path, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = stored(tmp_path, eigen_result())
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"(?s){package}.*pip install 'landscape-diagnostics\[tables\]'"):
        getattr(runs, package)()


def test_a_dataset_holds_every_quantity_along_the_checkpoints(tmp_path: Path) -> None:
    results = [density_result(trace=float(i)) for i in range(3)]
    data = stored(tmp_path, *results).xarray()
    assert isinstance(data, xarray.Dataset)
    assert data.checkpoint.values.tolist() == ["net-0.pt", "net-1.pt", "net-2.pt"]
    assert data.run.values.tolist() == ["density-0", "density-1", "density-2"]
    assert data.step.values.tolist() == [0, 10, 20]
    assert np.isnan(data.epoch.values).all()
    assert data.attrs["kind"] == "density"
    for i, result in enumerate(results):
        for q, value in result:
            if value is None:
                assert q.name not in data
                continue
            found = data[q.name].isel(checkpoint=i) if "checkpoint" in data[q.name].dims else data[q.name]
            assert found.dims == q.dims
            assert (found.attrs["long_name"], found.attrs["units"]) == (q.text, q.unit)
            mask = np.ma.getmaskarray(np.ma.asanyarray(value))
            expected = np.asarray(np.ma.getdata(value))
            np.testing.assert_array_equal(found.values[~mask], expected[~mask], q.name)
            if mask.any():
                assert np.isnan(found.values[mask]).all()
                missing = data[f"{q.name}_not_computed"].isel(checkpoint=i).values
                np.testing.assert_array_equal(missing, mask)
    assert data.layers.dims == ("layer",)  # the same in all runs
    np.testing.assert_array_equal(data.sel(checkpoint="net-1.pt").trace, 1.0)


def test_shorter_arrays_are_padded(tmp_path: Path) -> None:
    layers = {"layers": np.array(["a", "b", "c"], dtype=object), "layer_traces": np.arange(3.0)}
    runs = stored(
        tmp_path,
        trace_result(**layers, layer_parameters=None, layer_intervals=None),
        trace_result(accuracy=None),
    )
    data = runs.xarray("trace")
    assert data.sizes["layer"] == 3
    np.testing.assert_array_equal(data.layer_traces, [[0, 1, 2], [10, 2, np.nan]])
    np.testing.assert_array_equal(data.layer_traces_not_computed, [[0, 0, 0], [0, 0, 1]])
    np.testing.assert_array_equal(data.layer_parameters, [[np.nan] * 3, [2000, 410, np.nan]])
    assert data.layers.values.tolist() == [["a", "b", "c"], ["0", "2", ""]]
    np.testing.assert_array_equal(data.accuracy, [0.9, np.nan])


def test_a_dataset_goes_into_a_file_and_back(tmp_path: Path) -> None:
    data = stored(tmp_path, density_result(), density_result(accuracy=None)).xarray()
    data.to_netcdf(tmp_path / "all.nc", engine="h5netcdf")
    with xarray.open_dataset(tmp_path / "all.nc", engine="h5netcdf") as found:
        xarray.testing.assert_equal(found.load(), data)


def test_coordinates_that_differ_stay_values(tmp_path: Path) -> None:
    same = stored(tmp_path, line_result(), line_result()).xarray()
    assert same.loss.dims == ("checkpoint", "x")
    np.testing.assert_array_equal(same.x, line_result().x)
    other = stored(tmp_path, line_result(), line_result(x=[0.0, 1.0])).xarray()
    np.testing.assert_array_equal(other.x_values[1, :3], [0.0, 1.0, np.nan])
    with pytest.raises(InputError, match=r"\(x\) and along \(x, y\)"):
        stored(tmp_path, line_result(), plane_result()).xarray()


def test_a_dataset_of_no_kind_or_several(tmp_path: Path) -> None:
    runs = open_runs(study(tmp_path))
    with pytest.raises(InputError, match="one kind"):
        runs.xarray()
    with pytest.raises(InputError, match="'slice'"):
        runs.xarray("slice")
    with pytest.raises(InputError, match="found: no runs"):
        runs[:0].xarray()
    assert runs.where(training="sam").xarray("eigen").lambda_max.values.tolist() == [100.0, 109.0, 110.0]
