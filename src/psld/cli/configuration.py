"""One YAML file a run: the classes it names, typed and checked, and the way back from a checkpoint to a model."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, cast

import torch
import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace
from torch import nn

from psld.data import ImageData
from psld.losses import CrossEntropy, Objective
from psld.model import Predicts, ScoreModel
from psld.networks import NoiseClassifier
from psld.pretrained.presets import published_config
from psld.pretrained.published import published_checkpoint
from psld.processes import LinearProcess, Matching
from psld.training import TrainingSettings, latest_checkpoint, load_weights
from psld.training.checkpoint import weight_files

__all__ = [
    "classifier_run_parser",
    "instances",
    "load_classifier",
    "load_data",
    "load_model",
    "published_config",
    "run_parser",
    "seeded_instances",
]

MODEL_KEYS = ("process", "network", "predicts", "matching", "jitter", "image_shape")


def run_parser(description: str = "", epilog: str = "") -> ArgumentParser:
    """The parser of a run's configuration: seed, process, network, predicts, data, loss, training."""
    parser = _seeded_parser("psld train", description, epilog)
    _add_model_arguments(parser)
    parser.add_subclass_arguments(ImageData, "data", help="training images, e.g. psld.data.Digits")
    parser.add_subclass_arguments(Objective, "loss", help="psld.losses.HSM, DSM or Denoising")
    parser.add_class_arguments(TrainingSettings, "training")
    return parser


def classifier_run_parser(description: str = "", epilog: str = "") -> ArgumentParser:
    """The parser of a classifier's run: as `run_parser`, without what only a score model has."""
    parser = _seeded_parser("psld train-classifier", description, epilog)
    parser.add_subclass_arguments(LinearProcess, "process", help="process of the model to guide, e.g. psld.PSLD")
    parser.add_subclass_arguments(NoiseClassifier, "network", help="psld.networks.NoiseClassifier, or one made of it")
    _add_constants(parser)
    parser.add_subclass_arguments(ImageData, "data", help="training images with labels, e.g. psld.data.Digits")
    default = {"class_path": "psld.losses.CrossEntropy"}
    parser.add_subclass_arguments(CrossEntropy, "loss", help="psld.losses.CrossEntropy", default=default)
    parser.add_class_arguments(TrainingSettings, "training")
    return parser


def _seeded_parser(prog: str, description: str, epilog: str) -> ArgumentParser:
    parser = ArgumentParser(prog=prog, description=description)
    parser.epilog = epilog
    parser.add_argument("--config", action="config", help="YAML file with any of the options below.")
    parser.add_argument("--seed", type=int, default=0, help="of the initial weights, data order, times and noise")
    return parser


def load_model(
    path: str | Path,
    weights: Literal["ema", "online"] = "ema",
    device: str = "cpu",
    process: LinearProcess | None = None,
) -> tuple[ScoreModel, tuple[int, ...]]:
    """The score model of a run or checkpoint folder, and the shape of its images.

    Args:
        path: of the run or checkpoint, or the name of a published one (`psld.pretrained.published_checkpoints`).
        weights: averaged or last.
        device: where the network goes.
        process: in place of the run's own; for networks that predict D(y; σ), which fit every process.

    Raises:
        FileNotFoundError: there is no checkpoint or no config.yaml with it.
        ValueError: another process for a network that was trained on the states of its own; or no image shape.
        CheckpointError: the weights are broken.
    """
    folder, config = _described(path)
    if process is not None and config.predicts != "denoiser":
        raise ValueError(
            f"{folder} predicts {config.predicts!r} from states of its own process, so it cannot be sampled under "
            f"{process!r}: another process needs a run with `predicts: denoiser` (configs/digits-denoiser.yaml)."
        )
    parts = instances(_model_parser(), config)
    network = parts.network
    if isinstance(network, NoiseClassifier):
        raise ValueError(
            f"{folder} holds a classifier of noisy images: it guides a score model (--classifier) and is not one."
        )
    load_weights(folder, network, weights)
    network.to(device).eval().requires_grad_(False)
    shape = tuple(config.image_shape)
    return ScoreModel(network, process or parts.process, config.predicts, config.matching, config.jitter, shape), shape


