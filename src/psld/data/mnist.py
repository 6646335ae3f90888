"""MNIST, and any data set in its IDX format (Fashion-MNIST, KMNIST), from the files as they are distributed.

IDX: two zero bytes, a type code (8 is unsigned byte), the number of dimensions, their sizes as big-endian 32-bit
integers, then the values in C order (LeCun, Cortes & Burges).
"""

from __future__ import annotations

import gzip
import io
import math
import struct
import zlib
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from psld.data.pixels import PixelArray, chosen_split

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
        ValueError: it is truncated or damaged, has another magic number, or is longer than its header says.
    """
    try:
        with open(file, "rb") as opened:
            packed = opened.read(2) == b"\x1f\x8b"
            opened.seek(0)
            content = _content(gzip.GzipFile(fileobj=opened) if packed else opened, dimensions)
    except (EOFError, OSError, ValueError, zlib.error) as error:
        raise ValueError(f"{file} is truncated or damaged: {error}. Copy it again.") from error
    magic, header = bytes((0, 0, 8, dimensions)), 4 + 4 * dimensions
    if content[:4] != magic:
        raise ValueError(
            f"{file} begins with {content[:4].hex() or 'nothing'}, not {magic.hex()} "
            f"(IDX, unsigned bytes, {dimensions} dimensions): is it another file?"
        )
    if len(content) < header:
        raise ValueError(f"{file} is truncated: it ends within its header. Copy it again.")
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    expected, found = math.prod(shape), len(content) - header
    if found != expected:
        what = "truncated" if found < expected else "too long"
        raise ValueError(
            f"{file} is {what}: its header says {'×'.join(map(str, shape))} = {expected} bytes, it holds "
            f"{found if found < expected else 'more'}."
        )
    if not expected:
        raise ValueError(f"{file} holds nothing: its header says {'×'.join(map(str, shape))}.")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=header).view(shape)


def _content(stream: io.BufferedIOBase, dimensions: int) -> bytes:
    """Header and values, and one byte more if there is one: a small file can unpack to any number of bytes.

    To the end, where gzip compares its checksum.
    """
    header = stream.read(4 + 4 * dimensions)
    if len(header) < 4 + 4 * dimensions or header[:4] != bytes((0, 0, 8, dimensions)):
        return header
    expected = math.prod(struct.unpack(f">{dimensions}I", header[4:]))
    if expected > LARGEST:
        raise ValueError(f"its header says {expected} bytes, and no such file has more than {LARGEST}")
    return header + stream.read(expected + 1)


def _found(root: Path, stem: str) -> Path:
    stems = (stem, stem.replace("-idx", ".idx"))  # some archives say train-images.idx3-ubyte
    names = [f"{name}-ubyte{suffix}" for name in stems for suffix in ("", ".gz")]
    for name in names:
        if (root / name).is_file():
            return root / name
    raise FileNotFoundError(f"no {names[0]} (plain or .gz) in {root}: give the folder that holds the IDX files.")
