"""What a sampler refuses, how it prints, and what every one of them promises about seeds and calls."""

import math

import pytest
import torch

from psld import exact
from psld.processes import PSLD
from psld.samplers import (
    GDDIM,
    OBA,
    RK45,
    ROBA,
    RVV,
    SSCS,
    Ancestral,
    Conjugate,
    ConjugateOBA,
    ConjugateVerlet,
    DPMSolverPP,
    EulerMaruyama,
    Exponential,
    Heun,
    Langevin,
    PredictorCorrector,
    Projected,
    Sampler,
    SymplecticEuler,
    VelocityVerlet,
)
from psld.samplers.grids import Grid

DATA = exact.GaussianMixture(
    means=torch.tensor([[0.8, -0.4, 0.3], [-0.7, 0.1, 0.0]], dtype=torch.float64),
    std=torch.tensor([0.2, 0.5], dtype=torch.float64),
)
GRID = Grid(torch.tensor([1.0, 0.8, 0.6, 0.45, 0.35], dtype=torch.float64))
SAMPLERS = [  # each with what it calls the network a step
    (EulerMaruyama(), 1),
    (SSCS(), 1),
    (Ancestral(), 1),
    *((Exponential(order), 1) for order in (1, 2, 3)),
    (Exponential(2, 0.5), 1),
    (DPMSolverPP(), 1),
    (DPMSolverPP(1.0), 1),
    *((GDDIM(order), 1) for order in (1, 2, 3)),
    (PredictorCorrector(1), 1),
    (PredictorCorrector(2), 1),
    (Heun(), 2),
    (Heun(1.0), 2),
    (Heun(1.0, (0.0, 1e4)), 2),
    (Langevin(EulerMaruyama(), 0.05, 2), 3),
    (Langevin(Exponential(2)), 2),
    (Langevin(Heun()), 3),
    (Langevin(PredictorCorrector(2)), 2),
    (Projected(Exponential(2)), 1),
    (Projected(Heun(), "fresh"), 2),
    (Projected(Langevin(Exponential(1)), "mean"), 2),
    (Conjugate(), 1),
    (Conjugate(0.3, "identity"), 1),
    (SymplecticEuler(), 2),
    (VelocityVerlet(), 3),
    (RVV(), 2),
    (OBA(), 2),
    (ROBA(1.16), 1),
    (ConjugateVerlet(0.1), 2),
    (ConjugateOBA(0.1, "identity", 0.9), 1),
]
every_sampler = pytest.mark.parametrize("sampler, calls", SAMPLERS, ids=repr)


def refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("order", [0, 4, -1])
def test_orders_are_1_to_3(order):
    refused(lambda: Exponential(order), f"order must be 1, 2 or 3: got {order}")
    refused(lambda: GDDIM(order), f"order must be 1, 2 or 3: got {order}")


@pytest.mark.parametrize("eta", [-0.1, 1.1, math.nan])
@pytest.mark.parametrize("make", [lambda eta: Exponential(2, eta), DPMSolverPP])
def test_eta_is_a_share(make, eta):
    refused(lambda: make(eta), r"eta must (lie in \[0, 1\], from the probability flow|be a number).*: got ")


def test_order_3_is_without_noise():
    refused(lambda: Exponential(3, 0.1), "order 3 needs a smooth path of x̂₀.*: use order 2, or eta = 0")


@pytest.mark.parametrize("order", [0, 3])
def test_order_of_a_predictor(order):
    refused(lambda: PredictorCorrector(order), f"the order of the predictor must be 1 or 2: got {order}")


def test_churn_is_not_negative():
    refused(lambda: Heun(-0.1), "churn must be a finite, non-negative number: got -0.1")


@pytest.mark.parametrize("size, corrections", [(0.0, 1), (1.0, 1), (-0.1, 1), (0.1, 0)])
def test_corrections_are_small_and_there(size, corrections):
    refused(lambda: Langevin(Ancestral(), size, corrections), "size must lie in|corrections must be at least 1")


def test_directions_are_named():
    refused(lambda: Conjugate(0.1, "zeros"), "direction must be 'identity' or 'ones': got 'zeros'")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("make", [OBA, ROBA])
def test_position_noise_is_not_negative(make):
    refused(lambda: make(-0.1), "position_noise must be a finite, non-negative number: got -0.1")


def test_ancillary_noise_is_named():
    refused(lambda: Projected(Heun(), "none"), "ancillary must be 'once', 'fresh' or 'mean': got 'none'")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("rtol, atol, steps", [(0.0, 1e-5, 1), (1e-5, -1.0, 1), (1e-5, 1e-5, 0)])
def test_tolerances_are_positive(rtol, atol, steps):
    refused(
        lambda: RK45(rtol, atol, steps),
        "(rtol|atol) must be a positive, finite|max_steps must be at least 1",
    )


@every_sampler
@pytest.mark.parametrize("process", [PSLD(0.25)], ids=repr)
def test_seeds_and_calls(sampler, calls, process):
    """A sample depends on its own seed only, to the last bit; the calls are counted; two runs are one."""
    made = []

    def network(y, sigma):
        made.append(len(y))
        return DATA.denoiser(y, sigma)

    model = DATA.model(process)
    model.network = network
    together = sampler.sample(model, grid=GRID, seeds=range(3), shape=(3,))
    count = calls * GRID.steps + 1
    assert sampler.nfe_per_step == calls
    assert together.nfe.tolist() == [count] * 3 and len(made) == count
    alone = sampler.sample(model, grid=GRID, seeds=[2], shape=(3,))
    assert torch.equal(together.z[2], alone.z[0]) and torch.equal(together.x[2], alone.x[0])
    assert together.z.isfinite().all() and not torch.equal(together.z[0], together.z[1])


@every_sampler
def test_noise_is_drawn_where_it_is_declared(sampler, calls):
    """From one state, another stream of noise moves the end of a stochastic sampler, and of no other."""
    process, model = PSLD(0.25), DATA.model(PSLD(0.25))
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, 2, 3, dtype=torch.float64, generator=generator)
    plan = sampler.prepare(process, GRID)
    ends = [
        model(
            sampler.integrate(model, z, plan, lambda: torch.randn(z.shape, dtype=z.dtype, generator=generator))[0],
            GRID.times[-1],
        ).x0
        for _ in range(2)
    ]
    moved = float((ends[0] - ends[1]).abs().max()) > 1e-8
    fresh = isinstance(sampler, Projected) and not sampler.solver.stochastic  # to the exact score it is no noise
    assert moved == (sampler.stochastic and not fresh)


@pytest.mark.parametrize(
    "sampler, calls", SAMPLERS, ids=lambda value: repr(value) if isinstance(value, Sampler) else ""
)
def test_a_grid_may_have_one_step(sampler, calls):
    result = sampler.sample(DATA.model(PSLD()), grid=Grid(GRID.times[[0, -1]]), seeds=range(2), shape=(3,))
    assert result.nfe.tolist() == [calls + 1] * 2 and result.x.isfinite().all()


def test_the_first_step_is_of_order_one():
    one_step = Grid(GRID.times[[0, -1]])
    first, *others = (
        sampler.sample(DATA.model(PSLD()), grid=one_step, seeds=range(2), shape=(3,)).z
        for sampler in (Exponential(1), Exponential(2), Exponential(3), GDDIM(2), GDDIM(3), PredictorCorrector(2))
    )
    for other in others:
        torch.testing.assert_close(other, first, rtol=1e-9, atol=1e-9)
