"""A backbone of one's own: trained on the digits for seconds, loaded from its run, sampled and judged.

    python examples/own_network.py RUN
    PYTHONPATH=examples psld sample RUN --trust --num 16 --out runs/mine

A run names the classes it is made of. Those that are not psld's are imported only where the run is trusted.
"""

import sys

import torch
from torch import Tensor, nn

import psld
from psld.data import Digits
from psld.evaluation.metrics.energy import energy_distance
from psld.losses import Denoising
from psld.networks import ImageNetwork, PositionalTime, Preconditioned


class Dilated(ImageNetwork):
    """Residual 3×3 convolutions that reach 1, 2, 3, 1, 2, 3 … pixels, scaled and shifted by the time."""

    def __init__(self, *, in_channels: int | None = None, out_channels: int | None = None, width: int = 48):
        super().__init__(in_channels)
        self.time = PositionalTime().of_width(width)
        self.enter = nn.Conv2d(self.in_channels, width, 3, padding=1)
        reaches = [1 + i % 3 for i in range(6)]
        self.convolutions = nn.ModuleList(nn.Conv2d(width, width, 3, padding=r, dilation=r) for r in reaches)
        self.conditions = nn.ModuleList(nn.Linear(self.time.width, 2 * width) for _ in reaches)
        self.leave = nn.Conv2d(width, self._out_channels(out_channels), 3, padding=1)

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        time, x = self.time(t).to(z.dtype), self.enter(self._folded(z, t))
        for convolution, condition in zip(self.convolutions, self.conditions, strict=True):
            scale, shift = condition(time)[..., None, None].chunk(2, 1)
            x = x + convolution(nn.functional.silu(x * (1 + scale) + shift))
        return self._unfolded(self.leave(x), z)


def main(run: str) -> None:
    """Trains, loads and samples."""
    process, data, held_out = psld.PSLD(gamma=0.01), Digits("train"), Digits("heldout").images
    torch.manual_seed(0)
    network = Preconditioned(Dilated.for_data(process, data.image_shape, "denoiser"), sigma_data=0.85)
    model = psld.ScoreModel(network, process, "denoiser", data_shape=data.image_shape)
    settings = psld.TrainingSettings(steps=200, batch_size=64, learning_rate=2e-3, warmup_steps=20, ema_decay=0.98)
    psld.train(model, data, Denoising(0.85, P_mean=-0.67), settings, run)
    samples = psld.load(run, trust=True).sample(len(held_out), steps=10)
    of_samples, of_noise = (energy_distance(of, held_out) for of in (samples.x, torch.randn_like(held_out)))
    print(f"energy distance to held-out digits: {of_samples:.3f} of samples, {of_noise:.3f} of noise")


if __name__ == "__main__":
    from own_network import main  # the run is then made of own_network.Dilated, and not of __main__.Dilated

    main(sys.argv[1])
