"""From a path to the images that are there: as they are, to measure them, or made one size, to train on them."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from pathlib import Path

from psld.data.arrays import ArrayFile, label_key_of
from psld.data.base import ImageData
from psld.data.decoding import FileImages, Framing, Header, ImageWarning, Source, read_header
from psld.data.folder import ImageFolder
from psld.data.folders import OTHER_SUFFIXES, SUFFIXES, find_images
from psld.data.hugging_face import HuggingFace, holds_dataset
from psld.data.mnist import MNIST
from psld.specs.arguments import height_and_width, side_or_sides

__all__ = ["MixedImagesError", "holds_mnist", "open_images", "training_images"]


class MixedImagesError(ValueError):
    """The images of a folder are not of one size; the message names two of them."""


def open_images(
    source: str | Path,
    image_size: int | tuple[int, int] | None = None,
    labelled: bool = False,
    channels: int | None = None,
) -> ImageData:
    """The images of a folder, of one image file, of an archive, an .npz file, or MNIST's files.

    Args:
        source: an .npz file with an array "images" or a single array; a folder with IDX files (MNIST's training images,
            see `psld.data.MNIST`); what `psld sample` wrote; an image file; or a folder or .zip archive of image files,
            read as `psld.data.ImageFolder` reads them.
        image_size: of MNIST, 28 or 32 (with a border); of image files what they are made where they are larger: of each
            the largest centred part of those proportions; of others what they must have. None takes them as they are,
            all of one size.
        labelled: labels are of use, so an .npz file is read with its array "labels" where it has one. MNIST and
            folders whose images all lie in sub-folders, one a class, have theirs anyway.
        channels: that image files get, 1 (grey), 3 (RGB) or 4 (RGBA). None: 4 where all are RGBA; else 1 where all are
            grey and 3 where not, and transparency is flattened onto white.

    Raises:
        FileNotFoundError: nothing is there, or an empty folder.
        MixedImagesError: a folder with images of several sizes, and no image_size.
        ValueError: another size than image_size, or smaller image files, or broken images.

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
        data = _file(path, channels, image_size)
    else:
        data = _folder(path / "images" if (path / "sampling.json").is_file() else path, channels, image_size)
    if image_size is not None and data.image_shape[1:] != (needed := height_and_width("image_size", image_size)):
        (height, width), (high, wide) = data.image_shape[1:], needed
        raise ValueError(f"{source} holds images of {width}×{height}, and {wide}×{high} are needed.")
    return data


def training_images(source: str | Path, image_size: int | None = None, largest: int | None = None) -> ImageData:
    """The images of a folder, an archive, an .npz file or a data set of Hugging Face's, with their labels, of one size.

    Pictures of files are cut to the largest centred square and made smaller where they are of several sizes, or of
    another than is asked for. Nothing is enlarged.

    Args:
        source: as for `open_images`; or what `datasets` saved to disk, a .parquet file or a folder of them, or
            "hub:owner/name", which is downloaded.
        image_size: height and width that pictures of files are made; None: what they have if they all have it, and else
            the largest multiple of 8 that the smallest of them has (of 4 or 1, below 8 or 4).
        largest: the most that None may choose.

    Raises:
        FileNotFoundError: nothing is there, or no images.
        ValueError: broken images, images smaller than image_size, or .npz files and MNIST of another size.

    Warns:
        ImageWarning: what is done to image files so that they fit.
    """
    path, hub = Path(source), str(source).startswith(HUB)
    if hub or path.suffix == ".parquet" or (path.is_dir() and holds_dataset(path)):
        chosen = HuggingFace.found(str(source).removeprefix(HUB) if hub else path)
        size = _made(chosen.sizes, image_size, largest)
        columns = {"image_column": chosen.image_column, "label_column": chosen.label_column}
        return HuggingFace(
            chosen.source, size, **columns, resize=chosen.sizes != {height_and_width("image_size", size)}
        )
    if holds_mnist(path) or path.suffix == ".npz" or (path / "samples.npz").is_file():
        return open_images(path, image_size, labelled=True)
    headers = [read_header(file, str(file)) for file in find_images(path).files]
    size = _made({(header.height, header.width) for header in headers}, image_size, largest)
    return ImageFolder(path, size, _fitting(headers), resize=_framing(headers, size).crop != "none")


HUB = "hub:"


def _made(sizes: Collection[tuple[int, int]], asked: int | None, largest: int | None) -> int | tuple[int, int]:
    """The size that pictures are made, from all they have."""
    if asked is not None:
        return asked
    bound = max(map(max, sizes)) if largest is None else largest
    if len(sizes) == 1 and max(only := next(iter(sizes))) <= bound:
        return side_or_sides(*only)
    side = min(bound, *map(min, sizes))
    return side // 8 * 8 or side // 4 * 4 or side


def holds_mnist(source: str | Path) -> bool:
    """Whether it is a folder of MNIST's IDX files, whose images come with a border or without."""
    return Path(source).is_dir() and any(Path(source).glob("*-idx3-ubyte*"))


def _file(path: Path, channels: int | None, size: int | tuple[int, int] | None) -> FileImages:
    if not path.exists():
        raise FileNotFoundError(f"no image file {path}.")
    if path.suffix.lower() in OTHER_SUFFIXES:
        raise ValueError(f"{path} is of a kind that is not read: convert it to PNG. Read are {', '.join(SUFFIXES)}.")
    header = read_header(path, str(path))
    size = header.own_size(str(path)) if size is None else size
    return FileImages([path], _fitting([header]) if channels is None else channels, _framing([header], size))


def _folder(path: Path, channels: int | None, size: int | tuple[int, int] | None) -> ImageFolder:
    files: Sequence[Source] = find_images(path).files
    headers = []
    for file in files:
        header = read_header(file, str(file))
        headers.append(header)
        first = headers[0]
        if size is None and (header.width, header.height) != (first.width, first.height):
            raise MixedImagesError(
                f"images of several sizes: {files[0]} is {first.width}×{first.height}, {file} is "
                f"{header.width}×{header.height}. Give a folder of one size; or name the class ImageFolder with "
                f"image_size and resize=true, which makes them so."
            )
    if size is None:
        height, width = headers[0].own_size(str(files[0]))
        size = side_or_sides(height, width)
    resize = _framing(headers, size).crop != "none"
    return ImageFolder(path, size, _fitting(headers) if channels is None else channels, resize=resize)


def _framing(headers: Sequence[Header], size: int | tuple[int, int]) -> Framing:
    """How pictures become that size: as they are if they all have it, else by the largest centred part, which is said.

    Warns:
        ImageWarning: pictures are cut and made smaller.
    """
    height, width = height_and_width("image_size", size)
    others = sum((header.height, header.width) != (height, width) for header in headers)
    if not others:
        return Framing(size)
    if all(header.height >= height and header.width >= width for header in headers):  # else it is refused, and not done
        warnings.warn(
            f"{others} of {len(headers)} images: of each the largest centred part is made {width}×{height}.",
            ImageWarning,
            stacklevel=4,
        )
    return Framing(size, "center")


def _fitting(headers: Sequence[Header]) -> int:
    """The channels that lose nothing but transparency, which is kept where every image has it."""
    if all(header.mode == "RGBA" for header in headers):
        return 4
    return 1 if all(header.grey for header in headers) else 3
