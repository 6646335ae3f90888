"""The laws that samplers reach: exact where they must be, nearer with corrections. Orders: tests/contracts.

On Gaussian data a run is affine, so the law is propagated (laws.py), never sampled.
"""

import pytest
import torch

import laws
from psld import exact
from psld.processes import CLD, PSLD, VPSDE, HigherOrderLangevin, SubVPSDE
from psld.samplers import (
    GDDIM,
    SSCS,
    Ancestral,
    Conjugate,
    EulerMaruyama,
    Exponential,
    Langevin,
    PredictorCorrector,
)
from psld.samplers.grids import Grid, log_snr

CHAIN = HigherOrderLangevin(3)
PROCESSES = [VPSDE(), CLD(), PSLD(0.01), PSLD(0.25), CHAIN]


@pytest.mark.parametrize("lam", [0.0, 0.3])
def test_conjugate_where_the_diffusion_is_no_constant(lam):
    """Sub-VP: D changes with time beside β, and has to be looked up inside the step."""
    data = exact.Gaussian(mean=0.3, std=0.7)
    grids = [Grid(torch.linspace(0.6, 0.2, n + 1, dtype=torch.float64), "none") for n in (256, 512, 1024)]
    errors = [laws.law_error(Conjugate(lam, "identity"), SubVPSDE(), data, grid) for grid in grids]
    assert laws.fitted_order(errors) == pytest.approx(1.0, abs=0.15)


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
