"""From a path to the images that are there, as they are: for whoever measures images rather than trains on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from psld.data.arrays import ArrayFile, label_key_of
from psld.data.base import ImageData
from psld.data.decoding import FileImages, Framing, Header, Source, read_header
from psld.data.folder import ImageFolder
from psld.data.folders import OTHER_SUFFIXES, SUFFIXES, find_images
from psld.data.mnist import MNIST

__all__ = ["MixedImagesError", "holds_mnist", "open_images"]


class MixedImagesError(ValueError):
    """The images of a folder are not of one size; the message names two of them."""


def open_images(
    source: str | Path, image_size: int | None = None, labelled: bool = False, channels: int | None = None
) -> ImageData:
    """The images of a folder, of one image file, of an archive, an .npz file, or MNIST's files.

    Args:
        source: an .npz file with an array "images" or a single array; a folder with IDX files (MNIST's training images,
            see `psld.data.MNIST`); what `psld sample` wrote; an image file; or a folder or .zip archive of image files,
            all of one size, read as `psld.data.ImageFolder` reads them.
        image_size: of MNIST, 28 or 32 (with a border); of others what they must have. None takes them as they are.
        labelled: labels are of use, so an .npz file is read with its array "labels" where it has one. MNIST and
            folders whose images all lie in sub-folders, one a class, have theirs anyway.
        channels: that image files get, 1 (grey), 3 (RGB) or 4 (RGBA). None: 4 where all are RGBA; else 1 where all are
            grey and 3 where not, and transparency is flattened onto white.

    Raises:
        FileNotFoundError: nothing is there, or an empty folder.
        MixedImagesError: a folder with images of several sizes.
        ValueError: another size than image_size, or broken images.

    Warns:
        ImageWarning: what is done to image files so that they fit, and what is passed over.
    """
    path = Path(source)
    if holds_mnist(path):
        data = MNIST(path, image_size=28 if image_size is None else image_size)  # pyright: ignore[reportArgumentType]
    elif path.suffix == ".npz":
        data = ArrayFile(path, label_key=label_key_of(path) if labelled else None)
    elif (path / "samples.npz").is_file():
        data = ArrayFile(path / "samples.npz", "images")
    elif path.suffix.lower() in (*SUFFIXES, *OTHER_SUFFIXES) and not path.is_dir():
        data = _file(path, channels)
    else:
        data = _folder(path / "images" if (path / "sampling.json").is_file() else path, channels)
    if image_size is not None and data.image_shape[1:] != (image_size, image_size):
        height, width = data.image_shape[1:]
        raise ValueError(f"{source} holds images of {width}×{height}, and {image_size}×{image_size} are needed.")
    return data


def holds_mnist(source: str | Path) -> bool:
    """Whether it is a folder of MNIST's IDX files, whose images come with a border or without."""
    return Path(source).is_dir() and any(Path(source).glob("*-idx3-ubyte*"))


def _file(path: Path, channels: int | None) -> FileImages:
    if not path.exists():
        raise FileNotFoundError(f"no image file {path}.")
    if path.suffix.lower() in OTHER_SUFFIXES:
        raise ValueError(f"{path} is of a kind that is not read: convert it to PNG. Read are {', '.join(SUFFIXES)}.")
    header = read_header(path, str(path))
    chosen = _fitting([header]) if channels is None else channels
    return FileImages([path], chosen, Framing((header.height, header.width)))


def _folder(path: Path, channels: int | None) -> ImageFolder:
    files: Sequence[Source] = find_images(path).files
    headers = []
    for file in files:
        header = read_header(file, str(file))
        headers.append(header)
        first = headers[0]
        if (header.width, header.height) != (first.width, first.height):
            raise MixedImagesError(
                f"images of several sizes: {files[0]} is {first.width}×{first.height}, {file} is "
                f"{header.width}×{header.height}. Give a folder of one size; or name the class ImageFolder with "
                f"image_size and resize=true, which makes them so."
            )
    height, width = headers[0].height, headers[0].width
    size = height if height == width else (height, width)
    return ImageFolder(path, size, _fitting(headers) if channels is None else channels)


def _fitting(headers: Sequence[Header]) -> int:
    """The channels that lose nothing but transparency, which is kept where every image has it."""
    if all(header.mode == "RGBA" for header in headers):
        return 4
    return 1 if all(header.grey for header in headers) else 3
