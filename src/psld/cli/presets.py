"""`psld presets`: the published experiments, and any one of them as YAML."""

from __future__ import annotations

import torch

from psld.cli.arguments import CommandParser, command_parser
from psld.cli.kinds import Text
from psld.pretrained.presets import PRESETS, Preset, preset

__all__ = ["run"]

DESCRIPTION = """List the published experiments with the size of their networks and what the paper reports (FID @ number
of network evaluations), or print one of them whole, as the YAML that psld train takes, and for those with "classifier"
in their name psld train-classifier."""

EPILOG = """example: psld presets;
to change one: psld presets cifar10-sota-0.01 > mine.yaml, and psld train --config mine.yaml --run runs/mine"""


def parser() -> CommandParser:
    """Options of `psld presets`."""
    options = command_parser("presets", DESCRIPTION, EPILOG)
    options.add_argument("name", type=Text | None, nargs="?", default=None, help="print this one as YAML")
    return options


def run(arguments: list[str]) -> int:
    """Print; returns 0."""
    config = parser().parse_args(arguments)
    print(table() if config.name is None else preset(config.name).text(), end="\n" if config.name is None else "")
    return 0


def table() -> str:
    """One line a preset."""
    rows = [("preset", "parameters", "reported in the paper")]
    rows += [(name, f"{millions(item):.2f} M", item.reported or "—") for name, item in PRESETS.items()]
    return "\n".join(f"{name:<26}{size:>10}  {reported}" for name, size, reported in rows)


def millions(item: Preset) -> float:
    """Parameters of the network in millions; it is built without memory for its weights."""
    with torch.device("meta"):
        network = item.network()
    return sum(parameter.numel() for parameter in network.parameters()) / 1e6
