"""`psld restore`: images from a measurement with fewer pixels, a blur, or no colour."""

from __future__ import annotations

from pathlib import Path

import torch
from jsonargparse import ArgumentParser
from torch import Tensor

from psld.cli.arguments import add_picture_arguments, built, command_parser, completed
from psld.cli.drawing import clamped, opened, read_pictures, settings_of
from psld.cli.kinds import NotNegative
from psld.inverse.operators import LinearOperator
from psld.inverse.posterior import PosteriorGuidance
from psld.jobs import Drawing, Drawn, conditional, degraded, draw_given, rms, write_grid
from psld.model import Model
from psld.plots.pictures import save_images
from psld.samplers import Sampler

__all__ = ["run"]

DESCRIPTION = """Restore images of low resolution, blurred ones, or grey ones, several draws of each:
OUT/images/000000-0.png … (image, draw), and OUT/grid.png, a row an image: truth, measurement, draws.

IMAGES are clean and are degraded first (measurements in OUT/measured), or with --degraded are measurements themselves:
smaller for SuperResolution, grey for Grayscale. A draw depends on its own seed (--seed + image · draws + draw) and,
up to the rounding of the network, neither on the batch size nor on the number of devices. The same command again draws
what is missing."""

EPILOG = """example: psld restore psld-digits Digits --images.split heldout --num 8 --operator SuperResolution
--operator.factor 2 --out runs/sharper; measurements of your own: psld restore runs/faces small/ --operator
SuperResolution --operator.factor 4 --noise 0.02 --degraded --out runs/large"""


def parser() -> ArgumentParser:
    """Options of `psld restore`."""
    options = command_parser("restore", DESCRIPTION, EPILOG)
    add_picture_arguments(options, degraded="IMAGES are the measurements themselves")
    options.add_subclass_arguments(
        LinearOperator,
        "operator",
        required=True,
        help="what was done to images: SuperResolution, GaussianBlur, Grayscale, or your own",
    )
    options.add_argument("--noise", type=NotNegative, default=0.05, help="std of the measurement, of values in [−1, 1]")
    options.add_subclass_arguments(
        PosteriorGuidance,
        "method",
        skip={"model", "operator", "observation", "noise"},
        default={"class_path": "MMPS"},
        help="posterior guidance: MMPS, PiGDM, DPS, or your own",
    )
    return options


def run(arguments: list[str]) -> int:
    """Restore what is missing; returns 0."""
    config = parser().parse_args(arguments)
    job, operator = opened(config, config.run), built(config, "operator")
    measured_shape = tuple(operator.forward(torch.zeros(1, *job.shape)).shape[1:])
    if config.degraded:
        what = f"measurements of {operator!r} are"  # made smaller, they would be of another operator
        images = read_pictures(config, measured_shape, what, exact=True)
        observed = images.double()
    else:
        images = read_pictures(config, job.shape)
        observed = degraded(operator, images, config.noise, config.seed)

    def told(model: Model, y: Tensor) -> tuple[Sampler, Model]:
        measured = {"operator": operator, "observation": y, "noise": config.noise}
        return job.sampler, clamped(completed(config.method, "--method", model=model, **measured), config)

    told(job.model, observed[:1])  # refuses what cannot be before anything is written
    grid = job.sampler.grid(config.grid, job.model.process, config.steps, job.model.spectrum)
    drawing = Drawing(job.model, job.sampler, grid, config.seed, config.batch_size, job.fabric, config.allow_diverged)
    settings = {"command": "restore", "operator": operator.spec.config(), "degraded": config.degraded}
    settings |= {"method": config.method.as_dict(), "noise": config.noise, **settings_of(config)}
    draw = conditional(drawing, observed, told)
    out = Path(config.out)

    def shown(drawn: Drawn) -> None:
        if not config.degraded:
            save_images(observed, out / "measured")
        before = {} if config.degraded else {"truth": images}
        write_grid(out / "grid.png", before | {"measured": observed.float()}, drawn.by_picture(len(images)))

    drawn = draw_given(out, drawing, images, draw, config.draws, settings, shown)
    if drawn is None:
        return 0
    found = drawn.by_picture(len(images))
    print(f"{len(images)} images, {config.draws} draws of each, in {out}{drawn.calls}.")
    measured = operator.forward(found.double().flatten(0, 1)).unflatten(0, (-1, config.draws))
    left = rms(measured - observed[:, None])
    error = "" if config.degraded else f"RMSE of a draw to the truth {rms(found - images[:, None]):.4f}; "
    print(f"{error}of its measurement to the one given {left:.4f}, noise {config.noise:g} (pixels in [−1, 1]).")
    print(f"Look at {out / 'grid.png'}")
    return 0
