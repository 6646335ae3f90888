"""Training of preconditioned networks by the common loop: resumed bit for bit, in both precisions, and it learns."""

import pytest
import torch
from safetensors.torch import load_file

from psld import exact
from psld.losses import Denoising
from psld.model import ScoreModel
from psld.networks import MLP, Preconditioned, PreconditionedState, UNet
from psld.processes import CLD, PSLD, VPSDE, HigherOrderLangevin
from psld.training import train
from training.small_run import small_settings


def unet(inputs):
    torch.manual_seed(0)
    return UNet(inputs, 1, 8, width=8, multipliers=(1,), blocks=1, attention_resolutions=(), dropout=0.3)


FORMS = {
    "denoiser": lambda: Preconditioned(unet(1), 0.85),
    "x0": lambda: PreconditionedState(unet(2), PSLD(), 0.85),
}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("predicts", list(FORMS))
def test_resumes_bit_for_bit(tmp_path, predicts, precision):
    from psld.data import Digits

    def go(name, steps, resume=False):
        settings = small_settings(steps=steps, precision=precision)
        loss = Denoising(0.85, -0.67)
        run = tmp_path / name
        model = ScoreModel(FORMS[predicts](), PSLD(), predicts)
        return train(model, Digits("heldout"), loss, settings, run, seed=3, resume=resume)

    whole = go("whole", 8)
    go("parts", 4)
    parts = go("parts", 8, resume=True)
    for file in ("model.safetensors", "model_ema.safetensors"):
        expected, found = load_file(whole / file), load_file(parts / file)
        assert all(torch.equal(expected[name], found[name]) for name in expected)


class Draws:
    """Points of a mixture as a training set."""

    def __init__(self, data, n):
        self.points = data.sample(n, torch.Generator().manual_seed(0)).float()

    def __len__(self):
        return len(self.points)

    def __getitem__(self, index):
        return self.points[index]


def test_one_trained_denoiser_is_near_the_exact_score_of_every_process(tmp_path):
    """Two points, ±(0.6, −0.4), blurred: x̂₀ of one short training, under processes it has never heard of."""
    means = torch.tensor([[0.6, -0.4], [-0.6, 0.4]], dtype=torch.float64)
    data = exact.GaussianMixture(means, 0.1)
    s = float(data.sample(4000, torch.Generator().manual_seed(1)).square().mean().sqrt())
    torch.manual_seed(0)
    network = Preconditioned(MLP(1, 2, width=64, depth=2, time_scale=30.0), s)
    settings = small_settings(steps=600, batch_size=256, learning_rate=3e-3, ema_decay=0.98, checkpoint_every=1000)
    train(ScoreModel(network, VPSDE(), "denoiser"), Draws(data, 4000), Denoising(s), settings, tmp_path / "run")
    network.eval()
    for process in (VPSDE(), CLD(), PSLD(0.25), HigherOrderLangevin(3)):
        t = process.time_of(torch.tensor([0.05, 0.2, 0.5, 1.0, 3.0], dtype=torch.float64).repeat_interleave(200))
        generator = torch.Generator().manual_seed(2)
        x0 = data.sample(1000, generator)
        noise = torch.randn(1000, process.k, 2, dtype=torch.float64, generator=generator)
        z = process.perturb(x0, t, noise)
        with torch.no_grad():
            found = ScoreModel(network, process, "denoiser")(z, t)
        truth = data.model(process)(z, t)
        linear = s**2 / (s**2 + process.noise_scale(t)[:, None] ** 2) * process.statistic(z, t)[0]
        error, untrained = (found.x0 - truth.x0).square().mean(), (linear - truth.x0).square().mean()
        assert float(error) < 0.1 * float(untrained)
