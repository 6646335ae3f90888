"""`psld tune`: tell a network what its data look like, so that its grids fit them."""

from __future__ import annotations

from pathlib import Path

from psld.cli.arguments import (
    CommandParser,
    add_data_argument,
    add_run_argument,
    built,
    command_parser,
    data_name,
    open_data,
)
from psld.cli.kinds import Evaluations
from psld.model import Clamped
from psld.pretrained.published import with_place_for_results
from psld.processes import LinearProcess
from psld.runs import load
from psld.samplers.defaults import default_sampler
from psld.spectrum import SPECTRUM, Spectrum
from psld.training import latest_checkpoint

__all__ = ["run"]

DESCRIPTION = """Measure the mean and the principal components of images, in seconds, and write them beside a network
that was trained elsewhere: RUN/spectrum.safetensors. From then on every command, and psld.load, samples that network on
grids derived from them. `psld train` measures its data by itself."""

EPILOG = """example: psld tune ddpm-cifar10-32 --images photos --steps 5 10 20;
psld tune runs/old --images MNIST --images.root data/mnist --images.image_size 32"""


def parser() -> CommandParser:
    """Options of `psld tune`."""
    options = command_parser("tune", DESCRIPTION, EPILOG)
    add_run_argument(options)
    add_data_argument(options, "--images", "images of the kind that the network was trained on", required=True)
    options.add_argument(
        "--steps", type=Evaluations, nargs="+", default=[5, 10, 20], help="budgets whose grids are printed"
    )
    options.add_subclass_arguments(
        LinearProcess, "process", required=False, help="another process than the run's, for the grids that are printed"
    )
    options.add_argument("--trust", action="store_true", help="run whatever code the folder names, not only psld's")
    return options


def run(arguments: list[str]) -> int:
    """Measure and write; returns 0."""
    config = parser().parse_args(arguments)
    folder = with_place_for_results(config.run, None)
    model = load(folder, process=built(config, "process"), trust=config.trust, spectrum=False)
    images = open_data(config.images, model.known_shape())
    spectrum = Spectrum.measure(images)
    place = folder if (Path(folder) / "unet").is_dir() else latest_checkpoint(folder)
    print(f"{data_name(config.images)}: {spectrum!r}; standard deviation of a pixel {spectrum.pixel_scale:.3g}.")
    model.spectrum = spectrum
    print("Default sampler, and σ at which it calls the network:")
    for steps in config.steps:
        sampler = default_sampler(Clamped(model), steps)
        times = sampler.best_grid(model.process, steps, spectrum).times
        scales = model.process.noise_scale(times)[-steps:].tolist()
        print(f"  {steps} evaluations: {', '.join(f'{scale:.3g}' for scale in scales)} ({sampler!r})")
    spectrum.save(place)
    print(f"Written to {place / SPECTRUM}.")
    return 0
