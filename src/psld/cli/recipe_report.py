"""`psld recipe`: is this SDE a recipe, and what is it like."""

from __future__ import annotations

import json
from pathlib import Path

from psld.cli.arguments import CommandParser, built
from psld.cli.kinds import Text
from psld.files import UnreadableFileError, read_yaml
from psld.processes import LinearProcess
from psld.recipe import LinearRecipe, RecipeError
from psld.specs import build

__all__ = ["run"]

DESCRIPTION = """Print the report of a named process or of your own matrices: stationary, ergodic, spectral gap,
damping, and in words why not. The exit code is 1 unless the law is stationary and unique.

A YAML file of matrices holds either the recipe:    diffusion: [[0, 0], [0, 0.5]]
                                                    curl: [[0, -0.5], [0.5, 0]]
                                                    covariance: [[1, 0], [0, 0.25]]
or an SDE dz = drift·z dt + noise·dw:               drift: [[0, 2], [-0.5, -2]]
                                                    noise: [[0], [1]]
                                                    covariance: (optional; solved for when left out)"""

EPILOG = """example: psld recipe --process PSLD --process.gamma 0.02;
the process of a run to be: psld recipe --config configs/own-sde.yaml;
an SDE of your own: psld recipe --matrices my_sde.yaml --json"""

RECIPE_KEYS, SDE_KEYS = {"diffusion", "curl", "covariance"}, {"drift", "noise"}


def parser() -> CommandParser:
    """Options of `psld recipe`."""
    from argparse import RawDescriptionHelpFormatter

    from jsonargparse import DefaultHelpFormatter

    class Formatter(RawDescriptionHelpFormatter, DefaultHelpFormatter):
        """Keeps the layout of the description's YAML."""

    options = CommandParser(prog="psld recipe", description=DESCRIPTION, formatter_class=Formatter, allow_abbrev=False)
    options.epilog = EPILOG
    options.add_subclass_arguments(
        LinearProcess, "process", required=False, help="PSLD, CLD, VPSDE, HigherOrderLangevin, VESDE, SubVPSDE"
    )
    options.add_argument("--config", type=Text | None, default=None, help="YAML file of psld train: its process")
    options.add_argument("--matrices", type=Text | None, default=None, help="YAML file of matrices")
    options.add_argument("--json", action="store_true", help="print the report as JSON")
    return options


def run(arguments: list[str]) -> int:
    """Print the report; returns 0 when stationary and ergodic, else 1."""
    config = parser().parse_args(arguments)
    if sum(given is not None for given in (config.process, config.config, config.matrices)) != 1:
        raise ValueError("give one of --process, --config and --matrices. Example: psld recipe --process CLD")
    if config.matrices is not None:
        report = read_matrices(Path(config.matrices)).check()
    elif config.config is not None:
        report = read_process(Path(config.config)).check()
    else:
        report = built(config, "process").check()
    print(json.dumps(report.to_dict(), indent=2) if config.json else report)
    return 0 if report.ok else 1


def read_process(path: Path) -> LinearProcess:
    """The process of a configuration of psld train.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableFileError: it is no YAML of plain data.
        ValueError: it says no process, or one that cannot be made.
    """
    known = read_yaml(path).get("process")
    try:
        process = build(known, where=str(path))
    except ValueError as error:
        if str(path) in str(error):
            raise
        raise UnreadableFileError(f"{path} says a process that cannot be: {error}") from error
    if not isinstance(process, LinearProcess):
        raise ValueError(f"{path} says no process: configs/own-sde.yaml is an example of one that does.")
    return process


def _is_matrix(value: object) -> bool:
    rows = value if isinstance(value, list) else []
    lengths = {len(row) if isinstance(row, list) else 0 for row in rows}
    return len(lengths) == 1 and 0 not in lengths and all(type(n) in (int, float) for row in rows for n in row)


def read_matrices(path: Path) -> LinearRecipe:
    """The recipe in a YAML file of matrices.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableFileError: it is no YAML of plain data.
        RecipeError: other keys than those of a recipe or an SDE, or matrices that form none.
    """
    matrices = read_yaml(path)
    keys = set(matrices)
    if keys == RECIPE_KEYS or SDE_KEYS <= keys <= SDE_KEYS | {"covariance"}:
        wrong = [name for name in sorted(keys) if not _is_matrix(matrices[name])]
        if wrong:
            raise RecipeError(f"{path}: {wrong[0]} is no matrix: lists of numbers are needed, all of one length.")
        try:
            return LinearRecipe(**matrices) if keys == RECIPE_KEYS else LinearRecipe.from_sde(**matrices)
        except ValueError as error:
            raise RecipeError(f"{path}: {error}") from error
    raise RecipeError(
        f"{path} must hold diffusion, curl and covariance, or drift and noise (and covariance): "
        f"got {', '.join(sorted(keys))[:200] or 'no keys'}."
    )
