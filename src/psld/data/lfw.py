"""The hundred faces (and hundred pieces of background) of Labeled Faces in the Wild that scikit-image ships."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from psld.data.bundled import bundled_file
from psld.data.pixels import PixelArray, chosen_split
from psld.files.arrays import read_array
from psld.specs.arguments import whole

__all__ = ["LFW"]

FACES, TRAIN_FACES = 100, 80


LARGEST = 2**10
"""Side of the pictures, at most: they are resampled from 25 pixels, all at once."""


class LFW(PixelArray):
    """Grey faces, (1, image_size, image_size), scaled to [−1, 1]; needs `psld[scikit-image]`.

    The file holds 200 pictures of 25×25, and only the first 100 are faces.

    Args:
        split: "train" (the first 80 faces), "heldout" (the other 20) or "all".
        image_size: 25 keeps the pixels; any other size is resampled from them (bicubic), which adds no detail.
        background: after as many faces, the pieces of background that go with them: 160, 40 and 200 images.
        flip: mirror images are items too, as for ImageFolder.

    Attributes:
        labels: (len,) int64: 0 face, 1 background.

    Raises:
        ModuleNotFoundError: scikit-image is not installed.
        ValueError: an unknown split, or a size below 1.
    """

    labels: Int64[Tensor, " N"]  # pyright: ignore[reportIncompatibleVariableOverride]: these data always have them

    def __init__(
        self,
        split: Literal["train", "heldout", "all"] = "train",
        image_size: int = 32,
        background: bool = False,
        flip: bool = False,
    ):
        chosen_split(split, ("train", "heldout", "all"))
        whole("image_size", image_size, most=LARGEST)
        pictures = read_array(bundled_file("lfw_subset.npy"))
        kept = {"train": slice(0, TRAIN_FACES), "heldout": slice(TRAIN_FACES, FACES)}.get(split, slice(0, FACES))
        kinds = [pictures[:FACES][kept], pictures[FACES:][kept]] if background else [pictures[:FACES][kept]]
        labels = [label for label, kind in enumerate(kinds) for _ in kind]
        values = np.stack([_resampled(picture, image_size) for picture in np.concatenate(kinds)])
        grid = torch.from_numpy((values * 255).round().clip(0, 255).astype(np.uint8))
        super().__init__(grid[:, None], flip, labels, ("face", "background"))


def _resampled(picture: np.ndarray, size: int) -> np.ndarray:
    from PIL import Image

    if picture.shape == (size, size):
        return picture
    return np.asarray(Image.fromarray(picture.astype(np.float32)).resize((size, size), Image.Resampling.BICUBIC))
