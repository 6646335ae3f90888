"""`psld train-classifier`: what guides a score model to a class, trained as `psld train` trains one."""

from __future__ import annotations

from jsonargparse import ArgumentParser

from psld.cli.configuration import classifier_run_parser
from psld.cli.train import add_run_arguments, parsed, train_from

__all__ = ["run"]

DESCRIPTION = """Train a classifier of noisy images, of all variables of the process at every time, for psld sample
--classifier. The run folder, --resume and everything else are as in psld train; the data need labels."""

EPILOG = """example: psld train-classifier --config configs/digits-classifier.yaml --run runs/classifier;
then: psld sample psld-digits --label 3 --classifier runs/classifier --guidance 2 --out runs/threes;
the published one: psld train-classifier --preset cifar10-classifier-0.01 --data.root data/cifar10 --run runs/cifar10"""


def parser() -> ArgumentParser:
    """Options of `psld train-classifier`."""
    options = classifier_run_parser(DESCRIPTION, EPILOG)
    add_run_arguments(options)
    return options


def run(arguments: list[str]) -> int:
    """Train; returns 0."""
    options = parser()
    print(f"last checkpoint: {train_from(options, parsed(options, arguments))}")
    return 0
