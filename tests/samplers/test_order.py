"""Every fixed-step sampler reaches the exact reverse law at the order it declares.

On Gaussian data a step is affine, so the law is propagated (laws.py), never sampled. Each run starts from the exact
marginal at T and is compared at t = 0.1, in units of that law's spread, on log-SNR grids of 64, 128 and 256 steps:
there the local slopes lie between 0.88 and 1.17 and close in on 1. (Down to t = 1e-3, or on uniform grids, 64 … 512
steps in phase space are not yet asymptotic: the steps through those last decades of noise are too long.)
"""

import pytest
import torch

import laws
from psld import exact
from psld.grids import log_snr
from psld.processes import CLD, PSLD, VPSDE, HigherOrderLangevin
from psld.samplers import SSCS, Ancestral, EulerMaruyama, Exponential

PROCESSES = [VPSDE(), CLD(), PSLD(0.01), PSLD(0.25), HigherOrderLangevin(3)]
SAMPLERS = [EulerMaruyama(), SSCS(), Ancestral(), Exponential()]

every_process = pytest.mark.parametrize("process", PROCESSES, ids=repr)


@every_process
@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: type(sampler).__name__)
def test_declared_order(sampler, process):
    data = exact.Gaussian(mean=0.3, std=0.7)
    grids = [log_snr(process, steps, end=0.1, final="none") for steps in (64, 128, 256)]
    errors = [laws.law_error(sampler, process, data, grid) for grid in grids]
    assert laws.fitted_order(errors) == pytest.approx(sampler.order, abs=0.15)
    assert errors[-1] < 0.1


@every_process
@pytest.mark.parametrize("sampler", [Ancestral(), Exponential()], ids=lambda sampler: type(sampler).__name__)
@pytest.mark.parametrize("end", [0.3, 0.01])
def test_one_step_is_exact_for_a_point(sampler, process, end):
    """Data without spread: x̂₀ does not depend on z, and one step from T is the whole reverse process."""
    grid = log_snr(process, 1, end=end, final="none")
    assert laws.law_error(sampler, process, exact.Gaussian(mean=0.3, std=0.0), grid) < 1e-9


@pytest.mark.parametrize("sampler", [EulerMaruyama(), SSCS()], ids=lambda sampler: type(sampler).__name__)
def test_one_long_step_of_the_others_is_not(sampler):
    grid = log_snr(CLD(), 1, end=0.3, final="none")
    assert laws.law_error(sampler, CLD(), exact.Gaussian(mean=0.3, std=0.0), grid) > 0.1


def test_propagation_agrees_with_sampling():
    process, data, grid = PSLD(0.25), exact.Gaussian(0.3, 0.7), log_snr(PSLD(0.25), 8, end=0.1, final="none")
    n, sampler, generator = 100_000, SSCS(), torch.Generator().manual_seed(0)
    start = laws.exact_law(process, data, 1.0)
    draws = torch.randn(n, 2, 1, dtype=torch.float64, generator=generator)
    z = start.mean[:, None] + torch.linalg.cholesky(start.covariance) @ draws

    def noise():
        return torch.randn(n, 2, 1, dtype=torch.float64, generator=generator)

    plan = sampler.prepare(process, grid)
    z = sampler.integrate(data.model(process), z, plan, noise)[0][..., 0]
    law = laws.carry(sampler, data.model(process), plan, start)
    assert laws.distance(laws.Law(z.mean(0), torch.cov(z.T)), law) < 0.02
