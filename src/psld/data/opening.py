"""From a path to the images that are there, as they are: for whoever measures images rather than trains on them."""

from __future__ import annotations

from pathlib import Path

from psld.data.arrays import ArrayFile
from psld.data.base import ImageData
from psld.data.decoding import MODES, SUFFIXES, FileImages, Framing, image_files
from psld.data.folder import labels_of_folders
from psld.data.mnist import MNIST

__all__ = ["MixedImagesError", "holds_mnist", "open_images"]


class MixedImagesError(ValueError):
    """The images of a folder are not of one size and mode; the message names two of them."""


def open_images(source: str | Path, image_size: int | None = None, labelled: bool = False) -> ImageData:
    """The images of a folder, of one image file, an .npz file, or MNIST's files.

    Args:
        source: an .npz file with an array "images" or a single array; a folder with IDX files (MNIST's training images,
            see `psld.data.MNIST`); what `psld sample` wrote; an image file; or a folder of image files, all of one size
            and mode.
        image_size: of MNIST, 28 or 32 (with a border); of others what they must have. None takes them as they are.
        labelled: labels are of use, so an .npz file is read with its array "labels" where it has one. MNIST and
            folders whose images all lie in sub-folders, one a class, have theirs anyway.

    Raises:
        FileNotFoundError: nothing is there, or an empty folder.
        MixedImagesError: a folder with images of several sizes or modes.
        ValueError: another size than image_size, or broken or transparent images.
    """
    path = Path(source)
    if holds_mnist(path):
        data = MNIST(path, image_size=28 if image_size is None else image_size)  # pyright: ignore[reportArgumentType]
    elif path.suffix == ".npz":
        data = ArrayFile(path, *_keys(path, labelled))
    elif (path / "samples.npz").is_file():
        data = ArrayFile(path / "samples.npz", "images")
    elif path.suffix.lower() in SUFFIXES and not path.is_dir():
        if not path.exists():
            raise FileNotFoundError(f"no image file {path}.")
        data = _of_one_kind([path], path.parent)
    else:
        folder = path / "images" if (path / "sampling.json").is_file() else path
        data = _of_one_kind(image_files(folder), folder)
    if image_size is not None and data.image_shape[1:] != (image_size, image_size):
        height, width = data.image_shape[1:]
        raise ValueError(f"{source} holds images of {width}×{height}, and {image_size}×{image_size} are needed.")
    return data


def holds_mnist(source: str | Path) -> bool:
    """Whether it is a folder of MNIST's IDX files, whose images come with a border or without."""
    return Path(source).is_dir() and any(Path(source).glob("*-idx3-ubyte*"))


def _keys(path: Path, labelled: bool) -> tuple[str | None, str | None]:
    """Its array "images", where it has one beside others, and its array "labels" where it has one and it is wanted."""
    import zipfile

    if not path.is_file() or not zipfile.is_zipfile(path):
        return None, None  # ArrayFile says what is wrong
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    return ("images" if "images.npy" in names else None), ("labels" if labelled and "labels.npy" in names else None)


def _of_one_kind(files: list[Path], root: Path) -> FileImages:
    """The files, all of the size and mode of the first. Headers are read here, pixels when they are asked for."""
    from PIL import Image

    first = None
    for file in files:
        try:
            with Image.open(file) as picture:
                kind = picture.size, picture.mode
        except (OSError, SyntaxError) as error:
            raise ValueError(f"{file} cannot be read as an image: {error}. Remove or replace it.") from error
        if first is None:
            first = kind
        elif kind != first:
            (size, mode), (other_size, other_mode) = first, kind
            raise MixedImagesError(
                f"images of several kinds: {files[0]} is {size[0]}×{size[1]}, mode {mode}; {file} is "
                f"{other_size[0]}×{other_size[1]}, mode {other_mode}. Give a folder of one size and mode."
            )
    assert first is not None  # image_files refuses an empty folder
    (width, height), mode = first
    if width != height:
        raise ValueError(f"{files[0]} is {width}×{height}: images must be square.")
    channels = {name: channels for channels, name in MODES.items()}.get(mode, 3)
    labels, classes = labels_of_folders(root, files)
    return FileImages(files, channels, Framing(width), labels=labels, classes=classes)
