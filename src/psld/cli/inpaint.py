"""`psld inpaint`: fill in the unknown pixels of images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Bool
from jsonargparse import ArgumentParser
from torch import Tensor

from psld.cli.restoring import (
    OWN,
    add_method_arguments,
    add_picture_arguments,
    conditional,
    draw_missing,
    fingerprint,
    guided,
    opened,
    read_pictures,
    require_own_options,
    rms,
    write_grid,
)
from psld.inverse.masks import NAMES, load_mask, named_mask
from psld.inverse.operators import Mask
from psld.inverse.replacement import Replacement
from psld.samplers import Projected, Sampler
from psld.samplers.sampler import require_fixed_steps

__all__ = ["run"]

DESCRIPTION = """Fill in the unknown pixels of images, several draws of each: OUT/images/000000-0.png … (image, draw),
and OUT/grid.png, a row an image: truth, what is known of it, the draws.

Whatever the method, known pixels of the images written are those given. A draw depends on its own seed (--seed +
image · draws + draw) and neither on the batch size nor on the number of devices. The same command again draws what is
missing."""

EPILOG = """example: psld inpaint psld-digits digits --split heldout --num 8 --mask center --out runs/filled;
with a mask of your own, white where pixels are known: psld inpaint runs/faces photo.png --mask mask.png --degraded
--out runs/photo; as in RePaint: psld inpaint psld-digits digits --num 8 --mask half --method replacement
--resamplings 10 --steps 200 --out runs/repaint"""


def parser() -> ArgumentParser:
    """Options of `psld inpaint`."""
    options = ArgumentParser(prog="psld inpaint", description=DESCRIPTION)
    options.epilog = EPILOG
    add_picture_arguments(options)
    options.add_argument(
        "--mask", type=str, required=True, help=f"{', '.join(NAMES)}; or a PNG, white where pixels are known"
    )
    options.add_argument(
        "--method",
        type=Literal["mmps", "replacement", "pigdm", "dps"],
        default="mmps",
        help="posterior guidance, or replacement of known pixels in phase space",
    )
    options.add_argument(
        "--resamplings", type=int | None, default=None, help="of replacement: how often each step is taken (5)"
    )
    options.add_argument(
        "--noise", type=float | None, default=None, help="of posterior guidance: std of known pixels in [−1, 1] (0.05)"
    )
    add_method_arguments(options, degraded="nothing true is under the mask")
    return options


def run(arguments: list[str]) -> int:
    """Fill in what is missing; returns 0."""
    options = parser()
    config = options.parse_args(arguments)
    guidance = ["mmps", "pigdm", "dps"]
    require_own_options(config, {"resamplings": ("method", ["replacement"]), "noise": ("method", guidance)})
    resamplings = 5 if config.resamplings is None else config.resamplings
    config.noise = 0.05 if config.noise is None else config.noise
    job = opened(options, config)
    known = chosen_mask(config.mask, job.shape, config.seed)
    images = read_pictures(config, job.shape)
    here = known.to(job.fabric.device)

    def build(model, x):
        if config.method == "replacement":
            return replaced(job.sampler, x, here, resamplings), model
        return job.sampler, guided(config, model, Mask(here), x[:, here])

    sampler, grid, draw = conditional(job, config, images, build)

    def filled(positions, seeds):
        samples = draw(positions, seeds)
        return replace(samples, x=torch.where(here, images[list(positions)].to(samples.x), samples.x))

    settings = {"command": "inpaint", "method": config.method, "known": fingerprint(known)}
    if config.method != "replacement":
        settings |= {name: config[name] for name in ("noise", *OWN)}
    outcome = draw_missing(job, config, images, sampler, grid, filled, settings)
    if outcome is None:
        return 0
    grid_file = Path(config.out) / "grid.png"
    before = {} if config.degraded else {"truth": images}
    write_grid(grid_file, before | {"known": torch.where(known, images, 0.0)}, outcome.images)
    print(f"{len(images)} images, {config.draws} draws of each, in {config.out}{outcome.calls}.")
    if not config.degraded:
        error = rms((outcome.images - images[:, None])[:, :, ~known])
        print(f"RMSE of a draw on unknown pixels {error:.4f} (pixels in [−1, 1]).")
    print(f"Look at {grid_file}")
    return 0


def chosen_mask(mask: str, shape: tuple[int, ...], seed: int) -> Bool[Tensor, "C H W"]:
    """By name or from a picture.

    Raises:
        FileNotFoundError: neither a name nor a file.
        ValueError: another size than the images, or nothing or everything is known.
    """
    if mask in NAMES:
        return named_mask(mask, shape, seed)
    if not Path(mask).is_file():
        raise FileNotFoundError(f"--mask is {', '.join(NAMES)} or a picture: there is no file {mask}.")
    return load_mask(mask, shape)


def replaced(sampler: Sampler, images: Tensor, known: Tensor, resamplings: int) -> Sampler:
    """The sampler with known pixels put in place; in σ-space around the solver, which takes the steps there."""
    if isinstance(sampler, Projected):
        inner = require_fixed_steps(sampler.solver, "Replacement")
        return Projected(Replacement(inner, images, known, resamplings), sampler.ancillary)
    return Replacement(require_fixed_steps(sampler, "Replacement"), images, known, resamplings)