def load_classifier(path: str | Path, device: str = "cpu") -> tuple[NoiseClassifier, LinearProcess, tuple[int, ...]]:
    """The noise-conditional classifier of a run or checkpoint folder, frozen, its process and the shape of its images.

    The weights are the averaged ones, or the only ones there are (official classifiers have no average).

    Raises:
        FileNotFoundError: there is no checkpoint or no config.yaml with it.
        ValueError: it is of a score model, or says no image shape.
        CheckpointError: the weights are broken.
    """
    folder, config = _described(path)
    parts = instances(_model_parser(), config)
    network = parts.network
    if not isinstance(network, NoiseClassifier):
        raise ValueError(
            f"{folder} holds a score model and no classifier ({type(network).__name__}): train one with "
            "psld train-classifier (configs/digits-classifier.yaml)."
        )
    load_weights(folder, network, "ema" if weight_files(folder, "ema") else "online")
    network.to(device).eval().requires_grad_(False)
    return network, parts.process, tuple(config.image_shape)


def load_data(path: str | Path) -> ImageData:
    """The training images of a run or checkpoint folder.

    Raises:
        FileNotFoundError: there is no checkpoint or no config.yaml with it, or the files of the data are gone.
        ValueError: the configuration names no data, or a class that cannot be had here.
    """
    file = latest_checkpoint(path) / "config.yaml"
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or not content.get("data"):
        raise ValueError(f"{file} names no data.")
    parser = ArgumentParser(prog="config.yaml", exit_on_error=False)
    parser.add_subclass_arguments(ImageData, "data")
    try:
        return instances(parser, parser.parse_object({"data": content["data"]})).data
    except ArgumentError as error:
        raise ValueError(f"{file} does not describe data that can be had here: {error}") from error


def _described(path: str | Path) -> tuple[Path, Namespace]:
    """The folder of the newest checkpoint, and what its configuration says about the model."""
    folder = latest_checkpoint(published_checkpoint(path))
    if not (folder / "config.yaml").is_file():
        raise FileNotFoundError(f"{folder} has weights and no config.yaml, so the network is not known.")
    config = _model_config(folder / "config.yaml")
    if not config.image_shape:
        raise ValueError(f"{folder / 'config.yaml'} does not say image_shape: write the (C, H, W) of one image there.")
    return folder, config


def _model_config(file: Path) -> Namespace:
    """What a model needs of a run's configuration; the rest, such as the user's own data class, is not looked up."""
    parser = _model_parser()
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{file} is not a configuration: it must say process and network.")
    try:
        return parser.parse_object({key: value for key, value in content.items() if key in MODEL_KEYS})
    except ArgumentError as error:
        raise ValueError(f"{file} does not describe a model: {error}") from error


def _model_parser() -> ArgumentParser:
    parser = ArgumentParser(prog="config.yaml", exit_on_error=False)
    _add_model_arguments(parser)
    return parser


def _add_model_arguments(parser: ArgumentParser) -> None:
    parser.add_subclass_arguments(LinearProcess, "process", help="forward process, e.g. psld.PSLD")
    parser.add_subclass_arguments(nn.Module, "network", help="network, e.g. psld.networks.NCSNpp")
    parser.link_arguments("process", "network.init_args.process")
    parser.add_argument("--predicts", type=Predicts, default="eps", help="what the network's output means")
    parser.add_argument("--matching", type=Matching, default="hsm", help="the marginal that ε belongs to")
    _add_constants(parser)


def _add_constants(parser: ArgumentParser) -> None:
    parser.add_argument("--jitter", type=float, default=0.0, help="on the kernel's diagonal (published weights: 1e-9)")
    parser.add_argument("--image_shape", type=list[int] | None, default=None, help="written by training, not by you")


def instances(parser: ArgumentParser, config: Namespace) -> Namespace:
    """The objects that a configuration names."""
    return cast(Namespace, parser.instantiate(config))


def seeded_instances(parser: ArgumentParser, config: Namespace) -> Namespace:
    """The objects that a configuration names; initial weights depend on its seed only."""
    torch.manual_seed(config.seed)
    return instances(parser, config)
