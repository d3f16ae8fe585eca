"""What the monitor measures, against closed forms and against the commands of the same names."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import landscape
from landscape.linalg.running_average import smoothed
from landscape.monitoring import Monitor
from landscape.results import CLASSES
from tests.monitoring.support import blobs, least_squares, loss_of, perturbed, plain_net, train


def test_curvature_of_least_squares_is_exact() -> None:
    model, data, hessian = least_squares()
    monitor = Monitor(model, "mse", data, every=2, trace_every=2, trace_products=24, budget=None, seed=0)
    weights = []
    for _ in range(5):
        weights.append(model.weight.detach().clone().reshape(-1))
        train(model, data, 1, monitor, rho=0.1)
    result = monitor.result()
    assert result.steps.tolist() == [0, 2, 4]
    top = float(torch.linalg.eigvalsh(hessian)[-1])
    assert result.lambda_max == pytest.approx(top, rel=2e-4)
    assert all(abs(result.lambda_max - top) <= result.lambda_max_errors)
    assert result.trace == pytest.approx(float(hessian.trace()), rel=1e-9)  # the whole space is spanned
    x, y = data
    for i, step in enumerate(result.steps):
        g = 2 * x.T @ (x @ weights[step] - y[:, 0]) / len(x)
        along = hessian @ g / g.norm()
        assert result.losses[i] == pytest.approx(float(((x @ weights[step] - y[:, 0]) ** 2).mean()))
        assert result.gradient_norms[i] == pytest.approx(float(g.norm()))
        assert result.lengths[i] == pytest.approx(0.1)
        assert result.curvature_norms[i] == pytest.approx(float(along.norm()), rel=1e-9)
        assert result.directional_curvature[i] == pytest.approx(float(along @ g / g.norm()), rel=1e-9)
        other = g + 0.1 * along
        assert result.cosines[i] == pytest.approx(float(g @ other / g.norm() / other.norm()), rel=1e-12)
        assert result.gradient_norm_ratios[i] == pytest.approx(float(other.norm() / g.norm()), rel=1e-12)


def test_what_a_few_products_find_is_within_its_error_of_an_eigenvalue() -> None:
    model, data = plain_net(), blobs()
    problem = landscape.Problem(model, "cross_entropy", data)
    known = landscape.eigen(problem, k=1, seed=0, tol=1e-8)
    monitor = Monitor(model, "cross_entropy", data, seed=3, budget=None)
    train(model, (data[0].double(), data[1]), 1, monitor)
    found, error = monitor.result().lambda_max[0], monitor.result().lambda_max_errors[0]
    assert abs(found - known.eigenvalues[0]) <= error + known.residuals[0] + known.noise_floor
    assert error <= 0.05 * found


def test_warm_searches_follow_the_largest_eigenvalue() -> None:
    """Along a training, each by at most six products."""
    model, (x, y) = plain_net(), blobs()
    monitor = Monitor(model, "cross_entropy", (x, y), every=5, budget=None, seed=0)
    truth = []
    for step in range(101):
        if step % 5 == 0:
            problem = landscape.Problem(model, "cross_entropy", (x, y))
            truth.append(landscape.eigen(problem, k=1, seed=0, tol=1e-6).eigenvalues[0])
        train(model, (x.double(), y), 1, monitor, lr=0.3)
    result = monitor.result()
    assert result.products is not None
    assert max(result.products) <= 6
    assert result.lambda_max == pytest.approx(np.array(truth), rel=0.02)
    assert all(result.lambda_max <= np.array(truth) * (1 + 1e-5))  # Ritz values are below


def test_classes_are_those_of_ratios_on_the_same_batch() -> None:
    """Of the training's own two gradients; and of two that the monitor takes on the probe data."""
    x, y = blobs()
    x, model = x.double(), plain_net()
    problem = landscape.Problem(model, "cross_entropy", (x, y))
    known = landscape.ratios(problem, rho=0.5, seed=0)
    trained = Monitor(model, "cross_entropy", (x[:9], y[:9]), every=1, budget=None)
    probed = Monitor(model, "cross_entropy", (x, y), every=1, rho=0.5, budget=None)
    train(model, (x, y), 1, trained, rho=0.5, lr=0.0)
    train(model, (x, y), 1, probed, rho=0.0, lr=0.0)
    for monitor, source in ((trained, "training"), (probed, "probe")):
        result = monitor.result()
        assert result.source == source
        assert result.classes.tolist() == list(CLASSES) == known.classes.tolist()
        assert result.counts is not None
        assert result.counts[0].tolist() == known.counts.tolist()
        assert result.counts[0].sum() == problem.size
        assert result.cosines[0] == pytest.approx(known.cosine, abs=1e-12)
        assert result.gradient_norm_ratios[0] == pytest.approx(known.gradient_norm_ratio, rel=1e-12)
        assert result.directional_curvature[0] == pytest.approx(known.directional_curvature, rel=1e-9)


def test_large_models_are_tallied_tensor_by_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = plain_net(), blobs()
    data = data[0].double(), data[1]
    found = []
    for limit in (1 << 18, 1):
        monkeypatch.setattr("landscape.monitoring.gradients.CHUNK", limit)
        monitor = Monitor(model, "cross_entropy", data, budget=None, lambda_every=0)
        train(model, data, 1, monitor, lr=0.0)
        found.append(monitor.result())
    one, many = found
    assert one.counts.tolist() == many.counts.tolist()
    for name in ("gradient_norms", "cosines", "lengths", "curvature_norms", "directional_curvature"):
        assert getattr(one, name) == pytest.approx(getattr(many, name), rel=1e-12)
    assert many.gradient_rounding[0] <= one.gradient_rounding[0]


