"""`psld edit`: SDEdit, images perturbed to some time and drawn anew from there."""

from __future__ import annotations

from pathlib import Path

import torch
from jsonargparse import ArgumentParser

from psld.cli.restoring import add_picture_arguments, draw_missing, opened, read_pictures, rms, write_grid
from psld.editing import edit, from_time
from psld.model import Clamped

__all__ = ["run"]

DESCRIPTION = """SDEdit (Meng et al., ICLR 2022): images perturbed to the time --start of the process, in position and
momentum, and drawn anew from there, several times each: OUT/images/000000-0.png … (image, draw), and OUT/grid.png, a
row an image: the image, its draws. The later the start, the less of an image is kept.

--steps counts the evaluations of the whole grid; those of times above --start are left out. A draw depends on its own
seed (--seed + image · draws + draw). The same command again draws what is missing."""

EPILOG = "example: psld edit psld-digits digits --split heldout --num 8 --start 0.15 --out runs/edited"


def parser() -> ArgumentParser:
    """Options of `psld edit`."""
    options = ArgumentParser(prog="psld edit", description=DESCRIPTION)
    options.epilog = EPILOG
    add_picture_arguments(options)
    options.add_argument("--start", type=float, required=True, help="time to perturb to; T (1) keeps hardly anything")
    options.set_defaults({"steps": 100})
    return options


def run(arguments: list[str]) -> int:
    """Edit what is missing; returns 0."""
    options = parser()
    config = options.parse_args(arguments)
    job = opened(options, config)
    images = read_pictures(config, job.shape)
    grid = from_time(job.sampler.grid(config.grid, job.model.process, config.steps), config.start)
    model = job.model.tabulate(grid.times)
    model = Clamped(model) if config.clamp else model

    def draw(positions, seeds):
        x = images[list(positions)].to(job.fabric.device, torch.float64)
        return edit(job.sampler, model, x, grid, seeds)

    outcome = draw_missing(job, config, images, job.sampler, grid, draw, {"command": "edit"})
    if outcome is None:
        return 0
    grid_file = Path(config.out) / "grid.png"
    write_grid(grid_file, {"image": images}, outcome.images)
    print(f"{len(images)} images, {config.draws} draws of each, in {config.out}{outcome.calls}.")
    sigma = float(job.model.process.noise_scale(config.start))
    change = rms(outcome.images - images[:, None])
    print(f"Perturbed to noise scale {sigma:.3g}; RMS change of a draw {change:.4f} (pixels in [−1, 1]).")
    print(f"Look at {grid_file}")
    return 0
