"""Samplers against published formulas and other people's code: DDPM, DDIM, and the official PSLD operators."""

from pathlib import Path

import numpy as np
import pytest
import torch

from psld.kernels import linear_kernel, mix
from psld.model import ScoreModel
from psld.processes import PSLD, VPSDE
from psld.samplers import SSCS, Ancestral, Exponential
from psld.samplers.runge_kutta import flow
from psld.samplers.sampler import reverse_drift

REFERENCE = np.load(Path(__file__).parents[1] / "reference" / "psld_operators.npz")
VP = VPSDE()


def alpha_bar(t):
    """ᾱ = exp(−∫β) for β from 0.1 to 20."""
    return torch.exp(-(0.1 * t + 0.5 * 19.9 * t**2))


def one_step(sampler, t, s, z, x0, noise):
    times = torch.tensor([t], dtype=torch.float64), torch.tensor([s], dtype=torch.float64)
    tables = sampler.tables(VP, *times)
    row = type(tables)(*(table[0] for table in tables))
    model = ScoreModel(lambda z, t: x0[:, None], VP, "x0")
    return sampler.step(z, sampler.init(z), row, model, times[0][0], lambda: noise)[0]


def drawn():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 4, 1, 5, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("t, s", [(1.0, 0.5), (0.5, 0.49), (0.02, 0.001)])
def test_ancestral_is_the_ddpm_posterior(t, s):
    """Ho et al. (2020), eq. 7, with β = 1 − ᾱ_t/ᾱ_s the noise of one step."""
    (z, x0, noise), (at, as_) = drawn(), (alpha_bar(torch.tensor(u, dtype=torch.float64)) for u in (t, s))
    beta = 1 - at / as_
    mean = as_.sqrt() * beta / (1 - at) * x0 + (at / as_).sqrt() * (1 - as_) / (1 - at) * z
    variance = (1 - as_) / (1 - at) * beta
    ours = one_step(Ancestral(), t, s, z, x0[:, 0], noise)
    torch.testing.assert_close(ours, mean + variance.sqrt() * noise, rtol=0, atol=1e-10)


@pytest.mark.parametrize("t, s", [(1.0, 0.5), (0.5, 0.49), (0.02, 0.001)])
def test_exponential_is_ddim(t, s):
    """Song et al. (2021), eq. 12, η = 0."""
    (z, x0, noise), (at, as_) = drawn(), (alpha_bar(torch.tensor(u, dtype=torch.float64)) for u in (t, s))
    eps = (z - at.sqrt() * x0) / (1 - at).sqrt()
    expected = as_.sqrt() * x0 + (1 - as_).sqrt() * eps
    torch.testing.assert_close(one_step(Exponential(order=1), t, s, z, x0[:, 0], noise), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["DDIMScheduler", "DDPMScheduler"])
