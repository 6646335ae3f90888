"""`psld demo`: PSLD on real digits, from training to measured samples."""

from __future__ import annotations

import time
from pathlib import Path

from psld.cli.arguments import command_parser
from psld.cli.train import parser as train_parser
from psld.cli.train import train_from
from psld.files import locked
from psld.jobs.demonstrating import SAMPLES, demonstrate, summary
from psld.pretrained.presets import published_config
from psld.runs import load

__all__ = ["run"]

DESCRIPTION = """Train PSLD on scikit-learn's digits, sample, look and measure: about five minutes on two CPU cores.

Writes into the run folder: samples.png, data_and_samples.png, phase_space.png, report.json and the checkpoints."""

EPILOG = """example: psld demo;
shorter, into another folder: psld demo --seconds 60 --run runs/quick"""


def run(arguments: list[str]) -> int:
    """Train, sample, draw and measure; returns 0."""
    options = command_parser("demo", DESCRIPTION, EPILOG)
    options.add_argument(
        "--run", type=str, default="runs/demo", help="folder of the run; a demo that is there is replaced"
    )
    options.add_argument("--seconds", type=float, default=165.0, help="training time")
    config = options.parse_args(arguments)
    started, folder = time.monotonic(), Path(config.run)

    print(f"training a denoiser D(y; σ) on 1,437 real digits for {config.seconds:.0f} s, into {folder}", flush=True)
    training = train_parser()
    chosen = ["--config", str(published_config("digits-denoiser")), "--run", str(folder), "--overwrite"]
    train_from(training, training.parse_args([*chosen, f"--training.max_seconds={config.seconds}"]))
    trained = time.monotonic()

    print(f"sampling {SAMPLES} images of PSLD with each of four samplers, then measuring", flush=True)
    with locked(folder, "samples of the demo"):
        report = demonstrate(load(folder), folder, trained - started)
    print(f"{summary(report)}\nLook at {folder / 'samples.png'}, data_and_samples.png and phase_space.png beside it.")
    return 0
