"""Perturbations against closed forms, the formula in many digits, random competitors, and ASAM's twin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal, localcontext

import pytest
import torch
from torch import Tensor

from landscape.errors import ConfigurationError
from landscape.sam import passes
from landscape.sam.passes import chunks, inner, norm
from landscape.sam.perturbation import Perturbation, conjugate, p_norm, random_step, steepest
from tests.support.closed_form import FLOAT64, generator

INF = math.inf
PS = (1.0, 1.0001, 1.5, 2.0, 4.0, 1e6, INF)
SHAPES = ((7, 5), (5,), (), (0,), (3, 2, 2))
NAMES = ("first.weight", "first.bias", "scale", "empty.weight", "conv.weight")
RHO = 0.05
FLOAT32 = torch.float32


def parts_of(seed: int = 0, dtype: torch.dtype = FLOAT64) -> list[Tensor]:
    """Numbers of both signs whose sizes range over four decades, in the shapes of a small model."""
    g = generator(seed)
    found = []
    for shape in SHAPES:
        sign = torch.randint(2, shape, generator=g) * 2 - 1
        found.append((sign * 10 ** (-4 * torch.rand(shape, generator=g, dtype=FLOAT64))).to(dtype))
    return found


def flat(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([part.reshape(-1) for part in parts])


def along(gradient: Sequence[Tensor], p: float, rho: float = RHO) -> list[Tensor]:
    """The steepest perturbation; it does not depend on the weights."""
    weights = [torch.ones_like(g) for g in gradient]
    return steepest(gradient, weights, [None] * len(gradient), rho, p).parts()


def rounding(p: float) -> float:
    """|x|^(q−1) is wrong by q−1 times the rounding of ln|x|; at p = 1 there is no power."""
    return 1e-14 if p == 1 else 1e-14 + 1e-15 * conjugate(p)


@pytest.mark.parametrize("p", PS)
def test_length_and_gain(p: float) -> None:
    """‖ε‖_p = ρ and ε·g = ρ‖g‖_q, Hölder's inequality with equality."""
    for seed in range(5):
        gradient = parts_of(seed)
        step = along(gradient, p)
        assert [(e.shape, e.dtype) for e in step] == [(g.shape, g.dtype) for g in gradient]
        assert p_norm(step, p) == pytest.approx(RHO, rel=rounding(p))
        assert inner(step, gradient) == pytest.approx(RHO * p_norm(gradient, conjugate(p)), rel=rounding(p))
        assert inner(along(gradient, p, -RHO), gradient) == -inner(step, gradient)


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        (1.0, (0.0, -1.0, 0.0)),
        (1.5, (9 / 91 ** (2 / 3), -16 / 91 ** (2 / 3), 0.0)),
        (2.0, (0.6, -0.8, 0.0)),
        (
            4.0,
            (
                3 ** (1 / 3) / (3 ** (4 / 3) + 4 ** (4 / 3)) ** 0.25,
                -(4 ** (1 / 3)) / (3 ** (4 / 3) + 4 ** (4 / 3)) ** 0.25,
                0.0,
            ),
        ),
        (INF, (1.0, -1.0, 0.0)),
    ],
)
def test_by_hand(p: float, expected: tuple[float, ...]) -> None:
    (step,) = along([torch.tensor([3.0, -4.0, 0.0], dtype=FLOAT64)], p)
    assert step.tolist() == pytest.approx([RHO * e for e in expected], rel=1e-14)
    assert float(step[2]) == 0.0


@pytest.mark.parametrize("p", [1.0001, 1.01, 1.5, 2.0, 4.0, 1e6])
def test_against_the_formula_in_sixty_digits(p: float) -> None:
    """Foret et al. 2021, eq. 2, as it stands: no scaling by the largest entry."""
    gradient = parts_of(3)
    found = flat(along(gradient, p)).tolist()
    with localcontext() as context:
        context.prec, context.Emin = 60, -(10**9)
        one, order = Decimal(1), Decimal(p)
        q = order / (order - one)
        g = [Decimal(x) for x in flat(gradient).tolist()]
        length = sum(abs(x) ** q for x in g) ** (one / q)
        exact = [Decimal(RHO) * (abs(x) / length) ** (q - one) * (one if x > 0 else -one) for x in g]
    expected = [float(x) for x in exact]
    assert found == pytest.approx(expected, rel=1e-15 * conjugate(p) * 20 + 1e-13, abs=1e-250)


