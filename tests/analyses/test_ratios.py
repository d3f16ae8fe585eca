"""``ratios`` on problems with known gradients, against naive loops, in its corners, and interrupted."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landscape.analyses import ratios
from landscape.analyses.base import Start
from landscape.analyses.ratios import SWEEP, Settings
from landscape.errors import ConfigurationError
from landscape.linalg.probes import derived_seed
from landscape.problem import Problem
from landscape.results import CLASSES, RatiosResult
from landscape.run import RunSettings, execute
from tests.analyses.test_resumption import copied
from tests.run.support import assert_same_bits, small_problem
from tests.sam.test_ratios import by_division
from tests.support.closed_form import classification, generator, split_data
from tests.support.spectra import rotated

NAMES = list(CLASSES)


def run(problem: Problem, seed: int = 0, **settings: Any) -> RatiosResult:
    result = execute("ratios", problem, Settings(**settings), RunSettings(seed=seed), store=False)
    assert isinstance(result, RatiosResult)
    return result


def counted(result: RatiosResult) -> dict[str, float]:
    return {name: count for name, count in zip(result.classes, result.counts, strict=True) if count}


def naive(g: Tensor, h: Tensor) -> dict[str, float]:
    names = [by_division(float(a), float(b)) for a, b in zip(g, h, strict=True)]
    return {name: float(names.count(name)) for name in NAMES if name in names}


class Weights(nn.Module):
    def __init__(self, w: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(w)


def quadratic(eigenvalues: Sequence[float], seed: int = 0, **options: Any) -> tuple[Problem, Tensor, Tensor]:
    """½wᵀAw with a rotated A, at random weights: (problem, A, w)."""
    matrix = rotated(np.array(eigenvalues), seed)
    w = torch.randn(len(eigenvalues), generator=generator(seed + 1), dtype=torch.float64)

    def half_square(model: Any, batch: Any) -> Tensor:
        return 0.5 * model.w @ matrix.to(model.w) @ model.w + 0 * batch[0].sum()

    data = (torch.ones(3, 1, dtype=torch.float64), torch.ones(3, 1, dtype=torch.float64))
    return Problem(Weights(w), half_square, data, **options), matrix, w


SPECTRUM = [5.0, 2.0, 1.0, 0.3, 0.1, 0.0, -0.2, -1.0, -3.0, 0.5, 0.01, -0.05]


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 4.0, math.inf])
def test_on_a_quadratic_the_ratios_are_known(p: float, relative: bool) -> None:
    """g = Aw and g' = g + Aε with the ε of Foret et al. 2021, eq. 2, written out once more."""
    problem, matrix, w = quadratic(SPECTRUM)
    found = run(problem, p=p, rho=0.3, relative=relative)
    g = matrix @ w
    radius = 0.3 * g.norm() if relative else 0.3
    if p == 1:
        step = torch.where(g.abs() == g.abs().max(), g.sign(), 0.0)
    else:
        q = 1.0 if math.isinf(p) else p / (p - 1)
        step = g.sign() * g.abs() ** (q - 1) / torch.linalg.vector_norm(g, q) ** (q - 1)
    step = radius * step
    h = g + matrix @ step
    assert counted(found) == naive(g, h)
    assert found.counts.sum() == len(w)
    assert found.gradient_norm_ratio == pytest.approx(float(h.norm() / g.norm()), rel=1e-12)
    assert found.cosine == pytest.approx(float(F.cosine_similarity(g, h, dim=0)), rel=1e-12)
    assert found.directional_curvature == pytest.approx(float(step @ matrix @ step / (step @ step)), rel=1e-9)
    moved = w + step
    assert found.perturbed_loss == pytest.approx(float(0.5 * moved @ matrix @ moved), rel=1e-12)
    assert found.length == pytest.approx(float(step.norm()), rel=1e-12)


def net(seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Tensor, Tensor]:
    x, y = classification(61, 5, 3, seed)
    x[:, 0] = 0  # its weights are dead
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).to(dtype)
    return model, x.to(dtype), y


