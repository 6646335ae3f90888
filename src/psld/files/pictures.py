"""One checked way to read a picture: by Pillow, of a few formats, and no larger than a photograph."""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from psld.files.reading import UnreadableFileError, require_file, said

__all__ = ["PIXELS", "read_picture"]

PIXELS = 64 * 1024**2
"""Of a picture, at most."""

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Of Pillow. It goes by content and not by suffix, and reads others, EPS say, by running another program."""

UNREADABLE = (
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    OverflowError,
    SyntaxError,  # of a broken PNG
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What Pillow raises about a file that it cannot read, beside its DecompressionBombError."""


def read_picture(file: str | Path, mode: str | None = None, advice: str = "Replace it.") -> UInt8[np.ndarray, "H W C"]:
    """The pixels of a picture.

    Args:
        file: BMP, GIF, JPEG, PNG, PPM, TIFF or WebP.
        mode: what it is converted to: "L" (grey) or "RGB"; None for a picture that is one of the two already.
        advice: what to do about a file that is none.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableFileError: no picture, a broken one, one of more than 64 Mi pixels, or of another mode.
    """
    from PIL import Image

    require_file(file, advice)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the bound below is narrower
            with Image.open(file, formats=FORMATS) as picture:
                width, height = picture.size
                if width * height > PIXELS:
                    raise ValueError(f"it is {width}×{height}, and {PIXELS} pixels are the most")
                if mode is None and picture.mode not in ("L", "RGB"):
                    raise ValueError(f"its pixels are of mode {picture.mode}, and L (grey) or RGB is needed")
                return np.atleast_3d(np.asarray(picture if mode is None else picture.convert(mode)))
    except (Image.DecompressionBombError, *UNREADABLE) as error:
        raise UnreadableFileError(f"{file} is not a picture that can be read ({said(error)}). {advice}") from error
