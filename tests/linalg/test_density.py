"""The spectral density against known spectra, the vectors' own measures, and a naive twin."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import torch

from landscape.linalg.density import (
    Quadrature,
    cumulative,
    is_invariant,
    probe,
    quadrature,
    wasserstein,
    wasserstein_bound,
)
from landscape.linalg.lanczos import Krylov
from landscape.linalg.operator import MatrixOperator
from landscape.linalg.probes import gaussian
from tests.support.spectra import FAMILIES, digits_like, family, rotated


def relation(operator: MatrixOperator, steps: int, *key: int) -> np.ndarray:
    krylov = Krylov.start(operator, gaussian(operator.size, 0, "probe", *key), steps)
    for _ in probe(operator, krylov, steps, lambda i: gaussian(operator.size, 0, "fresh", *key, i)):
        pass
    return krylov.relation.copy()


def density(
    matrix: torch.Tensor,
    probes: int,
    steps: int,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    floor: float = 0.0,
) -> Quadrature:
    operator = MatrixOperator(matrix, dtype)
    return quadrature([relation(operator, steps, seed, i) for i in range(probes)], operator.size, floor)


def own_measure(matrix: torch.Tensor, *key: int) -> tuple[np.ndarray, np.ndarray]:
    """(eigenvalues, weights) of the spectral measure of the probe's vector."""
    values, vectors = np.linalg.eigh(matrix.numpy())
    vector = gaussian(len(values), 0, "probe", *key).numpy()
    return values, (vectors.T @ (vector / np.linalg.norm(vector))) ** 2


def draws(*key: int) -> np.random.Generator:
    return np.random.default_rng([11, *key])


def test_gauss_rule_against_the_naive_twin() -> None:
    """Golub & Welsch 1969 on a basis of the Krylov space made by QR of its power basis."""
    matrix = rotated(np.linspace(-1, 2, 30), 0)
    vector = gaussian(30, 0, "probe", 0, 0)
    powers = torch.stack([torch.linalg.matrix_power(matrix, q) @ vector for q in range(6)], dim=1)
    basis = np.linalg.qr(powers.numpy())[0]
    values, coordinates = np.linalg.eigh(basis.T @ matrix.numpy() @ basis)
    (deep, _), *_ = density(matrix, 1, 6).rules
    np.testing.assert_allclose(deep.nodes, values[::-1], atol=1e-9)
    np.testing.assert_allclose(deep.measured, coordinates[0, ::-1] ** 2, atol=1e-9)


@pytest.mark.parametrize("name", FAMILIES)
def test_rules_have_the_moments_of_their_vector(name: str) -> None:
    """m steps are exact for polynomials of degree 2m − 1, m − 1 steps for 2m − 3."""
    eigenvalues = family(name, 50, draws(1))
    matrix = rotated(eigenvalues / np.abs(eigenvalues).max(initial=1e-300), 1)
    for i, (deep, *shallow) in enumerate(density(matrix, 2, 6).rules):
        values, weights = own_measure(matrix, 0, i)
        for rule, degree in [(deep, 11), *((rule, 9) for rule in shallow)]:
            for q in range(degree + 1):
                mean = float(rule.measured @ rule.nodes**q)
                assert mean == pytest.approx(float(weights @ values**q), abs=1e-12)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(("n", "steps"), [(60, 20), (40, 40), (7, 50)])
def test_rows_are_distributions_within_the_spectrum(name: str, n: int, steps: int) -> None:
    for seed in range(3):
        eigenvalues = family(name, n, draws(2, seed))
        matrix = rotated(eigenvalues, seed)
        found = density(matrix, 2, steps, seed)
        slack = 1e-13 * np.abs(eigenvalues).max()
        for array in (found.weights, found.measured):
            assert np.ma.min(array) >= 0.0
            np.testing.assert_allclose(array.sum(axis=1), 1.0, rtol=1e-12)
        assert all((np.diff(row.compressed()) <= 0).all() for row in found.nodes)
        assert np.ma.max(found.nodes) <= eigenvalues[0] + slack
        assert np.ma.min(found.nodes) >= eigenvalues[-1] - slack
        assert found.residuals.shape == found.converged.shape == found.nodes.shape
        assert found.lambda_max[0] == np.ma.max(found.nodes)
        assert found.lambda_min[0] == np.ma.min(found.nodes)


