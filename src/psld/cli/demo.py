"""`psld demo`: PSLD on real digits, from training to measured samples."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from psld.cli.arguments import CommandParser, command_parser
from psld.cli.kinds import Count, Text
from psld.cli.train import parser as train_parser
from psld.cli.train import train_from
from psld.files import locked
from psld.jobs.demonstrating import SAMPLES, demonstrate, has_learned, summary
from psld.pretrained.presets import published_config
from psld.runs import load

__all__ = ["run"]

STEPS = 1300

DESCRIPTION = """Train PSLD on scikit-learn's digits, sample, look and measure: about five minutes on two CPU cores.

Writes into the run folder: samples.png, data_and_samples.png, phase_space.png, report.json and the checkpoints.
The length is counted in steps, so that a busy machine takes longer and learns as much. The exit code is 1 when the
samples are far from digits, as they are after too few steps."""

EPILOG = """example: psld demo;
shorter, into another folder: psld demo --steps 400 --run runs/quick"""


def parser() -> CommandParser:
    """Options of `psld demo`."""
    options = command_parser("demo", DESCRIPTION, EPILOG)
    options.add_argument(
        "--run", type=Text, default="runs/demo", help="folder of the run; a demo that is there is replaced"
    )
    options.add_argument("--steps", type=Count, default=STEPS, help="optimizer steps of the training")
    return options


def run(arguments: list[str]) -> int:
    """Train, sample, draw and measure; returns 0, or 1 when the network has not learned the digits."""
    config = parser().parse_args(arguments)
    with _one_thread():
        return _demonstrated(config.steps, Path(config.run))


def _demonstrated(steps: int, folder: Path) -> int:
    started = time.monotonic()
    print(f"training a denoiser D(y; σ) on 1,437 real digits for {steps:,} steps, into {folder}", flush=True)
    training = train_parser()
    chosen = ["--config", str(published_config("digits-denoiser")), "--run", str(folder), "--overwrite"]
    length = ["--training.steps", str(steps), "--training.max_seconds", "null"]
    train_from(training, training.parse_args([*chosen, *length]))
    trained = time.monotonic()

    print(f"sampling {SAMPLES:,} images of PSLD with each of four samplers, then measuring", flush=True)
    with locked(folder, "samples of the demo"):
        report = demonstrate(load(folder), folder, trained - started)
    print(summary(report))
    if not has_learned(report):
        print(
            f"psld demo: {steps:,} steps were too few: no sampler's images come near the digits, so {folder} shows "
            f"what an untrained network draws. Train longer: psld demo --steps {max(STEPS, 2 * steps)}.",
            file=sys.stderr,
        )
        return 1
    print(f"Look at {folder / 'samples.png'}, data_and_samples.png and phase_space.png beside it.")
    return 0


@contextmanager
def _one_thread() -> Iterator[None]:
    """A network of 8×8 images is too small to share, and two threads beside a busy core wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