def test_rounding_covers_what_float32_does() -> None:
    data = blobs(300)
    single, double = plain_net().float(), plain_net()
    results = []
    for model, x in ((single, data[0]), (double, data[0].double())):
        with torch.no_grad():  # the same weights, to the last bit
            for p, q in zip(model.parameters(), single.parameters(), strict=True):
                p.copy_(q)
        monitor = Monitor(model, "cross_entropy", (x, data[1]), budget=None, seed=0)
        train(model, (x, data[1]), 1, monitor, lr=0.0)
        results.append(monitor.result())
    low, high = results
    assert abs(low.cosines[0] - high.cosines[0]) <= 4 * low.cosine_errors[0] + 1e-12
    assert abs(low.curvature_norms[0] - high.curvature_norms[0]) <= 4 * low.curvature_errors[0]
    assert abs(low.h_norms[0] - high.h_norms[0]) <= 4 * low.h_errors[0]
    moved = np.abs(low.counts[0] - high.counts[0]).sum() / 2
    assert moved <= low.uncertain[0].sum() * low.parameters
    assert 0 < low.h_errors[0] < 1e-3 * low.h_norms[0]


@pytest.mark.parametrize("as_written", [False, True])
def test_h_is_the_average_of_the_documents_differences(as_written: bool) -> None:
    model, data = plain_net(), blobs()
    data = data[0].double(), data[1]
    beta, h = 0.3, torch.zeros(sum(p.numel() for p in model.parameters()), dtype=torch.float64)
    monitor = Monitor(
        model, "cross_entropy", data, every=1, new_weight=beta, as_written=as_written, budget=None,
        lambda_every=0,
    )  # fmt: skip
    norms = []
    for t in range(1, 6):
        model.zero_grad()
        loss_of(model, data).backward()
        g = torch.cat([p.grad.reshape(-1).clone() for p in model.parameters()])
        with perturbed(model, 0.05):
            model.zero_grad()
            loss_of(model, data).backward()
            x = (torch.cat([p.grad.reshape(-1) for p in model.parameters()]) - g) / 0.05
        h = (1 - beta) * h + beta * x
        norms.append(float(h.norm()) / (1 if as_written else 1 - (1 - beta) ** t))
        train(model, data, 1, monitor, lr=0.3)
    result = monitor.result()
    assert result.h_norms == pytest.approx(norms, rel=1e-9)
    assert result.step_sizes == pytest.approx(1 / np.array(norms), rel=1e-9)
    assert smoothed(h, x, new_weight=1.0, step=1, as_written=as_written).equal(x)


def test_h_may_take_every_step_in() -> None:
    data = blobs()
    data = data[0].double(), data[1]
    found = []
    for options in ({"every": 1}, {"every": 4, "average_every_step": True}, {"every": 4}):
        model = plain_net()
        monitor = Monitor(model, "cross_entropy", data, budget=None, lambda_every=0, **options)
        train(model, data, 9, monitor, lr=0.3)
        found.append(monitor.result())
    every, inside, seldom = found
    assert inside.steps.tolist() == seldom.steps.tolist() == [0, 4, 8]
    assert inside.h_norms == pytest.approx(every.h_norms[::4], rel=1e-12)
    assert abs(seldom.h_norms[1] - every.h_norms[4]) > 1e-6


def test_gradients_given_as_lists_say_the_same() -> None:
    """Loops that do not move the model's weights, of parameters of which only some are measured."""
    data = blobs()
    data, model = (data[0].double(), data[1]), plain_net()
    options = {"every": 1, "budget": None, "lambda_every": 0, "params": ["2.*"]}
    moved = Monitor(model, "cross_entropy", data, **options)
    given = Monitor(model, "cross_entropy", data, **options)
    without = Monitor(model, "cross_entropy", data, **options)
    loss_of(model, data).backward()
    g = [p.grad.clone() for p in model.parameters()]
    moved.first()
    with perturbed(model, 0.2):
        model.zero_grad()
        loss_of(model, data).backward()
        h = [p.grad.clone() for p in model.parameters()]
        moved.step()
    assert given.due
    chosen = torch.cat([part.reshape(-1) for part in g[2:]]).norm()
    whole = torch.cat([part.reshape(-1) for part in g]).norm()
    given.gradients(g, h, rho=float(0.2 * chosen / whole))
    given.step()
    without.gradients(g, h)
    without.step()
    one, other, last = moved.result(), given.result(), without.result()
    assert one.parameters == other.parameters == 27
    assert one.counts.tolist() == other.counts.tolist() == last.counts.tolist()
    for name in ("lengths", "curvature_norms", "directional_curvature", "h_norms", "cosines"):
        assert getattr(other, name) == pytest.approx(getattr(one, name), rel=1e-9), name
    assert last.h_norms is None
    assert last.lengths is None
    assert last.cosines == pytest.approx(one.cosines)


def test_weight_decay_and_the_probes_own_terms_are_in_the_loss() -> None:
    model, data, hessian = least_squares()
    monitor = Monitor(model, "mse", data, every=1, weight_decay=0.5, budget=None, seed=0)
    plain = Monitor(model, "mse", data, every=1, budget=None, seed=0)
    train(model, data, 1, monitor, lr=0.0)
    train(model, data, 1, plain, lr=0.0)
    decayed, usual = monitor.result(), plain.result()
    assert decayed.lambda_max[0] == pytest.approx(usual.lambda_max[0] + 0.5, rel=1e-6)
    square = float((model.weight.detach() ** 2).sum())
    assert decayed.losses[0] == pytest.approx(usual.losses[0] + 0.25 * square)
    top = float(torch.linalg.eigvalsh(hessian)[-1])
    assert abs(usual.lambda_max[0] - top) <= usual.lambda_max_errors[0] <= 0.01 * top
