"""From an image file, or the bytes of one, to pixels of a stated shape; with Pillow. The one reader of every command.

What is done to a picture so that it fits is done in this order, the same everywhere: the first frame is taken, turned
as its EXIF orientation says, cut, 16 bits become 8, transparency is flattened onto a background unless it is kept,
colours are converted, and it is made smaller.
"""

from __future__ import annotations

import hashlib
import io
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from psld.data.pixels import PixelData
from psld.data.zipped import ZippedImage
from psld.files import UnreadableFileError
from psld.files.pictures import FORMATS, UNREADABLE
from psld.specs import SpecifiedValue
from psld.specs.arguments import LARGEST_IMAGE, height_and_width

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "MODES",
    "FileImages",
    "Framing",
    "Header",
    "ImageWarning",
    "Notes",
    "Resample",
    "Source",
    "decode",
    "read_header",
    "require_background",
]

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
TRANSPARENT = ("RGBA", "LA", "PA", "La", "RGBa")
GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N")
SIXTEEN = ("I", "I;16", "I;16B", "I;16L", "I;16N")
ORIENTATION, BITS, PHOTOMETRIC, WIDTH, HEIGHT = 274, 258, 262, 256, 257
"""Numbers of EXIF and TIFF tags."""
TURNED = (5, 6, 7, 8)
"""EXIF orientations that exchange width and height."""

Resample = Literal["box", "bilinear", "bicubic", "lanczos"]
"""Pillow's filters, all of which average over the area that a new pixel covers."""

Source = Path | bytes | ZippedImage
"""A file, the content of one, or a file in a zip archive."""


class ImageWarning(UserWarning):
    """What was done to pictures so that they fit; said once for each kind, with how many there are and the first."""


@dataclass(frozen=True, eq=False, repr=False)
class Framing(SpecifiedValue):
    """What part of a picture is used, and how it becomes (height, width).

    Attributes:
        size: height and width of the result, one number for a square.
        crop: "none" takes the picture as it is, which must then have that size; "center" takes the largest centred box
            of those proportions; "whole" takes everything and lets its proportions go; (left, top, width, height) takes
            that box.
        resample: the filter.

    Raises:
        ValueError: a size below 1, or not one or two numbers.
    """

    size: int | tuple[int, int]
    crop: Literal["none", "center", "whole"] | tuple[int, int, int, int] = "none"
    resample: Resample = "bilinear"

    def __post_init__(self) -> None:
        height_and_width("image_size", self.size)
        if not isinstance(self.crop, str) and not (min(self.crop) >= 0 and min(self.crop[2:]) >= 1):
            raise ValueError(f"crop must be (left, top, width, height) within the picture: got {self.crop}.")

    @property
    def height(self) -> int:
        """Of the result."""
        return height_and_width("image_size", self.size)[0]

    @property
    def width(self) -> int:
        """Of the result."""
        return height_and_width("image_size", self.size)[1]

    def require_fit(self, width: int, height: int, name: str) -> None:
        """Refuses a picture of another size, and one that would have to be enlarged.

        Raises:
            ValueError: naming the picture.
        """
        if self.crop == "none":
            if (height, width) != (self.height, self.width):
                raise ValueError(
                    f"{name} is {width}×{height}, {self} needs {self.width}×{self.height}. "
                    f"Resize it beforehand, set image_size to what the images have, or set resize=True where the data "
                    f"set has it (the largest centred box of those proportions, made smaller)."
                )
            return
        left, top, wide, high = self._box(width, height)
        if left + wide > width or top + high > height:
            raise ValueError(
                f"{name} is {width}×{height}: the crop takes columns {left} … {left + wide - 1} and rows {top} … "
                f"{top + high - 1}. Give the original files, or another crop."
            )
        if wide < self.width or high < self.height:
            raise ValueError(f"{name} gives {wide}×{high} pixels, fewer than {self}: nothing is enlarged.")

    def cut(self, image: Image.Image) -> Image.Image:
        """The part that is used."""
        left, top, wide, high = self._box(*image.size)
        return image if (wide, high) == image.size else image.crop((left, top, left + wide, top + high))

    def resized(self, part: Image.Image) -> Image.Image:
        """That part, made as large as it should be."""
        from PIL import Image

        if part.size == (self.width, self.height):
            return part
        filters = Image.Resampling
        resample = {
            "box": filters.BOX,
            "bilinear": filters.BILINEAR,
            "bicubic": filters.BICUBIC,
            "lanczos": filters.LANCZOS,
        }[self.resample]
        return part.resize((self.width, self.height), resample)

    def __str__(self) -> str:
        size = self.size if isinstance(self.size, int) else list(self.size)
        return f"image_size={size}"

    def _box(self, width: int, height: int) -> tuple[int, int, int, int]:
        if isinstance(self.crop, tuple):
            return self.crop
        if self.crop in ("none", "whole"):
            return 0, 0, width, height
        if width * self.height >= height * self.width:
            wide, high = height * self.width // self.height, height
        else:
            wide, high = width, width * self.height // self.width
        return (width - wide) // 2, (height - high) // 2, wide, high


