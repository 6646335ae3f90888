"""`psld edit`: SDEdit, images perturbed to some time and drawn anew from there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from jsonargparse import ArgumentParser

from psld.cli.arguments import add_picture_arguments, command_parser
from psld.cli.drawing import clamped, opened, read_pictures, settings_of
from psld.cli.kinds import Positive
from psld.editing import edit, from_time
from psld.jobs import Drawing, Drawn, draw_given, rms, write_grid
from psld.samplers import Samples

__all__ = ["run"]

DESCRIPTION = """SDEdit (Meng et al., ICLR 2022): images perturbed to the time --start of the process, in position and
momentum, and drawn anew from there, several times each: OUT/images/000000-0.png … (image, draw), and OUT/grid.png, a
row an image: the image, its draws. The later the start, the less of an image is kept.

--steps counts the evaluations of the whole grid; those of times above --start are left out. A draw depends on its own
seed (--seed + image · draws + draw). The same command again draws what is missing."""

EPILOG = """example: psld edit psld-digits Digits --images.split heldout --num 8 --start 0.15 --out runs/edited"""


def parser() -> ArgumentParser:
    """Options of `psld edit`."""
    options = command_parser("edit", DESCRIPTION, EPILOG)
    add_picture_arguments(options)
    options.add_argument(
        "--start", type=Positive, required=True, help="time to perturb to; T (1) keeps hardly anything"
    )
    return options


def run(arguments: list[str]) -> int:
    """Edit what is missing; returns 0."""
    config = parser().parse_args(arguments)
    job = opened(config, config.run)
    images = read_pictures(config, job.shape)
    grid = from_time(job.sampler.grid(config.grid, job.model.process, config.steps, job.model.spectrum), config.start)
    drawing = Drawing(
        clamped(job.model, config), job.sampler, grid, config.seed, config.batch_size, job.fabric, config.allow_diverged
    )
    model = drawing.model.tabulate(grid.times)

    def draw(positions: Sequence[int], seeds: Sequence[int]) -> Samples:
        x = images[list(positions)].to(job.fabric.device, torch.float64)
        return edit(job.sampler, model, x, grid, seeds)

    settings = {"command": "edit", **settings_of(config)}
    grid_file = Path(config.out) / "grid.png"

    def shown(drawn: Drawn) -> None:
        write_grid(grid_file, {"image": images}, drawn.by_picture(len(images)))

    drawn = draw_given(config.out, drawing, images, draw, config.draws, settings, shown)
    if drawn is None:
        return 0
    print(f"{len(images)} images, {config.draws} draws of each, in {config.out}{drawn.calls}.")
    found = drawn.by_picture(len(images))
    sigma, change = float(job.model.process.noise_scale(config.start)), rms(found - images[:, None])
    print(f"Perturbed to noise scale {sigma:.3g}; RMS change of a draw {change:.4f} (pixels in [−1, 1]).")
    print(f"Look at {grid_file}")
    return 0