def gradient(model: nn.Module, x: Tensor, y: Tensor, step: Tensor | None = None) -> Tensor:
    """∇L(w + step) by autograd, flat."""
    flat = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    flat = (flat if step is None else flat + step).requires_grad_()
    parts, first = {}, 0
    for name, p in model.named_parameters():
        parts[name] = flat[first : first + p.numel()].view_as(p)
        first += p.numel()
    loss = F.cross_entropy(torch.func.functional_call(model, parts, (x,)), y)
    return torch.autograd.grad(loss, flat)[0]


def test_against_a_naive_loop_whatever_the_batches() -> None:
    model, x, y = net()
    g = gradient(model, x, y)
    h = gradient(model, x, y, 0.1 * g / g.norm())
    expected = naive(g, h)
    assert expected["dead"] == 6
    for data in ((x, y), split_data((x, y), [40, 1, 20])):
        found = run(Problem(model, "cross_entropy", data), rho=0.1)
        assert counted(found) == expected
        assert found.fractions.sum() == pytest.approx(1, abs=1e-15)
        assert found.histogram.sum() == found.counts[:6].sum()
        assert found.gradient_shares.sum() == pytest.approx(1)
        assert found.perturbed_shares.sum() == pytest.approx(1)
        kept = sum(expected.get(name, 0) for name in ("ckpt1", "ckpt2", "equal"))
        assert found.sign_agreement == pytest.approx(kept / (len(g) - 6))
    assert found.layers is not None
    assert found.layer_parameters is not None
    assert found.layer_fractions is not None
    assert found.layers.tolist() == ["0", "2"]
    np.testing.assert_allclose(found.layer_parameters @ found.layer_fractions, found.counts)
    first = naive(g[:36], h[:36])
    assert found.layer_fractions[0] * 36 == pytest.approx([first.get(name, 0) for name in NAMES])


def test_the_change_of_the_gradient_is_the_curvature_at_the_rate_of_differences() -> None:
    """(g·g' − ‖g‖²)/(ρ‖g‖) → uᵀHu, with an error of first order in ρ."""
    model, x, y = net()
    g = gradient(model, x, y)
    u = g / g.norm()
    parameters = list(model.parameters())
    parts = torch.autograd.grad(F.cross_entropy(model(x), y), parameters, create_graph=True)
    flat = torch.cat([part.reshape(-1) for part in parts])
    product = torch.cat([part.reshape(-1) for part in torch.autograd.grad(flat @ u, parameters)])
    exact = float(u @ product)
    errors = []
    for rho in (1e-2, 1e-3, 1e-4):
        found = run(Problem(model, "cross_entropy", (x, y)), rho=rho)
        identity = (found.cosine * found.gradient_norm_ratio - 1) * found.gradient_norm / rho
        assert found.directional_curvature == pytest.approx(identity, rel=1e-6)
        errors.append(abs(found.directional_curvature - exact))
    for coarse, fine in itertools.pairwise(errors):
        assert 5 < coarse / fine < 20
    assert errors[-1] < 1e-3 * abs(exact)


def test_masks_are_the_classes_of_the_parameters() -> None:
    model, x, y = net()
    g = gradient(model, x, y)
    h = gradient(model, x, y, 0.05 * g / g.norm())
    found = run(Problem(model, "cross_entropy", (x, y)))
    assert found.masks is not None
    bits = np.unpackbits(found.masks, axis=1, bitorder="little", count=len(g))
    assert [NAMES[i] for i in bits.argmax(0)] == [
        by_division(*pair) for pair in zip(g.tolist(), h.tolist(), strict=True)
    ]
    assert run(Problem(model, "cross_entropy", (x, y)), masks=False).masks is None
    assert run(Problem(model, "cross_entropy", (x, y)), minibatch="20", batches=2).masks is None


