"""`psld restore`: images from a measurement with fewer pixels, a blur, or no colour."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from jsonargparse import ArgumentParser
from torch import Tensor

from psld.cli.restoring import (
    OWN,
    add_method_arguments,
    add_picture_arguments,
    conditional,
    draw_missing,
    guided,
    opened,
    read_pictures,
    require_own_options,
    rms,
    size_of,
    write_grid,
)
from psld.inverse.operators import Blur, Grayscale, LinearOperator, SuperResolution
from psld.noise import SeededNoise
from psld.plots.pictures import save_images

__all__ = ["run"]

DESCRIPTION = """Restore images of low resolution, blurred ones, or grey ones, several draws of each:
OUT/images/000000-0.png … (image, draw), and OUT/grid.png, a row an image: truth, measurement, draws.

IMAGES are clean and are degraded first (measurements in OUT/measured), or with --degraded are measurements themselves:
smaller for super-resolution, grey for colorize. A draw depends on its own seed (--seed + image · draws + draw) and
neither on the batch size nor on the number of devices. The same command again draws what is missing."""

EPILOG = """example: psld restore psld-digits digits --split heldout --num 8 --task super-resolution --out runs/sharper;
measurements of your own: psld restore runs/faces small/ --task super-resolution --factor 4 --noise 0.02 --degraded
--out runs/large"""

SEED_OF_MEASUREMENTS = 2**31  # beyond the seeds of draws: torch's generators read 32 bits of a seed


def parser() -> ArgumentParser:
    """Options of `psld restore`."""
    options = ArgumentParser(prog="psld restore", description=DESCRIPTION)
    options.epilog = EPILOG
    add_picture_arguments(options)
    options.add_argument(
        "--task", type=Literal["super-resolution", "deblur", "colorize"], required=True, help="what was done to images"
    )
    options.add_argument(
        "--factor",
        type=int | None,
        default=None,
        help="of super-resolution: blocks of factor × factor are averaged (2)",
    )
    options.add_argument(
        "--blur_std", type=float | None, default=None, help="of deblur: std in pixels; edges wrap around (1)"
    )
    options.add_argument("--noise", type=float, default=0.05, help="std of the measurement, of values in [−1, 1]")
    options.add_argument("--method", type=Literal["mmps", "pigdm", "dps"], default="mmps", help="posterior guidance")
    add_method_arguments(options, degraded="IMAGES are the measurements themselves")
    return options


def run(arguments: list[str]) -> int:
    """Restore what is missing; returns 0."""
    options = parser()
    config = options.parse_args(arguments)
    require_own_options(config, {"factor": ("task", ["super-resolution"]), "blur_std": ("task", ["deblur"])})
    job = opened(options, config)
    operator = chosen_operator(config, job.shape)
    measured_shape = tuple(operator.forward(torch.zeros(1, *job.shape)).shape[1:])
    if config.degraded:
        needed, what = measured_shape, f"measurements of {operator!r} are"
    else:
        needed, what = job.shape, "the run makes"
    images = read_pictures(config, needed, what)
    observed = images.double() if config.degraded else degraded(operator, images, config.noise, config.seed)

    def build(model, y):
        return job.sampler, guided(config, model, operator, y)

    sampler, grid, draw = conditional(job, config, observed, build)
    settings = {"command": "restore", "operator": repr(operator), "degraded": config.degraded}
    settings |= {name: config[name] for name in ("method", "noise", "blur_std", *OWN)}
    outcome = draw_missing(job, config, images, sampler, grid, draw, settings)
    if outcome is None:
        return 0
    out = Path(config.out)
    if not config.degraded:
        save_images(observed, out / "measured")
    before = {} if config.degraded else {"truth": images}
    write_grid(out / "grid.png", before | {"measured": observed.float()}, outcome.images)
    print(f"{len(images)} images, {config.draws} draws of each, in {out}{outcome.calls}.")
    left = rms(
        operator.forward(outcome.images.double().flatten(0, 1)).unflatten(0, (-1, config.draws)) - observed[:, None]
    )
    error = "" if config.degraded else f"RMSE of a draw to the truth {rms(outcome.images - images[:, None]):.4f}; "
    print(f"{error}of its measurement to the one given {left:.4f}, noise {config.noise:g} (pixels in [−1, 1]).")
    print(f"Look at {out / 'grid.png'}")
    return 0


def chosen_operator(config, shape: tuple[int, ...]) -> LinearOperator:
    """As --task says.

    Raises:
        ValueError: an operator that images of this shape cannot have.
    """
    if config.task == "super-resolution":
        return SuperResolution(2 if config.factor is None else config.factor)
    if config.task == "deblur":
        return Blur.gaussian(1.0 if config.blur_std is None else config.blur_std)
    if shape[0] != 3:
        raise ValueError(f"--task colorize is for runs of colour images, and this one makes {size_of(shape)}.")
    return Grayscale()


def degraded(
    operator: LinearOperator, images: Float[Tensor, "n C H W"], noise: float, seed: int
) -> Float[Tensor, "n ..."]:
    """y = A x + noise · ξ, float64, with one seed an image, none of them that of a draw."""
    y = operator.forward(images.double())
    first = SEED_OF_MEASUREMENTS + seed
    return y + noise * SeededNoise(range(first, first + len(y)), tuple(y.shape[1:]))()
