"""Archives from elsewhere, looked at before they are unpacked: a few megabytes can claim to be, or be, terabytes."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from psld.files.reading import UnreadableFileError, require_file, said

__all__ = ["BoundedStream", "OversizedArchiveError", "read_values", "require_plausible", "unpacked"]

LARGE, RATIO = 512 * 1024**2, 100
"""Bytes that content may unpack to, unless it takes at least a hundredth of that in the file."""

BLOCK = 1024**2


class OversizedArchiveError(ValueError):
    """An archive unpacks to more than what it should hold."""


class BoundedStream(io.RawIOBase):
    """Reads another binary stream, and refuses to go beyond so many bytes.

    Args:
        stream: to read.
        limit: bytes.

    Raises:
        OversizedArchiveError: when reading beyond the limit.
    """

    def __init__(self, stream: io.BufferedIOBase, limit: int):
        self.stream, self.limit, self.left = stream, limit, limit

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        wanted = self.left + 1 if size < 0 else min(size, self.left + 1)
        content = self.stream.read(wanted)
        self.left -= len(content)
        if self.left < 0:
            raise OversizedArchiveError(f"it unpacks to more than {self.limit // 1024**2} MiB")
        return content


@contextmanager
def unpacked(file: str | Path, limit: int, advice: str = "Copy it again.") -> Iterator[BoundedStream]:
    """The content of a file, unpacked if it is compressed with gzip.

    Whoever reads to the end of the stream has its checksum compared. What fails inside, or is raised there as
    ValueError, is said about the file.

    Args:
        file: the file; what it begins with says whether it is compressed.
        limit: bytes that may be read.
        advice: what to do about a broken file.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableFileError: it is truncated or damaged, or reading went beyond the limit.
    """
    with open(require_file(file), "rb") as opened:
        packed = opened.read(2) == b"\x1f\x8b"
        opened.seek(0)
        try:
            yield BoundedStream(gzip.GzipFile(fileobj=opened) if packed else opened, limit)
        except (EOFError, OSError, ValueError, zlib.error) as error:
            raise UnreadableFileError(f"{file} is truncated or damaged: {said(error)}. {advice}") from error


def require_plausible(size: int, packed: int) -> None:
    """That content of `size` bytes, of which `packed` are in the file, is more than zeros without end.

    Raises:
        OversizedArchiveError: it is larger than 512 MiB and than a hundred times what it takes in the file.
    """
    if size > LARGE and size > RATIO * max(packed, 1):
        raise OversizedArchiveError(f"it unpacks to {size / 1e9:.1f} GB from {packed / 1e6:.1f} MB")


def read_values(read: Callable[[int], bytes | None], size: int) -> np.ndarray:
    """The next `size` bytes of a stream that must then end, which is where checksums are compared; (size,) uint8.

    Args:
        read: of the stream.
        size: in bytes.

    Raises:
        ValueError: it ends earlier, or goes on.
    """
    content, held = np.empty(size, dtype=np.uint8), 0
    while held < size:
        block = read(min(BLOCK, size - held)) or b""
        if not block:
            raise ValueError(f"it should hold {size} bytes by its header and holds {held}")
        content[held : held + len(block)] = np.frombuffer(block, dtype=np.uint8)
        held += len(block)
    if read(1):
        raise ValueError(f"it should hold {size} bytes by its header and holds more")
    return content
