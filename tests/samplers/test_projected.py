"""Projected samplers: what they are on VP, algorithm 2 of EDM by hand, and the ancillary noise that no image sees."""

import math

import pytest
import torch

import laws
import row_by_row
from psld import exact
from psld.noise import SeededNoise
from psld.processes import CLD, EDM, PSLD, VPSDE, HigherOrderLangevin
from psld.samplers import GDDIM, RK45, Ancestral, DPMSolverPP, Exponential, Heun, PredictorCorrector, Projected
from psld.samplers.grids import Grid, edm_rho

TIMES = torch.tensor([1.0, 0.8, 0.55, 0.3, 0.1, 0.03], dtype=torch.float64)
GRID = Grid(TIMES, "denoise")
SEEDS = range(4)
DATA = exact.GaussianMixture(
    means=torch.tensor([[0.8, -0.4, 0.3], [-0.7, 0.1, 0.0], [0.1, 1.2, -0.9]], dtype=torch.float64),
    std=torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64),
)
PHASE_SPACE = [PSLD(0.25), CLD(), HigherOrderLangevin(3)]

every_process = pytest.mark.parametrize("process", PHASE_SPACE, ids=repr)


def close(a, b, atol=1e-10):
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


def sampled(sampler, process, grid=GRID, **options):
    return sampler.sample(DATA.model(process), grid=grid, seeds=SEEDS, shape=(3,), **options)


@pytest.mark.parametrize(
    "solver",
    [
        *(Exponential(order) for order in (1, 2, 3)),
        Exponential(2, 0.5),
        Exponential(1, 1.0),
        DPMSolverPP(),
        DPMSolverPP(1.0),
        GDDIM(2),
        GDDIM(3),
        PredictorCorrector(1),
        PredictorCorrector(2),
        Ancestral(),
    ],
    ids=repr,
)
def test_on_vp_it_is_the_solver_itself(solver):
    """There y = z/Φ₀, and these solvers know a step by its noise scales only. ("mean" draws nothing of its own.)"""
    ours, plain = sampled(Projected(solver, "mean"), VPSDE()), sampled(solver, VPSDE())
    close(ours.z, plain.z, atol=1e-8)
    close(ours.x, plain.x, atol=1e-8)


def test_on_vp_heun_is_another_method():
    """Its step is one of t on VP and one of σ when projected."""
    assert (sampled(Projected(Heun()), VPSDE()).x - sampled(Heun(), VPSDE()).x).abs().max() > 1e-3


@every_process
@pytest.mark.parametrize("solver", [Exponential(2), PredictorCorrector(2), Heun()], ids=repr)
def test_the_exact_image_does_not_see_ancillary_noise(solver, process):
    runs = [sampled(Projected(solver, ancillary), process) for ancillary in ("once", "fresh", "mean")]
    close(runs[0].x, runs[2].x, atol=1e-8)
    close(runs[1].x, runs[2].x, atol=1e-8)
    scale = process.marginal(TIMES[-1]).covariance.diagonal().sqrt()[:, None]
    assert all(((run.z - runs[2].z) / scale).abs().max() > 0.1 for run in runs[:2])


@every_process
@pytest.mark.parametrize("t", [1.0, 0.3, 0.01])
def test_law_of_a_state_made_from_its_statistic(process, t):
    """Linear in (x₀, ξ, ε): with y = x₀ + σξ its columns give Φ₀ for x₀, the kernel's covariance for the rest."""
    k, kernel = process.k, process.marginal(t)
    y = torch.zeros(2 + k, 1, dtype=torch.float64)
    y[0], y[1] = 1.0, process.noise_scale(t)
    eps = torch.cat([torch.zeros(2, k, dtype=torch.float64), torch.eye(k, dtype=torch.float64)])[..., None]
    columns = process.from_statistic(y, t, eps)[..., 0].T
    scale = kernel.covariance.diagonal().sqrt()
    close(columns[:, 0] / scale, kernel.mean_map[:, 0] / scale)
    covariance = columns[:, 1:] @ columns[:, 1:].T
    close(covariance / torch.outer(scale, scale), kernel.covariance / torch.outer(scale, scale), atol=1e-9)
    back, sigma = process.statistic(process.from_statistic(y, t, eps), t)
    close(back / sigma, y / sigma, atol=1e-8 if k == 2 else 1e-6)


