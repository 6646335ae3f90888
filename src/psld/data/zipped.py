"""Images in a zip archive, read where they lie."""

from __future__ import annotations

import io
import os
import zipfile
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, cast

__all__ = ["Archive", "ZippedImage"]

LARGEST = 1024**3
"""Bytes that one member may unpack to: no image is larger."""


class Archive:
    """A zip archive, opened once in each process that reads it.

    Args:
        path: of the file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no zip archive, or a broken one.
    """

    def __init__(self, path: Path):
        if not path.is_file():
            raise FileNotFoundError(f"no file {path}: give a .zip file or a folder of images.")
        self.path = path
        self._opened: tuple[int, zipfile.ZipFile] | None = None
        try:
            _ = self.members
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise ValueError(f"{path} cannot be read as a zip archive: {error}. Copy it again.") from error

    @cached_property
    def members(self) -> dict[str, int]:
        """Name of every file in it → its size in bytes, unpacked."""
        return {info.filename: info.file_size for info in self._zip().infolist() if not info.is_dir()}

    def open(self, member: str) -> io.BufferedIOBase:
        """A member as a stream.

        Raises:
            OSError: it unpacks to more than 1 GiB.
            zipfile.BadZipFile, RuntimeError, NotImplementedError: it is broken, encrypted, or packed in another way.
        """
        if self.members[member] > LARGEST:
            raise OSError(f"it unpacks to {self.members[member] / 1e9:.1f} GB")
        return cast("io.BufferedIOBase", self._zip().open(member))

    def _zip(self) -> zipfile.ZipFile:
        """A handle of this process: one that a fork has inherited shares its position in the file with the parent."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), zipfile.ZipFile(self.path)
        return self._opened[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}


class ZippedImage:
    """One file of a zip archive.

    Args:
        archive: which has it.
        member: its name there.
    """

    def __init__(self, archive: Archive, member: str):
        self.archive, self.member = archive, member

    @property
    def name(self) -> str:
        """Without folders."""
        return PurePosixPath(self.member).name

    @property
    def size(self) -> int:
        """Bytes, unpacked."""
        return self.archive.members[self.member]

    def open(self) -> io.BufferedIOBase:
        """As a stream; raises as `Archive.open`."""
        return self.archive.open(self.member)

    def read(self) -> bytes:
        """All of it, its checksum compared; raises as `Archive.open`."""
        with self.open() as stream:
            return stream.read()

    def __str__(self) -> str:
        return f"{self.archive.path}:{self.member}"
