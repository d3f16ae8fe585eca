"""What a result says of itself."""

from __future__ import annotations

import json
import math

import numpy as np

from landscape.results import EigenResult, jsonable, kinds
from tests.results.samples import eigen_result


def test_every_field_is_described() -> None:
    assert kinds()["eigen"] is EigenResult
    quantities = {q.name: q for q in EigenResult.quantities()}
    assert "provenance" not in quantities
    for q, value in eigen_result():
        assert q.text.endswith("."), q.name
        assert np.ndim(value) == len(q.dims), q.name
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


def test_learning_rates() -> None:
    result = eigen_result([4.0])
    assert (result.learning_rate, result.stability_limit) == (0.25, 0.5)
    assert eigen_result([-1.0], lambda_max=-1.0).stability_limit == math.inf
