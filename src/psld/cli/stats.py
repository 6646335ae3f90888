"""`psld stats`: what a data set is compared by, computed once and kept in a file."""

from __future__ import annotations

from pathlib import Path

from psld.cli.arguments import CommandParser, add_data_argument, command_parser, data_name, open_data
from psld.cli.kinds import Accelerator, Count, Devices, Text
from psld.cli.measuring import add_extractor_arguments, chosen_extractor
from psld.distributed import launch
from psld.files import locked
from psld.jobs.evaluating import statistics_of

__all__ = ["run"]

DESCRIPTION = """Write the statistics of a data set to one .npz file, for `psld evaluate --against FILE`: mean and
covariance of features, some features, and which network and pixel convention they come from. The file is whole or not
there; it is refused where samples are judged by another network or are of another shape."""

EPILOG = """example: psld stats data/cifar --extractor inception --extractor_weights inception.pth --out cifar.npz;
MNIST with a border: psld stats MNIST --data.root data/mnist --data.image_size 32 --out mnist.npz"""


def parser() -> CommandParser:
    """Options of `psld stats`."""
    options = command_parser("stats", DESCRIPTION, EPILOG)
    add_data_argument(options, "data", "images to measure")
    options.add_argument("--out", type=Text, required=True, help=".npz file to write")
    add_extractor_arguments(options)
    options.add_argument("--trust", action="store_true", help="run the code of a network given as --extractor")
    options.add_argument("--batch_size", type=Count, default=256, help="images at a time, on each device")
    options.add_argument("--accelerator", type=Accelerator, default="cpu", help="cpu, cuda, mps or auto")
    options.add_argument("--devices", type=Devices, default=1, help="devices (processes) on each node")
    options.add_argument("--nodes", type=Devices, default=1, help="machines, each started with the same command")
    return options


def run(arguments: list[str]) -> int:
    """Measure and write; returns 0."""
    config = parser().parse_args(arguments)
    if config.keep < 0 or min(config.batch_size, config.devices, config.nodes) < 1:
        raise ValueError("--keep must be at least 0, --batch_size, --devices and --nodes at least 1.")
    if Path(config.out).suffix != ".npz":
        raise ValueError(f"--out must end in .npz: got {config.out}.")
    data, source = open_data(config.data), data_name(config.data)
    fabric = launch(config.accelerator, config.devices, config.nodes)
    with locked(config.out, "statistics", fabric):
        extractor = chosen_extractor(config, data.image_shape, fabric)
        found = statistics_of(data, range(len(data)), extractor, config.keep, config.batch_size, fabric, source)
        if fabric.is_global_zero:
            found.save(config.out)
            print(f"{config.out}: {found.moments.count} images of {source}, {len(found.features)} features kept.")
            print(f"extractor: {extractor.identity}\npixels: {extractor.convention}")
    return 0