# -- headers -----------------------------------------------------------------------------------------------------------


class Header(NamedTuple):
    """What a picture says of itself.

    Attributes:
        width, height: as it is shown, after its EXIF orientation.
        mode: Pillow's.
        transparent: it may have transparent pixels.
        frames: how many pictures are in the file.
        orientation: of EXIF, 1 … 8; 1 for as it is stored.
    """

    width: int
    height: int
    mode: str
    transparent: bool
    frames: int
    orientation: int

    @property
    def grey(self) -> bool:
        """Whether one channel holds it, but for transparency."""
        return self.mode in GREY

    def own_size(self, name: str) -> tuple[int, int]:
        """Height and width, for whoever takes the picture as it is.

        Raises:
            ValueError: a side longer than images may be; the message calls the picture `name`.
        """
        if max(self.height, self.width) > LARGEST_IMAGE:
            raise ValueError(
                f"{name} is {self.width}×{self.height}, and images have at most {LARGEST_IMAGE:,} pixels a side: make "
                "it smaller."
            )
        return self.height, self.width


def read_header(source: Source, name: str) -> Header:
    """Reads the header alone; pixels that turn out broken are refused when they are read.

    Raises:
        UnreadableFileError: unreadable, too many pixels, or more bits a channel than are read; the message calls it
            `name`.
    """
    with _opened(source, name, whole=False) as image:
        _require_depth(image, name)
        width, height = _stored_size(image)
        orientation = _orientation(image, loaded=False)
        if orientation in TURNED:
            width, height = height, width
        transparent = image.mode in TRANSPARENT or "transparency" in image.info
        return Header(width, height, image.mode, transparent, getattr(image, "n_frames", 1), orientation)


class Notes:
    """Counts what is done to pictures so that they fit, and says it once a kind.

    Args:
        channels: that the pictures get.
        background: that transparency is flattened onto.
    """

    def __init__(self, channels: int, background: str):
        self.channels, self.background = channels, background
        self._found: dict[str, list[str]] = {}

    def add(self, header: Header, name: str) -> None:
        """Takes note of a picture."""
        if header.frames > 1:
            self._note("of several frames or pages the first is used", name)
        if header.orientation != 1:
            self._note("turned or mirrored as their EXIF orientation says", name)
        if header.mode in SIXTEEN:
            self._note("16 bits a channel are divided by 257 and rounded", name)
        if header.transparent and self.channels != 4:
            self._note(f"transparency is flattened onto background={self.background!r} (channels=4 keeps it)", name)
        if header.mode in ("P", "PA"):
            self._note("colours are looked up in a palette", name)
        elif header.mode not in (*GREY, "RGB", "RGBA", "RGBa"):
            self._note(f"{header.mode} is converted to {'grey' if self.channels == 1 else 'RGB'}", name)
        elif self.channels == 1 and not header.grey:
            self._note("colours are converted to grey (channels=1)", name)

    def say(self, of: int) -> None:
        """Warns of each kind, with how many of all pictures are of it.

        Warns:
            ImageWarning: once a kind.
        """
        for what, names in self._found.items():
            text = f"{len(names)} of {of} images: {what}; the first is {names[0]}."
            warnings.warn(text, ImageWarning, stacklevel=2)

    def _note(self, what: str, name: str) -> None:
        self._found.setdefault(what, []).append(name)


# -- pixels ------------------------------------------------------------------------------------------------------------


