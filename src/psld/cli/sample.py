"""`psld sample`: images from a trained run, on one device or on many, and on from where a killed job stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser, Namespace

from psld.cli.arguments import add_label_arguments, add_sampling_arguments, built, command_parser
from psld.cli.drawing import clamped, classifier_for, guided, opened, settings_of
from psld.cli.kinds import Count, Text
from psld.jobs import Drawing, Drawn, draw_samples
from psld.plots import save_grid
from psld.pretrained.published import published_checkpoints
from psld.samplers.defaults import default_sampler

__all__ = ["run"]

DESCRIPTION = """Draw images from a trained run: OUT/grid.png, and OUT/images/000000.png … or OUT/samples.npz.

A sample depends on its own seed (--seed, --seed + 1, …) and, up to the rounding of the network, neither on the batch
size nor on the number of devices. The same command again goes on with the images that are missing; with a larger --num
it adds to them."""

EPILOG = """example: psld sample runs/demo --sampler EulerMaruyama --grid paper-quadratic --steps 50 --out runs/em;
one denoiser, another process: psld sample runs/denoiser --process psld.CLD --process.nu 4 --out runs/cld;
a class, of a run trained with labels: psld sample runs/digits --label 3 --guidance 2 --out runs/threes;
a class, of any run: psld sample runs/demo --label 3 --classifier runs/classifier --guidance 2 --out runs/threes;
a sampler with its own options: psld sample runs/demo --sampler RK45 --sampler.rtol 1e-4 --out runs/ode;
on four GPUs: psld sample runs/cifar --num 50000 --format npz --accelerator cuda --devices 4 --out runs/fid"""


def parser() -> ArgumentParser:
    """Options of `psld sample`."""
    options = command_parser("sample", DESCRIPTION, EPILOG)
    options.add_argument("run", type=Text, nargs="?", help="run, checkpoint or weights folder, or a published name")
    options.add_argument("--checkpoint", type=Text | None, default=None, help="the same, as an option: psld-digits …")
    options.add_argument("--out", type=Text, required=True, help="folder to write: new, or of the same command before")
    options.add_argument("--num", type=Count, default=64, help="how many images")
    options.add_argument("--format", type=Literal["png", "npz"], default="png", help="a file an image, or one array")
    add_label_arguments(options, "class to draw, of a run trained with labels or by --classifier")
    options.add_argument(
        "--classifier", type=Text | None, default=None, help="run of psld train-classifier, to guide any run"
    )
    add_sampling_arguments(options)
    return options


def run(arguments: list[str]) -> int:
    """Sample what is missing; returns 0."""
    config = parser().parse_args(arguments)
    if (config.run is None) == (config.checkpoint is None):
        raise ValueError(
            f"say once what to sample from, as RUN or --checkpoint: got {config.run!r} and {config.checkpoint!r}. "
            f"Published checkpoints: {', '.join(published_checkpoints())}."
        )
    job = opened(config, config.run or config.checkpoint)
    model = guided(job.model, config.label, config.guidance, classifier_for(config, job))
    sampler = built(config, "sampler") or default_sampler(
        model, config.steps, config.grid
    )  # guided, it may be another one
    grid = sampler.grid(config.grid, model.process, config.steps, model.spectrum)
    drawing = Drawing(
        clamped(model, config), sampler, grid, config.seed, config.batch_size, job.fabric, config.allow_diverged
    )
    guidance = config.guidance.as_dict() if isinstance(config.guidance, Namespace) else config.guidance
    settings = {"label": config.label, "guidance": guidance, **settings_of(config)}
    grid_file = Path(config.out) / "grid.png"

    def shown(drawn: Drawn) -> None:
        save_grid(drawn.first(min(100, config.num)), grid_file)

    drawn = draw_samples(config.out, drawing, config.num, config.format, settings, shown)
    if drawn is not None:
        print(f"{config.num} images in {config.out}{drawn.calls}. Look at {grid_file}")
    return 0
