"""`psld interpolate`: from one image to another, along the geodesic between their states in the prior."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from jsonargparse import ArgumentParser, Namespace
from torch import Tensor

from psld.cli.arguments import (
    add_data_argument,
    add_model_arguments,
    add_run_argument,
    built,
    command_parser,
    open_data,
)
from psld.cli.drawing import clamped
from psld.cli.kinds import Count, Positive, Seed, Several, Text
from psld.distributed import launch
from psld.jobs import interpolate, rms
from psld.jobs.results import ENLARGED
from psld.plots import save_grid
from psld.pretrained.published import published_checkpoint
from psld.runs import load

__all__ = ["run"]

DESCRIPTION = """Interpolate between two images: both are carried to T by the probability flow, the states there are
joined along the sphere, variable by variable, and carried back: OUT/images/000000.png …, and all in OUT/strip.png.

The first frame and the last are the two images again, to the tolerance of the solver and 8 bits."""

EPILOG = """example: psld interpolate vp-digits 3 8 --of Digits --out runs/between;
two image files: psld interpolate runs/faces a.png b.png --frames 12 --out runs/faces-between"""


def parser() -> ArgumentParser:
    """Options of `psld interpolate`."""
    options = command_parser("interpolate", DESCRIPTION, EPILOG)
    add_run_argument(options)
    options.add_argument("first", type=Text, help="an image file; with --of, a position there, from 0")
    options.add_argument("last", type=Text, help="another")
    add_data_argument(options, "--of", "images that FIRST and LAST are positions in")
    options.add_argument("--out", type=Text, required=True, help="folder to write: new, or of the same command before")
    options.add_argument("--frames", type=Several, default=9, help="how many images, both ends included")
    options.add_argument("--seed", type=Seed, default=0, help="of the momenta of the first image; + 1 of the last")
    options.add_argument("--t_min", type=Positive, default=1e-3, help="time that images are taken for states of")
    options.add_argument("--tolerance", type=Positive, default=1e-5, help="of the solver, absolute and relative")
    options.add_argument("--batch_size", type=Count, default=64, help="frames at a time")
    add_model_arguments(options)
    return options


def run(arguments: list[str]) -> int:
    """Write the frames that are missing; returns 0."""
    config = parser().parse_args(arguments)
    device = launch(config.accelerator, devices=1, nodes=1).device
    checkpoint = published_checkpoint(config.run)
    model = load(checkpoint, config.weights, str(device), built(config, "process"), config.trust)
    shape = model.known_shape()
    ends = _ends(config, shape)
    numbers = {name: config[name] for name in ("frames", "seed", "t_min", "tolerance", "batch_size")}
    settings = {"command": "interpolate", "clamp": config.clamp}
    strip = Path(config.out) / "strip.png"

    def shown(frames: Tensor) -> None:
        save_grid(frames, strip, columns=config.frames, scale=max(1, ENLARGED // max(shape[-2:])))

    known = {"settings": settings, "device": device, "show": shown}
    frames = interpolate(config.out, clamped(model, config), ends, **numbers, **known)
    error = rms(frames[[0, -1]] - ends)
    print(f"{config.frames} frames in {config.out}; both ends came back to {error:.4f} RMS (pixels in [−1, 1]).")
    print(f"Look at {strip}")
    return 0


def _ends(config: Namespace, shape: tuple[int, ...]) -> Float[Tensor, "2 C H W"]:
    if config.of is None:
        return torch.cat([open_data(end, shape).batch([0]) for end in (config.first, config.last)])
    images = open_data(config.of, shape)
    for given in (config.first, config.last):
        if not given.isdecimal() or int(given) >= len(images):
            raise ValueError(f"with --of, an image is a position, 0 … {len(images) - 1}: got {given}.")
    return images.batch([int(config.first), int(config.last)])
