"""Networks in the layout of diffusers: ideal ones against the closed form, random ones against diffusers' own steps."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import psld
from psld import exact
from psld.model import ScoreModel
from psld.pretrained.diffusers import DiscreteDenoiser, denoiser_of, load_denoiser, load_score_model
from psld.processes import CLD, PSLD, VESDE, VPSDE, HigherOrderLangevin
from psld.samplers import Ancestral, Exponential, grids
from psld.samplers.grids import Grid

diffusers = pytest.importorskip("diffusers")

DATA = exact.Gaussian(0.3, 0.6, shape=(1, 2, 2))
BETAS = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
ALPHAS = torch.cumprod(1 - BETAS, 0)
SIGMAS = ((1 - ALPHAS) / ALPHAS).sqrt()
PROCESSES = [VPSDE(), CLD(), PSLD(0.01), HigherOrderLangevin(3)]

every_output = pytest.mark.parametrize("predicts", ["epsilon", "v_prediction", "sample"])


class Ideal(nn.Module):
    """The exact DDPM network of Gaussian data: E[ε | x_τ] and its relatives, with log σ linear between steps."""

    def __init__(self, predicts, variance=False):
        super().__init__()
        self.predicts, self.variance, self.asked = predicts, variance, []

    def forward(self, x, step, labels=None):
        self.asked.append((step, labels))
        left = step.long().clamp(max=998)
        share = step - left
        log_sigma = SIGMAS.log()
        sigma = torch.lerp(log_sigma[left], log_sigma[left + 1], share.to(log_sigma)).exp()
        alpha = (1 / (1 + sigma**2)).reshape(-1, 1, 1, 1)
        y = x / alpha.sqrt()
        x0 = (0.36 * y + sigma.reshape(-1, 1, 1, 1) ** 2 * 0.3) / (0.36 + sigma.reshape(-1, 1, 1, 1) ** 2)
        eps = (x - alpha.sqrt() * x0) / (1 - alpha).sqrt()
        v = alpha.sqrt() * eps - (1 - alpha).sqrt() * x0
        output = {"epsilon": eps, "v_prediction": v, "sample": x0}[self.predicts]
        return SimpleNamespace(sample=torch.cat([output, 0 * output], 1) if self.variance else output)


@every_output
@pytest.mark.parametrize("variance", [False, True])
@pytest.mark.parametrize("process", PROCESSES, ids=repr)
def test_ideal_network_is_the_exact_score_of_every_process(process, predicts, variance):
    """At noise scales on and between the steps of the DDPM."""
    sigmas = torch.cat([SIGMAS[[0, 3, 250, 990]], torch.tensor([0.0123, 0.5, 7.7, 100.0], dtype=torch.float64)])
    t = process.time_of(sigmas)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(8, process.k, 1, 2, 2, dtype=torch.float64, generator=generator)
    z = process.perturb(DATA.sample(8, generator), t, noise)
    model = ScoreModel(DiscreteDenoiser(Ideal(predicts, variance), ALPHAS, predicts), process, "denoiser")
    truth, found = DATA.model(process)(z, t), model(z, t)
    torch.testing.assert_close(found.x0, truth.x0, rtol=1e-5, atol=1e-5)  # a step that is nearly whole is made whole
    scale = truth.score.abs().amax((1, 2, 3, 4))
    error = (found.score - truth.score).abs().amax((1, 2, 3, 4)) / scale
    assert error.max() < 1e-3  # ∂score/∂x̂₀ grows like 1/σ: order 3 at σ = 0.01


def test_steps_are_inverse_to_sigmas():
    network = DiscreteDenoiser(Ideal("epsilon"), ALPHAS)
    assert torch.equal(network.step_of(SIGMAS), torch.arange(1000).double())
    assert torch.equal(network.step_of(SIGMAS.float()), torch.arange(1000).float())
    middle = (SIGMAS[10] * SIGMAS[11]).sqrt()
    assert float(network.step_of(middle[None])) == pytest.approx(10.5)
    assert network.step_of(torch.tensor([1e-4, 1e4])).tolist() == [0.0, 999.0]


def test_nearest_asks_whole_steps_and_is_near():
    network = Ideal("epsilon")
    wrapped = DiscreteDenoiser(network, ALPHAS, steps="nearest")
    sigma = torch.logspace(-1.9, 2.1, 50, dtype=torch.float64)
    y = torch.ones(50, 1, 2, 2, dtype=torch.float64)
    error = (wrapped(y, sigma) - DATA.denoiser(y, sigma)).abs().amax()
    assert not network.asked[0][0].is_floating_point()
    assert 1e-6 < float(error) < 0.02


def test_a_condition_reaches_the_network():
    network = Ideal("epsilon")
    ScoreModel(DiscreteDenoiser(network, ALPHAS), CLD(), "denoiser")(torch.zeros(2, 2, 1, 2, 2).double(), 0.5, labels=7)
    assert network.asked[0][1] == 7


@pytest.mark.parametrize("predicts", ["epsilon", "v_prediction"])
def test_edm_schedulers(predicts):
    """diffusers' own preconditioning, step by step: its x̂₀ at σ equals D(y; σ)."""
    scheduler = diffusers.EDMEulerScheduler(prediction_type=predicts, sigma_data=0.6)

    class Network(nn.Module):
        def forward(self, x, told):
            return torch.tanh(x) + told.reshape(-1, 1, 1, 1)

    network = Network()
    wrapped = denoiser_of(network, scheduler)
    y = torch.randn(3, 1, 4, 4, dtype=torch.float64)
    for sigma in (0.01, 1.0, 60.0):
        level = torch.full((3,), sigma, dtype=torch.float64)
        output = network(scheduler.precondition_inputs(y, level[0]), scheduler.precondition_noise(level[:1]))
        torch.testing.assert_close(wrapped(y, level), scheduler.precondition_outputs(y, output, level[0]))