@pytest.mark.parametrize("p", PS)
@pytest.mark.parametrize(
    "count", [100, pytest.param(20_000, marks=pytest.mark.long)], ids=["sample", "all of them"]
)
def test_no_competitor_of_the_same_length_gains_more(p: float, count: int) -> None:
    """Random ones all over the sphere of the p-norm, and ones very near, which must come close."""
    g, gradient = generator(7), parts_of(7)
    n, direction = len(flat(gradient)), flat(gradient)
    best, here = inner(along(gradient, p), gradient), flat(along(gradient, p))
    closest = -INF
    for _ in range(count):
        noise = torch.randn(n, generator=g, dtype=FLOAT64)
        spiky = noise.sign() * noise.abs() ** float(1 + 5 * torch.rand((), generator=g))
        near = here + here.abs().max() * 1e-4 * noise * (torch.rand(n, generator=g) < 0.2)
        for other in (noise, spiky, near):
            gain = float(RHO / p_norm([other], p) * other @ direction)
            assert gain <= best * (1 + rounding(p))
            closest = max(closest, gain)
    assert closest > 0.99 * best


@pytest.mark.parametrize("ties", [1, 2, 3])
def test_ties_share_alike_at_p_1(ties: int) -> None:
    """Also over tensors and signs; the nearest number below the largest gets nothing."""
    gradient = parts_of(1)
    largest = 1.25
    gradient[4][1, 0, 1] = math.nextafter(largest, 0)
    where = [(0, (2, 3), 1.0), (1, (4,), -1.0), (4, (2, 1, 0), 1.0)][:ties]
    for i, at, sign in where:
        gradient[i][at] = sign * largest
    step = along(gradient, 1.0)
    assert int((flat(step) != 0).sum()) == ties
    for i, at, sign in where:
        assert float(step[i][at]) == sign * RHO / ties
    equal = along([torch.full((8,), -3e-5, dtype=FLOAT64)], 1.0)[0]
    assert equal.tolist() == [-RHO / 8] * 8


@pytest.mark.parametrize("p", PS)
@pytest.mark.parametrize(
    ("dtype", "powers", "factors"),
    [(FLOAT32, (-100, 100), (1e-30, 1e30)), (FLOAT64, (-1000, 1000), (1e-300, 1e300))],
)
def test_the_size_of_the_gradient_does_not_matter(
    p: float, dtype: torch.dtype, powers: tuple[int, int], factors: tuple[float, float]
) -> None:
    gradient = parts_of(2, dtype)
    expected = flat(along(gradient, p))
    assert bool((expected != 0).any())
    for power in powers:
        assert torch.equal(flat(along([g * 2.0**power for g in gradient], p)), expected)
    for factor in factors:
        found = flat(along([g * factor for g in gradient], p)).double()
        eps = torch.finfo(dtype).eps * max(4, 4 * min(conjugate(p), 1e5))
        assert torch.allclose(found, expected.double(), rtol=eps, atol=0 if p > 1.01 else 1e-6 * RHO)


@pytest.mark.parametrize("factor", [1e-300, 1e-200, 1e-160, 1e-140, 1.0, 1e150, 1e160, 1e300])
def test_norms_neither_overflow_nor_vanish(factor: float) -> None:
    parts = parts_of(2)
    scaled = [part * factor for part in parts]
    for p in PS:
        expected = (
            float(torch.linalg.vector_norm(flat(parts), p)) if p < 1000 else float(flat(parts).abs().max())
        )
        assert p_norm(scaled, p) == pytest.approx(expected * factor, rel=1e-12)
    assert norm(scaled) == pytest.approx(float(flat(parts).norm()) * factor, rel=1e-14)
    assert Perturbation(rho=0.5, relative=True).radius(norm(scaled)) == 0.5 * norm(scaled)
    assert Perturbation(rho=0.5).radius(norm(scaled)) == 0.5


def test_norms_of_nothing_and_of_what_is_not_finite() -> None:
    nothing: list[list[Tensor]] = [[], [torch.zeros(0)], [torch.zeros(3), torch.zeros(())]]
    for parts in nothing:
        assert norm(parts) == 0
        assert all(p_norm(parts, p) == 0 for p in PS)
    one = torch.ones(2, dtype=FLOAT64)
    for bad, expected in ((INF, INF), (-INF, INF), (math.nan, math.nan)):
        for parts in ([one, one * bad], [one * bad, one]):
            for found in (norm(parts), *(p_norm(parts, p) for p in PS)):
                assert found == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("p", PS)
@pytest.mark.parametrize("rule", ["gradient", "adaptive"])
def test_zero_gradient_and_zero_radius(p: float, rule: str) -> None:
    """At a critical point there is no direction; dead units stay where they are."""
    weights, gradient = parts_of(1), parts_of(2)
    how = Perturbation(rule, RHO, p)  # type: ignore[arg-type]
    for zeros in (
        how.steps([torch.zeros_like(g) for g in gradient], weights, NAMES, RHO),
        how.steps(gradient, weights, NAMES, 0.0),
    ):
        assert all(torch.equal(e, torch.zeros_like(e)) for e in zeros.parts())
        assert all(torch.equal(m, w) for m, w in zip(zeros.moved(), weights, strict=True))
    dead = gradient[0].abs() < 0.01
    gradient[0][dead] = 0
    assert bool(dead.any())
    step = how.steps(gradient, weights, NAMES, RHO).part(0)
    assert bool((step[dead] == 0).all())
    assert bool(torch.isfinite(step).all())