@pytest.mark.parametrize("perturb", ["gradient", "friendly", "adaptive"])
def test_mini_batches_give_means_and_standard_errors(perturb: str) -> None:
    model, x, y = net()
    options = {"sigma": 0.7} if perturb == "friendly" else {"eta": 0.2} if perturb == "adaptive" else {}
    found = run(
        Problem(model, "cross_entropy", (x, y)),
        seed=3,
        perturb=perturb,
        rho=0.2,
        minibatch="13",
        batches=9,
        **options,
    )
    w = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    scale = torch.cat(
        [
            p.detach().reshape(-1).abs() + 0.2 if "weight" in n else torch.ones(p.numel())
            for n, p in model.named_parameters()
        ]
    )
    full = gradient(model, x, y)
    rows, ratios_of_norms = [], []
    for index in range(9):
        drawn = torch.Generator().manual_seed(derived_seed(3, f"mini-batch {index}"))
        chosen = torch.randperm(61, generator=drawn)[:13]
        g = gradient(model, x[chosen], y[chosen])
        along = g - 0.7 * full if perturb == "friendly" else g
        step = along / along.norm()
        if perturb == "adaptive":
            step = scale**2 * g / (scale * g).norm()
        h = gradient(model, x[chosen], y[chosen], 0.2 * step)
        tally = naive(g, h)
        rows.append([tally.get(name, 0.0) for name in NAMES])
        ratios_of_norms.append(float(h.norm() / g.norm()))
    counts = np.array(rows)
    np.testing.assert_allclose(found.counts, counts.mean(0))
    np.testing.assert_allclose(found.count_errors, counts.std(0, ddof=1) / 3)
    assert found.fractions.sum() == pytest.approx(1)
    assert found.gradient_norm_ratio == pytest.approx(np.mean(ratios_of_norms), rel=1e-10)
    assert found.gradient_norm_ratio_error == pytest.approx(np.std(ratios_of_norms, ddof=1) / 3, rel=1e-6)
    assert (found.batches, found.minibatch) == (9, 13)
    assert len(w) == found.parameters


def test_the_standard_error_covers_the_mean_over_all_mini_batches() -> None:
    """Of 60 runs of 8 mini-batches, ± 2.36 standard errors (Student, 95 %) hold the mean of 480 in most."""
    model, x, y = net()
    problem = Problem(model, "cross_entropy", (x, y))
    found = [run(problem, seed=s, minibatch="16", batches=8, rho=0.5, masks=False) for s in range(60)]
    truth = np.mean([f.fractions[0] for f in found])
    hits = sum(abs(f.fractions[0] - truth) <= 2.365 * f.fraction_errors[0] for f in found)
    assert hits >= 51  # 57 expected; P(< 51) is 0.4 %


def test_random_perturbations_are_isotropic_and_seeded() -> None:
    problem, matrix, _ = quadratic(SPECTRUM)
    found = [run(problem, seed=s, perturb="random", rho=0.7) for s in range(200)]
    assert all(f.length == pytest.approx(0.7, rel=1e-12) for f in found)
    curvatures = np.array([f.directional_curvature for f in found])
    error = curvatures.std(ddof=1) / math.sqrt(200)
    assert abs(curvatures.mean() - float(matrix.trace()) / 12) < 4 * error
    assert run(problem, seed=5, perturb="random", rho=0.7).directional_curvature == curvatures[5]


def test_a_sweep_repeats_the_run_at_other_lengths() -> None:
    model, x, y = net()
    problem = Problem(model, "cross_entropy", (x, y))
    found = run(problem, rho=0.1, rho_sweep=True)
    assert found.rho_sweep is not None
    assert found.sweep_fractions is not None
    np.testing.assert_allclose(found.rho_sweep, 0.1 * np.array(SWEEP))
    for rho, fractions in zip(found.rho_sweep, found.sweep_fractions, strict=True):
        np.testing.assert_array_equal(run(problem, rho=float(rho)).fractions, fractions)
    batches = run(problem, rho=0.1, rho_sweep=True, minibatch="20", batches=4)
    assert batches.sweep_errors is not None
    at_rho = SWEEP.index(1)
    np.testing.assert_allclose(batches.sweep_errors[at_rho], batches.fraction_errors, rtol=1e-12)


