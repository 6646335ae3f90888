"""A folder of image files, read with Pillow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from psld.data.decoding import MODES, FileImages, Framing, Resample, image_files
from psld.specs.arguments import LARGEST_IMAGE, one_of, whole

__all__ = ["ImageFolder", "labels_of_folders"]


class ImageFolder(FileImages):
    """All images below a folder, in sorted order of their paths, scaled from 0 … 255 to [−1, 1].

    The header of every file is read at construction: a wrong one stops a run before it starts, not days into it.
    If every image lies in a sub-folder, the first-level sub-folders are classes, in sorted order, and there are labels.

    Args:
        root: the folder; searched recursively for the suffixes png, jpg, jpeg, bmp, gif, tif, tiff, webp, ppm, pgm.
        image_size: height and width that every image must have.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA); colour and grey files are converted.
        flip: the mirror images are items too: item i + n mirrors item i, and the set has 2n items. Being items and not
            coin tosses, they leave training a function of its seed.
        resize: take the largest centred square of each image and make it smaller; nothing is enlarged. By default an
            image of another size is refused.
        resample: the filter of `resize`.

    Raises:
        FileNotFoundError: the folder is missing or has no images.
        NotADirectoryError: it is a file.
        ValueError: an image of another size, an unreadable one, 16-bit, floating-point or transparent pixels, or
            unknown channels.
    """

    def __init__(
        self,
        root: str | Path,
        image_size: int,
        channels: int = 3,
        flip: bool = False,
        resize: bool = False,
        resample: Resample = "bilinear",
    ):
        whole("image_size", image_size, most=LARGEST_IMAGE)
        one_of("channels", channels, tuple(MODES))
        self.root = Path(root)
        framing = Framing(image_size, "square" if resize else "none", resample)
        files = image_files(self.root)
        labels, classes = labels_of_folders(self.root, files)
        super().__init__(files, channels, framing, flip, labels, classes)


def labels_of_folders(root: Path, files: Sequence[Path]) -> tuple[list[int] | None, list[str]]:
    """The label of each file and the names of the classes, where every file lies in a sub-folder; or (None, [])."""
    folders = [path.relative_to(root).parts[:-1] for path in files]
    if not all(folders):
        return None, []
    classes = sorted({parts[0] for parts in folders})
    return [classes.index(parts[0]) for parts in folders], classes