@pytest.mark.parametrize("p", PS)
@pytest.mark.parametrize("bad", [math.nan, INF, -INF])
def test_a_gradient_that_is_not_finite_gives_no_finite_step(p: float, bad: float) -> None:
    """Wherever in the model it is: a part that looks like a step would be a silent error."""
    for i in (0, 1, 4):
        gradient = parts_of(2)
        gradient[i].reshape(-1)[1] = bad
        assert bool(flat(along(gradient, p)).isnan().all())
        assert bool((flat(along(gradient, p, 0.0)) == 0).all())


def naive_asam(g: Tensor, w: Tensor, weight: Tensor, eta: float) -> Tensor:
    """Kwon et al. 2021: ρ T²g/‖Tg‖ with T = |w| + η where ``weight`` is set, else 1."""
    t = torch.where(weight, w.abs() + eta, 1.0)
    return RHO * t**2 * g / torch.linalg.vector_norm(t * g)


@pytest.mark.parametrize("eta", [0.0, 0.01, 3.0])
def test_adaptive_against_the_formula(eta: float) -> None:
    gradient, weights = parts_of(4), parts_of(5)
    is_weight = torch.cat(
        [torch.full((g.numel(),), "weight" in name) for g, name in zip(gradient, NAMES, strict=True)]
    )
    step = Perturbation("adaptive", RHO, eta=eta).steps(gradient, weights, NAMES, RHO)
    expected = naive_asam(flat(gradient), flat(weights), is_weight, eta)
    assert torch.allclose(flat(step.parts()), expected, rtol=1e-14, atol=0)
    scale = torch.where(is_weight, flat(weights).abs() + eta, 1.0)
    assert norm([flat(step.parts()) / scale]) == pytest.approx(RHO, rel=1e-14)
    assert float(flat(step.parts()) @ flat(gradient)) == pytest.approx(
        RHO * norm([scale * flat(gradient)]), rel=1e-14
    )


@pytest.mark.parametrize("p", PS)
def test_adaptive_in_other_norms(p: float) -> None:
    """‖T⁻¹ε‖_p = ρ and ε·g = ρ‖Tg‖_q."""
    gradient, weights = parts_of(4), parts_of(5)
    step = Perturbation("adaptive", RHO, p).steps(gradient, weights, NAMES, RHO).parts()
    scales = [
        w.abs() + 0.01 if "weight" in name else torch.ones_like(w)
        for w, name in zip(weights, NAMES, strict=True)
    ]
    assert p_norm([e / t for e, t in zip(step, scales, strict=True)], p) == pytest.approx(
        RHO, rel=rounding(p)
    )
    gain = RHO * p_norm([t * g for g, t in zip(gradient, scales, strict=True)], conjugate(p))
    assert inner(step, gradient) == pytest.approx(gain, rel=rounding(p))


def test_adaptive_steps_follow_a_rescaling_of_the_weights() -> None:
    """w → aw has g → g/a: without η the step is a times as long, bit by bit for a power of two."""
    gradient, weights = parts_of(4), parts_of(5)
    names = ["weight"] * len(weights)
    factors = [2.0**k for k in (3, -5, 1, 0, 7)]
    how = Perturbation("adaptive", RHO, eta=0.0)
    plain = how.steps(gradient, weights, names, RHO).parts()
    rescaled = how.steps(
        [g / a for g, a in zip(gradient, factors, strict=True)],
        [w * a for w, a in zip(weights, factors, strict=True)],
        names,
        RHO,
    ).parts()
    assert all(torch.equal(e * a, f) for e, a, f in zip(plain, factors, rescaled, strict=True))


@pytest.mark.parametrize("p", PS)
@pytest.mark.parametrize("rule", ["gradient", "adaptive"])
def test_float32_is_float64_rounded_once(p: float, rule: str) -> None:
    gradient, weights = parts_of(6, FLOAT32), parts_of(7, FLOAT32)
    how = Perturbation(rule, RHO, p)  # type: ignore[arg-type]
    found = how.steps(gradient, weights, NAMES, RHO)
    exact = how.steps([g.double() for g in gradient], [w.double() for w in weights], NAMES, RHO)
    for part, reference in zip(found.parts(), exact.parts(), strict=True):
        assert part.dtype == FLOAT32
        assert torch.equal(part, reference.float())
    assert all(m.dtype == FLOAT32 for m in found.moved())


