"""CIFAR-10 from the archive as it is distributed for Python: six pickles, read without letting them run anything."""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import tarfile
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from psld.data.pixels import PixelArray, chosen_split
from psld.files import UnreadableFileError
from psld.files.archives import unpacked
from psld.files.reading import said

__all__ = ["CIFAR10", "CIFAR10_CLASSES"]

ARCHIVE, FOLDER = "cifar-10-python.tar.gz", "cifar-10-batches-py"
FILES = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}
UNPACKED = 256 * 1024**2
"""Bytes of the unpacked archive, at most; the real one has 178 MiB."""

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class CIFAR10(PixelArray):
    """Small photographs of ten kinds, (3, 32, 32), scaled from 0 … 255 to [−1, 1].

    Args:
        root: `cifar-10-python.tar.gz`, the extracted folder `cifar-10-batches-py`, or a folder that holds either; the
            archive is read where it lies and not extracted.
        split: "train" (50,000 images, data_batch_1 … 5, in that order) or "test" (10,000).
        flip: mirror images are items too, as for ImageFolder.

    Attributes:
        labels: (len,) int64, 0 … 9.
        classes: their names.

    Raises:
        FileNotFoundError: neither archive nor folder is there, or a batch is missing.
        UnreadableFileError: a broken archive or batch, or a pickle that names anything but NumPy's arrays.
        ValueError: an unknown split.
    """

    labels: Int64[Tensor, " N"]  # pyright: ignore[reportIncompatibleVariableOverride]: these data always have them

    def __init__(self, root: str | Path, split: Literal["train", "test"] = "train", flip: bool = False):
        chosen_split(split, tuple(FILES))
        batches = [_batch(content, name) for name, content in _contents(Path(root), FILES[split]).items()]
        images = torch.cat([pixels for pixels, _ in batches])
        super().__init__(images, flip, torch.cat([labels for _, labels in batches]), CIFAR10_CLASSES)


# -- where the batches lie ---------------------------------------------------------------------------------------------


def _contents(root: Path, names: list[str]) -> dict[str, bytes]:
    """The bytes of each batch, by what messages call it."""
    for folder in (root, root / FOLDER):
        if (folder / names[0]).is_file():
            missing = [name for name in names if not (folder / name).is_file()]
            if missing:
                raise FileNotFoundError(f"{folder} lacks {', '.join(missing)}: extract the archive again.")
            return {str(folder / name): _whole(folder / name) for name in names}
    archive = root / ARCHIVE if root.is_dir() else root
    if not archive.is_file():
        raise FileNotFoundError(f"no {ARCHIVE} and no {FOLDER} in {root}: give the folder that holds one of them.")
    return _from_archive(archive, names)


def _whole(file: Path) -> bytes:
    with unpacked(file, UNPACKED, "Extract the archive again.") as stream:
        return stream.read()


