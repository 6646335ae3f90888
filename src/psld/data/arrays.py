"""Images in a NumPy .npz file, and the way of any data set into one, so that decoding is paid for once."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from psld.data.decoding import ImageWarning
from psld.data.folders import labels_by_name, require_classes
from psld.data.pixels import PixelArray, PixelData
from psld.files import atomic_file
from psld.files.arrays import array_kinds, array_names, read_arrays

__all__ = ["ArrayFile", "label_key_of", "save_arrays"]


CHANNELS = (1, 3, 4)
IMAGES, LABELS = "images", ("labels", "label", "y")
"""What arrays are called, where nobody says."""


class ArrayFile(PixelArray):
    """The 8-bit images of an .npz file, scaled from 0 … 255 to [−1, 1].

    Args:
        file: as `numpy.savez` or `savez_compressed` write it. Arrays of Python objects are not loaded: they can run
            code.
        key: the array of images, uint8: (N, H, W, C), (N, C, H, W) or, grey, (N, H, W). May be left out where one is
            called "images", the file holds one array besides that of `label_key`, or one array alone has such a type
            and shape.
        label_key: the array of labels, (N,) or (N, 1): whole numbers ≥ 0, or names. None for no labels.
        layout: "NHWC" or "NCHW", of four-dimensional images. None: where 1, 3 or 4 channels are; where they could be at
            both places, NHWC is taken, and said.
        flip: mirror images are items too, as for ImageFolder.
        classes: the names of the labels. Of labels that are names, None: all there are, in natural order. A run's
            config.yaml has them, so labels stay what they were.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableFileError: a broken file, or one that is far larger unpacked than a file of photographs.
        ValueError: no such array, another type or shape, or labels that do not go with the images.

    Warns:
        ImageWarning: the layout is a guess.
    """

    def __init__(
        self,
        file: str | Path,
        key: str | None = None,
        label_key: str | None = None,
        layout: Literal["NHWC", "NCHW"] | None = None,
        flip: bool = False,
        classes: Sequence[str] | None = None,
    ):
        if layout not in (None, "NHWC", "NCHW"):
            raise ValueError(f"layout must be 'NHWC' or 'NCHW', or None for where the channels are: got {layout!r}.")
        require_classes(classes)
        images, labels = _arrays(Path(file), key, label_key)
        if images.dtype != np.uint8:
            raise ValueError(
                f"{file}: the images are {images.dtype}, not uint8. From [−1, 1]: "
                f'((x + 1) * 127.5).round().clip(0, 255).astype("uint8"); or give tensors to psld.data.Images.'
            )
        if images.ndim == 3:
            images = images[:, None]
        elif images.ndim == 4 and (layout or _detected_layout(images.shape, file)) == "NHWC":
            images = images.transpose(0, 3, 1, 2)
        if images.ndim != 4 or images.shape[1] not in CHANNELS or 0 in images.shape:
            advice = f" The other layout is {'NCHW' if layout == 'NHWC' else 'NHWC'}." if layout else ""
            read = f" (read as {layout})" if layout else ""
            raise ValueError(
                f"{file}: images of shape {images.shape} in the order N, C, H, W{read}: at least one "
                f"image and 1, 3 or 4 channels are needed.{advice}"
            )
        numbers, names = (None, []) if labels is None else _labels(labels, len(images), classes, file)
        super().__init__(torch.from_numpy(np.ascontiguousarray(images)), flip, numbers, names)
        if "classes" in self._recorded:  # not of a subclass with arguments of its own
            self._recorded["classes"] = list(names) or None  # the map that was found goes into config.yaml


def label_key_of(file: str | Path) -> str | None:
    """The name of the array of labels in an .npz file: "labels", "label" or "y"; None where there is none of them."""
    names = array_names(file)
    return next((name for name in LABELS if name in names), None)


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
    kinds = array_kinds(file)
    key = _only_images({name: kind for name, kind in kinds.items() if name != label_key}) if key is None else key
    if key is None or key not in kinds:
        raise ValueError(
            f"{file} holds {_listed(kinds)}: key must name the array of images, on the command line as of the class "
            f"ArrayFile with file, key, label_key and layout."
        )
    if label_key is not None and label_key not in kinds:
        raise ValueError(f"{file} holds {_listed(kinds)}: label_key={label_key!r} is not among them.")
    found = read_arrays(file, key, *([] if label_key is None else [label_key]))
    return found[key], None if label_key is None else found[label_key]


def _listed(names: Iterable[str]) -> str:
    named = list(names)
    return ", ".join([name[:50] for name in named[:10]] + ["…"] * (len(named) > 10)) or "nothing"


def _only_images(kinds: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]) -> str | None:
    """The array that can be meant: "images", the only one, or the only one of bytes in three or four dimensions."""
    if IMAGES in kinds:
        return IMAGES
    if len(kinds) == 1:
        return next(iter(kinds))
    fitting = [name for name, (shape, kind) in kinds.items() if kind == np.uint8 and len(shape) in (3, 4)]
    return fitting[0] if len(fitting) == 1 else None


def _detected_layout(shape: tuple[int, ...], file: str | Path) -> str:
    """By the place that has 1, 3 or 4 channels; the last one where both have."""
    first, last = shape[1] in CHANNELS, shape[3] in CHANNELS
    if first and last:
        warnings.warn(
            f"{file}: images of shape {shape} could be NHWC or NCHW, and are read as NHWC: name the layout, of the "
            f"class ArrayFile.",
            ImageWarning,
            stacklevel=3,
        )
    if not (first or last):
        raise ValueError(
            f"{file}: images of shape {shape}: 1, 3 or 4 channels are needed, at the second place (NCHW) or the last "
            f"(NHWC)."
        )
    return "NHWC" if last else "NCHW"


def _labels(
    labels: np.ndarray, count: int, classes: Sequence[str] | None, file: str | Path
) -> tuple[torch.Tensor, list[str]]:
    """Labels as numbers, and the names of the classes, if they have some.

    Raises:
        ValueError: not one whole number ≥ 0 or name an image, or a label that no class has.
    """
    flat = labels[:, 0] if labels.shape == (count, 1) else labels
    if flat.shape == (count,) and flat.dtype.kind in "US":
        names = [name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in flat.tolist()]
        numbers, known = labels_by_name(names, classes, f"labels of {file}")
        return torch.tensor(numbers, dtype=torch.int64), known
    if flat.dtype.kind not in "iu" or flat.shape != (count,) or flat.min() < 0:
        raise ValueError(
            f"{file}: labels must be names or whole numbers ≥ 0 of shape ({count},) or ({count}, 1): "
            f"got {labels.dtype} of shape {labels.shape}."
        )
    if classes is not None and int(flat.max()) >= len(classes):
        raise ValueError(f"{file}: there is a label {int(flat.max())}, and {len(classes)} classes.")
    return torch.from_numpy(flat.astype(np.int64)), [str(name) for name in classes or ()]
