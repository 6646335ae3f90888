"""Preconditioning against exact Gaussian laws: unit variance in and out, and EDM where EDM is."""

import math

import pytest
import torch
from torch import nn

from psld.kernels import mix
from psld.losses import Denoising
from psld.model import ScoreModel
from psld.networks import MLP, Preconditioned, PreconditionedState
from psld.processes import CLD, EDM, PSLD, VPSDE, HigherOrderLangevin, Process
from psld.recipe import LinearRecipe

SWINGING = Process(
    LinearRecipe([[0.0, 0.0], [0.0, 0.1]], [[0.0, -3.0], [3.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]),
    schedule=1.0,
    auxiliary_covariance=0.5,
)
"""Its Φ₀ changes sign."""

PROCESSES = [
    VPSDE(),
    CLD(),
    PSLD(0.01),
    PSLD(0.25),
    HigherOrderLangevin(3),
    HigherOrderLangevin(4),
    SWINGING,
    EDM(80.0),
]
FRACTIONS = torch.cat([torch.logspace(-4, -0.01, 40, dtype=torch.float64), torch.ones(1, dtype=torch.float64)])

every_process = pytest.mark.parametrize("process", PROCESSES, ids=repr)
every_scale = pytest.mark.parametrize("sigma_data", [0.1, 0.5, 3.0])


class Recorder(nn.Module):
    """Keeps what it was shown, and answers a fixed function of it."""

    def forward(self, x, told):
        self.x, self.told = x, told
        return torch.tanh(x[:, :1]) + told.reshape(-1, *[1] * (x.ndim - 1))


def law(process, sigma_data, t):
    """Covariance of (z, x₀), each a number of one data dimension, for x₀ ~ N(0, s²): written out."""
    kernel = process.marginal(t)
    signal = kernel.mean_map[..., :1]
    of_state = kernel.covariance + sigma_data**2 * signal @ signal.mT
    return of_state, sigma_data**2 * signal[..., 0]


@every_process
@every_scale
def test_inputs_and_effective_targets_have_unit_variance(process, sigma_data):
    """The network's inputs are white, its target (x₀ − c_skip z)/c_out has variance 1, and nothing linear is left."""
    t = FRACTIONS * process.T
    of_state, with_x0 = law(process, sigma_data, t)
    c = PreconditionedState(Recorder(), process, sigma_data).coefficients(t)
    white = c.inputs @ of_state @ c.inputs.mT
    assert (white - torch.eye(process.k)).abs().max() < 2e-5  # order 4 at t = 1e-4: conditioned like 1e20
    remaining = with_x0 - (of_state @ c.skip[..., None])[..., 0]  # Cov(z, x₀ − c_skip z)
    inputs_with_target = (c.inputs @ remaining[..., None])[..., 0] / c.out[:, None]
    assert inputs_with_target.abs().max() < 1e-4  # of correlations: a linear network gains nothing
    signal = process.marginal(t).mean_map[..., 0]
    left = 1.0 - (c.skip * signal).sum(-1)  # x₀ − c_skip z = left x₀ − c_skip L ε
    noise = (process.marginal(t).cholesky.mT @ c.skip[..., None]).square().sum((-2, -1))
    variance = (left.square() * sigma_data**2 + noise) / c.out.square()
    torch.testing.assert_close(variance, torch.ones_like(t), rtol=1e-8, atol=0)


@every_process
def test_first_input_is_the_statistic_and_the_others_do_not_know_x0(process):
    t = FRACTIONS * process.T
    c = PreconditionedState(Recorder(), process, 0.7).coefficients(t)
    z = torch.randn(len(t), process.k, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y, sigma = process.statistic(z, t)
    expected = y / (sigma**2 + 0.49).sqrt()[:, None]
    torch.testing.assert_close(mix(c.inputs, z)[:, 0], expected, rtol=1e-9, atol=1e-9)
    told = (c.inputs[:, 1:] @ process.marginal(t).mean_map[..., :1])[..., 0]
    assert not told.numel() or told.abs().max() < 1e-4
    torch.testing.assert_close(c.sigma, process.noise_scale(t))


@pytest.mark.parametrize("process", [CLD(), PSLD(0.01), PSLD(0.25), HigherOrderLangevin(3)], ids=repr)
def test_coefficients_change_smoothly_with_time(process):
    """No row flips its sign between two times 2 % apart."""
    t = torch.logspace(-4, 0, 470, dtype=torch.float64)
    inputs = PreconditionedState(Recorder(), process, 0.5).coefficients(t).inputs
    of_state, _ = law(process, 0.5, t)
    factor = torch.linalg.cholesky(of_state)
    turns = inputs @ factor  # orthogonal
    assert (turns[1:] - turns[:-1]).abs().max() < 0.15


@pytest.mark.parametrize("sigma", [0.002, 0.1, 1.0, 30.0, 80.0])
def test_under_edm_it_is_edm(sigma):
    """Table 1 of Karras et al. (2022), by hand, and `Preconditioned` itself."""
    s = 0.5
    c = PreconditionedState(Recorder(), EDM(80.0), s).coefficients(torch.tensor([sigma], dtype=torch.float64))
    assert float(c.skip) == pytest.approx(s**2 / (sigma**2 + s**2), rel=1e-12)
    assert float(c.out) == pytest.approx(sigma * s / math.hypot(sigma, s), rel=1e-12)
    assert float(c.inputs) == pytest.approx(1 / math.hypot(sigma, s), rel=1e-12)
    y, level = torch.randn(4, 1, 3, dtype=torch.float64), torch.full((4,), sigma, dtype=torch.float64)
    of_image, of_state = Recorder(), Recorder()
    image = Preconditioned(of_image, s)(y[:, 0], level)
    state = PreconditionedState(of_state, EDM(80.0), s)(y, level)
    torch.testing.assert_close(state[:, 0], image, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(of_state.told, torch.full_like(level, 0.25 * math.log(sigma)))
    torch.testing.assert_close(of_state.x, of_image.x)


@every_process
def test_zero_network_is_the_exact_model_of_gaussian_data(process):
    """F = 0 leaves the linear part, which for N(0, s²) is the posterior mean."""
    from psld import exact

    t = FRACTIONS[10:] * process.T
    z = process.perturb(
        torch.randn(len(t), 3, dtype=torch.float64), t, torch.randn(len(t), process.k, 3, dtype=torch.float64)
    )
    truth = exact.Gaussian(0.0, 0.6, shape=(3,)).model(process)(z, t).x0
    network = MLP(process.k, 3, out_variables=1, width=8).double()  # its output is zero until it is trained
    x0 = ScoreModel(PreconditionedState(network, process, 0.6), process, "x0")(z, t).x0
    torch.testing.assert_close(x0, truth, rtol=1e-7, atol=1e-7)
    of_image = ScoreModel(Preconditioned(MLP(1, 3, width=8).double(), 0.6), process, "denoiser")(z, t).x0
    torch.testing.assert_close(of_image, truth, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("process", [PSLD(0.01), HigherOrderLangevin(3), EDM(80.0)], ids=repr)
def test_zero_network_is_the_exact_model_of_gaussian_data_with_a_mean(process):
    from psld import exact

    t = FRACTIONS[10:] * process.T
    z = process.perturb(
        torch.randn(len(t), 3, dtype=torch.float64) - 0.8, t, torch.randn(len(t), process.k, 3, dtype=torch.float64)
    )
    truth = exact.Gaussian(-0.8, 0.6, shape=(3,)).model(process)(z, t).x0
    network = MLP(process.k, 3, out_variables=1, width=8).double()
    state = PreconditionedState(network, process, 0.6, mean_data=-0.8)
    torch.testing.assert_close(ScoreModel(state, process, "x0")(z, t).x0, truth, rtol=1e-7, atol=1e-7)
    image = Preconditioned(MLP(1, 3, width=8).double(), 0.6, mean_data=-0.8)
    torch.testing.assert_close(ScoreModel(image, process, "denoiser")(z, t).x0, truth, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("process", [PSLD(0.01), HigherOrderLangevin(3)], ids=repr)
def test_of_data_with_a_mean_the_network_sees_what_it_sees_of_centred_data(process):
    """Shifting data and mean by μ shifts the answer by μ and changes no input."""
    t, mean = FRACTIONS[10:] * process.T, -0.8
    z = torch.randn(len(t), process.k, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    shifted = z + mean * process.marginal(t).mean_map[..., 0, None]
    centred, with_mean = Recorder(), Recorder()
    first = PreconditionedState(centred, process, 0.6)(z, t)
    second = PreconditionedState(with_mean, process, 0.6, mean_data=mean)(shifted, t)
    torch.testing.assert_close(with_mean.x, centred.x, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(second, first + mean, rtol=1e-5, atol=1e-5)


def test_a_mean_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="mean_data"):
        Preconditioned(Recorder(), mean_data=math.inf)


def test_one_time_for_all_is_as_one_time_each():
    process, network = PSLD(), Recorder()
    wrapped = PreconditionedState(network, process)
    z, t = torch.randn(5, 2, 3), torch.tensor([0.2, 0.2, 0.5, 0.2, 0.9])
    torch.testing.assert_close(wrapped(z, t)[:2], wrapped(z[:2], t[:2]))
    assert wrapped(z, t).dtype == torch.float32


def test_the_network_is_told_no_level_beyond_its_range():
    network = Recorder()
    wrapped = Preconditioned(network, sigma_min=0.01, sigma_max=10.0)
    wrapped(torch.zeros(3, 2), torch.tensor([1e-5, 1.0, 250.0]))
    torch.testing.assert_close(network.told, 0.25 * torch.tensor([0.01, 1.0, 10.0]).log())
    wrapped = Preconditioned(network, sigma_min=0.01, sigma_max=10.0, log_embedding=True)
    wrapped(torch.zeros(3, 2), torch.tensor([1e-5, 1.0, 250.0]))
    torch.testing.assert_close(network.told.log(), 0.25 * torch.tensor([0.01, 1.0, 10.0]).log())


@pytest.mark.parametrize("scales", [(0.0, 0.1, 1.0), (0.5, 0.0, 1.0), (0.5, 2.0, 1.0), (math.nan, 0.1, 1.0)])
def test_refusals(scales):
    with pytest.raises(ValueError, match="sigma_"):
        Preconditioned(Recorder(), *scales)
    with pytest.raises(ValueError, match="sigma_"):
        PreconditionedState(Recorder(), CLD(), *scales)


@pytest.mark.parametrize("predicts", ["denoiser", "x0"])
def test_unit_loss_at_every_noise_level(predicts):
    """An untrained network on N(0, s²): the effective target is F*, of variance 1, so the weighted loss is 1."""
    process, s = PSLD(), 0.7
    network = Preconditioned(MLP(1, 8, width=8), s)
    if predicts == "x0":
        network = PreconditionedState(MLP(2, 8, out_variables=1, width=8), process, s)
    model = ScoreModel(network, process, predicts)
    for P_mean in (-5.0, -1.0, 4.0):
        generator = torch.Generator().manual_seed(0)
        x0 = s * torch.randn(4000, 8, generator=generator)
        loss = Denoising(s, P_mean, 0.01)(model, x0, torch.zeros(4000, dtype=torch.float64), generator)
        assert float(loss.detach().mean()) == pytest.approx(1.0, abs=4 * math.sqrt(2 / (8 * 4000)))