@pytest.mark.parametrize("p", PS)
def test_pieces_layout_and_one_part_at_a_time_change_nothing(
    p: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    gradient, weights = parts_of(8), parts_of(9)
    how = Perturbation("adaptive", RHO, p)
    whole = how.steps(gradient, weights, NAMES, RHO)
    expected = whole.parts()
    assert len(whole) == len(SHAPES)
    assert all(torch.equal(whole.part(i), e) for i, e in reversed(list(enumerate(expected))))
    strided = [g.T.contiguous().T if g.ndim == 2 else g for g in gradient]
    assert not strided[0].is_contiguous()
    monkeypatch.setattr(passes, "CHUNK", 4)
    assert [x.tolist() for (x,) in chunks(strided[0])] == [x.tolist() for x in gradient[0].flatten().split(4)]
    for parts in (gradient, strided):
        found = how.steps(parts, weights, NAMES, RHO).parts()
        for e, f in zip(expected, found, strict=True):
            assert torch.allclose(e, f, rtol=rounding(p), atol=0)


def test_a_tensor_longer_than_a_chunk() -> None:
    gradient = torch.randn(2 * passes.CHUNK + 3, generator=generator(), dtype=FLOAT64)
    (step,) = along([gradient], 2.0)
    assert torch.allclose(step, RHO * gradient / gradient.norm(), rtol=1e-12, atol=0)
    assert norm([gradient]) == pytest.approx(float(gradient.norm()), rel=1e-12)


def test_moved_weights_are_written_afresh() -> None:
    gradient, weights = parts_of(4), [torch.nn.Parameter(w) for w in parts_of(5)]
    before = [w.detach().clone() for w in weights]
    step = Perturbation().steps(gradient, weights, NAMES, RHO)
    for sign in (1.0, -1.0, 0.5):
        for w, e, m in zip(before, step.parts(), step.moved(sign), strict=True):
            assert torch.equal(m, w + sign * e)
            assert not m.requires_grad
    for m in step.moved(0.0):
        m.fill_(7.0)
    assert all(torch.equal(w, b) for w, b in zip(weights, before, strict=True))


def test_conjugate_exponents() -> None:
    assert [conjugate(p) for p in (1.0, 2.0, INF)] == [INF, 2.0, 1.0]
    for p in (1.0001, 1.5, 4.0):
        assert conjugate(conjugate(p)) == pytest.approx(p, rel=1e-11)
    for p in (0.999, 0.0, -2.0, -INF, math.nan):
        with pytest.raises(ConfigurationError, match="at least 1"):
            conjugate(p)
        with pytest.raises(ConfigurationError):
            along(parts_of(), p)


def test_random_steps_have_their_length_and_come_from_their_seed() -> None:
    for dtype in (FLOAT32, FLOAT64):
        weights = parts_of(0, dtype)
        step = random_step(weights, RHO, 3, "a")
        assert [(e.shape, e.dtype) for e in step] == [(w.shape, dtype) for w in weights]
        assert norm(step) == pytest.approx(RHO, rel=4 * torch.finfo(dtype).eps)
        state = torch.get_rng_state()
        again = random_step(weights, RHO, 3, "a")
        assert torch.equal(torch.get_rng_state(), state)
        assert all(torch.equal(e, f) for e, f in zip(step, again, strict=True))
        assert torch.equal(flat(random_step(weights, 2 * RHO, 3, "a")), 2 * flat(step))
        for seed, name in ((4, "a"), (3, "b")):
            other = flat(random_step(weights, RHO, seed, name))
            assert abs(float(other @ flat(step))) < 0.9 * RHO**2
        assert all(torch.equal(e, torch.zeros_like(e)) for e in random_step(weights, 0.0, 3, "a"))


@pytest.mark.parametrize("count", [4000, pytest.param(100_000, marks=pytest.mark.long)])
def test_random_steps_are_isotropic(count: int) -> None:
    """Moments of the uniform distribution on a sphere, over the parts of a model; 5 standard deviations."""
    weights = [torch.zeros(3), torch.zeros(()), torch.zeros(1, 2), torch.zeros(18)]
    draws = torch.stack([flat(random_step(weights, 1.0, seed, "x")).double() for seed in range(count)])
    n = draws.shape[1]
    within = 5 / math.sqrt(count)
    assert float(draws.mean(0).abs().max()) < within / math.sqrt(n)
    second = draws.T @ draws / count - torch.eye(n) / n
    assert float(second.abs().max()) < within * math.sqrt(2) / n
    fourth = 3 / (n * (n + 2))
    assert float((draws**4).mean(0).sub(fourth).abs().max()) < within * math.sqrt(105 / n**4)
