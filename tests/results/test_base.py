"""What a result says of itself."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from landscape.results import Result, jsonable, kinds
from landscape.results.base import quantity, register
from tests.results.samples import density_result, eigen_result, trace_result


@pytest.mark.parametrize("result", [eigen_result(), trace_result(), density_result()], ids=lambda r: r.kind)
def test_every_field_is_described(result: Result) -> None:
    assert kinds()[result.kind] is type(result)
    quantities = {q.name: q for q in result.quantities()}
    assert "provenance" not in quantities
    assert set(type(result).apart.values()) <= set(quantities)
    for q, value in result:
        assert q.text.endswith("."), q.name
        assert value is None or np.ndim(value) == len(q.dims), q.name
        assert not q.error or q.error in quantities, q.name
        assert not set(q.dims) & set(quantities) - {q.name}, "a dimension is not named as another quantity"


def test_json_has_no_number_that_is_none() -> None:
    result = eigen_result([2.0, 1.0, math.nan], loss=math.inf, examples=np.int64(3))
    plain = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert plain["eigenvalues"] == [2.0, 1.0, None]
    assert plain["refined_intervals"][1] == [None, None]
    assert plain["standard_errors"][2] is None
    assert plain["converged"] == [True, False, True]
    assert plain["loss"] is None
    assert plain["missed_above"] is None
    assert plain["examples"] == 3


def test_jsonable() -> None:
    masked = np.ma.MaskedArray([[1, 2], [3, 4]], mask=[[False, True], [False, False]])
    assert jsonable({"a": (1, np.float32(0.5)), 3: masked, "t": True}) == {
        "a": [1, 0.5],
        "3": [[1, None], [3, 4]],
        "t": True,
    }
    assert masked.mask.tolist() == [[False, True], [False, False]]


def test_a_quantity_is_not_called_like_a_dimension() -> None:
    """In a file a dimension is an array of that name; one was taken for the other."""

    @dataclass(frozen=True, kw_only=True, eq=False)
    class Clashing(Result):
        kind: ClassVar[str] = "clashing"
        rho: float = quantity("A step.")
        errors: np.ndarray = quantity("Of each step.", dims=("rho",))

    with pytest.raises(TypeError, match="rho"):
        register(Clashing)
    assert "clashing" not in kinds()


def test_stability_limit() -> None:
    assert eigen_result([4.0]).stability_limit == 0.5
    assert eigen_result([-1.0], lambda_max=-1.0).stability_limit == math.inf
