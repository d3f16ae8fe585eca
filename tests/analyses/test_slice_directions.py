"""Every kind of direction of a slice: what it is, what is known of it, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from landscape.analyses import eigen
from landscape.analyses.base import Start
from landscape.analyses.slice import Settings, usable
from landscape.errors import ComputationError, ConfigurationError, InputError, LandscapeError
from landscape.problem import Problem
from landscape.results import EigenResult, SliceResult
from landscape.run import RunSettings, execute
from landscape.store import write_vectors
from tests.analyses.slice_support import carried_out, checkpoint, loss_at, naive, near, sliced, small

LINE = {"range": ("-1:1:5",)}


def hessian(problem: Problem) -> np.ndarray:
    """The dense one, by differentiating twice."""
    assert problem.data.batches is not None
    ((x, y),) = problem.data.batches
    layout = problem.selection.layout

    def loss(flat: torch.Tensor) -> torch.Tensor:
        named = dict(zip(layout.names, layout.split(flat), strict=True))
        return cross_entropy(functional_call(problem.model, named, (x.to(problem.dtype),)), y)

    return torch.func.hessian(loss)(problem.selection.flat().detach()).detach().numpy()


def gradient(problem: Problem) -> torch.Tensor:
    return problem.measure(problem.pieces(problem.examples)).gradient


def rows(result: SliceResult) -> np.ndarray:
    assert result.directions is not None
    return np.asarray(result.directions)


def cosine(a: Any, b: Any) -> float:
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def stored_eigen(problem: Problem, **options: Any) -> EigenResult:
    settings = eigen.Settings(eigenvectors=True, standard_errors=False, **options)
    result = execute("eigen", problem, settings, RunSettings(seed=3), store=False)
    assert isinstance(result, EigenResult)
    return result


# --- random ----------------------------------------------------------------------------------------------


def test_random_directions_have_the_length_of_each_filter_and_leave_biases() -> None:
    problem = small()
    result = sliced(problem, "random", "random", range=("-1:2:4", "-0.5:0.5:3"), orthogonalize=False)
    layout = problem.selection.layout
    for row in rows(result):
        parts = layout.split(torch.from_numpy(row.copy()))
        for own, part in zip(problem.selection.tensors, parts, strict=True):
            if own.ndim == 1:
                assert not part.any()
            else:
                torch.testing.assert_close(part.norm(dim=1), own.detach().norm(dim=1))
    assert result.axes[0] == "random direction 1, filter normalised"
    assert abs(cosine(*rows(result))) < 0.9
    np.testing.assert_allclose(result.direction_norms, np.linalg.norm(rows(result), axis=1), rtol=1e-12)
    np.testing.assert_allclose(
        result.relative_norms, result.direction_norms / float(problem.selection.flat().norm()), rtol=1e-12
    )
    np.testing.assert_allclose(result.loss, naive(problem, result), rtol=1e-12)


def test_other_scales_of_random_directions() -> None:
    problem = small()
    sizes = [tensor.numel() for tensor in problem.selection.tensors]
    layer = sliced(problem, "random", normalize="layer", biases="keep", **LINE)
    parts = problem.selection.layout.split(torch.from_numpy(rows(layer)[0].copy()))
    for own, part in zip(problem.selection.tensors, parts, strict=True):
        assert float(part.norm()) == pytest.approx(float(own.detach().norm()))
    drawn = sliced(problem, "random", normalize="none", biases="keep", **LINE)
    assert 0.5 < float(drawn.direction_norms[0]) / sum(sizes) ** 0.5 < 1.5
    assert drawn.axes[0] == "random direction 1, as drawn"


def test_the_default_is_a_plane_of_two_random_directions() -> None:
    result = sliced(small())
    assert list(result.along) == ["random", "random"]
    assert result.loss.shape == (25, 25)
    assert (result.x[0], result.x[-1]) == (-1.0, 1.0)
    assert result.batchnorm == "none"


# --- from derivatives ------------------------------------------------------------------------------------


@pytest.mark.parametrize("numbers", [(1, 2), (-1, 1), (2, -2)])
def test_eigenvectors_against_the_dense_hessian(numbers: tuple[int, int]) -> None:
    problem = small()
    matrix = hessian(problem)
    values = np.linalg.eigvalsh(matrix)[::-1]
    result = sliced(problem, *(f"eigen:{number}" for number in numbers), **LINE)
    assert result.curvatures is not None
    assert result.curvature_errors is not None
    assert result.differences is not None
    assert result.difference_errors is not None
    for i, number in enumerate(numbers):
        expected = values[number - 1 if number > 0 else number]
        assert abs(result.curvatures[i] - expected) <= result.curvature_errors[i]
        vector = rows(result)[i]
        assert abs(result.differences[i] - vector @ matrix @ vector) <= result.difference_errors[i]
        assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-6)
        assert np.linalg.norm(matrix @ vector - expected * vector) < 2e-2 * abs(expected)
    assert not np.any(result.disagreeing)
    assert result.angle == pytest.approx(90.0, abs=1e-3)


def test_eigen_twice_counts_on() -> None:
    result = sliced(small(), "eigen", "eigen", **LINE)
    assert [str(name).split(",")[0] for name in result.axes] == ["eigenvector 1", "eigenvector 2"]


def test_a_stored_run_gives_the_same_eigenvectors_and_its_curvature() -> None:
    problem = small()
    stored = stored_eigen(problem, k=3, which="both")
    result = sliced(problem, "eigen:2", "eigen:-1", inputs=(stored,), **LINE)
    computed = sliced(problem, "eigen:2", "eigen:-1", **LINE)
    assert stored.eigenvectors is not None
    assert result.curvatures is not None
    assert computed.curvatures is not None
    np.testing.assert_array_equal(rows(result)[0], stored.eigenvectors[1])
    np.testing.assert_allclose(rows(result)[1], stored.eigenvectors[-1], atol=1e-12)
    assert list(result.curvatures) == [stored.eigenvalues[1], stored.eigenvalues[-1]]
    for i in range(2):
        assert abs(cosine(rows(result)[i], rows(computed)[i])) == pytest.approx(1.0, abs=1e-3)
    np.testing.assert_allclose(result.curvatures, computed.curvatures, rtol=1e-3)


@pytest.mark.parametrize(
    ("options", "along"),
    [({"k": 2}, "eigen:3"), ({"k": 3}, "eigen:-1"), ({"k": 3, "operator": "gauss-newton"}, "eigen:1")],
)
def test_a_stored_run_that_does_not_hold_the_vectors_is_not_usable(
    options: dict[str, Any], along: str
) -> None:
    stored = stored_eigen(small(), **options)
    assert not usable(Settings(along=(along,)), stored)
    if options["k"] == 3 and "operator" not in options:
        assert usable(Settings(along=("eigen:3",)), stored)


def test_the_gradient() -> None:
    problem = small()
    result = sliced(problem, "gradient", range=("-0.1:0.1:5",))
    np.testing.assert_allclose(rows(result)[0], gradient(problem), rtol=1e-10)
    assert result.slopes[0] == pytest.approx(float(gradient(problem).norm()) ** 2)
    assert result.slopes[0] == pytest.approx((result.loss[3] - result.loss[1]) / 0.1, rel=1e-3)
    assert result.gradient_norm == pytest.approx(float(gradient(problem).norm()))


def test_one_step_along_sam_is_its_perturbation() -> None:
    problem, rho = small(), 0.4
    result = sliced(problem, "sam", rho=rho, range=("0:1:3",))
    g = gradient(problem)
    np.testing.assert_allclose(rows(result)[0], rho * g / g.norm(), rtol=1e-8)
    perturbed = problem.selection.flat().detach() + rho * g / g.norm()
    assert result.loss[-1] == pytest.approx(loss_at(problem, perturbed), rel=1e-9)
    assert result.axes[0] == "SAM's perturbation, ρ = 0.4"


# --- from files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_step_towards_a_checkpoint_is_that_checkpoint(tmp_path: Path, dtype: str) -> None:
    problem = small(dtype=dtype)
    other = near(problem, 1)
    path = checkpoint(problem, tmp_path / "b.pt", other)
    result = sliced(problem, f"to:{path}")
    w = problem.selection.flat().detach().double()
    reached = (w + torch.from_numpy(rows(result)[0].copy()).double()).to(problem.dtype)
    torch.testing.assert_close(reached.double(), other, rtol=0 if dtype == "float64" else 2e-7, atol=1e-7)
    at = {t: float(result.loss[list(result.x).index(t)]) for t in (0.0, 1.0)}
    tolerance = 1e-12 if dtype == "float64" else 1e-5
    assert at[1.0] == pytest.approx(loss_at(problem, other), rel=tolerance)
    assert at[0.0] == pytest.approx(result.own_loss, rel=tolerance)
    assert (result.x[0], result.x[-1], len(result.x)) == (-0.5, 1.5, 41)


def test_zero_and_one_are_coordinates_of_any_range(tmp_path: Path) -> None:
    problem = small()
    path = checkpoint(problem, tmp_path / "b.pt", near(problem, 1))
    result = sliced(problem, f"to:{path}", "random", range=("-0.3:1.7:4", "-0.3:1.7:4"))
    assert {0.0, 1.0} <= set(result.x)
    assert 0.0 in result.y
    assert 1.0 not in result.y
    assert result.loss.shape == (6, 5)


def test_principal_directions_are_the_singular_vectors(tmp_path: Path) -> None:
    problem = small()
    others = [near(problem, seed, 0.1 * (seed + 1)) for seed in range(4)]
    for i, flat in enumerate(others):
        checkpoint(problem, tmp_path / f"run{i}.pt", flat)
    result = sliced(problem, "pca", "pca", trajectory=(f"{tmp_path}/run*.pt",), range=("auto:3",))
    differences = torch.stack(others) - problem.selection.flat().detach()
    _, values, right = torch.linalg.svd(differences, full_matrices=False)
    for i in range(2):
        assert abs(cosine(rows(result)[i], right[i])) == pytest.approx(1.0, abs=1e-10)
    assert result.explained_variance is not None
    np.testing.assert_allclose(result.explained_variance, (values**2 / (values**2).sum())[:2], rtol=1e-8)
    assert result.x[0] <= min(0.0, result.point_coordinates[:, 0].min())
    assert result.x[-1] >= result.point_coordinates[:, 0].max()


def test_a_file_of_tensors_is_a_direction(tmp_path: Path) -> None:
    problem = small()
    direction = near(problem, 5)
    path = checkpoint(problem, tmp_path / "direction.pt", direction)
    np.testing.assert_array_equal(rows(sliced(problem, f"saved:{path}", **LINE))[0], direction)


def run(problem: Problem, folder: Path, *along: str, **options: Any) -> SliceResult:
    where = RunSettings(seed=7, output=str(folder / "r.h5"))
    result = execute("slice", problem, Settings(along=along, **{**LINE, **options}), where)
    assert isinstance(result, SliceResult)
    return result


def test_stored_directions_by_file_by_row_and_by_hash(tmp_path: Path) -> None:
    problem = small()
    first = run(problem, tmp_path, "random", "random", orthogonalize=False)
    assert first.directions_file is not None
    name = first.directions_file
    digits = Path(name).stem[-16:]
    stored = sliced(problem, "random", "random", orthogonalize=False, **LINE)
    for along, row in (
        (f"saved:{tmp_path / name}", 0),
        (f"saved:{tmp_path / name}:2", 1),
        (f"saved:{digits}:2", 1),
        (f"saved:{digits[:8]}", 0),
    ):
        again = run(problem, tmp_path, along)
        np.testing.assert_array_equal(again.loss, first.loss[:, 2] if row == 0 else first.loss[2])
    both = run(problem, tmp_path, f"saved:{digits}", f"saved:{digits}", orthogonalize=False)
    np.testing.assert_array_equal(both.loss, first.loss)
    np.testing.assert_array_equal(both.loss, stored.loss)


def test_a_file_of_eigenvectors_is_one_of_directions(tmp_path: Path) -> None:
    problem = small()
    found = execute(
        "eigen",
        problem,
        eigen.Settings(k=2, eigenvectors=True),
        RunSettings(seed=1, output=str(tmp_path / "r.h5")),
    )
    assert isinstance(found, EigenResult)
    assert found.eigenvectors_file is not None
    result = run(problem, tmp_path, f"saved:{tmp_path / found.eigenvectors_file}:2")
    assert result.direction_norms[0] == pytest.approx(1.0, abs=1e-6)
    values = np.linalg.eigvalsh(hessian(problem))[::-1]
    step = result.x[3]
    bent = (result.loss[3] + result.loss[1] - 2 * result.loss[2]) / step**2
    assert bent == pytest.approx(values[1], rel=0.3)


# --- in the plane ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("orthogonalize", [True, False])
def test_the_angle_and_what_becomes_of_the_second_direction(tmp_path: Path, orthogonalize: bool) -> None:
    problem = small()
    a, b = (torch.zeros(problem.size, dtype=torch.float64) for _ in range(2))
    a[0], b[0], b[1] = 2.0, 0.5, 0.5 * 3**0.5
    name = write_vectors(tmp_path, "d", np.stack([a.numpy(), b.numpy()]), {}).name
    result = run(
        problem, tmp_path, f"saved:{tmp_path / name}", f"saved:{tmp_path / name}", orthogonalize=orthogonalize
    )
    assert result.angle == pytest.approx(60.0, abs=1e-10)
    assert result.orthogonal is orthogonalize
    assert result.direction_norms[1] == pytest.approx(0.5 * 3**0.5 if orthogonalize else 1.0)
    point = a + (b if not orthogonalize else torch.cat([torch.zeros(1), b[1:]]))
    flat = problem.selection.flat().detach() + point
    assert result.loss[-1, -1] == pytest.approx(loss_at(problem, flat), rel=1e-12)


def test_collinear_directions_span_no_plane() -> None:
    for along in (("gradient", "sam"), ("sam", "gradient")):
        with pytest.raises(ConfigurationError, match="lie on one line"):
            sliced(small(), *along, **LINE)


def test_the_same_direction_twice_is_refused_at_once() -> None:
    for along in (("gradient", "gradient"), ("eigen:2", "eigen:2"), ("to:a.pt", "to:a.pt")):
        with pytest.raises(ConfigurationError, match="both directions are the same"):
            Settings(along=along)


# --- refused ---------------------------------------------------------------------------------------------


def test_what_is_no_direction(tmp_path: Path) -> None:
    problem = small()
    same = checkpoint(problem, tmp_path / "same.pt", problem.selection.flat().detach())
    with pytest.raises(ConfigurationError, match="the same weights"):
        sliced(problem, f"to:{same}")
    with pytest.raises(InputError, match="equal the one at the centre"):
        sliced(problem, "pca", trajectory=(str(same),))
    other = checkpoint(problem, tmp_path / "other.pt", near(problem, 1))
    with pytest.raises(InputError, match="too few directions"):
        sliced(problem, "pca:2", trajectory=(str(same), str(other)))
    with pytest.raises(ConfigurationError, match="no eigenvector 52"):
        sliced(problem, "eigen:52", **LINE)
    with pytest.raises(ConfigurationError, match="no file matches"):
        sliced(problem, "random", trajectory=(f"{tmp_path}/none*.pt",), **LINE)


def test_vectors_of_another_length_or_too_few(tmp_path: Path) -> None:
    problem = small()
    short = write_vectors(tmp_path, "short", np.ones((1, 5)), {})
    one = write_vectors(tmp_path, "one", np.ones((1, problem.size)), {})
    for along in (f"saved:{short}", f"saved:{one}:2", "saved:0123456789"):
        with pytest.raises(LandscapeError) as caught:
            run(problem, tmp_path, along)
        assert len(str(caught.value).splitlines()) <= 5
    assert not (tmp_path / "r.h5").exists()


def test_a_checkpoint_of_another_shape(tmp_path: Path) -> None:
    problem = small()
    torch.save({"0.weight": torch.zeros(2, 2)}, tmp_path / "odd.pt")
    for options in ({"along": (f"to:{tmp_path}/odd.pt",)}, {"trajectory": (f"{tmp_path}/odd.pt",)}):
        with pytest.raises(LandscapeError):
            carried_out(problem, Settings(**{"along": ("random",), **LINE, **options}), Start(7))


def test_a_critical_point_has_no_gradient() -> None:
    problem = Problem(torch.nn.Linear(2, 1), "mse", (torch.zeros(4, 2), torch.zeros(4, 1)), dtype="float64")
    with torch.no_grad():
        problem.model.bias.zero_()
    for along in ("gradient", "sam"):
        with pytest.raises(ComputationError, match="the gradient is zero there"):
            sliced(problem, along, **LINE)


def test_a_checkpoint_is_one_direction(tmp_path: Path) -> None:
    problem = small()
    file = checkpoint(problem, tmp_path / "b.pt", problem.selection.flat() + 1)
    with pytest.raises(ConfigurationError, match=r"no such direction in b\.pt"):
        sliced(problem, f"saved:{file}:2", range=("-1:1:3",))


def test_the_name_of_an_array_that_was_not_given() -> None:
    with pytest.raises(ConfigurationError, match="given as an array"):
        sliced(small(), "given:0123456789abcdef", range=("-1:1:3",))


def test_more_points_than_anybody_wants() -> None:
    with pytest.raises(ConfigurationError, match="at most 10000000 points"):
        Settings(range=("-1:1:100000",))
