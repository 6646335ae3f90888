"""Small pieces of the photographs that scikit-image ships: colour images of CIFAR's size, without a download."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from psld.data.bundled import bundled_file
from psld.data.order import derived_seed
from psld.data.pixels import PixelData, chosen_split
from psld.specs.arguments import whole

__all__ = ["Patches"]

PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
REDUCTION = 2  # photographs are halved first: a piece of 32×32 then shows a thing, not only its surface
SIZES = {"train": 50_000, "heldout": 10_000}


class Patches(PixelData):
    """Crops of four photographs, (3, image_size, image_size), scaled from 0 … 255 to [−1, 1].

    The photographs are halved; the left three quarters of each are for training and the right quarter is held out, so
    no pixel is in both. Within a split no two crops are at the same place, though they overlap. Needs
    `psld[scikit-image]`.

    Args:
        split: "train" or "heldout".
        image_size: height and width of a crop, at most 56 (the held-out part of the smallest photograph).
        count: how many crops; by default 50,000 for training and 10,000 held out, as CIFAR-10 has, or all there are.
        seed: which crops, and in what order.
        flip: mirror images are items too, as for ImageFolder.

    Attributes:
        labels: (len,) int64, which photograph; the names are in `classes`.

    Raises:
        ModuleNotFoundError: scikit-image is not installed.
        ValueError: an unknown split, or a size or count beyond what the photographs have.
    """

    labels: Int64[Tensor, " N"]  # pyright: ignore[reportIncompatibleVariableOverride]: these data always have them

    def __init__(
        self,
        split: Literal["train", "heldout"] = "train",
        image_size: int = 32,
        count: int | None = None,
        seed: int = 0,
        flip: bool = False,
    ):
        chosen_split(split, tuple(SIZES))
        self.regions = [_region(name, split) for name in PHOTOGRAPHS]
        rows, columns = (torch.tensor([region.shape[axis] for region in self.regions]) for axis in (1, 2))
        whole("image_size", image_size, most=min(int(rows.min()), int(columns.min())))
        columns_of = columns - image_size + 1
        places = (rows - image_size + 1) * columns_of
        available = int(places.sum())
        count = min(SIZES[split], available) if count is None else count
        if not 1 <= count <= available:
            raise ValueError(f"count must be 1 … {available}, the places there are for crops: got {count}.")
        generator = torch.Generator().manual_seed(derived_seed(seed, "patches", split))
        chosen = torch.randperm(available, generator=generator)[:count]
        ends = places.cumsum(0)
        photograph = torch.bucketize(chosen, ends, right=True)
        within = chosen - (ends - places)[photograph]
        width = columns_of[photograph]
        self.places = torch.stack([photograph, within // width, within % width], dim=1).tolist()
        names = [name.partition(".")[0] for name in PHOTOGRAPHS]
        super().__init__(count, (3, image_size, image_size), flip, photograph, names)

    def pixels(self, position: int) -> UInt8[Tensor, "3 H W"]:
        """Crop `position`: a view of its photograph, not mirrored, not scaled."""
        photograph, top, left = self.places[position]
        size = self.image_shape[-1]
        return self.regions[photograph][:, top : top + size, left : left + size]


def _region(name: str, split: str) -> UInt8[Tensor, "3 H W"]:
    from PIL import Image

    with Image.open(bundled_file(name), formats=("JPEG", "PNG")) as image:
        small = np.array(image.convert("RGB").reduce(REDUCTION))
    grid = torch.from_numpy(small).permute(2, 0, 1).contiguous()
    cut = grid.shape[-1] * 3 // 4
    return grid[:, :, :cut] if split == "train" else grid[:, :, cut:]
