"""CelebA, the aligned faces, from the folder as it is distributed; the usual ways to make a square of them, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from psld.data.decoding import FileImages, Framing, Resample
from psld.data.folders import image_files
from psld.data.pixels import chosen_split
from psld.files import read_text
from psld.specs.arguments import LARGEST_IMAGE, whole

__all__ = ["CelebA", "Crop"]

Crop = Literal["center-140", "center-178", "face-128", "whole"]
"""What part of an aligned picture, 178 wide and 218 high, is used:

- "center-140": the central 140×140, columns 19 … 158, rows 39 … 178 (Song et al., 2021, and its descendants);
- "center-178": the central 178×178, rows 20 … 197: full width, hair and background included;
- "face-128": columns 25 … 152, rows 57 … 184: the face alone (Song, Meng & Ermon, 2021);
- "whole": all of it, squeezed to a square: what the published PSLD code does with a folder of uncropped files.
"""

BOXES: dict[str, tuple[int, int, int, int]] = {
    "center-140": (19, 39, 140, 140),
    "center-178": (0, 20, 178, 178),
    "face-128": (25, 57, 128, 128),
}
SPLITS = {"train": "0", "valid": "1", "test": "2", "all": ""}
FOLDER, PARTITION = "img_align_celeba", "list_eval_partition"
LISTING_BYTES = 64 * 1024**2
"""Of the partition file, which has 3 MiB."""


class CelebA(FileImages):
    """Faces, (3, image_size, image_size), scaled from 0 … 255 to [−1, 1]; in the order of their file names.

    Args:
        root: the folder that holds `img_align_celeba/` and, for splits, `list_eval_partition.txt` (or `.csv`, or the
            text file in `Eval/`).
        image_size: height and width after cropping.
        split: "train" (162,770), "valid" (19,867), "test" (19,962), by the partition file; or "all".
        crop: see `Crop`. It changes what a FID means: state it with every number.
        flip: mirror images are items too, as for ImageFolder.
        resample: the filter from the crop to image_size.

    Raises:
        FileNotFoundError: the folder, the partition file, or an image that it lists is missing.
        ValueError: an unknown split or crop, a line of the partition file that is not "name number", a file that
            cannot be read or is smaller than the crop.
    """

    def __init__(
        self,
        root: str | Path,
        image_size: int = 64,
        split: Literal["train", "valid", "test", "all"] = "train",
        crop: Crop = "center-140",
        flip: bool = False,
        resample: Resample = "bilinear",
    ):
        chosen_split(split, tuple(SPLITS))
        whole("image_size", image_size, most=LARGEST_IMAGE)
        root = Path(root)
        folder = root / FOLDER / FOLDER if (root / FOLDER / FOLDER).is_dir() else root / FOLDER
        if not folder.is_dir():
            raise FileNotFoundError(f"no folder {FOLDER} in {root}: give the folder that holds it.")
        files = image_files(folder) if split == "all" else _partition(root, folder, split)
        super().__init__(files, 3, Framing(image_size, BOXES.get(crop, "whole"), resample), flip)


def _partition(root: Path, folder: Path, split: str) -> list[Path]:
    candidates = [root / f"{PARTITION}.txt", root / "Eval" / f"{PARTITION}.txt", root / f"{PARTITION}.csv"]
    listing = next((path for path in candidates if path.is_file()), None)
    if listing is None:
        raise FileNotFoundError(
            f"no {PARTITION}.txt in {root}, which assigns images to splits: put it there, or use split='all'."
        )
    wanted = []
    for number, line in enumerate(read_text(listing, LISTING_BYTES).splitlines(), start=1):
        parts = line.replace(",", " ").split()
        if not parts or (number == 1 and parts == ["image_id", "partition"]):
            continue
        if len(parts) != 2 or parts[1] not in ("0", "1", "2"):
            raise ValueError(f"{listing}, line {number}: {line[:100]!r} is not an image's name and 0, 1 or 2.")
        if parts[1] == SPLITS[split]:
            wanted.append(folder / parts[0])
    if not wanted:
        raise ValueError(f"{listing} puts no image in split {split!r}.")
    missing = [path.name for path in wanted if not path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder} lacks {len(missing)} of the {len(wanted)} images that {listing.name} puts in split {split!r}, "
            f"{missing[0]} first: extract the archive again."
        )
    return sorted(wanted)
