"""`psld config`: the configurations that come with psld, and the one that fits a set of images."""

from __future__ import annotations

from typing import Literal

from psld.cli.arguments import CommandParser, command_parser
from psld.cli.kinds import Count, Text
from psld.jobs.configuring import setup_for
from psld.pretrained.presets import PRESETS, preset, published_config, published_configs

__all__ = ["run"]

DESCRIPTION = """Print a configuration, as the YAML that psld train takes: one that comes with psld, by its name, or the
one that psld train --images would use, with what was measured of the images. Without a name: the list of them."""

EPILOG = """example: psld config digits-denoiser > mine.yaml, and psld train --config mine.yaml --run runs/mine;
of your own images: psld config --images photos --image_size 64"""


def parser() -> CommandParser:
    """Options of `psld config`."""
    options = command_parser("config", DESCRIPTION, EPILOG)
    options.add_argument("name", type=Text | None, nargs="?", default=None, help="print this one")
    options.add_argument("--images", type=Text | None, default=None, help="a folder, an .npz or .zip file, a data set")
    options.add_argument("--image_size", type=Count | None, default=None, help="that images of a folder are made")
    options.add_argument(
        "--device",
        type=Literal["cpu", "cuda"] | None,
        default=None,
        help="that the network is for",
    )
    return options


def run(arguments: list[str]) -> int:
    """Print; returns 0."""
    config = parser().parse_args(arguments)
    if config.images is not None:
        if config.name is not None:
            raise ValueError(
                f"a configuration by name or --images, not both: got {config.name!r} and {config.images!r}."
            )
        print(setup_for(config.images, config.image_size, config.device).text, end="")
        return 0
    for option in ("image_size", "device"):
        if config[option] is not None:
            raise ValueError(f"--{option} {config[option]} is for --images: name them, or leave it out.")
    if config.name is None:
        print("\n".join([*published_configs(), *(name for name in PRESETS if name not in published_configs())]))
    elif config.name in PRESETS:
        print(preset(config.name).text(), end="")
    else:
        print(published_config(config.name).read_text(encoding="utf-8"), end="")
    return 0
