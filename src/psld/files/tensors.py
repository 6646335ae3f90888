"""One checked way to read tensors: from safetensors, and from files of `torch.save`, of which nothing is run."""

from __future__ import annotations

import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from psld.files.reading import UnreadableFileError, require_file, said

__all__ = ["read_metadata", "read_safetensors", "read_torch", "require_whole_archive"]

UNREADABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
"""What PyTorch, safetensors and zipfile raise about a file that they cannot read.

PyTorch's reader of pickles calls what a file names (tensors, sizes, dtypes) with whatever arguments are in it.
"""

ADVICE = "Copy or write it again."
PROGRAM_BYTES = 64 * 1024**2
"""Of the compressed members of TorchScript, which are source code."""


def read_safetensors(file: str | Path) -> dict[str, Tensor]:
    """The tensors of a file, by name, mapped into memory: only those that are used are read.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableFileError: it is no safetensors file, or truncated.
    """
    import safetensors.torch

    with _refusals(file, "safetensors"):
        return safetensors.torch.load_file(file)


def read_metadata(file: str | Path) -> dict[str, str]:
    """What a safetensors file says beside its tensors; {} where it says nothing.

    Raises:
        FileNotFoundError, UnreadableFileError: as for `read_safetensors`.
    """
    from safetensors import safe_open

    with _refusals(file, "safetensors"), safe_open(file, framework="pt") as opened:
        return opened.metadata() or {}


def read_torch(file: str | Path) -> Any:
    """What `torch.save` wrote: tensors, numbers, text and containers of them, on the CPU.

    The checksums of the archive, which PyTorch writes and does not compare, are compared. Files in PyTorch's format
    before version 1.6 have none.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableFileError: it is no such file, is truncated or changed, or holds other objects, which could run code.
    """
    file = require_file(file)
    try:
        with _refusals(file, "a file of torch.save"):
            if zipfile.is_zipfile(file):
                require_whole_archive(file)
            elif tarfile.is_tarfile(file):
                raise ValueError("it is in the format of PyTorch before version 0.1.10, which is not read")
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UnreadableFileError(
            f"{file} was not loaded: it is corrupt, or holds objects other than tensors, numbers and text, which could "
            "run code on this machine. If you trust whoever made it, open it where nothing can be lost, and save its "
            f"tensors alone to a new file. PyTorch says: {said(error)}."
        ) from error


def require_whole_archive(file: Path, program: bool = False) -> None:
    """That a zip archive is as `torch.save` writes it: no member compressed, so nothing is larger than the file.

    And that every member agrees with its checksum. In TorchScript (`program`) source code may be compressed.

    Raises:
        ValueError: compressed members, or one that has changed.
        OSError, zipfile.BadZipFile: it cannot be read.
    """
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        packed = [member for member in members if member.compress_type != zipfile.ZIP_STORED]
        if packed and not program:
            raise ValueError("its members are compressed, which torch.save never does")
        if sum(member.file_size for member in packed) > PROGRAM_BYTES:
            raise ValueError(f"its source code unpacks to more than {PROGRAM_BYTES // 1024**2} MiB")
        stored = [member for member in members if member.compress_type == zipfile.ZIP_STORED]
        if sum(member.file_size for member in stored) > file.stat().st_size:
            raise ValueError("its members are together larger than the file")
        changed = archive.testzip()
    if changed is not None:
        raise ValueError(f"{changed[:100]!r} in it has changed since it was written")


@contextmanager
def _refusals(file: str | Path, kind: str) -> Iterator[None]:
    """Names the file in whatever is raised about its content."""
    from safetensors import SafetensorError

    require_file(file)
    try:
        yield
    except (*UNREADABLE, SafetensorError) as error:
        message = f"{file} is truncated or corrupt, or not {kind} ({said(error)}). {ADVICE}"
        raise UnreadableFileError(message) from error
