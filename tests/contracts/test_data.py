"""What every data set promises: images of one shape in [−1, 1], labels that fit, and an identity by content.

Data sets of `psld.data` that need no arguments are picked up here; those that are made of files are in `OF_FILES`.
"""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import psld.data
from psld.data import CIFAR10, MNIST, ArrayFile, ImageData, ImageFolder, ShuffledBatches, loader
from psld.specs import build, listed_names
from small_data import cifar10_contents, random_bytes, save, tar_gz, write_mnist

COMPARED = 64
"""Images that are looked at, of sets that are larger."""


def mnist(folder: Path) -> MNIST:
    write_mnist(folder, "train", random_bytes(60, 28, 28), np.arange(60) % 10, compressed=True)
    return MNIST(folder, "train+heldout")


def cifar10(folder: Path) -> CIFAR10:
    tar_gz(folder / "cifar-10-python.tar.gz", cifar10_contents()[0])
    return CIFAR10(folder, flip=True)


def image_folder(folder: Path) -> ImageFolder:
    for kind in ("cats", "dogs"):
        for i in range(3):
            save(folder / kind / f"{i}.png", random_bytes(8, 8, 3, seed=i))
    return ImageFolder(folder, image_size=8)


def array_file(folder: Path) -> ArrayFile:
    np.savez(folder / "images.npz", images=random_bytes(5, 8, 8, 3), labels=np.arange(5))
    return ArrayFile(folder / "images.npz", "images", "labels")


def without_arguments() -> list[type[ImageData]]:
    """Those of the package that are there: some need another package."""
    exported = (getattr(psld.data, name) for name in psld.data.__all__)
    kinds = [kind for kind in exported if isinstance(kind, type) and issubclass(kind, ImageData)]
    empty = inspect.Parameter.empty
    return [
        kind
        for kind in kinds
        if not inspect.isabstract(kind)
        and all(p.default is not empty for p in inspect.signature(kind).parameters.values())
    ]


OF_FILES: list[Callable[[Path], ImageData]] = [mnist, cifar10, image_folder, array_file]
EVERY = [pytest.param(lambda folder, kind=kind: kind(), id=kind.__name__) for kind in without_arguments()]
EVERY += [pytest.param(make, id=make.__name__) for make in OF_FILES]

every = pytest.mark.parametrize("make", EVERY)


def some(data: ImageData) -> list[int]:
    return list(range(0, len(data), -(-len(data) // COMPARED)))


@every
def test_items_are_images_of_one_shape(make, tmp_path):
    data = make(tmp_path)
    for index in some(data):
        image = data[index]
        assert image.dtype == torch.float32 and tuple(image.shape) == data.image_shape
        assert image.isfinite().all() and float(image.abs().max()) <= 1.0
    pixels = data.batch(some(data))
    assert torch.equal(pixels, torch.stack([data[index] for index in some(data)]))
    assert float(pixels.std()) > 0.05  # within [−1, 1], and not 0 … 1/255


@every
def test_labels_are_one_an_item(make, tmp_path):
    data = make(tmp_path)
    if data.labels is None:
        assert data.classes == ()
        return
    assert data.labels.dtype == torch.int64 and data.labels.shape == (len(data),) and int(data.labels.min()) >= 0
    assert not data.classes or int(data.labels.max()) < len(data.classes)


@every
def test_training_reads_it(make, tmp_path):
    """In the order of the batches, with labels where there are some."""
    data = make(tmp_path)
    batches = ShuffledBatches(len(data), batch_size=2, seed=0, start_step=0, steps=2)
    for indices, images in zip(batches, loader(data, batches), strict=True):
        assert torch.equal(images, data.batch(indices))
    if data.labels is not None:
        for indices, (images, labels) in zip(batches, loader(data, batches, labels=True), strict=True):
            assert torch.equal(images, data.batch(indices)) and torch.equal(labels, data.labels[indices])


@every
def test_it_is_known_by_its_arguments_and_its_content(make, tmp_path):
    data = make(tmp_path)
    trust = data.spec.path not in listed_names()
    for other in (build(data.spec.config(), trust), copy.deepcopy(data), pickle.loads(pickle.dumps(data))):
        assert other == data and other.fingerprint() == data.fingerprint() and len(other) == len(data)
    assert len(data.fingerprint()) == 64