def _from_archive(archive: Path, names: list[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    with unpacked(archive, UNPACKED, "Download it again.") as stream:
        try:
            with tarfile.open(mode="r|", fileobj=stream) as tar:
                for member in tar:  # one pass: a gzip stream cannot jump
                    name = member.name.removeprefix("./").removeprefix(f"{FOLDER}/")
                    content = tar.extractfile(member) if member.isfile() and name in names else None
                    if content is not None:
                        found[name] = content.read()
        except (tarfile.TarError, LookupError, OverflowError, TypeError) as error:  # of headers that make no sense
            raise ValueError(f"it is no tar archive ({said(error)})") from error
        while stream.read(1 << 20):
            pass  # to the end of the stream, where its checksum is compared: tar's own end comes before that
    missing = [name for name in names if name not in found]
    if missing:
        raise FileNotFoundError(f"{archive} lacks {FOLDER}/{', '.join(missing)}: is it the archive for Python?")
    return {f"{archive}:{FOLDER}/{name}": found[name] for name in names}


# -- what is in a batch ------------------------------------------------------------------------------------------------


def _batch(content: bytes, name: str) -> tuple[UInt8[Tensor, "N 3 32 32"], Int64[Tensor, " N"]]:
    try:
        _require_bounded(content)
        batch = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
    except _RefusedError as error:
        raise UnreadableFileError(f"{name} {error}") from error
    except (
        pickle.UnpicklingError,
        ArithmeticError,
        AttributeError,
        EOFError,
        LookupError,
        MemoryError,
        TypeError,
        ValueError,
    ) as error:
        raise UnreadableFileError(f"{name} is truncated or damaged: {said(error)}. Download it again.") from error
    if not isinstance(batch, dict):
        raise UnreadableFileError(f"{name} holds a {type(batch).__name__}, not the dictionary of a CIFAR-10 batch.")
    pixels, labels = (batch.get(key.encode(), batch.get(key)) for key in ("data", "labels"))
    if not isinstance(pixels, _Array) or not isinstance(labels, list):
        raise UnreadableFileError(f"{name} lacks the array 'data' or the list 'labels': it is not a CIFAR-10 batch.")
    images = pixels.tensor(name)
    if images.shape[1] != 3072 or len(images) != len(labels) or not labels:
        raise UnreadableFileError(
            f"{name} holds data of shape {tuple(images.shape)} and {len(labels)} labels: (N, 3072) and N are needed."
        )
    if not all(type(label) is int and 0 <= label < 10 for label in labels):
        raise UnreadableFileError(f"{name} holds labels that are not whole numbers 0 … 9.")
    return images.view(-1, 3, 32, 32), torch.tensor(labels)


def _require_bounded(content: bytes) -> None:
    """That a pickle numbers what it remembers as one that was written does: memory is taken up to that number.

    Raises:
        ValueError: a number that is larger than the pickle; or it is none.
    """
    for operation, number, _ in pickletools.genops(content):
        if "PUT" in operation.name and (not isinstance(number, int) or number > len(content)):
            raise ValueError(f"it remembers an object under number {number}")


class _RefusedError(Exception):
    """A pickle asked for something that a batch of arrays has no need of."""


class _DType:
    """Stands in for numpy.dtype while a pickle is read: its name is all that is kept."""

    def __init__(self, code: object, *_: object):
        self.code = code.decode("latin1") if isinstance(code, bytes) else code

    def __setstate__(self, state: object) -> None: ...


class _Array:
    """Stands in for an array while a pickle is read, so that not even NumPy's own code works on what it says."""

    def __init__(self, *_: object):
        self._state: object = None

    def __setstate__(self, state: object) -> None:
        self._state = state

    def tensor(self, name: str) -> UInt8[Tensor, "N D"]:
        match self._state:
            case (_, tuple() as shape, _DType(code="u1" | "|u1"), fortran, bytes() as values):
                shown = str(shape)[:100]
                if len(shape) != 2 or not all(type(size) is int and size > 0 for size in shape):
                    raise UnreadableFileError(f"{name} holds an array of shape {shown}: (N, 3072) is needed.")
                if len(values) != math.prod(shape):
                    raise UnreadableFileError(f"{name} holds {len(values)} bytes for an array of shape {shown}.")
                grid = torch.frombuffer(bytearray(values), dtype=torch.uint8)
                return grid.view(shape[::-1]).T if fortran else grid.view(shape)
        raise UnreadableFileError(f"{name} holds an array that is not of 8-bit unsigned integers.")


class _NdArray:
    """Stands in for the class numpy.ndarray, which a pickle names and hands on."""


class _ArrayUnpickler(pickle.Unpickler):
    """Reads numbers, strings, containers and arrays; refuses every other name before it is even looked up."""

    allowed = {
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy._core.multiarray", "_reconstruct"): _Array,  # as NumPy 2 writes it
        ("numpy", "ndarray"): _NdArray,
        ("numpy", "dtype"): _DType,
    }

    def find_class(self, module: str, name: str, /) -> type:
        if (module, name) not in self.allowed:
            raise _RefusedError(
                f"names {module}.{name}, which a CIFAR-10 batch has no need of and which could run code: it was not "
                f"loaded. Download the archive again, from its authors."
            )
        return self.allowed[module, name]

    def persistent_load(self, pid: object) -> object:
        raise _RefusedError("refers to an object outside itself: it was not loaded. Download the archive again.")
