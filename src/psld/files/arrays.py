"""One checked way to read NumPy's .npz and .npy files: what they unpack to is known before there is memory for it.

An array must have the size that its header says, consist of numbers or text, and agree with the checksum that the
archive has of it. Python objects, which could run code, are refused.
"""

from __future__ import annotations

import math
import sys
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from psld.files.archives import read_values, require_plausible
from psld.files.reading import UnreadableFileError, require_file, said

__all__ = ["array_kinds", "array_names", "read_array", "read_arrays"]

MAGIC = b"\x93NUMPY"
KINDS = "biufcSU"
"""NumPy's codes for bools, integers, numbers and text."""

HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
UNREADABLE = (
    EOFError,
    LookupError,
    MemoryError,  # a header that nests too deeply for Python's parser
    NotImplementedError,  # an archive of a later version
    OSError,
    OverflowError,
    RecursionError,
    RuntimeError,  # an encrypted member
    SyntaxError,
    TypeError,
    ValueError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What NumPy and zipfile raise about a file that they cannot read."""


def array_names(file: str | Path) -> list[str]:
    """The names of the arrays in an .npz file, in their order.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableFileError: no such archive.
    """
    with _archive(file) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


def array_kinds(file: str | Path) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Shape and type of every array in an .npz file, by their headers.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableFileError: no such archive, or a header that NumPy cannot read.
    """
    kinds = {}
    with _archive(file) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            with archive.open(member) as stream:
                shape, _, dtype = _header(stream, f"array {name!r}")
            kinds[name] = (shape, dtype)
    return kinds


def read_arrays(file: str | Path, *names: str, optional: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """Arrays of an .npz file, by name.

    Args:
        file: as `numpy.savez` or `numpy.savez_compressed` write it.
        names: of the arrays, all of which must be there.
        optional: names of others, read where they are there.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableFileError: no such archive, or it is truncated or changed; an array is missing, is no array of numbers
            or text, has another size than its header says, or is far larger than the file.
    """
    with _archive(file) as archive:
        members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
        missing = [name for name in names if name not in members]
        if missing:
            held = ", ".join(list(members)[:10]) or "nothing"
            raise _RefusedError(f"it lacks the array {missing[0]!r} (it holds {held[:200]})")
        wanted = [*names, *(name for name in optional if name in members)]
        _require_reasonable([members[name] for name in wanted], Path(file).stat().st_size)
        found = {}
        for name in wanted:
            with archive.open(members[name]) as stream:
                found[name] = _array(stream, members[name].file_size, f"array {name!r}")
        return found


def read_array(file: str | Path) -> np.ndarray:
    """The array of an .npy file, as `numpy.save` writes it.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableFileError: no such file, truncated, of another size than its header says, or of Python objects.
    """
    with _refusals(file, ".npy"), open(require_file(file), "rb") as stream:
        return _array(stream, Path(file).stat().st_size, "it")


# -- how -----------------------------------------------------------------------------------------------------------


class _RefusedError(ValueError):
    """Something that is well formed and not wanted."""


@contextmanager
def _refusals(file: str | Path, kind: str) -> Iterator[None]:
    """Names the file in whatever is raised about its content."""
    require_file(file)
    try:
        yield
    except UNREADABLE as error:
        raise UnreadableFileError(f"{file} cannot be read as {kind}: {said(error)}. Write or copy it again.") from error


@contextmanager
def _archive(file: str | Path) -> Iterator[zipfile.ZipFile]:
    with _refusals(file, ".npz"):
        with open(file, "rb") as stream:
            if stream.read(len(MAGIC)) == MAGIC:
                raise _RefusedError("it holds one bare array, and numpy.savez writes what is needed")
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            if len(set(names)) != len(names):
                raise _RefusedError("it holds two arrays of one name")
            yield archive


def _require_reasonable(members: list[zipfile.ZipInfo], available: int) -> None:
    """That members take no more memory than what they hold can be, in a file of so many bytes."""
    for member in members:
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _RefusedError(f"{member.filename[:50]!r} is packed in a way that NumPy does not write")
        if member.compress_type == zipfile.ZIP_STORED and member.file_size != member.compress_size:
            raise _RefusedError(f"{member.filename[:50]!r} has two sizes")
    size, packed = sum(member.file_size for member in members), sum(member.compress_size for member in members)
    if packed > available:
        raise _RefusedError(f"its arrays are together larger than the file, which has {available} bytes")
    require_plausible(size, packed)


def _array(stream: Any, size: int, what: str) -> np.ndarray:
    """The array of a binary stream of `size` bytes, read to its end, where zipfile compares the checksum."""
    shape, fortran, dtype = _header(stream, what)
    if dtype.hasobject:
        raise _RefusedError(f"{what} holds Python objects, which can run code (allow_pickle=False)")
    if dtype.kind not in KINDS or dtype.subdtype is not None or dtype.itemsize == 0:
        raise _RefusedError(f"{what} holds {str(dtype)[:50]}, and numbers or text are needed")
    if any(type(length) is not int or length < 0 for length in shape):
        raise _RefusedError(f"{what} has the shape {str(shape)[:50]}")
    expected, found = math.prod(shape) * dtype.itemsize, size - stream.tell()
    if expected != found:
        raise _RefusedError(f"{what} should have {expected} bytes by its header and has {found}")
    content = read_values(stream.read, expected)
    values = content.view(dtype)
    if dtype.kind == "U" and values.size:
        characters = content.view(np.dtype("u4").newbyteorder(dtype.byteorder))
        if characters.max() > sys.maxunicode:
            raise _RefusedError(f"{what} holds text that is not Unicode")
    return values.reshape(shape, order="F" if fortran else "C")


def _header(stream: Any, what: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran's order, and type."""
    version = np.lib.format.read_magic(stream)
    if version not in HEADERS:
        raise _RefusedError(f"{what} has a header of version {version}")
    return HEADERS[version](stream)
