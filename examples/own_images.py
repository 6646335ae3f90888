"""Images of one's own, from Python: a denoiser is trained once, then sampled as PSLD and as CLD.

    python examples/own_images.py FOLDER RUN --size 32 --steps 20000

FOLDER holds images of any kind Pillow reads, RUN is made. `psld train` does the same from one YAML file, and more:
`psld sample`, `evaluate` and `report` find their way in its runs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import psld
from psld import CLD, PSLD, Clamped, PredictorCorrector, TrainingSettings
from psld.data import ImageFolder
from psld.losses import Denoising
from psld.networks import Preconditioned, UNet
from psld.plots import save_grid

options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
options.add_argument("folder", type=Path)
options.add_argument("run", type=Path)
options.add_argument("--size", type=int, default=32, help="images are made this high and wide, in pixels")
options.add_argument("--steps", type=int, default=20_000)
options.add_argument("--width", type=int, default=64, help="channels of the network's first level")
arguments = options.parse_args()

data = ImageFolder(arguments.folder, image_size=arguments.size, resize=True, flip=True)
channels, size, _ = data.image_shape
unet = UNet(channels, channels, size, width=arguments.width, multipliers=(1, 2, 2), attention_resolutions=(size // 4,))
network = Preconditioned(unet, sigma_data=0.5)
settings = TrainingSettings(
    steps=arguments.steps,
    batch_size=64,
    learning_rate=5e-4,
    warmup_steps=min(500, arguments.steps // 10),
    ema_decay=0.999,
)
resume = (arguments.run / "checkpoints").exists()
model = psld.ScoreModel(network, PSLD(), predicts="denoiser")
psld.train(model, data, Denoising(sigma_data=0.5), settings, arguments.run, resume=resume)

for process in (PSLD(gamma=0.01), CLD()):
    model = Clamped(psld.load(arguments.run, process=process))
    sampler = PredictorCorrector(predictor=2)
    samples = sampler.sample(model, 16, shape=data.image_shape)
    save_grid(samples.x.float(), arguments.run / f"{type(process).__name__}.png")
print(f"look at {arguments.run / 'PSLD.png'} and {arguments.run / 'CLD.png'}")
