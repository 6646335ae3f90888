"""Every fixed-step sampler reaches the exact reverse law at the order it declares.

On Gaussian data a run is affine, so the law is propagated (laws.py), never sampled. Each run starts from the exact
marginal at one time and is compared at a later one, in units of that law's spread, on equal steps of t short enough to
be asymptotic. (From T to t = 1e-3 hundreds are not, in phase space: the last decades of noise get too few of them.)
"""

import pytest
import torch

import laws
from psld import exact
from psld.processes import CLD, PSLD, VPSDE, HigherOrderLangevin, SubVPSDE
from psld.samplers import (
    GDDIM,
    OBA,
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
    SymplecticEuler,
    VelocityVerlet,
)
from psld.samplers.grids import Grid, log_snr

CHAIN = HigherOrderLangevin(3)
PROCESSES = [VPSDE(), CLD(), PSLD(0.01), PSLD(0.25), CHAIN]
PHASE_SPACE = [CLD(), PSLD(0.01), pytest.param(PSLD(0.25), marks=pytest.mark.slow), CHAIN]
SAMPLERS = [
    EulerMaruyama(),
    SSCS(),
    Ancestral(),
    Heun(),
    *(Exponential(order) for order in (1, 2, 3)),
    *(Exponential(order, eta) for order in (1, 2) for eta in (0.5, 1.0)),
    DPMSolverPP(),
    DPMSolverPP(eta=1.0),
    *(GDDIM(order) for order in (1, 2, 3)),
    *(PredictorCorrector(order) for order in (1, 2)),
    Projected(Exponential(2)),
    Projected(PredictorCorrector(1)),
    Conjugate(0.0),
    Conjugate(0.3, "identity"),
    Conjugate(0.3, "ones"),
]
SPLITTING = [
    SymplecticEuler(),
    VelocityVerlet(),
    RVV(),
    OBA(),
    ROBA(),
    ConjugateVerlet(),
    ConjugateVerlet(0.3, "identity"),
    ConjugateOBA(),
    ConjugateOBA(0.3, "ones"),
]


def grids(sampler, process):
    if sampler.order == 3:
        start, stop, steps = 0.5, 0.4, (32, 64, 128)
    elif isinstance(sampler, Heun) and process is CHAIN:  # there its third-order error is the larger one for long
        start, stop, steps = 0.5, 0.25, (2048, 4096)
    elif isinstance(sampler, Heun | Conjugate | SymplecticEuler | VelocityVerlet):
        start, stop, steps = 0.6, 0.2, (256, 512, 1024)
    else:
        start, stop, steps = 0.6, 0.2, (64, 128, 256)
    return [Grid(torch.linspace(start, stop, n + 1, dtype=torch.float64), "none") for n in steps]


def check(sampler, process):
    data = exact.Gaussian(mean=0.3, std=0.7)
    errors = [laws.law_error(sampler, process, data, grid) for grid in grids(sampler, process)]
    assert laws.fitted_order(errors) == pytest.approx(sampler.order, abs=0.15)
    assert errors[-1] < 0.15


@pytest.mark.parametrize("process", [VPSDE(), *PHASE_SPACE], ids=repr)
@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_declared_order(sampler, process):
    check(sampler, process)


@pytest.mark.parametrize("lam", [0.0, 0.3])
def test_conjugate_where_the_diffusion_is_no_constant(lam):
    """Sub-VP: D changes with time beside β, and has to be looked up inside the step."""
    check(Conjugate(lam, "identity"), SubVPSDE())


@pytest.mark.parametrize("process", PHASE_SPACE, ids=repr)
@pytest.mark.parametrize("sampler", SPLITTING, ids=repr)
def test_declared_order_of_splitting(sampler, process):
    check(sampler, process)


@pytest.mark.parametrize(
    "process",
    [VPSDE(), PSLD(0.01), *(pytest.param(process, marks=pytest.mark.slow) for process in (CLD(), PSLD(0.25)))],
    ids=repr,
)
def test_declared_order_with_churn(process):
    check(Heun(churn=1.0), process)


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
@pytest.mark.parametrize(
    "sampler", [Ancestral(), Exponential(1), Exponential(2, 0.5), GDDIM(3), PredictorCorrector(2)], ids=repr
)
@pytest.mark.parametrize("end", [0.3, 0.01])
def test_few_steps_are_exact_for_a_point(sampler, process, end):
    """Data without spread: x̂₀ does not depend on z, and steps of any length from T are the whole reverse process."""
    grid = log_snr(process, 3, end=end, final="none")
    assert laws.law_error(sampler, process, exact.Gaussian(mean=0.3, std=0.0), grid) < (
        1e-8 if process is not CHAIN else 1e-6
    )


@pytest.mark.parametrize("sampler", [EulerMaruyama(), SSCS()], ids=repr)
def test_one_long_step_of_the_others_is_not(sampler):
    grid = log_snr(CLD(), 1, end=0.3, final="none")
    assert laws.law_error(sampler, CLD(), exact.Gaussian(mean=0.3, std=0.0), grid) > 0.1


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
def test_corrections_mend_the_law(process):
    """A predictor too coarse to be right; Langevin steps at each time pull towards p_s, more of them further."""
    data, grid = exact.Gaussian(mean=0.3, std=0.7), log_snr(process, 24, end=0.1, final="none")
    plain, corrected, more = (
        laws.carry(
            sampler, data.model(process), sampler.prepare(process, grid), laws.exact_law(process, data, 1.0), draws=9
        )
        for sampler in (EulerMaruyama(), Langevin(EulerMaruyama(), 0.02, 2), Langevin(EulerMaruyama(), 0.02, 8))
    )
    errors = [laws.distance(law, laws.exact_law(process, data, 0.1)) for law in (plain, corrected, more)]
    assert errors[2] < errors[1] < errors[0]


def test_propagation_agrees_with_sampling():
    process, data, grid = PSLD(0.25), exact.Gaussian(0.3, 0.7), log_snr(PSLD(0.25), 8, end=0.1, final="none")
    n, sampler, generator = 100_000, Exponential(2, 0.5), torch.Generator().manual_seed(0)
    start = laws.exact_law(process, data, 1.0)
    draws = torch.randn(n, 2, 1, dtype=torch.float64, generator=generator)
    z = start.mean[:, None] + torch.linalg.cholesky(start.covariance) @ draws

    def noise():
        return torch.randn(n, 2, 1, dtype=torch.float64, generator=generator)

    plan = sampler.prepare(process, grid)
    z = sampler.integrate(data.model(process), z, plan, noise)[0][..., 0]
    law = laws.carry(sampler, data.model(process), plan, start)
    assert laws.distance(laws.Law(z.mean(0), torch.cov(z.T)), law) < 0.02