@pytest.mark.parametrize("data", ["one batch", "three batches"])
@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_without_a_perturbation_every_gradient_is_equal(data: str, decay: float, dtype: str) -> None:
    """To the last bit: both are summed in the same pieces."""
    model, x, y = net()
    batches: Any = (x, y) if data == "one batch" else split_data((x, y), [30, 30, 1])
    found = run(Problem(model, "cross_entropy", batches, dtype=dtype, weight_decay=decay), rho=0.0)
    assert set(counted(found)) <= {"equal", "dead"}
    assert found.uncertain.sum() == 0
    assert found.cosine == pytest.approx(1, abs=1e-12)


def test_at_a_critical_point_all_parameters_are_dead() -> None:
    problem, _, _ = quadratic([0.0] * 5)
    found = run(problem)
    assert counted(found) == {"dead": 5.0}
    assert math.isnan(found.cosine)
    assert math.isnan(found.gradient_norm_ratio)
    assert np.isnan(found.gradient_shares).all()
    assert found.length == 0
    assert found.status == "complete"


def test_a_perturbation_that_overflows_gives_nonfinite_ratios() -> None:
    matrix = torch.eye(3)

    def quartic(model: Any, batch: Any) -> Tensor:
        return (matrix @ model.w).pow(4).sum() + 0 * batch[0].sum()

    problem = Problem(Weights(torch.tensor([1.0, 2.0, 3.0])), quartic, (torch.ones(2, 1), torch.ones(2, 1)))
    found = run(problem, rho=1e30)
    assert counted(found) == {"nonfinite": 3.0}
    assert not math.isfinite(found.perturbed_loss)
    assert np.isfinite(found.fractions).all()
    assert np.isfinite(found.gradient_shares).all()


def test_a_selection_of_parameters_is_moved_alone() -> None:
    model, x, y = net()
    found = run(Problem(model, "cross_entropy", (x, y), params=["2.*"]), rho=0.1)
    g = gradient(model, x, y)
    alone = torch.cat([torch.zeros(36), g[36:]])
    h = gradient(model, x, y, 0.1 * alone / alone.norm())
    assert counted(found) == naive(g[36:], h[36:])


def test_weight_decay_belongs_to_both_gradients_when_asked_for() -> None:
    model, x, y = net()
    w = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    found = run(Problem(model, "cross_entropy", (x, y), weight_decay=0.2), rho=0.1)
    g = gradient(model, x, y) + 0.2 * w
    step = 0.1 * g / g.norm()
    assert counted(found) == naive(g, gradient(model, x, y, step) + 0.2 * (w + step))


def test_rounding_is_measured_and_float64_has_next_to_none() -> None:
    model, x, y = net()
    single = run(Problem(model, "cross_entropy", (x, y), dtype="float32"))
    double = run(Problem(model, "cross_entropy", (x, y), dtype="float64"))
    assert 1e-9 < single.rounding < 1e-4
    assert double.rounding == pytest.approx(single.rounding * 2.0**-29, rel=3)
    differing = np.abs(single.counts - double.counts).sum() / 2
    assert differing <= single.uncertain.sum() * single.parameters


@pytest.mark.parametrize(
    "settings",
    [
        {"rho_sweep": True},
        {"minibatch": "8", "batches": 5, "rho_sweep": True},
        {"minibatch": "8", "batches": 4, "perturb": "friendly"},
        {"perturb": "random"},
    ],
    ids=["full", "mini-batches", "friendly", "random"],
)
def test_every_state_goes_on_to_the_same_bits(settings: dict[str, Any]) -> None:
    def carried_out(start: Start) -> tuple[RatiosResult, list[Start]]:
        problem, states = small_problem(batch_size=16), []
        for state in ratios.steps(problem, Settings(**settings), {}, start):
            states.append(copied(state))
        return ratios.finish(problem, Settings(**settings), state.save()), states

    whole, states = carried_out(Start(7))
    assert len(states) == 1 + settings.get("batches", 1)
    for start in states[:-1]:
        again, _ = carried_out(start)
        assert_same_bits(again, whole)
        if whole.masks is not None:
            np.testing.assert_array_equal(again.masks, whole.masks)