@every_process
def test_law_of_the_end(process):
    """On Gaussian data, with a fresh ancillary draw at the end, z has the law of z_t given the solver's y."""
    data, grid = exact.Gaussian(0.3, 0.7), Grid(TIMES, "none")
    sampler = Projected(Exponential(2), "fresh")
    law = laws.carry(sampler, data.model(process), sampler.prepare(process, grid), laws.exact_law(process, data, 1.0))
    y = process.statistic(law.mean[None, :, None], TIMES[-1])[0].squeeze()
    signal = process.signal(TIMES[-1])
    scale = process.marginal(TIMES[-1]).covariance.diagonal().sqrt()
    close(law.mean / scale, signal * y / scale, atol=1e-8)  # ancillary noise has no mean
    weights = torch.stack(
        [process.statistic(row[None, :, None], TIMES[-1])[0].squeeze() for row in torch.eye(process.k).double()]
    )
    variance = weights @ law.covariance @ weights
    kernel = process.marginal(TIMES[-1])
    excess = variance - process.noise_scale(TIMES[-1]) ** 2  # of y over its noise: the data's part
    expected = kernel.covariance + excess * torch.outer(signal, signal)
    close(law.covariance / torch.outer(scale, scale), expected / torch.outer(scale, scale), atol=1e-6)


def start(process):
    """y of the first state, and the noise stream behind it."""
    noise = SeededNoise(SEEDS, (process.k, 3))
    return process.statistic(process.prior_sample(noise()), process.T)[0], noise


def at(y, sigma):
    """One noise scale an image."""
    return torch.full((len(y),), sigma, dtype=torch.float64)


def algorithm_2(y, sigmas, churn=0.0, top=math.inf, noise=None):
    """Karras et al. (2022), algorithm 2, with S_noise = 1, and σ̂ held at `top`.

    Its N counts the step to σ = 0, which is not taken.
    """
    n = len(sigmas) - 1
    for i in range(n):
        sigma, after = sigmas[i], sigmas[i + 1]
        raised = min(sigma * (1 + min(churn / (n + 1), math.sqrt(2) - 1)), top)
        if noise is not None:
            y = y + math.sqrt(max(raised**2 - sigma**2, 0.0)) * noise()[:, 0]
        slope = (y - DATA.denoiser(y, at(y, raised))) / raised
        ahead = y + (after - raised) * slope
        other = (ahead - DATA.denoiser(ahead, at(y, after))) / after
        y = y + (after - raised) * 0.5 * (slope + other)
    return y


@pytest.mark.parametrize("process", [VPSDE(), *PHASE_SPACE], ids=repr)
def test_heun_is_algorithm_2_of_edm(process):
    grid = edm_rho(process, 8)
    sigmas = process.noise_scale(grid.times).tolist()
    y = algorithm_2(start(process)[0], sigmas)
    expected = DATA.denoiser(y, at(y, sigmas[-1]))
    found = sampled(Projected(Heun()), process, grid)
    close(found.x, expected, atol=1e-8 if process.k < 3 else 1e-6)
    assert found.nfe.tolist() == [2 * 7 + 1] * 4


@pytest.mark.parametrize("process", [VPSDE(), PSLD(0.25)], ids=repr)
def test_churn_is_algorithm_2_of_edm(process):
    """Noise is added up to σ(T) only: beyond it there is no process. "mean" leaves the draws to the solver."""
    grid = edm_rho(process, 8)
    sigmas = process.noise_scale(grid.times).tolist()
    y, noise = start(process)
    y = algorithm_2(y, sigmas, churn=2.0, top=sigmas[0], noise=noise)
    found = sampled(Projected(Heun(churn=2.0), "mean"), process, grid)
    close(found.x, DATA.denoiser(y, at(y, sigmas[-1])), atol=1e-8)