@pytest.mark.parametrize("name", ["decaying", "outliers", "indefinite", "flat"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_no_ghosts(name: str, dtype: torch.dtype) -> None:
    """Converged nodes of a row, and the outliers, stand for as many different eigenvalues."""
    for seed in range(5):
        eigenvalues = np.sort(FAMILIES[name](80, draws(3, seed)))[::-1]
        floor = 1e-5 * np.abs(eigenvalues).max() if dtype == torch.float32 else 0.0
        found = density(rotated(eigenvalues, seed), 2, 60, seed, dtype, floor)
        slack = floor + 1e-12 * np.abs(eigenvalues).max()
        kinds = [found.nodes[i][found.converged[i]].compressed() for i in range(2)]
        bounds = [found.residuals[i][found.converged[i]].compressed() for i in range(2)]
        for values, reach in [
            *zip(kinds, bounds, strict=True),
            (found.outliers.values, found.outliers.residuals),
        ]:
            apart = np.abs(values[:, None] - eigenvalues[None]) <= (reach + slack)[:, None]
            rows, columns = scipy.optimize.linear_sum_assignment(~apart)
            assert apart[rows, columns].all()
    assert len(found.outliers.values)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e6])
def test_a_budget_beyond_the_size_is_exact(scale: float) -> None:
    eigenvalues = np.linspace(2, -1.1, 40) * scale
    found = density(rotated(eigenvalues, 0), 2, 60)
    assert found.nodes.shape == (2, 40)
    np.testing.assert_allclose(found.nodes[1], eigenvalues, atol=1e-13 * scale)
    np.testing.assert_allclose(found.weights, 1 / 40, rtol=1e-12)
    np.testing.assert_allclose(found.outliers.values, eigenvalues, atol=1e-13 * scale)
    assert found.trace().value == pytest.approx(18 * scale)
    assert found.trace().error < 1e-14 * scale
    assert found.wasserstein_bounds.max() < 1e-11 * scale
    share, low, high = found.negative_share(0.0)
    assert share.value == low == high == pytest.approx((eigenvalues < 0).mean())
    exact = np.sum(eigenvalues[eigenvalues > 0] / (eigenvalues[eigenvalues > 0] + scale))
    assert found.effective_dimension(scale).value == pytest.approx(exact)


@pytest.mark.parametrize("value", [3e-6, 0.0, -2.0])
def test_a_multiple_of_the_identity_takes_one_product(value: float) -> None:
    found = density(value * torch.eye(50, dtype=torch.float64), 2, 20)
    np.testing.assert_allclose(found.nodes, [[value]] * 2, rtol=1e-13)
    np.testing.assert_allclose(found.weights, 1.0)
    assert found.outliers.weights == pytest.approx([1.0])
    assert found.trace().value == pytest.approx(50 * value)
    assert found.trace().error == 0.0


def test_low_rank_is_exact_after_one_step_more_than_the_rank() -> None:
    eigenvalues = np.concatenate([[5.0, 3.0, 2.0, 1.0, 0.5], np.zeros(95)])
    found = density(rotated(eigenvalues, 3), 2, 50)
    assert found.nodes.shape == (2, 6)
    np.testing.assert_allclose(found.weights, [[0.01] * 5 + [0.95]] * 2, rtol=1e-9)
    np.testing.assert_allclose(found.nodes, [[5.0, 3.0, 2.0, 1.0, 0.5, 0.0]] * 2, atol=1e-13)
    np.testing.assert_allclose(found.outliers.weights[:5], 0.01)
    assert found.outliers.weights[5] == pytest.approx(0.95, abs=0.1), "as measured"
    assert wasserstein(found.nodes, found.weights, eigenvalues) < 1e-9
    assert found.negative_share(1e-9)[0].value == 0.0


def test_repeated_eigenvalues_keep_their_measured_weight() -> None:
    """Eigenvalue 4 thirty times, 2 once: the first is unbiased, the second exact."""
    eigenvalues = np.concatenate([np.full(30, 4.0), [2.0], np.linspace(0.1, -0.1, 269)])
    shares = []
    for seed in range(20):
        found = density(rotated(eigenvalues, seed), 2, 15, seed)
        top, second = found.outliers.weights[:2]
        assert found.outliers.values[:2] == pytest.approx([4.0, 2.0])
        assert second == 1 / 300
        np.testing.assert_allclose(found.weights[:, 1], 1 / 300, rtol=1e-12)
        shares.append([top, *found.weights[:, 0]])
    # One probe's n·weight is χ²(30): standard deviation √60, over 40 probes.
    assert 300 * np.mean(shares) == pytest.approx(30, abs=4 * (60 / 40) ** 0.5)


def test_single_outliers_have_exact_weights_whatever_the_vector() -> None:
    eigenvalues = digits_like(400, 0)
    found = density(rotated(eigenvalues, 0), 2, 40)
    assert len(found.outliers.values) >= 8
    np.testing.assert_allclose(found.outliers.values[:8], eigenvalues[:8], rtol=1e-6)
    assert (found.outliers.weights[:8] == 1 / 400).all()
    assert np.ma.std(found.measured[:, 0]) > 0


