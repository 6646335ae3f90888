"""The two classifiers whose weights come with the package, and the command that trains them.

    python -m psld.evaluation.features.bundled digits --out FILE
    python -m psld.evaluation.features.bundled mnist --root FOLDER --out FILE

Each prints its accuracy on images it has not seen, and writes it into the header of the file.
"""

from __future__ import annotations

import sys
from hashlib import sha256
from pathlib import Path
from typing import Literal, overload

from safetensors.torch import save

from psld.data import MNIST, Digits
from psld.evaluation.features.digit_classifier import DigitClassifier, classifier_accuracy, train_digit_classifier
from psld.evaluation.features.mnist_classifier import MNISTClassifier, train_mnist_classifier
from psld.evaluation.features.weight_files import load_tensors
from psld.files import SUMS, atomic_file, file_sha256, read_sums, require_unchanged, sums_text
from psld.files.tensors import read_metadata

__all__ = ["bundled_classifier", "bundled_weights", "stated_accuracy"]

CLASSES = {"digits": DigitClassifier, "mnist": MNISTClassifier}


def bundled_weights(name: str) -> Path:
    """The file of "digits" or "mnist"."""
    return Path(__file__).with_name("weights") / f"{name}_classifier.safetensors"


@overload
def bundled_classifier(name: Literal["digits"]) -> tuple[DigitClassifier, str]: ...
@overload
def bundled_classifier(name: str) -> tuple[DigitClassifier | MNISTClassifier, str]: ...
def bundled_classifier(name: str) -> tuple[DigitClassifier | MNISTClassifier, str]:
    """The classifier "digits" or "mnist" in evaluation mode on the CPU, and its identity: name and SHA-256.

    Raises:
        ChangedFileError: the file is not the one that came with psld.
    """
    network, file = CLASSES[name](), bundled_weights(name)
    require_unchanged(file.parent, [file.name])
    load_tensors(network, file)
    return network.eval().requires_grad_(False), f"{name} classifier, sha256 {file_sha256(file)}"


def stated_accuracy(name: str) -> float:
    """On held-out images, as measured when it was trained."""
    return float(read_metadata(bundled_weights(name))["accuracy"])


def main(arguments: list[str]) -> int:
    """Train a classifier, print its accuracy on held-out images, write its weights and their line of SHA256SUMS."""
    import argparse

    parser = argparse.ArgumentParser(prog="python -m psld.evaluation.features.bundled", description=main.__doc__)
    parser.add_argument("name", choices=list(CLASSES))
    parser.add_argument("--root", help="of mnist: folder with train-images-idx3-ubyte and its labels, plain or .gz")
    parser.add_argument("--out", required=True, help="safetensors file to write")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    if given.name == "mnist" and given.root is None:
        parser.error("mnist needs --root")
    splits = [Digits(s) if given.name == "digits" else MNIST(given.root, s) for s in ("train", "heldout")]
    (train, labels), (heldout, answers) = [(data.batch(range(len(data))), data.labels) for data in splits]
    train_classifier = train_digit_classifier if given.name == "digits" else train_mnist_classifier
    classifier = train_classifier(train, labels, given.seed)
    accuracy = classifier_accuracy(classifier, heldout, answers)
    about = {"accuracy": f"{accuracy:.4f}", "heldout": str(len(heldout)), "train": str(len(train))}
    content = save({name: tensor.contiguous() for name, tensor in classifier.state_dict().items()}, about)
    _write(content, Path(given.out))
    print(f"{given.out}: right on {accuracy:.2%} of {len(heldout)} held-out images, trained on {len(train)}.")
    return 0


def _write(content: bytes, file: Path) -> None:
    """A file, and its line in SHA256SUMS beside it."""
    sums = read_sums(file.parent) | {file.name: sha256(content).hexdigest()}
    with atomic_file(file) as weights:
        weights.write(content)
    with atomic_file(file.parent / SUMS) as lines:
        lines.write(sums_text(sums).encode())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
