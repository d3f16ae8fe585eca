"""What goes into a result file comes out of it, also for readers that know nothing of landscape."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from landscape.errors import StoreError
from landscape.results import EigenResult, Result, kinds
from landscape.store import ResultFile
from tests.results.samples import (
    OTHER_METHODS,
    assert_same,
    density_result,
    eigen_result,
    provenance,
    trace_result,
)

RELEASED = Path(__file__).parent / "released"
ANY_TEXT = st.text(st.characters(), max_size=30)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.dictionaries(
    ANY_TEXT,
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | ANY_TEXT,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
        max_leaves=5,
    ),
    max_size=4,
)


@st.composite
def results(draw: st.DrawFn) -> EigenResult:
    k = draw(st.integers(0, 6))

    def array(*shape: int, dtype: Any = np.float64) -> Any:
        return draw(hnp.arrays(dtype, shape))

    def masked(*shape: int) -> Any:
        return np.ma.MaskedArray(array(*shape), mask=array(*shape, dtype=bool))

    return eigen_result(
        eigenvalues=array(k),
        residuals=array(k, dtype=draw(st.sampled_from([np.float32, np.float64]))),
        intervals=array(k, 2),
        refined_intervals=masked(k, 2),
        standard_errors=masked(k),
        converged=array(k, dtype=bool),
        residual_history=array(draw(st.integers(0, 9))),
        loss=draw(st.floats()),
        accuracy=draw(st.none() | st.floats()),
        products=draw(st.integers(-(2**63), 2**63 - 1)),
        lambda_max=draw(st.floats()),
        lambda_min=draw(st.floats()),
        standard_error_method=draw(ANY_TEXT),
        eigenvectors_file=draw(st.none() | ANY_TEXT),
        provenance=provenance(
            command=draw(ANY_TEXT),
            settings=draw(JSON),
            strategy=draw(JSON),
            checkpoint=draw(st.sampled_from([None, provenance().checkpoint])),
            seed=draw(st.integers(0, 2**64 - 1)),
            seed_given=draw(st.booleans()),
            seconds=draw(FINITE),
        ),
    )


@st.composite
def traces(draw: st.DrawFn) -> Result:
    layers, looks = draw(st.integers(0, 4)), draw(st.integers(0, 4))

    def array(*shape: int) -> Any:
        return draw(hnp.arrays(np.float64, shape))

    by_layer = {
        "layers": np.array(draw(st.lists(ANY_TEXT, min_size=layers, max_size=layers)), dtype=object),
        "layer_parameters": draw(hnp.arrays(np.int64, layers)),
        "layer_traces": array(layers),
        "layer_intervals": array(layers, 2),
    }
    return trace_result(
        trace=draw(st.floats()),
        interval=array(2),
        half_width=draw(st.floats()),
        interval_reason=draw(ANY_TEXT),
        frobenius_interval=array(2),
        look_products=array(looks),
        look_traces=array(looks),
        look_half_widths=array(looks),
        diagonal_file=draw(st.none() | ANY_TEXT),
        **(by_layer if draw(st.booleans()) else dict.fromkeys(by_layer)),
        provenance=provenance("trace-1", settings=draw(JSON)),
    )


@st.composite
def densities(draw: st.DrawFn) -> Result:
    probes, nodes, outliers = (draw(st.integers(0, 4)) for _ in range(3))

    def masked(*shape: int, dtype: Any = np.float64) -> Any:
        return np.ma.MaskedArray(draw(hnp.arrays(dtype, shape)), mask=draw(hnp.arrays(bool, shape)))

    def array(*shape: int) -> Any:
        return draw(hnp.arrays(np.float64, shape))

    layers = draw(st.integers(0, 2))
    by_layer = {
        "layers": np.array(draw(st.lists(ANY_TEXT, min_size=layers, max_size=layers)), dtype=object),
        "layer_parameters": draw(hnp.arrays(np.int64, layers)),
        **{name: array(layers) for name in ("layer_traces", "layer_trace_errors")},
        **{name: array(layers, 2) for name in ("layer_ends", "layer_end_errors")},
        "layer_nodes": masked(layers, probes, 3),
        "layer_weights": masked(layers, probes, 3),
    }
    compared = draw(st.booleans())
    return density_result(
        **{name: masked(probes, nodes) for name in ("nodes", "weights", "measured_weights", "residuals")},
        converged=masked(probes, nodes, dtype=bool),
        **{name: array(outliers) for name in ("outliers", "outlier_residuals", "outlier_weights")},
        wasserstein_bound=array(probes),
        trace=draw(st.floats()),
        negative_share=draw(st.floats()),
        effective_dimension=draw(st.none() | st.floats()),
        trace_run=draw(st.floats()) if compared else None,
        trace_run_interval=array(2) if compared else None,
        **(by_layer if draw(st.booleans()) else dict.fromkeys(by_layer)),
        provenance=provenance("density-1", settings=draw(JSON)),
    )


def _through(result: Result, path: Path) -> Result:
    path.unlink(missing_ok=True)
    file = ResultFile(path)
    file.add(result)
    assert result.provenance is not None
    return file.read(result.provenance.id)


@settings(max_examples=60, deadline=None)
@given(result=results())
def test_every_result_comes_back_bit_for_bit(result: EigenResult, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "round-trip.h5"
    assert_same(result, _through(result, path))


@settings(max_examples=15, deadline=None)
@given(result=st.one_of(traces(), densities()))
def test_traces_and_densities_come_back_bit_for_bit(result: Result, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "round-trip.h5"
    assert_same(result, _through(result, path))


@pytest.mark.parametrize(
    "result",
    [eigen_result(**OTHER_METHODS), trace_result(), density_result()],
    ids=lambda result: str(result.kind),
)
def test_every_field_of_every_kind_comes_back(result: Result, tmp_path: Path) -> None:
    missing = [q.name for q, value in result if value is None]
    assert set(missing) <= {
        *("eigenvectors_file", "missed_above", "missed_below", "missed_epsilon", "diagonal_file"),
        *([] if result.kind == "eigen" else OTHER_METHODS),
    }
    assert_same(result, _through(result, tmp_path / "r.h5"))


@pytest.mark.parametrize("kind", sorted(kinds()))
def test_no_dimension_is_called_like_a_quantity(kind: str) -> None:
    """A dimension is stored as a dataset beside the quantities: of one name, they would be one.

    A quantity that is the coordinate of its own dimension is meant to be.
    """
    quantities = kinds()[kind].quantities()
    dims = {dim for quantity in quantities for dim in quantity.dims}
    others = {quantity.name for quantity in quantities if quantity.dims != (quantity.name,)}
    assert sorted(dims & others) == []


def test_errors_name_quantities_that_exist() -> None:
    for kind in kinds().values():
        names = {quantity.name for quantity in kind.quantities()}
        assert {quantity.error for quantity in kind.quantities()} - {""} <= names


@pytest.mark.parametrize("values", [(), (3.0,), np.linspace(5, -5, 200)])
def test_any_number_of_pairs(values: Any, tmp_path: Path) -> None:
    result = eigen_result(values)
    assert_same(result, _through(result, tmp_path / "r.h5"))


def test_not_computed_is_not_nan(tmp_path: Path) -> None:
    errors = np.ma.MaskedArray([np.nan, 1.0, np.nan, 2.0], mask=[False, False, True, True])
    back = _through(
        eigen_result(standard_errors=errors, accuracy=math.nan, missed_above=None), tmp_path / "r.h5"
    )
    assert isinstance(back, EigenResult)
    assert back.standard_errors.mask.tolist() == [False, False, True, True]
    assert np.isnan(back.standard_errors.data[0])
    assert back.accuracy is not None
    assert math.isnan(back.accuracy)
    assert back.missed_above is None


def test_trailing_nul_characters_stay(tmp_path: Path) -> None:
    result = eigen_result(eigenvectors_file="a\0", standard_error_method="\0")
    ResultFile(tmp_path / "r.h5").add(result)
    assert_same(ResultFile(tmp_path / "r.h5").read(provenance().id), result)


def test_long_settings_and_numpy_scalars(tmp_path: Path) -> None:
    long = {"names": ["layer.weight"] * 20_000, "n": np.int64(3), "path": Path("a/b")}
    result = eigen_result(examples=np.int64(7), loss=np.float32(0.5), provenance=provenance(problem=long))
    back = _through(result, tmp_path / "r.h5")
    assert back.provenance is not None
    assert back.provenance.problem == {**long, "n": 3, "path": "a/b"}
    assert (type(back.examples), back.examples, type(back.loss), back.loss) == (int, 7, float, 0.5)


def test_input_is_left_alone_and_wrong_shapes_are_refused(tmp_path: Path) -> None:
    result = eigen_result()
    before = result.refined_intervals.copy()
    _through(result, tmp_path / "r.h5")
    assert np.array_equal(before.data, result.refined_intervals.data)
    file = ResultFile(tmp_path / "other.h5")
    with pytest.raises(ValueError, match="residuals has 2 dimensions"):
        file.add(eigen_result(residuals=np.zeros((4, 2))))
    with pytest.raises(ValueError, match="along pair"):
        file.add(eigen_result(residuals=np.zeros(3)))
    with pytest.raises(ValueError, match="without provenance"):
        file.add(eigen_result(provenance=None))
    with pytest.raises(ValueError, match="run id"):
        file.add(eigen_result(provenance=provenance("../x")))
    assert not (tmp_path / "other.h5").exists()


def test_xarray_opens_a_run_unaided(tmp_path: Path) -> None:
    path = tmp_path / "r.h5"
    result = eigen_result()
    ResultFile(path).add(result)
    run = f"/runs/{provenance().id}"
    with xr.open_dataset(path, group=run, engine="h5netcdf") as data:
        assert dict(data.sizes) == {"pair": 4, "end": 2, "product": 4}
        assert data["eigenvalues"].dims == ("pair",)
        assert data["eigenvalues"].values.tolist() == result.eigenvalues.tolist()
        assert data["eigenvalues"].attrs["units"] == "loss / weight²"
        assert data["eigenvalues"].attrs["long_name"].startswith("Eigenvalues")
        error = data[data["eigenvalues"].attrs["ancillary_variables"]]
        assert error.dims == ("pair", "end")
        assert np.array_equal(error, result.intervals)
        assert data["standard_errors_not_computed"].values.tolist() == [False, False, True, False]
        assert data["converged"].dtype == bool
        assert (data["loss"].item(), data["loss"].attrs["units"]) == (0.25, "loss")
        assert data["status"].item() == "complete"
        assert data.attrs["checkpoint_step"] == 1200
        assert data.attrs["kind"] == "eigen"


def test_xarray_opens_traces_and_densities_unaided(tmp_path: Path) -> None:
    path = tmp_path / "r.h5"
    trace, density = trace_result(), density_result()
    for result in (trace, density):
        ResultFile(path).add(result)
    with xr.open_dataset(path, group="/runs/trace-0a1b", engine="h5netcdf") as data:
        assert dict(data.sizes) == {"end": 2, "layer": 2, "look": 2}
        assert (data["trace"].item(), data["trace"].attrs["units"]) == (12.0, "loss / weight²")
        assert data["trace"].attrs["ancillary_variables"] == "interval"
        assert data["layer_intervals"].dims == ("layer", "end")
        assert data["layers"].values.tolist() == ["0", "2"]
        assert "diagonal_file" not in data
    with xr.open_dataset(path, group="/runs/density-0a1b", engine="h5netcdf") as data:
        assert dict(data.sizes) == {
            "probe": 2, "node": 4, "outlier": 2, "moment": 4, "end": 2, "layer": 2, "layer_node": 3
        }  # fmt: skip
        assert data["nodes"].dims == ("probe", "node")
        assert data["nodes_not_computed"].values[1].tolist() == [False, False, False, True]
        assert np.array_equal(data["nodes"].values[0], density.nodes[0])
        assert data["layer_nodes"].dims == ("layer", "probe", "layer_node")
        assert data["trace_run"].item() == 700.0


def test_runs_find_read_and_replace(tmp_path: Path) -> None:
    file = ResultFile(tmp_path / "folder" / "r.h5")
    assert file.find("a1") is None
    for name, started in [("a1", "2025-02-01"), ("a2", "2025-01-01"), ("b", "2025-03-01")]:
        file.add(eigen_result(provenance=provenance(name, started=started)))
    assert [h.id for h in file.runs()] == ["a2", "a1", "b"]
    header = file.runs()[0]
    assert (header.kind, header.status, header.seconds) == ("eigen", "complete", 12.5)
    assert (header.checkpoint_path, header.checkpoint_step) == ("runs/mlp-sgd.pt", 1200)
    assert header.command == "landscape eigen runs/mlp-sgd.pt -k 5"
    with pytest.raises(StoreError, match=r"start of 2 runs"):
        file.read("a")
    with pytest.raises(StoreError, match=r"holds no run zz"):
        file.read("zz")
    with pytest.raises(StoreError, match=r"holds no run"):
        file.read("")
    file.add(eigen_result([1.0], status="not_converged", provenance=provenance("b")))
    assert file.read("b").status == "not_converged"
    assert len(file.runs()) == 3
    found = file.find("b")
    assert found is not None
    assert found.status == "not_converged"
    assert file.find("a") is None
    file.remove(["a1", "b"])
    assert [h.id for h in file.runs()] == ["a2"]
    with pytest.raises(StoreError, match="holds no run b"):
        file.remove(["a2", "b"])
    assert [h.id for h in file.runs()] == ["a2"]
    assert [p.name for p in file.path.parent.iterdir()] == ["r.h5"]


def test_a_field_added_later_takes_its_default(tmp_path: Path) -> None:
    """A file from before ``accuracy`` existed (same format) is still read."""
    path = tmp_path / "r.h5"
    ResultFile(path).add(eigen_result())
    _edit(path, lambda run: run.pop("accuracy"))
    back = ResultFile(path).read(provenance().id)
    assert back.accuracy is None


def test_a_missing_field_and_an_unknown_kind_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "r.h5"
    ResultFile(path).add(eigen_result())
    _edit(path, lambda run: run.pop("eigenvalues"))
    with pytest.raises(StoreError, match="eigenvalues"):
        ResultFile(path).read(provenance().id)
    _edit(path, lambda run: run.attrs.update(kind="holonomy"))
    assert ResultFile(path).runs()[0].kind == "holonomy"
    with pytest.raises(StoreError, match="upgrade landscape"):
        ResultFile(path).read(provenance().id)


def _edit(path: Path, change: Any) -> None:
    """Change a stored run and seal it again, as a version of landscape with other fields would have."""
    from landscape.store.hdf import read_record
    from landscape.store.record import Record, digest

    with h5py.File(path, "r+") as file:
        run = file[f"runs/{provenance().id}"]
        change(run)
        del run.attrs["contents_sha256"]
        record = read_record(run)
        run.attrs["contents_sha256"] = digest(Record(record.attributes, record.variables))


@pytest.mark.parametrize("path", sorted(RELEASED.glob("format-*.h5")), ids=lambda p: p.stem)
def test_released_formats_stay_readable(path: Path) -> None:
    """Each file was written by the release that introduced its format, as ``eigen_result()`` was then."""
    (header,) = ResultFile(path).runs()
    assert header.id == "20250102-eigen-0a1b"
    back = ResultFile(path).read(header.id)
    assert isinstance(back, EigenResult)
    assert back.eigenvalues.tolist() == [9.5, 4.0, 0.5, -0.25]
    assert back.standard_errors.mask.tolist() == [False, False, True, False]
    assert back.refined_intervals.mask[:, 0].tolist() == [False, True, False, False]
    assert back.converged.tolist() == [True, False, True, True]
    assert (back.loss, back.examples, back.accuracy, back.missed_above) == (0.25, 1797, 0.9, None)
    assert back.provenance == provenance()


def test_a_released_format_is_there() -> None:
    assert (RELEASED / "format-1.h5").is_file()