def test_correction_and_two_depths_bring_the_density_closer() -> None:
    """Outliers over values of all sizes around zero, as a net's Hessian has them; 20 vectors, 2 depths."""
    draw, distances = draws(10), []
    small = draw.choice([-1, 1, 1], 382) * 10 ** draw.uniform(-7, -1.5, 382)
    eigenvalues = np.concatenate([digits_like(18, 0), small])
    matrix = rotated(eigenvalues, 5)
    for seed in range(20):
        found = density(matrix, 2, 24 + seed % 2, seed)
        deep = [row[0] for row in found.rules]
        one_depth = np.concatenate([r.nodes for r in deep]), np.concatenate([r.weights for r in deep])
        ours = wasserstein(found.nodes, found.weights, eigenvalues)
        measured = wasserstein(found.nodes, found.measured, eigenvalues)
        distances.append([ours, measured, wasserstein(*one_depth, eigenvalues)])
    ours, measured, deep_only = np.mean(distances, axis=0)
    assert ours < 0.3 * measured
    assert ours < 0.9 * deep_only


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("steps", [1, 2, 5, 15])
def test_the_wasserstein_bound_holds(name: str, steps: int) -> None:
    for seed in range(5):
        eigenvalues = family(name, 60, draws(4, seed))
        matrix = rotated(eigenvalues, seed)
        found = density(matrix, 1, steps, seed)
        values, weights = own_measure(matrix, seed, 0)
        slack = 1e-13 * np.abs(eigenvalues).max()
        distance = wasserstein(found.nodes, found.measured, values, weights)
        assert distance <= found.wasserstein_bounds[0] + slack
        for rule in found.rules[0]:
            distance = wasserstein(rule.nodes, rule.measured, values, weights)
            assert distance <= wasserstein_bound(rule.nodes, rule.measured, rule.residuals) + slack


def test_the_wasserstein_bound_shrinks_with_the_steps() -> None:
    matrix = rotated(np.linspace(-1, 1, 300), 0)
    bounds = [density(matrix, 1, steps).wasserstein_bounds[0] for steps in (5, 10, 20, 40)]
    for longer, shorter in zip(bounds[1:], bounds[:-1], strict=True):
        assert longer < 0.7 * shorter


@pytest.mark.parametrize("name", FAMILIES)
def test_bounds_of_monotone_functions_hold(name: str) -> None:
    """Negative share and effective dimension; 5 vectors each, of which none may fail by more than chance."""
    held = []
    for seed in range(5):
        eigenvalues = family(name, 80, draws(5, seed))
        found = density(rotated(eigenvalues, seed), 2, 12, seed)
        floor = 1e-9 * np.abs(eigenvalues).max()
        share, low, high = found.negative_share(floor)
        assert 0.0 <= low <= high <= 1.0
        assert 0.0 <= share.value <= 1.0
        held.append(low - 1e-9 <= (eigenvalues < -floor).mean() <= high + 1e-9)
        z = 0.1 * np.abs(eigenvalues).max(initial=1e-300)
        low, high = found.bounds(lambda x, z=z: np.maximum(x, 0) / (np.maximum(x, 0) + z))  # type: ignore[misc]
        positive = np.maximum(eigenvalues, 0)
        held.append(low - 1e-9 <= np.mean(positive / (positive + z)) <= high + 1e-9)
    assert sum(held) >= 9


@pytest.mark.parametrize("name", ["flat", "decaying", "indefinite", "outliers"])
@pytest.mark.parametrize("count", [60, pytest.param(400, marks=pytest.mark.long)])
def test_standard_errors_cover(name: str, count: int) -> None:
    """The trace lies within 1.96 standard errors as often as it should (binomial, 0.1 %)."""
    eigenvalues = family(name, 100, draws(6))
    matrix, inside = rotated(eigenvalues, 6), 0
    for seed in range(count):
        trace = density(matrix, 2, 12, seed).trace()
        inside += abs(trace.value - eigenvalues.sum()) <= 1.96 * trace.error + 1e-9 * abs(trace.value)
    assert inside >= scipy.stats.binom.ppf(1e-3, count, 0.95)


def test_the_known_variance_of_one_probe() -> None:
    """Of vᵀHv on the sphere, with no eigenvalue known: against the vectors themselves."""
    eigenvalues = draws(7).standard_normal(60)
    vectors = draws(8).standard_normal((100_000, 60))
    squares = vectors**2 / (vectors**2).sum(axis=1, keepdims=True)
    sampled = (squares @ eigenvalues).std()
    found = [density(rotated(eigenvalues, 7), 1, 4, seed) for seed in range(30)]
    assert not any(q.converged.any() for q in found)
    errors = np.array([q.expectation(lambda x: x).error for q in found])
    assert np.sqrt((errors**2).mean()) == pytest.approx(sampled, rel=0.1)


