"""A folder of image files, read with Pillow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from psld.data.base import ImageData

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["ImageFolder"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
MODES = {1: "L", 3: "RGB", 4: "RGBA"}


class ImageFolder(ImageData):
    """All images below a folder, in sorted order of their paths, scaled from 0 … 255 to [−1, 1].

    The header of every file is read at construction: a wrong one stops a run before it starts, not days into it.

    Args:
        root: the folder; searched recursively for the suffixes png, jpg, jpeg, bmp, gif, tif, tiff, webp, ppm, pgm.
        image_size: height and width that every image must have; nothing is resized.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA); files are converted.
        flip: the mirror images are items too: item i + n mirrors item i, and the set has 2n items. Being items and not
            coin tosses, they leave training a function of its seed.

    Raises:
        FileNotFoundError: the folder is missing or has no images.
        NotADirectoryError: it is a file.
        ValueError: an image of another size, an unreadable one, 16-bit or floating-point pixels, or unknown channels.
    """

    def __init__(self, root: str | Path, image_size: int, channels: int = 3, flip: bool = False):
        if channels not in MODES:
            raise ValueError(f"channels must be 1 (grey), 3 (RGB) or 4 (RGBA): got {channels}.")
        if image_size < 1:
            raise ValueError(f"image_size must be at least 1: got {image_size}.")
        self.root, self.flip = Path(root), flip
        self.image_shape = (channels, image_size, image_size)
        self.files = _image_files(self.root)
        for file in self.files:
            self._verify(file)

    def __len__(self) -> int:
        return len(self.files) * (2 if self.flip else 1)

    def __getitem__(self, index: int) -> Float[Tensor, "C H W"]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"item {index} of {len(self)}.")
        mirrored, position = divmod(index % len(self), len(self.files))
        image = self._read(self.files[position])
        return image.flip(-1) if mirrored else image

    def _verify(self, file: Path) -> None:
        """Reads the header alone; pixels that turn out broken are refused when they are read."""
        from PIL import Image

        try:
            with Image.open(file) as image:
                self._require_fit(file, image)
        except (OSError, SyntaxError) as error:
            raise ValueError(_unreadable(file, error)) from error

    def _read(self, file: Path) -> Float[Tensor, "C H W"]:
        from PIL import Image

        channels, size, _ = self.image_shape
        try:
            with Image.open(file) as image:
                self._require_fit(file, image)
                pixels = bytearray(image.convert(MODES[channels]).tobytes())
        except (OSError, SyntaxError) as error:
            raise ValueError(_unreadable(file, error)) from error
        grid = torch.frombuffer(pixels, dtype=torch.uint8).view(size, size, channels)
        return grid.permute(2, 0, 1).float() / 127.5 - 1

    def _require_fit(self, file: Path, image: Image.Image) -> None:
        _, size, _ = self.image_shape
        if image.size != (size, size):
            width, height = image.size
            raise ValueError(
                f"{file} is {width}×{height}, image_size={size} needs {size}×{size}. "
                f"Resize it beforehand, or set image_size to what the images have; nothing is resized here."
            )
        if image.mode in ("F", "I") or image.mode.startswith("I;16"):
            raise ValueError(
                f"{file} has pixels of mode {image.mode!r}, not 8-bit: convert it to 8 bits a channel beforehand."
            )


def _image_files(root: Path) -> list[Path]:
    if not root.exists():
        raise FileNotFoundError(f"no folder {root}: give the folder that holds the images.")
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is a file: give the folder that holds the images.")
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise FileNotFoundError(f"no images in {root} or below it (looked for {', '.join(SUFFIXES)}).")
    return files


def _unreadable(file: Path, error: Exception) -> str:
    return f"{file} cannot be read as an image: {error}. Remove or replace it."