@pytest.mark.parametrize("index", [900, 500, 100])
def test_diffusers_takes_the_same_step(name, index):
    """Its schedule is replaced by ours in float64; ten steps of a thousand, so index → index − 100."""
    diffusers = pytest.importorskip("diffusers")
    scheduler = getattr(diffusers, name)(1000, clip_sample=False, prediction_type="sample", steps_offset=0)
    t = torch.arange(1, 1001, dtype=torch.float64) / 1000
    scheduler.alphas_cumprod = alpha_bar(t)
    scheduler.set_timesteps(10)
    z, x0, _ = drawn()
    noise = torch.randn(z.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    theirs = scheduler.step(x0, index, z, generator=torch.Generator().manual_seed(9)).prev_sample
    sampler = Exponential(order=1) if name == "DDIMScheduler" else Ancestral()
    ours = one_step(sampler, float(t[index]), float(t[index - 100]), z, x0[:, 0], noise)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


class Official:
    """One set of the official operators: layout (x, m) concatenated over 2 channels, ε network tanh(u)(1 + t)."""

    def __init__(self, index):
        self.index = index
        self.process = PSLD(float(REFERENCE[f"{index}/gamma"]))
        self.jitter = float(REFERENCE[f"{index}/numerical_eps"])
        self.t = torch.from_numpy(REFERENCE[f"{index}/t"])
        self.x0, self.eps, self.z = torch.from_numpy(REFERENCE[f"{index}/x0"]), self["eps"], self["z_t"]
        network = lambda z, t: torch.tanh(z) * (1 + t.reshape(-1, 1, 1, 1, 1))  # noqa: E731
        self.model = ScoreModel(network, self.process, "eps", "hsm", self.jitter)

    def __getitem__(self, name):
        return torch.from_numpy(REFERENCE[f"{self.index}/{name}"]).unflatten(1, (2, 2))


@pytest.fixture(params=[0, 1], ids=["gamma=0.01", "gamma=0.25"])
def official(request):
    return Official(request.param)


def relative(ours, theirs):
    """Largest difference over the largest entry of the same sample and variable."""
    return float(((ours - theirs).abs().amax((-1, -2, -3)) / theirs.abs().amax((-1, -2, -3))).max())


def test_official_perturbation(official):
    kernel = official.process.marginal(official.t, jitter=official.jitter)
    z0 = official.process.lift(official.x0)
    assert relative(kernel.mean(z0), official["mu_t"]) < 1e-12
    assert relative(kernel.sample(z0, official.eps), official.z) < 1e-12
    assert relative(kernel.score(official.eps), official["score"]) < 1e-6  # theirs divides by a cancelling determinant


def test_official_forward_sde(official):
    process = official.process
    assert relative(mix(process.drift_rate(official.t), official.z), official["drift"]) < 1e-12
    diffusion = (2 * process.diffusion_rate(official.t)).diagonal(dim1=-2, dim2=-1).sqrt()
    expected = diffusion[:, :, None, None, None].expand_as(official.z)
    torch.testing.assert_close(official["diffusion"], expected, rtol=1e-12, atol=0)


def test_official_reverse_drifts(official):
    """Taken at 1 − t, and in reversed time: the sign is the opposite of ours."""
    z, t = official.z, 1 - official.t
    reverse = -reverse_drift(official.process, z, official.model(z, t).score, t)
    assert relative(reverse, official["reverse_drift_at_reversed_t"]) < 1e-6
    assert relative(-flow(official.model, z, t), official["probability_flow_drift_at_reversed_t"]) < 1e-6


def test_official_sscs_half_step(official):
    """Exact stationary reversal over 0.05, which is half a step of ours from 0.3 + 0.1 to 0.3. float32 0.05 there."""
    t, s = torch.tensor([0.4], dtype=torch.float64), torch.tensor([0.3], dtype=torch.float64)
    tables = SSCS().tables(official.process, t, s)
    assert relative(mix(tables.half_map, official.z), official["sscs_half_mean"]) < 1e-7
    covariance = (tables.half_noise @ tables.half_noise.mT)[0]
    xx, xm, mm = torch.from_numpy(REFERENCE[f"{official.index}/sscs_half_var"])[:, 0]
    expected = torch.stack([torch.stack([xx, xm]), torch.stack([xm, mm])])
    torch.testing.assert_close(covariance, expected, rtol=1e-6, atol=1e-8)
    back = official.process.recipe.reversed()
    same = linear_kernel(back.drift_matrix, back.diffusion, torch.tensor(8 * 0.05, dtype=torch.float64))
    torch.testing.assert_close(covariance, same.covariance, rtol=1e-12, atol=1e-14)


def test_official_sscs_euler_step(official):
    """0.3 of reversed time is t = 0.7; the step is 0.05."""
    t, s = torch.tensor([0.7], dtype=torch.float64), torch.tensor([0.65], dtype=torch.float64)
    tables = SSCS().tables(official.process, t, s)
    score = official.model(official.z, 0.7).score
    ours = official.z + mix(tables.score, score) + mix(tables.state, official.z)
    assert relative(ours, official["sscs_euler"]) < 1e-6
