"""`psld inpaint`: fill in the unknown pixels of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Bool
from jsonargparse import ArgumentParser
from torch import Tensor

from psld.cli.arguments import add_picture_arguments, command_parser, completed
from psld.cli.drawing import clamped, opened, read_pictures, settings_of
from psld.cli.kinds import NotNegative, Text
from psld.inverse.masks import NAMES, load_mask, named_mask
from psld.inverse.operators import Mask
from psld.inverse.posterior import PosteriorGuidance
from psld.inverse.replacement import Replacement
from psld.jobs import Drawing, Drawn, conditional, draw_given, rms, tensor_sha256, write_grid
from psld.model import Model
from psld.samplers import Projected, Sampler, Samples
from psld.samplers.sampler import require_fixed_steps
from psld.specs import resolve

__all__ = ["run"]

DESCRIPTION = """Fill in the unknown pixels of images, several draws of each: OUT/images/000000-0.png … (image, draw),
and OUT/grid.png, a row an image: truth, what is known of it, the draws.

Whatever the method, known pixels of the images written are those given. A draw depends on its own seed (--seed +
image · draws + draw) and, up to the rounding of the network, neither on the batch size nor on the number of devices.
The same command again draws what is missing."""

EPILOG = """example: psld inpaint psld-digits Digits --images.split heldout --num 8 --mask center --out runs/filled;
with a mask of your own, white where pixels are known: psld inpaint runs/faces photo.png --mask mask.png --degraded
--out runs/photo; as in RePaint: psld inpaint psld-digits Digits --num 8 --mask half --method Replacement
--method.resamplings 10 --steps 200 --out runs/repaint"""

NOISE = 0.05


def parser() -> ArgumentParser:
    """Options of `psld inpaint`."""
    options = command_parser("inpaint", DESCRIPTION, EPILOG)
    add_picture_arguments(options, degraded="nothing true is under the mask")
    options.add_argument(
        "--mask", type=Text, required=True, help=f"{', '.join(NAMES)}; or a PNG, white where pixels are known"
    )
    options.add_subclass_arguments(
        (PosteriorGuidance, Replacement),
        "method",
        skip={"model", "operator", "observation", "noise", "sampler", "images", "known"},
        default={"class_path": "MMPS"},
        help="posterior guidance (MMPS, PiGDM, DPS, or your own), or Replacement of known pixels in phase space",
    )
    options.add_argument(
        "--noise",
        type=NotNegative | None,
        default=None,
        help=f"of posterior guidance: std of known pixels in [−1, 1] ({NOISE})",
    )
    return options


def run(arguments: list[str]) -> int:
    """Fill in what is missing; returns 0."""
    config = parser().parse_args(arguments)
    replacing = issubclass(resolve(config.method.class_path, trust=True), Replacement)  # pyright: ignore[reportArgumentType]
    if replacing and config.noise is not None:
        raise ValueError(f"--noise {config.noise} is of posterior guidance: Replacement puts pixels in as they are.")
    noise = NOISE if config.noise is None else config.noise
    job = opened(config, config.run)
    known = chosen_mask(config.mask, job.shape, config.seed)
    images = read_pictures(config, job.shape)
    here = known.to(job.fabric.device)

    def told(model: Model, x: Tensor) -> tuple[Sampler, Model]:
        if replacing:
            make = lambda sampler: completed(config.method, "--method", sampler=sampler, images=x, known=here)  # noqa: E731
            return replaced(job.sampler, make), clamped(model, config)
        measured = {"operator": Mask(here), "observation": x[:, here], "noise": noise}
        return job.sampler, clamped(completed(config.method, "--method", model=model, **measured), config)

    first = images[:1].to(job.fabric.device, torch.float64)
    sampler, _ = told(job.model, first)
    grid = sampler.grid(config.grid, job.model.process, config.steps, job.model.spectrum)
    drawing = Drawing(job.model, sampler, grid, config.seed, config.batch_size, job.fabric, config.allow_diverged)
    draw = conditional(drawing, images, told)

    def filled(positions: Sequence[int], seeds: Sequence[int]) -> Samples:
        samples = draw(positions, seeds)
        return replace(samples, x=torch.where(here, images[list(positions)].to(samples.x), samples.x))

    settings = {"command": "inpaint", "method": config.method.as_dict(), "known": tensor_sha256(known)}
    settings |= {"noise": None if replacing else noise, **settings_of(config)}
    grid_file = Path(config.out) / "grid.png"
    before = {} if config.degraded else {"truth": images}

    def shown(drawn: Drawn) -> None:
        write_grid(grid_file, before | {"known": torch.where(known, images, 0.0)}, drawn.by_picture(len(images)))

    drawn = draw_given(config.out, drawing, images, filled, config.draws, settings, shown)
    if drawn is None:
        return 0
    print(f"{len(images)} images, {config.draws} draws of each, in {config.out}{drawn.calls}.")
    if not config.degraded:
        error = rms((drawn.by_picture(len(images)) - images[:, None])[:, :, ~known])
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


def replaced(sampler: Sampler, make: Callable[[Sampler], Sampler]) -> Sampler:
    """The sampler with known pixels put in place; in σ-space around the solver, which takes the steps there."""
    if isinstance(sampler, Projected):
        return Projected(make(require_fixed_steps(sampler.solver, "Replacement")), sampler.ancillary)
    return make(require_fixed_steps(sampler, "Replacement"))
