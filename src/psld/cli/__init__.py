"""The program `psld`. Nothing heavy is imported until a subcommand is known."""

from __future__ import annotations

import difflib
import importlib
import os
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
    "config": "print a configuration that comes with psld, or the one that fits your images",
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
    """Run one command; returns the exit code (0 done, 1 refused or failed, 2 wrong usage, 70 a bug)."""
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
        near = difflib.get_close_matches(name, COMMANDS, n=2)
        advice = f" Did you mean {' or '.join(near)}?" if near else ""
        print(f"psld: error: there is no command {name!r}: one of {', '.join(COMMANDS)}.{advice}", file=sys.stderr)
        return 2
    command = importlib.import_module(f"psld.cli.{MODULES.get(name, name)}")
    from psld.cli.warned import plain_warnings

    try:
        with plain_warnings(name):
            return command.run(rest)
    except Exception as error:
        if os.environ.get("PSLD_TRACEBACK"):
            raise
        code, sentence = _told(error)
        print(f"psld {name}: error: {sentence}", file=sys.stderr)
        return code


def _told(error: Exception) -> tuple[int, str]:
    """Exit code and one line about an error: what a command refuses, or a bug."""
    from psld.cli.messages import of_the_system

    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return 1, "there is not enough memory: a smaller --batch_size or fewer images need less."
    text = " ".join((of_the_system(error) if isinstance(error, OSError) else str(error)).split())
    if isinstance(error, ValueError | OSError) or (isinstance(error, RuntimeError | ImportError) and _is_own(error)):
        return 1, text
    return 70, (
        f"this is a bug in psld, or in code of your own that it ran ({type(error).__name__}: {text}). "
        "PSLD_TRACEBACK=1 in the environment shows where: please report it."
    )


def _is_own(error: Exception) -> bool:
    """Whether psld raised it, so that its message is meant to be read."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return place is not None and place.tb_frame.f_globals.get("__name__", "").startswith("psld.")
