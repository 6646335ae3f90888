"""`psld stats`: what a data set is compared by, computed once and kept in a file."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser

from psld.cli.measuring import add_extractor_arguments, chosen_extractor, statistics_of
from psld.data.opening import open_images
from psld.distributed import launch
from psld.files import locked

__all__ = ["run"]

DESCRIPTION = """Write the statistics of a data set to one .npz file, for `psld evaluate --against FILE`: mean and
covariance of features, some features, and which network and pixel convention they come from. The file is whole or not
there; it is refused where samples are judged by another network or are of another shape."""

EPILOG = """example: psld stats data/cifar --extractor inception --extractor_weights inception.pth --out cifar.npz;
MNIST's IDX files: psld stats data/mnist --split train --image_size 32 --out mnist.npz"""


def parser() -> ArgumentParser:
    """Options of `psld stats`."""
    options = ArgumentParser(prog="psld stats", description=DESCRIPTION)
    options.epilog = EPILOG
    options.add_argument("data", type=str, help="folder of images, .npz, folder of MNIST's IDX files, or digits")
    options.add_argument("--out", type=str, required=True, help=".npz file to write")
    options.add_argument("--split", type=str | None, default=None, help="of digits and MNIST: train, heldout …")
    options.add_argument("--image_size", type=int | None, default=None, help="what the images have; MNIST: 28 or 32")
    add_extractor_arguments(options)
    options.add_argument("--batch_size", type=int, default=256, help="images at a time, on each device")
    options.add_argument("--accelerator", type=str, default="cpu", help="cpu, cuda, mps or auto")
    options.add_argument("--devices", type=int, default=1, help="devices (processes) on each node")
    options.add_argument("--nodes", type=int, default=1, help="machines, each started with the same command")
    return options


def run(arguments: list[str]) -> int:
    """Measure and write; returns 0."""
    config = parser().parse_args(arguments)
    if config.keep < 0 or min(config.batch_size, config.devices, config.nodes) < 1:
        raise ValueError("--keep must be at least 0, --batch_size, --devices and --nodes at least 1.")
    if Path(config.out).suffix != ".npz":
        raise ValueError(f"--out must end in .npz: got {config.out}.")
    data = open_images(config.data, config.split, config.image_size)
    fabric = launch(config.accelerator, config.devices, config.nodes)
    with locked(config.out, "statistics", fabric):
        extractor = chosen_extractor(config, data.image_shape, fabric)
        source = f"{config.data}{f' ({config.split})' if config.split else ''}"
        found = statistics_of(data, len(data), extractor, config, fabric, source)
        if fabric.is_global_zero:
            found.save(config.out)
            print(f"{config.out}: {found.moments.count} images of {source}, {len(found.features)} features kept.")
            print(f"extractor: {extractor.identity}\npixels: {extractor.convention}")
    return 0
