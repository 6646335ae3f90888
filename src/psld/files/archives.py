"""Archives from elsewhere, looked at before they are unpacked: a few megabytes can claim to be, or be, terabytes."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

__all__ = ["BoundedStream", "OversizedArchiveError", "require_stored"]


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


def require_stored(file: Path) -> None:
    """That a zip archive is as `torch.save` writes it, with no member compressed: then nothing is larger than the file.

    Other files are passed over. PyTorch reads them as its older format, which has no compression.

    Raises:
        ValueError: compressed members.
        OSError, zipfile.BadZipFile: it cannot be read.
    """
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError("its members are compressed, which torch.save never does")
    if sum(member.file_size for member in members) > file.stat().st_size:
        raise ValueError("its members are together larger than the file")
