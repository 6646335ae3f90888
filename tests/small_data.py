"""Writes small data sets in the formats in which the real ones are distributed."""

import gzip
import io
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image


def random_bytes(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def scaled(pixels: np.ndarray) -> np.ndarray:
    """What an image should come out as: 0 … 255 to [−1, 1], in float32."""
    return pixels.astype(np.float32) / np.float32(127.5) - np.float32(1)


# -- IDX ---------------------------------------------------------------------------------------------------------------


def idx(values: np.ndarray) -> bytes:
    return bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def write_mnist(root: Path, stem: str, images: np.ndarray, labels: np.ndarray, compressed: bool) -> None:
    for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
        content = idx(values.astype(np.uint8))
        name = f"{stem}-{kind}-ubyte{'.gz' if compressed else ''}"
        (root / name).write_bytes(gzip.compress(content) if compressed else content)


# -- CIFAR-10 ----------------------------------------------------------------------------------------------------------


def python2_batch(data: np.ndarray, labels: list[int]) -> bytes:
    """A batch as the real archive has it: pickled by Python 2, whose strings are bytes. Python 3 cannot write that."""

    def text(content: bytes) -> bytes:
        return b"U" + bytes((len(content),)) + content

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    dtype = (
        b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R" + b"(K\x03" + text(b"|") + b"NNN" + number(-1) * 2
    ) + b"K\x00tb"
    values = data.tobytes()
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
    array += b"(K\x01" + number(data.shape[0]) + number(data.shape[1]) + b"\x86" + dtype + b"\x89"
    array += b"T" + struct.pack("<i", len(values)) + values + b"tb"
    listed = b"](" + b"".join(b"K" + bytes((label,)) for label in labels) + b"e"
    items = text(b"batch_label") + text(b"training batch 1 of 5") + text(b"labels") + listed
    return b"\x80\x02}(" + items + text(b"data") + array + b"u."


def tar_gz(file: Path, contents: dict[str, bytes]) -> None:
    with tarfile.open(file, "w:gz") as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def cifar10_contents(size: int = 6) -> tuple[dict[str, bytes], np.ndarray, list[int]]:
    """Of each of six files, `size` images; all pixels (6 · size, 3, 32, 32), and all labels, the test batch last."""
    pixels = random_bytes(6 * size, 3, 32, 32)
    labels = [position % 10 for position in range(6 * size)]
    names = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    contents = {"cifar-10-batches-py/batches.meta": pickle.dumps({b"label_names": []}, protocol=0)}
    for number, name in enumerate(names):
        own = slice(number * size, (number + 1) * size)
        contents[f"cifar-10-batches-py/{name}"] = python2_batch(pixels[own].reshape(size, -1), labels[own])
    return contents, pixels, labels


# -- image files -------------------------------------------------------------------------------------------------------


def save(file: Path, pixels: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)


def encoded(pixels: np.ndarray, suffix: str = "png") -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format=suffix)
    return content.getvalue()
