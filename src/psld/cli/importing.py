"""`psld import`: an official checkpoint as a folder that the other commands read."""

from __future__ import annotations

from pathlib import Path

from psld.cli.arguments import CommandParser, command_parser
from psld.cli.kinds import Text
from psld.pretrained import import_official

__all__ = ["run"]

DESCRIPTION = """Turn an official PSLD checkpoint into a folder with model.safetensors, model_ema.safetensors and
config.yaml. The file is read without running anything in it; tensors that do not fit the preset's network are listed,
with the presets that would fit."""

EPILOG = """example: psld import psld-cifar10.ckpt --preset cifar10-sota-0.01 --out runs/cifar10;
then: psld sample runs/cifar10 --out runs/cifar10-samples"""


def parser() -> CommandParser:
    """Options of `psld import`."""
    options = command_parser("import", DESCRIPTION, EPILOG)
    options.add_argument("checkpoint", type=Text, help="the official .ckpt file")
    options.add_argument(
        "--preset", type=Text, required=True, help="which experiment it is of; psld presets lists them"
    )
    options.add_argument("--out", type=Text | None, default=None, help="folder to write; runs/PRESET when left out")
    return options


def run(arguments: list[str]) -> int:
    """Import; returns 0."""
    config = parser().parse_args(arguments)
    out = Path("runs") / config.preset if config.out is None else Path(config.out)
    print(f"imported as {import_official(config.checkpoint, config.preset, out)}")
    return 0
