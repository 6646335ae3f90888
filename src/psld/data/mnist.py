"""MNIST, and any data set in its IDX format (Fashion-MNIST, KMNIST), from the files as they are distributed.

IDX: two zero bytes, a type code (8 is unsigned byte), the number of dimensions, their sizes as big-endian 32-bit
integers, then the values in C order (LeCun, Cortes & Burges).
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from psld.data.pixels import PixelArray, chosen_split
from psld.files.archives import read_values, require_plausible, unpacked

__all__ = ["MNIST", "read_idx"]

HELDOUT = 10_000
LARGEST = 1024**3
"""Bytes of values, at most: EMNIST, the largest set of this kind, has 0.6e9."""

SPLITS = ("train", "heldout", "train+heldout", "test")


class MNIST(PixelArray):
    """Handwritten digits, (1, 28, 28) or (1, 32, 32), scaled from 0 … 255 to [−1, 1].

    Args:
        root: the folder with `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and, for the test split,
            `t10k-images-idx3-ubyte`, `t10k-labels-idx1-ubyte`; each plain or with `.gz`.
        split: of the training file, "train" is all but the last 10,000 images, "heldout" the last 10,000 (a sixth, if
            the file has fewer than 60,000) and "train+heldout" the usual training set; "test" is the test file. The
            first two do not depend on whether the test files are at hand.
        image_size: 28, or 32 with two pixels of background on each side.
        flip: mirror images are items too, as for ImageFolder. Few digits survive that.

    Attributes:
        labels: (len,) int64, 0 … 9.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a broken file, images that are not 28×28, another number of labels than images, or an unknown split.
    """

    labels: Int64[Tensor, " N"]  # pyright: ignore[reportIncompatibleVariableOverride]: these data always have them

    def __init__(
        self,
        root: str | Path,
        split: Literal["train", "heldout", "train+heldout", "test"] = "train",
        image_size: Literal[28, 32] = 28,
        flip: bool = False,
    ):
        chosen_split(split, SPLITS)
        if image_size not in (28, 32):
            raise ValueError(f"image_size must be 28, or 32 for a border of background: got {image_size}.")
        stem = "t10k" if split == "test" else "train"
        images_file, labels_file = (_found(Path(root), f"{stem}-{kind}") for kind in ("images-idx3", "labels-idx1"))
        images, labels = read_idx(images_file, dimensions=3), read_idx(labels_file, dimensions=1)
        if images.shape[1:] != (28, 28):
            raise ValueError(f"{images_file} holds images of {images.shape[1]}×{images.shape[2]}: MNIST has 28×28.")
        if len(images) != len(labels):
            raise ValueError(
                f"{images_file} holds {len(images)} images and {labels_file.name} {len(labels)} labels: "
                f"they are not of the same set."
            )
        cut = len(images) - (HELDOUT if len(images) >= 6 * HELDOUT else len(images) // 6)
        kept = {"train": slice(0, cut), "heldout": slice(cut, None)}.get(split, slice(None))
        border = (image_size - 28) // 2
        padded = torch.nn.functional.pad(images[kept], (border,) * 4)
        super().__init__(padded[:, None], flip, labels[kept], [str(digit) for digit in range(10)])


def read_idx(file: Path, dimensions: int) -> UInt8[Tensor, "..."]:
    """The values of an IDX file of unsigned bytes, plain or gzip-compressed.

    Raises:
        UnreadableFileError: it is truncated or damaged, has another magic number, or is longer than its header says.
    """
    magic, length = bytes((0, 0, 8, dimensions)), 4 + 4 * dimensions
    with unpacked(file, LARGEST + length + 1) as stream:
        header = stream.read(length)
        if header[:4] != magic:
            raise ValueError(
                f"it begins with {header[:4].hex() or 'nothing'}, not {magic.hex()} "
                f"(IDX, unsigned bytes, {dimensions} dimensions), so it may be another file"
            )
        if len(header) < length:
            raise ValueError("it ends within its header")
        shape = struct.unpack(f">{dimensions}I", header[4:])
        size, said = math.prod(shape), "×".join(map(str, shape))
        if not 0 < size <= LARGEST:
            raise ValueError(f"its header says {said} bytes, and between 1 and {LARGEST} are needed")
        require_plausible(size, file.stat().st_size)
        return torch.from_numpy(read_values(stream.read, size)).view(shape)


def _found(root: Path, stem: str) -> Path:
    stems = (stem, stem.replace("-idx", ".idx"))  # some archives say train-images.idx3-ubyte
    names = [f"{name}-ubyte{suffix}" for name in stems for suffix in ("", ".gz")]
    for name in names:
        if (root / name).is_file():
            return root / name
    raise FileNotFoundError(f"no {names[0]} (plain or .gz) in {root}: give the folder that holds the IDX files.")