def test_scale_changes_nothing_else() -> None:
    eigenvalues = digits_like(200, 1)
    one, tiny = (density(rotated(eigenvalues, 1) * scale, 2, 30) for scale in (1.0, 2.0**-40))
    np.testing.assert_allclose(tiny.nodes * 2.0**40, one.nodes, atol=1e-12)
    np.testing.assert_allclose(tiny.weights, one.weights, rtol=1e-6, atol=1e-12)
    assert np.array_equal(tiny.converged, one.converged)


def test_float32_products_give_the_same_density() -> None:
    eigenvalues = digits_like(300, 2)
    matrix = rotated(eigenvalues, 2)
    double, single = (density(matrix, 2, 30, 0, dtype, 1e-6) for dtype in (torch.float64, torch.float32))
    assert wasserstein(double.nodes, double.weights, single.nodes, single.weights) < 1e-5
    np.testing.assert_allclose(single.outliers.values[:8], eigenvalues[:8], rtol=1e-5)


def test_noise_claims_less_and_merges_nothing() -> None:
    """With a large floor no eigenvalue is claimed, and every node keeps its measured weight."""
    operator = MatrixOperator(rotated(digits_like(300, 3), 3))
    relations = [relation(operator, 30, 0, i) for i in range(2)]
    sure, unsure, useless = (quadrature(relations, 300, floor) for floor in (0.0, 0.01, 0.2))
    assert len(sure.outliers.values) > 5
    for found in (unsure, useless):
        assert not found.converged.any()
        assert not len(found.outliers.values)
        np.testing.assert_allclose(found.weights, found.measured, rtol=1e-12)
        assert (found.wasserstein_bounds > sure.wasserstein_bounds).all()
    assert (unsure.nodes.count(axis=1) == 59).all()
    assert (useless.nodes.count(axis=1) == 30).all()


def test_a_probe_goes_on_where_it_stopped() -> None:
    operator = MatrixOperator(rotated(np.linspace(-1, 2, 50), 0))
    krylov = Krylov.start(operator, gaussian(50, 0, "probe", 0, 0), 20)
    for steps in (7, 20, 20):
        for _ in probe(operator, krylov, steps, lambda i: gaussian(50, 1, i)):
            pass
        assert krylov.steps == steps
    np.testing.assert_array_equal(krylov.relation, relation(operator, 20, 0, 0))
    assert not is_invariant(krylov.relation)
    assert not list(probe(MatrixOperator(torch.eye(3)), _spent(), 5, lambda i: gaussian(3, i)))


def _spent() -> Krylov:
    """A space that one product showed to be invariant."""
    operator = MatrixOperator(torch.eye(3, dtype=torch.float64))
    krylov = Krylov.start(operator, gaussian(3, 0), 5)
    assert len(list(probe(operator, krylov, 5, lambda i: gaussian(3, i)))) == 1
    assert is_invariant(krylov.relation)
    return krylov


def test_wasserstein_and_cumulative_against_scipy() -> None:
    draw = draws(9)
    nodes = np.ma.MaskedArray(draw.standard_normal((2, 9)), mask=False)
    weights = np.ma.MaskedArray(draw.random((2, 9)), mask=False)
    nodes[1, 7:] = np.ma.masked
    weights[1, 7:] = np.ma.masked
    others = draw.standard_normal(50)
    right = scipy.stats.wasserstein_distance(nodes.compressed(), others, weights.compressed())
    assert wasserstein(nodes, weights, others) == pytest.approx(right)
    below = weights.compressed()[nodes.compressed() <= 0.3].sum() / weights.sum()
    assert cumulative(nodes, weights, np.array([-9.0, 0.3, 9.0])) == pytest.approx([0.0, below, 1.0])


def test_what_cannot_be_asked() -> None:
    with pytest.raises(ValueError, match="at least one probe"):
        quadrature([], 10)
    with pytest.raises(ValueError, match="z > 0"):
        density(rotated(np.ones(4), 0), 1, 2).effective_dimension(0.0)


def test_a_null_space_seen_as_one_node_leaves_the_others_exact() -> None:
    """38 eigenvalues and a null space of 5 dimensions: 39 nodes, and the trace is known."""
    values = np.concatenate([np.linspace(0.3, 4.0, 38), np.zeros(5)])
    operator = MatrixOperator(rotated(values, 3))
    krylov = Krylov.start(operator, gaussian(43, 0, "probe"), 43)
    for _ in probe(operator, krylov, 43, lambda i: gaussian(43, 0, "fresh", i), lambda _: 1e-12):
        pass
    found = quadrature([krylov.relation.copy()], 43, 1e-12)
    assert found.trace().value == pytest.approx(values.sum(), rel=1e-9)
    assert found.trace().error <= 1e-9
