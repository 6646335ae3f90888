"""Images in a NumPy .npz file, and the way of any data set into one, so that decoding is paid for once."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch

from psld.data.pixels import PixelArray, PixelData
from psld.files import atomic_file
from psld.files.arrays import array_names, read_arrays

__all__ = ["ArrayFile", "save_arrays"]


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
        UnreadableFileError: a broken file, or one that is far larger unpacked than a file of photographs.
        ValueError: no such array, another type or shape, or labels that do not go with the images.
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
    if not file.exists():
        raise FileNotFoundError(f"no file {file}: give an .npz file.")
    names = array_names(file)
    if key is None:
        others = [name for name in names if name != label_key]
        key = others[0] if len(others) == 1 else None
    if key is None or key not in names:
        raise ValueError(f"{file} holds {_listed(names)}: key must name the array of images.")
    if label_key is not None and label_key not in names:
        raise ValueError(f"{file} holds {_listed(names)}: label_key={label_key!r} is not among them.")
    found = read_arrays(file, key, *([] if label_key is None else [label_key]))
    return found[key], None if label_key is None else found[label_key]


def _listed(names: list[str]) -> str:
    return ", ".join([name[:50] for name in names[:10]] + ["…"] * (len(names) > 10)) or "nothing"
