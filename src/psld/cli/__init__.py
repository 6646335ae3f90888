"""The program `psld`. Nothing heavy is imported until a subcommand is known."""

from __future__ import annotations

import importlib
import sys

__all__ = ["main"]

COMMANDS = {
    "train": "train a process on images, from one YAML file",
    "train-classifier": "train a classifier of noisy images, to guide a model to a class",
    "sample": "draw images from a trained run",
    "inpaint": "fill in the unknown pixels of images",
    "restore": "images from low resolution, blur or grey",
    "edit": "images perturbed and drawn anew (SDEdit)",
    "interpolate": "from one image to another, through the prior",
    "likelihood": "bits per dimension of images under a trained run",
    "evaluate": "FID and friends of a run or of images, and speed against quality",
    "stats": "statistics of a data set, to evaluate against",
    "report": "one HTML file about a trained run: samples, paths, curves, and how each was measured",
    "tune": "measure images, so that a network from elsewhere is sampled on grids that fit them",
    "bench": "compare samplers on exact scores or on a trained network",
    "presets": "list the published experiments, or print one as YAML",
    "import": "turn an official checkpoint into a folder that sample reads",
    "recipe": "say whether a process is stationary and ergodic, and why not",
    "demo": "train PSLD on real digits, sample, and measure, in a few minutes on a CPU",
}

MODULES = {"import": "importing", "recipe": "recipe_report", "train-classifier": "train_classifier"}
"""Modules that are not called as their command: the name is taken, or no name of a module."""

HELP = """usage: psld COMMAND [options]

Diffusion models whose forward process comes from the complete recipe (Pandey & Mandt, ICCV 2023).

commands:
{commands}

options:
  -h, --help     this text; `psld COMMAND --help` for one command
  --version      the installed version

example:
  psld demo
  psld sample runs/demo --num 64 --steps 20 --out runs/more
"""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code (0 done, 1 refused or failed, 2 wrong usage)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP.format(commands="\n".join(f"  {name:<16} {text}" for name, text in COMMANDS.items())), end="")
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from psld import __version__

        print(f"psld {__version__}")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        print(f"psld: no command {name!r}. Commands: {', '.join(COMMANDS)}.", file=sys.stderr)
        return 2
    command = importlib.import_module(f"psld.cli.{MODULES.get(name, name)}")
    try:
        return command.run(rest)
    except (ValueError, RuntimeError, OSError) as error:
        print(f"psld {name}: {error}", file=sys.stderr)
        return 1
