"""What the shared loop promises, and equivalences between samplers and processes."""

import pytest
import torch

import row_by_row
from psld import exact
from psld.processes import CLD, PSLD, VESDE, VPSDE, HigherOrderLangevin, SubVPSDE
from psld.samplers import RK45, SSCS, Ancestral, EulerMaruyama, Exponential
from psld.samplers.grids import Grid, log_snr, uniform

SAMPLERS = [EulerMaruyama(), SSCS(), Ancestral(), Exponential()]
DATA = exact.GaussianMixture(
    means=torch.tensor([[0.8, -0.4, 0.3], [-0.7, 0.1, 0.0], [0.1, 1.2, -0.9]], dtype=torch.float64),
    std=torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64),
)

every_sampler = pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: type(sampler).__name__)


def gaussian_model(process):
    return exact.Gaussian(0.3, 0.7, (3,)).model(process)


@every_sampler
@pytest.mark.parametrize("process", [VPSDE(), PSLD(0.01), HigherOrderLangevin(3)], ids=repr)
def test_a_sample_does_not_depend_on_its_batch(sampler, process):
    grid, model = log_snr(process, 6, end=0.05), row_by_row.model(DATA, process)
    together = sampler.sample(model, grid=grid, seeds=range(5), shape=(3,))
    alone = sampler.sample(model, grid=grid, seeds=[3], shape=(3,))
    pair = sampler.sample(model, grid=grid, seeds=[1, 3], shape=(3,))
    assert torch.equal(together.x[3], alone.x[0]) and torch.equal(together.z[3], alone.z[0])
    assert torch.equal(together.z[[1, 3]], pair.z)
    assert together.nfe.tolist() == [6] * 5


@every_sampler
def test_no_noise_in_position_is_cld(sampler):
    results = [sampler.sample(DATA.model(p), 4, uniform(p, 10, end=0.05), shape=(3,)) for p in (PSLD(gamma=0.0), CLD())]
    assert torch.equal(results[0].x, results[1].x) and torch.equal(results[0].z, results[1].z)


def test_rk45_without_noise_in_position_is_cld():
    results = [RK45().sample(DATA.model(p), 2, uniform(p, 10), shape=(3,)) for p in (PSLD(gamma=0.0), CLD())]
    assert torch.equal(results[0].x, results[1].x)


@every_sampler
@pytest.mark.parametrize("process", [VPSDE(), PSLD(0.25)], ids=repr)
def test_finals_by_hand(sampler, process):
    """All three share their last state: x̂₀ there, a noise-free Euler step of the reverse SDE to 0, or the position."""
    end, model = 0.05, DATA.model(process)
    times = torch.linspace(1.0, end, 8, dtype=torch.float64)
    none, denoise, euler = (
        sampler.sample(model, 4, Grid(times, final), shape=(3,)) for final in ("none", "denoise", "euler")
    )
    z = none.z
    assert torch.equal(denoise.z, z)
    assert torch.equal(none.x, z[:, 0]) and none.nfe.tolist() == [7] * 4
    y, sigma = process.statistic(z, end)
    torch.testing.assert_close(denoise.x, DATA.denoiser(y, sigma.expand(4)), rtol=1e-12, atol=1e-12)
    assert denoise.nfe.tolist() == euler.nfe.tolist() == [8] * 4
    at_end = z.clone().requires_grad_()
    (score,) = torch.autograd.grad(DATA.log_prob(process, at_end, end).sum(), at_end)
    drift = torch.einsum("ij,bjc->bic", process.drift_rate(end), z)
    reverse = drift - torch.einsum("ij,bjc->bic", 2 * process.diffusion_rate(end), score)
    torch.testing.assert_close(euler.z, z - end * reverse, rtol=1e-8, atol=1e-8)
    assert torch.equal(euler.x, euler.z[:, 0])


def test_plan_is_reusable_and_steps_are_watched():
    process = PSLD()
    grid, sampler, seen = log_snr(process, 6), EulerMaruyama(), []
    plan = sampler.prepare(process, grid)
    with_plan = sampler.sample(DATA.model(process), 2, plan, shape=(3,), watch=lambda t, z: seen.append((float(t), z)))
    assert torch.equal(with_plan.x, sampler.sample(DATA.model(process), 2, grid, shape=(3,)).x)
    assert [t for t, _ in seen] == grid.times.tolist() and torch.equal(seen[-1][1], with_plan.z)


@pytest.mark.parametrize("process", [VESDE(), SubVPSDE()], ids=repr)
def test_sscs_needs_a_stationary_law(process):
    with pytest.raises(ValueError, match="SSCS splits off the stationary law"):
        SSCS().sample(gaussian_model(process), grid=uniform(process, 5), seeds=[0], shape=(3,))


@pytest.mark.parametrize("process", [VESDE(), SubVPSDE()], ids=repr)
@pytest.mark.parametrize("sampler", [EulerMaruyama(), Ancestral(), Exponential()], ids=lambda s: type(s).__name__)
def test_scalar_processes_without_a_recipe_are_sampled(sampler, process):
    """Many short steps recover mean .3 and standard deviation .7 of the data, within 4 standard errors and the bias."""
    n = 500
    grid = log_snr(process, 150, end=1e-2, final="none")
    x = sampler.sample(gaussian_model(process), grid=grid, seeds=range(n), shape=(3,)).x
    error = 4 / (3 * n) ** 0.5
    assert float(x.mean()) == pytest.approx(0.3, abs=0.7 * error + 0.03)
    assert float(x.std()) == pytest.approx(0.7, rel=error / 2**0.5 + 0.08)