def test_a_run_that_was_stopped_has_the_mini_batches_it_made() -> None:
    problem = small_problem()
    settings = Settings(minibatch="8", batches=6)
    states = list(itertools.islice(ratios.steps(problem, settings, {}, Start(7)), 4))
    found = ratios.finish(problem, settings, states[-1].save())
    assert (found.batches, found.status) == (3, "not_converged")
    nothing = ratios.finish(problem, settings, next(ratios.steps(problem, settings, {}, Start(7))).save())
    assert nothing.batches == 0


def test_nothing_is_changed_also_after_an_error_midway(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, y = net()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    problem = Problem(model, "cross_entropy", (x, y))
    own = {name: p.detach().clone() for name, p in problem.model.named_parameters()}
    state = torch.get_rng_state()

    def fail(*args: Any, **options: Any) -> None:
        raise RuntimeError("in the middle")

    with monkeypatch.context() as patch:
        patch.setattr("landscape.analyses.ratios_work.tally", fail)
        with pytest.raises(RuntimeError, match="in the middle"):
            run(problem)
    run(problem, rho=3.0)
    assert torch.equal(torch.get_rng_state(), state)
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name])
        assert p.grad is None
    for name, p in problem.model.named_parameters():
        assert torch.equal(p, own[name])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"perturb": "friendly"}, "mini-batch"),
        ({"perturb": "random", "p": 1.0}, "Euclidean"),
        ({"minibatch": "0"}, "--minibatch"),
        ({"minibatch": "some"}, "--minibatch"),
        ({"batches": 5}, "--batches"),
        ({"sigma": 0.5}, "--sigma"),
        ({"eta": 0.5}, "--eta"),
        ({"rho": math.inf}, "--rho must be finite"),
        ({"perturb": "adaptive", "eta": math.inf}, "--eta must be finite"),
        ({"perturb": "friendly", "minibatch": "3", "sigma": math.inf}, "--sigma must be finite"),
    ],
)
def test_options_that_do_not_fit_together(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Settings(**settings)


def test_a_mini_batch_larger_than_the_data() -> None:
    with pytest.raises(ConfigurationError, match="cannot be drawn"):
        run(small_problem(), minibatch="1000")


def test_the_plan_counts_gradients() -> None:
    problem = small_problem()
    assert ratios.plan(problem, Settings()).gradients == 2
    assert ratios.plan(problem, Settings(rho_sweep=True)).gradients == 2 + len(SWEEP) - 1
    size = problem.examples // 4
    planned = ratios.plan(problem, Settings(minibatch=str(size), batches=10)).gradients
    assert planned == pytest.approx(1 + 10 * 2 * size / problem.examples)


def test_batch_norm_keeps_its_statistics_for_the_second_gradient() -> None:
    """In train mode both gradients see the batch's own statistics, and the running ones stay."""
    x, y = classification(40, 4, 3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3)).double()
    problem = Problem(model, "cross_entropy", (x, y), train_mode=True)
    statistics = {name: buffer.clone() for name, buffer in problem.model.named_buffers()}
    found = run(problem, rho=0.1)
    model.train()
    g = gradient(model, x, y)
    h = gradient(model, x, y, 0.1 * g / g.norm())
    differing = {k: abs(counted(found).get(k, 0) - naive(g, h).get(k, 0)) for k in NAMES}
    # The bias before the normalisation has a gradient of rounding only.
    assert sum(differing.values()) <= 2 * 5
    for name, buffer in problem.model.named_buffers():
        assert torch.equal(buffer, statistics[name])


def test_the_work_is_two_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Examples that are differentiated, besides the few that rounding and piece sizes are tried on."""
    model, x, y = net()
    problem = Problem(model, "cross_entropy", (x.repeat(20, 1), y.repeat(20)))
    seen = []
    original = Problem._mean

    def counting(self: Problem, piece: Any, *args: Any, **options: Any) -> Any:
        seen.append(piece.examples if torch.is_grad_enabled() else 0)
        return original(self, piece, *args, **options)

    monkeypatch.setattr(Problem, "_mean", counting)
    run(problem)
    assert sum(seen) <= 2.5 * problem.examples
