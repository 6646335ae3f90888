"""One YAML file a run: the classes it names, typed and checked, and the way back from a checkpoint to a model."""

from __future__ import annotations

from argparse import ArgumentError
from typing import Any

import jsonargparse
from jsonargparse import ArgumentParser
from torch import nn

from psld.cli.arguments import command_parser
from psld.cli.kinds import Count, NotNegative, Seed, Text
from psld.cli.messages import of_the_system
from psld.data import ImageData
from psld.files import read_yaml
from psld.losses import CrossEntropy, Objective
from psld.model import Predicts
from psld.networks import NoiseClassifier
from psld.processes import LinearProcess, Matching
from psld.training import TrainingSettings

__all__ = ["classifier_run_parser", "run_parser"]


def run_parser(description: str = "", epilog: str = "") -> ArgumentParser:
    """The parser of a run's configuration: seed, process, network, predicts, data, loss, training."""
    parser = _seeded_parser("train", description, epilog)
    _add_model_arguments(parser)
    parser.add_subclass_arguments(ImageData, "data", help="training images, e.g. psld.data.Digits")
    parser.add_subclass_arguments(Objective, "loss", help="psld.losses.HSM, DSM or Denoising")
    parser.add_class_arguments(TrainingSettings, "training")
    return parser


def classifier_run_parser(description: str = "", epilog: str = "") -> ArgumentParser:
    """The parser of a classifier's run: as `run_parser`, without what only a score model has."""
    parser = _seeded_parser("train-classifier", description, epilog)
    parser.add_subclass_arguments(LinearProcess, "process", help="process of the model to guide, e.g. psld.PSLD")
    parser.add_subclass_arguments(NoiseClassifier, "network", help="psld.networks.NoiseClassifier, or one made of it")
    _add_constants(parser)
    parser.add_subclass_arguments(ImageData, "data", help="training images with labels, e.g. psld.data.Digits")
    default = {"class_path": "psld.losses.CrossEntropy"}
    parser.add_subclass_arguments(CrossEntropy, "loss", help="psld.losses.CrossEntropy", default=default)
    parser.add_class_arguments(TrainingSettings, "training")
    return parser


class CheckedFile(jsonargparse.ActionConfigFile):  # pyright: ignore[reportPrivateImportUsage]
    """The option --config: refuses what is not plain YAML of a bounded size before jsonargparse reads it."""

    def __call__(self, parser: Any, config: Any, values: Any, option_string: str | None = None) -> None:
        if "\n" not in values:  # a file, and not the text of a preset
            try:
                read_yaml(values)
            except ValueError as error:
                raise ArgumentError(None, f"--config: {error}") from error
            except OSError as error:
                raise ArgumentError(None, f"--config: {of_the_system(error)}") from error
        super().__call__(parser, config, values, option_string)


def _seeded_parser(command: str, description: str, epilog: str) -> ArgumentParser:
    parser = command_parser(command, description, epilog)
    parser.add_argument("--config", action=CheckedFile, help="YAML file with any of the options below.")
    parser.add_argument("--seed", type=Seed, default=0, help="of the initial weights, data order, times and noise")
    return parser


def _add_model_arguments(parser: ArgumentParser) -> None:
    parser.add_subclass_arguments(LinearProcess, "process", help="forward process, e.g. psld.PSLD")
    parser.add_subclass_arguments(nn.Module, "network", help="network, e.g. psld.networks.NCSNpp")
    parser.link_arguments("process", "network.init_args.process")  # of those networks that take one
    parser.add_argument("--predicts", type=Predicts, default="eps", help="what the network's output means")
    parser.add_argument("--matching", type=Matching, default="hsm", help="the marginal that ε belongs to")
    _add_constants(parser)


def _add_constants(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--jitter", type=NotNegative, default=0.0, help="on the kernel's diagonal (published weights: 1e-9)"
    )
    parser.add_argument("--image_shape", type=list[Count] | None, default=None, help="written by training, not by you")
    parser.add_argument("--data_sha256", type=Text | None, default=None, help="written by training, not by you")
