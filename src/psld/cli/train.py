"""`psld train`: one YAML file, one run folder."""

from __future__ import annotations

from pathlib import Path

import torch
import yaml
from jsonargparse import ArgumentParser, Namespace

from psld.cli.configuration import run_parser
from psld.cli.kinds import Count, Text
from psld.jobs.configuring import setup_for
from psld.networks import NoiseClassifier
from psld.pretrained.presets import preset
from psld.runs import untrained_model
from psld.specs import build, resolve
from psld.training import TrainingSettings, train

__all__ = ["add_run_arguments", "parsed", "run", "train_from"]

DESCRIPTION = """Train a process on images. Everything is checked before anything is written.

The run folder gets checkpoints/ (weights, their average, optimizer, configuration; the newest is always usable),
metrics.csv and tensorboard/. SIGTERM and Ctrl-C write a checkpoint and exit with 143 and 130; --resume goes on from the
latest checkpoint to the same weights, bit for bit, as a run that was never stopped."""

EPILOG = """example: psld train --images photos --run runs/mine;
psld train --config configs/digits.yaml --run runs/digits --training.max_seconds 60;
a published experiment: psld train --preset cifar10-sota-0.01 --data.root data/cifar10 --run runs/cifar10;
to see every option with its value: psld train --config configs/digits.yaml --run runs/digits --print_config"""


def parser() -> ArgumentParser:
    """Options of `psld train`."""
    options = run_parser(DESCRIPTION, EPILOG)
    add_run_arguments(options)
    options.add_argument(
        "--images",
        type=Text | None,
        default=None,
        help="instead of --config: a folder of images, an .npz or .zip file, what `datasets` saved, or hub:owner/name; "
        "psld config --images prints the configuration that is chosen for them",
    )
    options.add_argument("--image_size", type=Count | None, default=None, help="of --images: what they are made")
    return options


def add_run_arguments(options: ArgumentParser) -> None:
    """What every training command has beside its configuration."""
    options.add_argument("--preset", type=Text | None, default=None, help="instead of --config: one of psld presets")
    options.add_argument("--limit", type=Count | None, default=None, help="smoke run: so many steps of two images each")
    options.add_argument("--run", type=Text, required=True, help="folder of the run")
    options.add_argument("--resume", action="store_true", help="go on from the run's latest checkpoint")
    options.add_argument("--overwrite", action="store_true", help="replace a run that is there")


def run(arguments: list[str]) -> int:
    """Train; returns 0."""
    options = parser()
    config = parsed(options, with_images(arguments))
    if config.image_size is not None:
        raise ValueError(f"--image_size {config.image_size} is for --images: name them, or leave it out.")
    if config.network and _is_classifier(config.network.class_path):
        raise ValueError(
            f"{config.network.class_path} is a classifier of noisy images: psld train-classifier trains it."
        )
    print(f"last checkpoint: {train_from(options, config)}")
    return 0


def parsed(options: ArgumentParser, arguments: list[str]) -> Namespace:
    """The configuration that the arguments make, presets and limits put in.

    Raises:
        ValueError: there is no such preset, the limit is no number of steps, or a file without --config.
    """
    if arguments and not arguments[0].startswith("-"):
        raise ValueError(f"a configuration is given with --config: {options.prog} --config {arguments[0]} --run RUN.")
    config = options.parse_args(with_preset(arguments))
    if config.limit is not None:
        limit(config, config.limit)
    return config


def with_preset(arguments: list[str]) -> list[str]:
    """The arguments with --preset NAME replaced by --config and the text of that experiment.

    Raises:
        ValueError: there is no preset of that name.
    """
    rest, given = _taken(arguments, "--preset")
    return ["--config", preset(given["--preset"]).text(), *rest] if given else arguments


def with_images(arguments: list[str]) -> list[str]:
    """The arguments with --images SOURCE replaced by --config and the configuration that fits them, which is printed.

    Raises:
        ValueError: the images do not fit, or another configuration is named as well.
    """
    rest, given = _taken(arguments, "--images", "--image_size")
    if "--images" not in given:
        return arguments
    for other in ("--config", "--preset"):
        if any(argument.partition("=")[0] == other for argument in rest):
            raise ValueError(f"--images chooses a configuration: leave out {other}, or name the data in --data.")
    size = given.get("--image_size")
    if size is not None and not (size.isdecimal() and int(size) > 0):
        raise ValueError(f"--image_size must be a whole number of at least 1: got {size}.")
    setup = setup_for(given["--images"], None if size is None else int(size))
    print(setup.described, flush=True)
    return ["--config", setup.text, *rest]


def _taken(arguments: list[str], *names: str) -> tuple[list[str], dict[str, str]]:
    """The arguments without those options, and the values that these were given."""
    rest: list[str] = []
    given: dict[str, str] = {}
    waiting = ""
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if waiting:
            given[waiting], waiting = argument, ""
        elif name in names and equals:
            given[name] = value
        elif name in names:
            waiting = name
        else:
            rest.append(argument)
    return (arguments, {}) if waiting else (rest, given)


def limit(config: Namespace, steps: int) -> None:
    """Makes a run a smoke run, in place: at most so many steps, two images a device, every step logged."""
    training = config.training
    training.steps = min(training.steps, steps)
    training.batch_size = min(training.batch_size, 2 * training.devices)
    training.log_every, training.num_workers = 1, 0


def train_from(options: ArgumentParser, config: Namespace) -> Path:
    """Train what a parsed configuration says; returns the folder of the last checkpoint.

    Initial weights depend on its seed only.

    Raises:
        ValueError: a part of the configuration is missing.
    """
    missing = [name for name in ("process", "network", "data", "loss") if not config.get(name)]
    if missing:
        raise ValueError(f"the configuration does not say {', '.join(missing)}. configs/digits.yaml is an example.")
    chosen, where = yaml.safe_load(options.dump(config)), "the configuration"
    data, loss = (build(chosen[name], trust=True, where=where) for name in ("data", "loss"))
    torch.manual_seed(config.seed)
    model = untrained_model(chosen, data.image_shape, trust=True, where=where)
    settings = TrainingSettings(**chosen["training"])
    return train(
        model, data, loss, settings, config.run, seed=config.seed, resume=config.resume, overwrite=config.overwrite
    )


def _is_classifier(path: str) -> bool:
    kind = resolve(path, trust=True)
    return isinstance(kind, type) and issubclass(kind, NoiseClassifier)