@pytest.mark.parametrize("process", [EDM(), PSLD(0.25)], ids=repr)
@pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # diffusers and numpy 2
def test_heun_is_that_of_diffusers(process):
    """Its noise scales are replaced by ours in float64: each but the first and the last twice, as it keeps them."""
    diffusers = pytest.importorskip("diffusers")
    grid = edm_rho(process, 8)
    sigmas = process.noise_scale(grid.times)
    scheduler = diffusers.HeunDiscreteScheduler(prediction_type="sample")
    scheduler.set_timesteps(len(sigmas))
    scheduler.sigmas = torch.cat([sigmas[:1], sigmas[1:].repeat_interleave(2)])
    scheduler._step_index = 0
    y = start(process)[0]
    for i in range(2 * grid.steps):
        x0 = DATA.denoiser(y, scheduler.sigmas[i].expand(len(y)))
        y = scheduler.step(x0, scheduler.timesteps[0], y).prev_sample
    close(sampled(Projected(Heun()), process, grid).x, DATA.denoiser(y, sigmas[-1].expand(len(y))), atol=1e-8)
    if process.k == 1:
        close(sampled(Heun(), process, grid).z[:, 0], y, atol=1e-8)  # on EDM itself there is nothing to project


@every_process
@pytest.mark.parametrize("ancillary", ["once", "fresh", "mean"])
def test_watched_states_are_those_of_the_process(process, ancillary):
    seen = []
    result = sampled(
        Projected(Exponential(2), ancillary), process, watch=lambda t, z: seen.append((float(t), z.clone()))
    )
    assert [t for t, _ in seen] == pytest.approx(TIMES.tolist(), rel=1e-12)
    assert all(z.shape == (4, process.k, 3) for _, z in seen)
    y, sigma = process.statistic(seen[-1][1], TIMES[-1])
    close(DATA.denoiser(y, sigma.expand(4)), result.x, atol=1e-8)


def test_watching_does_not_change_what_is_sampled():
    sampler = Projected(Exponential(2, 1.0), "fresh")
    watched = sampled(sampler, PSLD(0.25), watch=lambda t, z: None)
    assert torch.equal(watched.x, sampled(sampler, PSLD(0.25)).x)


def test_adaptive_steps_between_tabulated_times():
    """RK45 asks at noise scales of its own choice. On Gaussian data y − μ shrinks like √(σ² + s²)."""
    process, data = CLD(), exact.Gaussian(0.3, 0.7, (2,))
    grid = Grid(torch.tensor([0.6, 0.4], dtype=torch.float64))
    y = torch.tensor([[0.4, -1.3], [1.1, 3.0]], dtype=torch.float64)
    sampler = Projected(RK45(1e-4, 1e-4), "mean")
    z = process.from_statistic(y, 0.6, torch.zeros(2, 2, 2, dtype=torch.float64))
    end, _ = sampler.integrate(data.model(process), z, sampler.prepare(process, grid), lambda: torch.zeros_like(z))
    before, after = ((process.noise_scale(t) ** 2 + 0.49).sqrt() for t in grid.times)
    close(process.statistic(end, 0.4)[0], 0.3 + (y - 0.3) * after / before, atol=1e-3)


@pytest.mark.parametrize(
    "solver, calls", [(Exponential(2), 5), (Heun(), 10), (PredictorCorrector(1), 5), (GDDIM(3), 5)], ids=repr
)
def test_calls_are_counted(solver, calls):
    """By the count that comes back, and by counting."""
    made, process = [], PSLD(0.25)

    def network(y, sigma):
        made.append(len(y))
        return DATA.denoiser(y, sigma)

    model = DATA.model(process)
    model.network = network
    result = Projected(solver).sample(model, grid=GRID, seeds=SEEDS, shape=(3,))
    assert result.nfe.tolist() == [calls + 1] * 4 and len(made) == calls + 1
    assert Projected(solver).nfe_per_step == solver.nfe_per_step


@pytest.mark.parametrize("ancillary", ["once", "fresh", "mean"])
def test_a_sample_does_not_depend_on_its_batch(ancillary):
    sampler, model = Projected(Exponential(2, 0.5), ancillary), row_by_row.model(DATA, PSLD(0.25))
    together, alone = (sampler.sample(model, grid=GRID, seeds=seeds, shape=(3,)) for seeds in (range(4), [2]))
    assert torch.equal(together.z[2], alone.z[0])
