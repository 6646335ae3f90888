"""From an image file, or the bytes of one, to pixels of a stated shape; with Pillow."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import UInt8
from torch import Tensor

from psld.data.pixels import PixelData
from psld.specs import SpecifiedValue
from psld.specs.arguments import LARGEST_IMAGE, whole

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["MODES", "SUFFIXES", "FileImages", "Framing", "Resample", "decode", "image_files", "verify"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
TRANSPARENT = ("RGBA", "LA", "PA", "La", "RGBa")

Resample = Literal["box", "bilinear", "bicubic", "lanczos"]
"""Pillow's filters, all of which average over the area that a new pixel covers."""


@dataclass(frozen=True, eq=False, repr=False)
class Framing(SpecifiedValue):
    """What part of a picture is used, and how it becomes size × size.

    Attributes:
        size: height and width of the result.
        crop: "none" takes the picture as it is, which must then be size × size; "square" takes the largest centred
            square; "whole" takes everything and lets its proportions go; (left, top, width, height) takes that box.
        resample: the filter.

    Raises:
        ValueError: size is below 1.
    """

    size: int
    crop: Literal["none", "square", "whole"] | tuple[int, int, int, int] = "none"
    resample: Resample = "bilinear"

    def __post_init__(self) -> None:
        whole("image_size", self.size, most=LARGEST_IMAGE)
        if not isinstance(self.crop, str) and not (min(self.crop) >= 0 and min(self.crop[2:]) >= 1):
            raise ValueError(f"crop must be (left, top, width, height) within the picture: got {self.crop}.")

    def require_fit(self, width: int, height: int, name: str) -> None:
        """Refuses a picture of another size, and one that would have to be enlarged.

        Raises:
            ValueError: naming the picture.
        """
        size = self.size
        if self.crop == "none":
            if (width, height) != (size, size):
                raise ValueError(
                    f"{name} is {width}×{height}, image_size={size} needs {size}×{size}. "
                    f"Resize it beforehand, set image_size to what the images have, or set resize=True where the data "
                    f"set has it (the largest centred square, made smaller)."
                )
            return
        left, top, wide, high = self._box(width, height)
        if left + wide > width or top + high > height:
            raise ValueError(
                f"{name} is {width}×{height}: the crop takes columns {left} … {left + wide - 1} and rows {top} … "
                f"{top + high - 1}. Give the original files, or another crop."
            )
        if min(wide, high) < size:
            raise ValueError(f"{name} gives {wide}×{high} pixels, fewer than image_size={size}: nothing is enlarged.")

    def applied(self, image: Image.Image) -> Image.Image:
        """The framed picture, size × size."""
        from PIL import Image

        if self.crop == "none":
            return image
        left, top, wide, high = self._box(*image.size)
        if (wide, high) == (self.size, self.size):
            return image.crop((left, top, left + wide, top + high))
        filters = Image.Resampling
        resample = {
            "box": filters.BOX,
            "bilinear": filters.BILINEAR,
            "bicubic": filters.BICUBIC,
            "lanczos": filters.LANCZOS,
        }[self.resample]
        cut = image.crop((left, top, left + wide, top + high))
        return cut.resize((self.size, self.size), resample)

    def _box(self, width: int, height: int) -> tuple[int, int, int, int]:
        if isinstance(self.crop, tuple):
            return self.crop
        if self.crop == "whole":
            return 0, 0, width, height
        side = min(width, height)
        return (width - side) // 2, (height - side) // 2, side, side


def verify(source: Path | bytes, name: str, channels: int, framing: Framing) -> None:
    """Reads the header alone; pixels that turn out broken are refused when they are read.

    Raises:
        ValueError: what `decode` would refuse, as far as the header tells.
    """
    try:
        with _opened(source) as image:
            _require_fit(image, name, channels, framing)
    except _broken() as error:
        raise ValueError(_unreadable(name, error)) from error


def decode(source: Path | bytes, name: str, channels: int, framing: Framing) -> UInt8[Tensor, "C H W"]:
    """The pixels of an image.

    Args:
        source: a file, or the bytes of one.
        name: how messages call it.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA); colour and grey are converted into one another.
        framing: the part that is used and the size it gets.

    Raises:
        ValueError: unreadable, of another size, not 8 bits a channel, or transparent where channels is not 4.
    """
    try:
        with _opened(source) as image:
            _require_fit(image, name, channels, framing)
            mode = MODES[channels]
            pixels = _pixels(image, mode, framing)
    except _broken() as error:
        raise ValueError(_unreadable(name, error)) from error
    grid = torch.frombuffer(pixels, dtype=torch.uint8).view(framing.size, framing.size, channels)
    return grid.permute(2, 0, 1)


FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Of Pillow. It goes by content and not by suffix, and reads others, EPS say, by running another program."""


def _opened(source: Path | bytes) -> Image.Image:
    from PIL import Image

    try:
        return Image.open(source if isinstance(source, Path) else io.BytesIO(source), formats=FORMATS)
    except ValueError as error:  # of a text in it that unpacks to too much, say
        raise OSError(str(error)) from error


def _pixels(image: Image.Image, mode: str, framing: Framing) -> bytearray:
    try:
        return bytearray(framing.applied(image if image.mode == mode else image.convert(mode)).tobytes())
    except ValueError as error:
        raise OSError(str(error)) from error


def _broken() -> tuple[type[Exception], ...]:
    """What Pillow raises about files that it cannot read, or that unpack to more pixels than any photograph has."""
    from PIL import Image

    others = (AttributeError, EOFError, LookupError, MemoryError, OSError, OverflowError, SyntaxError, TypeError)
    return (Image.DecompressionBombError, *others, struct.error, zlib.error)


def _require_fit(image: Image.Image, name: str, channels: int, framing: Framing) -> None:
    framing.require_fit(*image.size, name)
    if image.mode in ("F", "I") or image.mode.startswith("I;16"):
        raise ValueError(f"{name} has pixels of mode {image.mode!r}, not 8-bit: convert it to 8 bits a channel.")
    if channels != 4 and (image.mode in TRANSPARENT or "transparency" in image.info):
        raise ValueError(
            f"{name} has transparent pixels (mode {image.mode!r}) and channels={channels} has no room for them: "
            f"flatten it onto a background beforehand, or set channels=4."
        )


def _unreadable(name: str, error: Exception) -> str:
    return f"{name} cannot be read as an image: {error}. Remove or replace it."


class FileImages(PixelData):
    """Image files, decoded when they are read. The header of every one is read at construction.

    A wrong file then stops a run before it starts, not days into it.

    Args:
        files: at least one.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA).
        framing: the part that is used and the size it gets.
        flip, labels, classes: as for PixelData.

    Attributes:
        files: in the order of the items.

    Raises:
        ValueError: a file that does not fit (see `decode`), or unknown channels.
    """

    def __init__(
        self,
        files: Sequence[Path],
        channels: int,
        framing: Framing,
        flip: bool = False,
        labels: Sequence[int] | None = None,
        classes: Sequence[str] = (),
    ):
        if channels not in MODES:
            raise ValueError(f"channels must be 1 (grey), 3 (RGB) or 4 (RGBA): got {channels}.")
        if not files:
            raise ValueError("files must be at least one, and there are no images: got an empty list, [].")
        super().__init__(len(files), (channels, framing.size, framing.size), flip, labels, classes)
        self.files, self.framing = list(files), framing
        for file in self.files:
            verify(file, str(file), channels, framing)

    def fingerprint(self) -> str:
        """SHA-256 of what `ImageData.fingerprint` reads, and of the name and size of every file."""
        names = [(file.name, file.stat().st_size) for file in self.files]
        return hashlib.sha256((super().fingerprint() + repr(names)).encode()).hexdigest()

    def pixels(self, position: int) -> UInt8[Tensor, "C H W"]:
        """Image `position`, decoded and framed: not mirrored, not scaled.

        Raises:
            ValueError: the file is broken.
        """
        file = self.files[position]
        return decode(file, str(file), self.image_shape[0], self.framing)


def image_files(root: Path) -> list[Path]:
    """All image files below a folder, sorted by path.

    Raises:
        FileNotFoundError: the folder is missing or has no images.
        NotADirectoryError: it is a file.
    """
    if not root.exists():
        raise FileNotFoundError(f"no folder {root}: give the folder that holds the images.")
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is a file: give the folder that holds the images.")
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise FileNotFoundError(f"no images in {root} or below it (looked for {', '.join(SUFFIXES)}).")
    return files
