"""AFHQv2, animal faces, from the folder as it is distributed: train/ and test/, each with cat/, dog/ and wild/."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from jaxtyping import Int64
from torch import Tensor

from psld.data.decoding import FileImages, Framing, Resample
from psld.data.folders import image_files
from psld.data.pixels import chosen_split
from psld.specs.arguments import LARGEST_IMAGE, whole

__all__ = ["AFHQ"]

CLASSES = ("cat", "dog", "wild")
SPLITS = {"train": ("train",), "test": ("test", "val"), "all": ()}


class AFHQ(FileImages):
    """Animal faces, (3, image_size, image_size), scaled from 0 … 255 to [−1, 1].

    Args:
        root: the folder that holds `train/` and `test/` (version 1 calls it `val/`).
        image_size: height and width; the files have 512×512 and are made smaller.
        split: "train" (14,336), "test" (1,467), or "all", train first.
        flip: mirror images are items too, as for ImageFolder.
        resample: the filter; "bilinear" is what the published PSLD code uses.

    Attributes:
        labels: (len,) int64: 0 cat, 1 dog, 2 wild.

    Raises:
        FileNotFoundError: a folder is missing or empty.
        ValueError: an unknown split, or a file that cannot be read or is smaller than image_size.
    """

    labels: Int64[Tensor, " N"]  # pyright: ignore[reportIncompatibleVariableOverride]: these data always have them

    def __init__(
        self,
        root: str | Path,
        image_size: int = 128,
        split: Literal["train", "test", "all"] = "train",
        flip: bool = False,
        resample: Resample = "bilinear",
    ):
        chosen_split(split, tuple(SPLITS))
        whole("image_size", image_size, most=LARGEST_IMAGE)
        parts = ("train", "test") if split == "all" else (split,)
        found = [(_folder(Path(root), part) / kind, label) for part in parts for label, kind in enumerate(CLASSES)]
        files, labels = [], []
        for folder, label in found:
            here = image_files(folder)
            files += here
            labels += [label] * len(here)
        super().__init__(files, 3, Framing(image_size, "center", resample), flip, labels, CLASSES)


def _folder(root: Path, split: str) -> Path:
    for name in SPLITS[split]:
        if (root / name).is_dir():
            return root / name
    raise FileNotFoundError(
        f"no folder {' or '.join(SPLITS[split])} in {root}: give the folder that holds train/ and test/, "
        f"each with {', '.join(CLASSES)}."
    )