def decode(
    source: Source, name: str, channels: int, framing: Framing, background: str = "white"
) -> UInt8[Tensor, "C H W"]:
    """The pixels of an image.

    Args:
        source: a file, the bytes of one, or one in a zip archive.
        name: how messages call it.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA); colour and grey are converted into one another.
        framing: the part that is used and the size it gets.
        background: the colour behind transparent pixels where channels is not 4: "white", "#808080" …

    Raises:
        ValueError: unreadable, of another size, more bits a channel than are read, or too many pixels.
    """
    with _opened(source, name, whole=True) as image:
        _require_depth(image, name)
        image.load()
        upright = _turned(image)
        framing.require_fit(*upright.size, name)
        part = _of_mode(framing.cut(upright), MODES[channels], background)
        pixels = bytearray(framing.resized(part).tobytes())
    grid = torch.frombuffer(pixels, dtype=torch.uint8).view(framing.height, framing.width, channels)
    return grid.permute(2, 0, 1)


@contextmanager
def _opened(source: Source, name: str, whole: bool) -> Iterator[Image.Image]:
    """An image of one of `FORMATS`; whatever is wrong with it is an UnreadableFileError that names it."""
    from PIL import Image

    try:
        with _stream(source, whole) as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # half of what is refused
            with Image.open(cast("Any", stream), formats=FORMATS) as image:
                yield image
    except _RefusedError as error:
        raise UnreadableFileError(f"{name} {error}") from error
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise UnreadableFileError(
            f"{name} has more than {limit:,} pixels, which is too large: make it smaller."
        ) from error
    except BROKEN as error:
        raise UnreadableFileError(_unreadable(name, error)) from error


@contextmanager
def _stream(source: Source, whole: bool) -> Iterator[Path | io.BufferedIOBase]:
    if isinstance(source, Path):
        yield source
    elif isinstance(source, bytes):
        yield io.BytesIO(source)
    elif whole:
        yield io.BytesIO(source.read())
    else:
        with source.open() as stream:
            yield stream


BROKEN = (*UNREADABLE, RuntimeError, zipfile.BadZipFile)
"""What Pillow raises about files that it cannot read, and zipfile about the archive around them."""


class _RefusedError(Exception):
    """A picture that is whole and not wanted; the message goes on after its name."""


def _require_depth(image: Image.Image, name: str) -> None:
    """Refuses what Pillow would cut to its first 8 bits, and numbers whose range is not known.

    16-bit colour is opened as 8-bit RGB, so it is told by the layout of the data in the file.
    """
    tiles = getattr(image, "tile", None)
    layout = str(tiles[0][3]) if tiles else ""
    bits = _tiff_tag(image, BITS) or (8,)
    deep = max(bits) > 8 if image.format == "TIFF" else image.format == "PNG" and ";16" in layout
    if image.mode in SIXTEEN:
        of_netpbm = image.mode == "I" and image.format == "PPM"  # whose maximum Pillow scales to 65535
        whole = image.mode != "I" and (image.format != "TIFF" or bits == (16,)) and _tiff_tag(image, PHOTOMETRIC) != 0
        if of_netpbm or whole:
            return
    if image.mode in (*SIXTEEN, "F") or deep:
        kind = f"{max(bits)} bits a channel" if bits != (8,) else "16 bits a channel" if deep else "such pixels"
        raise _RefusedError(
            f"has {kind} (mode {image.mode!r}), which are read in grey alone, as whole numbers up to 65535: convert it "
            f"to 8 bits a channel."
        )


def _tiff_tag(image: Image.Image, number: int) -> Any:
    return getattr(image, "tag_v2", {}).get(number)


def _stored_size(image: Image.Image) -> tuple[int, int]:
    """As the file has it: of TIFF, newer Pillows say how it will be after turning, older ones do not."""
    if image.format == "TIFF":
        return int(_tiff_tag(image, WIDTH)), int(_tiff_tag(image, HEIGHT))
    return image.size


