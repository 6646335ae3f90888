"""Images of one's own, from Python: a denoiser is trained once, then sampled as PSLD and as CLD.

    python examples/own_images.py FOLDER RUN --size 32 --steps 20000

FOLDER holds images of any kind Pillow reads, RUN is made. `psld train --images FOLDER --run RUN` does the same.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import psld
from psld import CLD, PSLD
from psld.plots import save_grid

options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
options.add_argument("folder", type=Path)
options.add_argument("run", type=Path)
options.add_argument("--size", type=int, default=None, help="images are made this high and wide, in pixels")
options.add_argument("--steps", type=int, default=20_000)
arguments = options.parse_args()

setup = psld.setup_for(arguments.folder, arguments.size)
print(setup.described)
settings = replace(setup.settings, steps=arguments.steps, warmup_steps=min(200, arguments.steps // 10))
resume = (arguments.run / "checkpoints").exists()
psld.train(setup.model, setup.data, setup.loss, settings, arguments.run, seed=setup.seed, resume=resume)

for process in (PSLD(gamma=0.01), CLD()):
    samples = psld.load(arguments.run, process=process).sample(16)
    save_grid(samples.x.float(), arguments.run / f"{type(process).__name__}.png")
print(f"look at {arguments.run / 'PSLD.png'} and {arguments.run / 'CLD.png'}")