def test_variance_exploding_scores():
    class Score(nn.Module):
        def forward(self, x, sigma):
            return (0.3 - x) / (0.36 + sigma.reshape(-1, 1, 1, 1) ** 2)

    process = VESDE()
    wrapped = denoiser_of(Score(), diffusers.ScoreSdeVeScheduler(sigma_max=1348.0))
    z = torch.randn(3, 1, 1, 2, 2, dtype=torch.float64)
    t = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    torch.testing.assert_close(
        ScoreModel(wrapped, process, "denoiser")(z, t).score, DATA.model(process)(z, t).score, rtol=1e-9, atol=0
    )


# -- folders -----------------------------------------------------------------------------------------------------------


def saved(folder, predicts="epsilon", safe=True, **options):
    torch.manual_seed(0)
    blocks = dict(down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2)
    unet = diffusers.UNet2DModel(8, 1, 1, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, **blocks)
    scheduler = diffusers.DDIMScheduler(prediction_type=predicts, clip_sample=False, **options)
    unet.save_pretrained(folder / "unet", safe_serialization=safe)
    scheduler.save_pretrained(folder / "scheduler")
    return unet.double().eval(), scheduler


@every_output
@pytest.mark.parametrize("schedule", ["linear", "squaredcos_cap_v2"])
@torch.no_grad()
def test_ddim_steps_of_diffusers_are_ours(tmp_path, predicts, schedule):
    """A random UNet2DModel, saved and loaded; ten DDIM steps to the image, by diffusers and through the wrapper."""
    unet, scheduler = saved(tmp_path, predicts, beta_schedule=schedule)
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    scheduler.final_alpha_cumprod = scheduler.final_alpha_cumprod.double()
    scheduler.set_timesteps(10)
    start = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    x, theirs = start, []
    for step in scheduler.timesteps:
        x = scheduler.step(unet(x, step).sample, int(step), x).prev_sample
        theirs.append(x)
    process = VPSDE()
    network = load_denoiser(tmp_path)
    assert isinstance(network, DiscreteDenoiser)
    grid = Grid(process.time_of(network.sigmas[scheduler.timesteps]))
    model, sampler, ours = ScoreModel(network.double(), process, "denoiser"), Exponential(1), []
    z, nfe = sampler.integrate(
        model, start[:, None], sampler.prepare(process, grid), lambda: start, lambda t, z: ours.append(z[:, 0])
    )
    for own, other in zip(ours[1:], theirs[:-1], strict=True):
        assert (own - other).abs().max() < 1e-6 * other.abs().max()
    image, _, last = sampler.finish(model, z, grid)
    assert (image - theirs[-1]).abs().max() < 1e-6 * theirs[-1].abs().max()
    assert (nfe + last).tolist() == [10, 10]


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
def test_a_folder_drives_every_process(tmp_path, process):
    saved(tmp_path)
    model = load_score_model(tmp_path, process)
    grid = grids.edm_rho(process, 5, sigma_max=100.0)
    images = Ancestral().sample(model, grid=grid, seeds=range(2), shape=(1, 8, 8)).x
    assert images.shape == (2, 1, 8, 8) and bool(images.isfinite().all())


def test_a_folder_is_loaded_by_the_one_name_for_all_models(tmp_path):
    """`psld.load`: the denoiser of `load_denoiser`, under PSLD unless told otherwise, with the shape of images."""
    saved(tmp_path)
    model, y = psld.load(tmp_path), torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert model.process == PSLD() and model.data_shape == (1, 8, 8)
    with torch.no_grad():
        expected = load_denoiser(tmp_path)(y, torch.full((2,), 0.7))
        torch.testing.assert_close(model.denoise(y, 0.7), expected, rtol=1e-6, atol=1e-6)
    assert psld.load(tmp_path, process=CLD()).process == CLD()
    assert len(model.sample(2, steps=3)) == 2


def test_a_schedule_that_ends_without_signal_loses_its_last_step():
    scheduler = diffusers.DDIMScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction")
    network = denoiser_of(Ideal("v_prediction"), scheduler)
    assert isinstance(network, DiscreteDenoiser) and len(network.sigmas) == 999 and network.predicts == "v_prediction"


def test_weights_that_could_run_code_are_refused(tmp_path):
    saved(tmp_path, safe=False)
    with pytest.raises(ValueError, match="no weights in safetensors"):
        load_denoiser(tmp_path)


def test_without_diffusers_the_message_says_what_to_install(monkeypatch, tmp_path):
    saved(tmp_path)
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ModuleNotFoundError, match="pip install diffusers"):
        load_denoiser(tmp_path)


def test_refusals(tmp_path):
    with pytest.raises(FileNotFoundError, match="has unet/ and scheduler/"):
        load_denoiser(tmp_path)
    with pytest.raises(ValueError, match="FlowMatchEulerDiscreteScheduler has no beta_schedule"):
        denoiser_of(Ideal("epsilon"), diffusers.FlowMatchEulerDiscreteScheduler())
    for alphas in (ALPHAS.flip(0), torch.ones(5), ALPHAS[:1]):
        with pytest.raises(ValueError, match="decreasing numbers"):
            DiscreteDenoiser(Ideal("epsilon"), alphas)
    with pytest.raises(ValueError, match="got 'noise'"):
        DiscreteDenoiser(Ideal("epsilon"), ALPHAS, "noise")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="got 'first'"):
        DiscreteDenoiser(Ideal("epsilon"), ALPHAS, steps="first")  # pyright: ignore[reportArgumentType]
