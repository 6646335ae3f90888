"""One checked way to read pictures of our own as they are: by Pillow, and no larger than a photograph."""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from psld.files.reading import UnreadableFileError, require_file, said

__all__ = ["FORMATS", "PIXELS", "UNREADABLE", "read_picture"]

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


def read_picture(file: str | Path, advice: str = "Replace it.") -> UInt8[np.ndarray, "H W C"]:
    """The pixels of a picture.

    Args:
        file: BMP, GIF, JPEG, PNG, PPM, TIFF or WebP.
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
                if picture.mode not in ("L", "RGB", "RGBA"):
                    raise ValueError(f"its pixels are of mode {picture.mode}, and L (grey), RGB or RGBA is needed")
                return np.atleast_3d(np.asarray(picture))
    except (Image.DecompressionBombError, *UNREADABLE) as error:
        raise UnreadableFileError(f"{file} is not a picture that can be read ({said(error)}). {advice}") from error