def _orientation(image: Image.Image, loaded: bool) -> int:
    """Of EXIF, 1 where there is none or where it is broken."""
    from PIL import Image

    try:  # that of PNG may lie behind the pixels, and asking for it then reads them
        exif = image.getexif() if loaded else Image.Image.getexif(image)
        found = exif.get(ORIENTATION, 1)
    except BROKEN:
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _turned(image: Image.Image) -> Image.Image:
    """As it is to be seen. Pillow turns TIFF itself as it reads the pixels, and leaves no orientation behind."""
    from PIL import Image

    ways = Image.Transpose
    how = {
        2: ways.FLIP_LEFT_RIGHT,
        3: ways.ROTATE_180,
        4: ways.FLIP_TOP_BOTTOM,
        5: ways.TRANSPOSE,
        6: ways.ROTATE_270,
        7: ways.TRANSVERSE,
        8: ways.ROTATE_90,
    }.get(_orientation(image, loaded=True))
    return image if how is None else image.transpose(how)


def _of_mode(image: Image.Image, mode: str, background: str) -> Image.Image:
    from PIL import Image, ImageColor

    if image.mode in SIXTEEN:
        image = _eight_bits(image)
    transparent = image.mode in TRANSPARENT or "transparency" in image.info
    if mode != "RGBA" and transparent:
        if image.mode == "La":
            image = image.convert("LA")
        image = image.convert("RGBA")
        behind = Image.new("RGBA", image.size, (*ImageColor.getrgb(background)[:3], 255))
        image = Image.alpha_composite(behind, image).convert("RGB")
    return image if image.mode == mode else image.convert(mode)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Whole numbers up to 65535, divided by 257 and rounded; the one that is transparent, if any, stays so."""
    from PIL import Image

    levels = np.asarray(image).astype(np.int64)
    small = Image.fromarray(((levels + 128) // 257).astype(np.uint8))
    clear = image.info.get("transparency")
    if clear is None:
        return small
    small.putalpha(Image.fromarray(np.where(levels == clear, 0, 255).astype(np.uint8)))
    return small


def _unreadable(name: str, error: Exception) -> str:
    said = str(error).split("\n")[0].rstrip(".") or type(error).__name__
    return f"{name} cannot be read as an image: {said}. Remove or replace it."


def require_background(background: str) -> str:
    """A colour that Pillow knows: a name, #rgb, #rrggbb or rgb(…).

    Raises:
        ValueError: another one.
    """
    from PIL import ImageColor

    try:
        ImageColor.getrgb(background)
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(
            f"background must be a colour, 'white' or '#808080' for example: got {background!r}."
        ) from error
    return background


class FileImages(PixelData):
    """Image files, decoded when they are read. The header of every one is read at construction.

    A wrong file then stops a run before it starts, not days into it. What is done to files so that they fit is said
    once a kind.

    Args:
        files: at least one; paths, or files in zip archives.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA).
        framing: the part that is used and the size it gets.
        flip, labels, classes: as for PixelData.
        background: the colour behind transparent pixels, where channels is not 4.

    Attributes:
        files: in the order of the items.

    Raises:
        ValueError: a file that does not fit (see `decode`), unknown channels, or a background that is no colour.

    Warns:
        ImageWarning: see `Notes`.
    """

    def __init__(
        self,
        files: Sequence[Path | ZippedImage],
        channels: int,
        framing: Framing,
        flip: bool = False,
        labels: Sequence[int] | None = None,
        classes: Sequence[str] = (),
        background: str = "white",
    ):
        if channels not in MODES:
            raise ValueError(f"channels must be 1 (grey), 3 (RGB) or 4 (RGBA): got {channels}.")
        if not files:
            raise ValueError("files must be at least one, and there are no images: got an empty list, [].")
        super().__init__(len(files), (channels, framing.height, framing.width), flip, labels, classes)
        self.files, self.framing, self.background = list(files), framing, require_background(background)
        notes = Notes(channels, background)
        for file in self.files:
            header = read_header(file, str(file))
            framing.require_fit(header.width, header.height, str(file))
            notes.add(header, str(file))
        notes.say(len(self.files))

    def fingerprint(self) -> str:
        """SHA-256 of what `ImageData.fingerprint` reads, and of the name and size of every file."""
        names = [(file.name, file.stat().st_size if isinstance(file, Path) else file.size) for file in self.files]
        return hashlib.sha256((super().fingerprint() + repr(names)).encode()).hexdigest()

    def pixels(self, position: int) -> UInt8[Tensor, "C H W"]:
        """Image `position`, decoded and framed: not mirrored, not scaled.

        Raises:
            ValueError: the file is broken.
        """
        file = self.files[position]
        return decode(file, str(file), self.image_shape[0], self.framing, self.background)
