"""Images in a NumPy .npz file, and the way of any data set into one, so that decoding is paid for once."""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from psld.data.pixels import PixelArray, PixelData
from psld.files import atomic_file

__all__ = ["ArrayFile", "save_arrays"]


BROKEN = (
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    TypeError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
"""What NumPy and zipfile raise about a file that they cannot read, beside ValueError."""

HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
LARGE, RATIO = 1024**3, 100


class ArrayFile(PixelArray):
    """The 8-bit images of an .npz file, scaled from 0 … 255 to [−1, 1].

    Args:
        file: as `numpy.savez` or `savez_compressed` write it. Arrays of Python objects are not loaded: they can run
            code.
        key: the array of images, uint8: (N, H, W, C), (N, C, H, W) or, grey, (N, H, W). May be left out if the file
            holds one array besides that of `label_key`.
        label_key: the array of labels, (N,) whole numbers ≥ 0; None for no labels.
        layout: "NHWC" or "NCHW", of four-dimensional images.
        flip: mirror images are items too, as for ImageFolder.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a broken file, no such array, another type or shape, or labels that do not go with the images.
    """

    def __init__(
        self,
        file: str | Path,
        key: str | None = None,
        label_key: str | None = None,
        layout: Literal["NHWC", "NCHW"] = "NHWC",
        flip: bool = False,
    ):
        if layout not in ("NHWC", "NCHW"):
            raise ValueError(f"layout must be 'NHWC' or 'NCHW': got {layout!r}.")
        images, labels = _arrays(Path(file), key, label_key)
        if images.dtype != np.uint8:
            raise ValueError(
                f"{file}: the images are {images.dtype}, not uint8. From [−1, 1]: "
                f'((x + 1) * 127.5).round().clip(0, 255).astype("uint8"); or give tensors to psld.data.Images.'
            )
        if images.ndim == 3:
            images = images[:, None]
        elif images.ndim == 4 and layout == "NHWC":
            images = images.transpose(0, 3, 1, 2)
        if images.ndim != 4 or images.shape[1] not in (1, 3, 4) or 0 in images.shape:
            other = "NCHW" if layout == "NHWC" else "NHWC"
            raise ValueError(
                f"{file}: images of shape {images.shape} in the order N, C, H, W (read as {layout}): at least one "
                f"image and 1, 3 or 4 channels are needed. The other layout is {other}."
            )
        if labels is not None and (labels.dtype.kind not in "iu" or labels.shape != (len(images),) or labels.min() < 0):
            raise ValueError(
                f"{file}: labels must be whole numbers ≥ 0 of shape ({len(images)},): "
                f"got {labels.dtype} of shape {labels.shape}."
            )
        classes = None if labels is None else torch.from_numpy(labels.astype(np.int64))
        super().__init__(torch.from_numpy(np.ascontiguousarray(images)), flip, classes)


def save_arrays(data: PixelData, file: str | Path) -> Path:
    """Writes the pixels of a data set, decoded and framed, as ArrayFile(file, "images", label_key="labels") reads them.

    Worth it where files are much larger than image_size, as AFHQ's. Mirror images are not written: flip when reading.
    The file is whole or absent.

    Args:
        data: any of this package but Digits and Images, which have no 8-bit pixels.
        file: ends in .npz; replaced if it exists. Labels are written if there are some.

    Returns:
        The file.

    Raises:
        ValueError: another suffix, or an image that cannot be read.
    """
    file = Path(file)
    if file.suffix != ".npz":
        raise ValueError(f"the file must end in .npz: got {file}.")
    count = len(data) // (2 if data.flip else 1)
    channels, height, width = data.image_shape
    images = np.empty((count, height, width, channels), dtype=np.uint8)
    for position in range(count):
        images[position] = data.pixels(position).permute(1, 2, 0).numpy()
    with atomic_file(file) as stream:
        if data.labels is None:
            np.savez(stream, images=images)
        else:
            np.savez(stream, images=images, labels=data.labels[:count].numpy())
    return file


def _arrays(file: Path, key: str | None, label_key: str | None) -> tuple[np.ndarray, np.ndarray | None]:
    if not file.is_file():
        raise FileNotFoundError(f"no file {file}: give an .npz file.")
    try:
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it holds one bare array: numpy.savez writes what is needed")
        with archive as arrays:
            names = list(arrays.files)
            if key is None:
                others = [name for name in names if name != label_key]
                key = others[0] if len(others) == 1 else None
            if key is None or key not in names:
                raise _NoArrayError(f"{file} holds {', '.join(names) or 'nothing'}: key must name the array of images.")
            if label_key is not None and label_key not in names:
                raise _NoArrayError(f"{file} holds {', '.join(names)}: label_key={label_key!r} is not among them.")
            for name in (key, label_key):
                if name is not None:
                    _require_honest(arrays, name)
            return arrays[key], None if label_key is None else arrays[label_key]
    except _NoArrayError:
        raise
    except (*BROKEN, ValueError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise ValueError(f"{file} cannot be read as .npz: {said}. Write or copy it again.") from error


def _require_honest(arrays: Any, name: str) -> None:
    """That an array has the size which its header says, before there is memory for it, and is no bomb.

    Raises:
        ValueError: it has not, or consists of Python objects; or it takes more than 1 GiB and a hundredth of that in
            the file, as no photographs do.
    """
    member = arrays.zip.getinfo(name if name in arrays.zip.namelist() else f"{name}.npy")
    with arrays.zip.open(member) as content:
        version = np.lib.format.read_magic(content)
        if version not in HEADERS:
            raise ValueError(f"array {name!r} has a header of version {version}")
        shape, _, kind = HEADERS[version](content)
        expected, found = math.prod(shape) * kind.itemsize, member.file_size - content.tell()
    if kind.hasobject:
        raise ValueError(f"array {name!r} holds Python objects, which can run code (allow_pickle=False)")
    if expected != found:
        raise ValueError(f"array {name!r} should have {expected} bytes by its header and has {found}")
    if expected > LARGE and expected > RATIO * max(member.compress_size, 1):
        raise ValueError(f"array {name!r} unpacks to {expected / 1e9:.1f} GB from {member.compress_size / 1e6:.1f} MB")


class _NoArrayError(ValueError):
    """The file is whole, and the name that was asked for is not in it."""
