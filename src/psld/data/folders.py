"""The image files below a folder or in a zip archive, and the classes that their places, or a dataset.json, give them.

Folders as people have them: hidden ones, `__MACOSX`, `.ipynb_checkpoints` and files named `._…` hold no images of
theirs; a folder may be a symbolic link, and links may run in a circle; class 10 comes after class 9.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from psld.data.decoding import ImageWarning
from psld.data.zipped import Archive, ZippedImage
from psld.files import parse_json
from psld.specs.arguments import shown

__all__ = [
    "LISTING",
    "OTHER_SUFFIXES",
    "SUFFIXES",
    "Found",
    "find_images",
    "image_files",
    "labels_by_name",
    "natural_order",
    "require_classes",
]

SUFFIXES = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".tif", ".tiff", ".webp"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
OTHER_SUFFIXES = (".avif", ".heic", ".heif", ".jp2", ".jxl", ".psd", ".svg", ".tga", ".exr", ".hdr", ".dng", ".eps")
"""Of pictures that are not read: passed over, and said."""

LISTING, LISTING_BYTES = "dataset.json", 256 * 1024**2
"""Where StyleGAN and EDM keep labels: {"labels": [[file, label], …]}, or null for none."""


class Found(NamedTuple):
    """Image files in the order of their paths.

    Attributes:
        files: what to read.
        parts: of each, the folders it lies in and its name, below the root.
        labels: from dataset.json; None where there is none or it gives none.
        listed: there is a dataset.json, so folders are no classes.
    """

    files: list[Path | ZippedImage]
    parts: list[tuple[str, ...]]
    labels: list[int] | None
    listed: bool

    def classes_of_folders(
        self, classes: Sequence[str] | None = None, root: str | Path = "the data"
    ) -> tuple[list[int] | None, list[str]]:
        """The label of each file and the names of the classes, where every file lies in a sub-folder; or (None, []).

        Args:
            classes: names of the first-level folders in the order of their labels; None: all there are, in natural
                order.
            root: what messages call the whole.

        Raises:
            ValueError: classes are given, and there are other folders or none.

        Warns:
            ImageWarning: some files lie in sub-folders and some beside them, so there are no classes.
        """
        if self.listed:
            if classes is not None and self.labels is not None and max(self.labels) >= len(classes):
                raise ValueError(f"{root}, {LISTING}: there is a label {max(self.labels)}, and {len(classes)} classes.")
            return self.labels, [] if self.labels is None else list(classes or ())
        beside = ["/".join(parts) for parts in self.parts if len(parts) == 1]
        if beside:
            if classes is not None:
                raise ValueError(
                    f"{root} has images that lie in no folder of a class ({beside[0]}), so they have none of classes "
                    f"{', '.join(classes)}: move or remove them, or leave out classes."
                )
            if len(beside) < len(self.parts):
                warnings.warn(
                    f"there are no classes in {root}: {len(beside)} of {len(self.parts)} images lie beside its "
                    f"folders ({beside[0]} first).",
                    ImageWarning,
                    stacklevel=3,
                )
            return None, []
        return labels_by_name([parts[0] for parts in self.parts], classes, f"folders of {root}")


def natural_order(name: str) -> tuple[Any, ...]:
    """A key to sort by, in which numbers within names count as numbers: 2 before 10, img9 before img10."""
    pieces = re.split(r"(\d+)", name)
    return (*((int(piece), piece) if piece.isdecimal() else (-1, piece) for piece in pieces), name)


def require_classes(classes: Sequence[str] | None) -> None:
    """Raises ValueError for a list of no names, which no labels fit."""
    if classes is not None and not classes:
        raise ValueError(f"classes must be at least one name, or None for those that are found: got {shown(classes)}.")


def labels_by_name(names: Sequence[str], classes: Sequence[str] | None, what: str) -> tuple[list[int], list[str]]:
    """The label of each name, and the names by label.

    Args:
        names: of the class of every item.
        classes: all names that may be there, by label; None: those that are there, in natural order.
        what: has the names, for messages.

    Raises:
        ValueError: a name that is not among the classes, or a class that is there twice.
    """
    known = sorted(set(names), key=natural_order) if classes is None else [str(name) for name in classes]
    label_of = {name: label for label, name in enumerate(known)}
    if len(label_of) != len(known):
        raise ValueError(f"classes name one of them twice: {', '.join(known)}.")
    if unknown := sorted(set(names) - set(known), key=natural_order):
        raise ValueError(
            f"{what}: {', '.join(map(repr, unknown[:5]))}{' …' if len(unknown) > 5 else ''} not among classes "
            f"{', '.join(map(repr, known[:20]))}: add to classes, or leave classes out."
        )
    return [label_of[name] for name in names], known


def find_images(root: Path) -> Found:
    """All images below a folder or in a .zip archive.

    Of an archive with one folder around everything, that folder is the root, as it would be unpacked.

    Raises:
        FileNotFoundError: there is no such folder or file, or it has no images.
        NotADirectoryError: it is a file, and no .zip.
        ValueError: a broken archive, or a dataset.json that does not fit.

    Warns:
        ImageWarning: pictures of kinds that are not read are passed over.
    """
    if root.suffix.lower() == ".zip" and not root.is_dir():
        archive = Archive(root)
        members = {tuple(re.split(r"[/\\]", name)): name for name in archive.members}
        members = _below_common_folder({parts: name for parts, name in members.items() if not _ignored(parts)})
        listing = members.get((LISTING,))
        known = _chosen(members, root)
        files: list[Path | ZippedImage] = [ZippedImage(archive, members[parts]) for parts in known]
        text = None if listing is None else _listing_of(archive, listing)
    else:
        paths = {path.relative_to(root).parts: path for path in _walked(root)}
        known = _chosen(paths, root)
        files = [paths[parts] for parts in known]
        file = root / LISTING
        text = _read_listing(file) if file.is_file() else None
    labels = None if text is None else _listed_labels(text, known, f"{root}, {LISTING}")
    return Found(files, known, labels, text is not None)


def image_files(root: Path) -> list[Path]:
    """All image files below a folder, sorted by path.

    Raises:
        FileNotFoundError: the folder is missing or has no images.
        NotADirectoryError: it is a file.
    """
    paths = {path.relative_to(root).parts: path for path in _walked(root)}
    return [paths[parts] for parts in _chosen(paths, root)]


# -- walking -----------------------------------------------------------------------------------------------------------


def _walked(root: Path) -> Iterator[Path]:
    """Every file below a folder. Each folder is entered once, by its own path rather than by a link to it."""
    if not root.exists():
        raise FileNotFoundError(f"no folder {root}: give the folder that holds the images.")
    if not root.is_dir():
        others = f"; {root.suffix} is not read, convert it to PNG" if root.suffix.lower() in OTHER_SUFFIXES else ""
        raise NotADirectoryError(f"{root} is a file: give the folder that holds the images{others}.")
    entered, waiting = {_identity(above) for above in root.resolve().parents}, [root]
    while waiting:
        links: list[Path] = []
        for start in waiting:
            if _identity(start) in entered:
                continue
            for folder, names, files in os.walk(start, onerror=_raised):
                here = Path(folder)
                entered.add(_identity(here))
                below = [here / name for name in sorted(names, key=natural_order) if not _ignored((name,))]
                links += [path for path in below if path.is_symlink()]
                names[:] = [path.name for path in below if not path.is_symlink() and _identity(path) not in entered]
                yield from (here / name for name in files if not _ignored((name,)))
        waiting = links


def _raised(error: OSError) -> None:
    """A folder that cannot be read is no empty one."""
    raise error


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _ignored(parts: Sequence[str]) -> bool:
    """Hidden, or what macOS puts into archives."""
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)


def _chosen(found: Mapping[tuple[str, ...], Path | str], root: Path) -> list[tuple[str, ...]]:
    """The images among files, sorted by path."""
    suffixes = {parts: Path(parts[-1]).suffix.lower() for parts in found}
    images = sorted(
        parts
        for parts, suffix in suffixes.items()
        if suffix in SUFFIXES and (isinstance(path := found[parts], str) or path.is_file())
    )
    others = sorted(parts for parts, suffix in suffixes.items() if suffix in OTHER_SUFFIXES)
    passed = f"{len(others)} files ({'/'.join(others[0])} first) of kinds that are not read" if others else ""
    if not images:
        also = f"; there are {passed}: convert them to PNG" if passed else ""
        raise FileNotFoundError(f"no images in {root} or below it (looked for {', '.join(SUFFIXES)}){also}.")
    if passed:
        warnings.warn(f"{passed} are passed over in {root}: convert them to PNG.", ImageWarning, stacklevel=4)
    return images


def _below_common_folder(members: Mapping[tuple[str, ...], str]) -> dict[tuple[str, ...], str]:
    found = dict(members)
    while found and len({parts[0] for parts in found}) == 1 and all(len(parts) > 1 for parts in found):
        found = {parts[1:]: name for parts, name in found.items()}
    return found


# -- dataset.json ------------------------------------------------------------------------------------------------------


def _listing_of(archive: Archive, member: str) -> str:
    import zipfile

    try:
        if archive.members[member] > LISTING_BYTES:
            raise ValueError(f"it is larger than {LISTING_BYTES // 1024**2} MiB")
        return ZippedImage(archive, member).read().decode("utf-8")
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, NotImplementedError) as error:
        raise ValueError(f"{archive.path}:{member} cannot be read: {error}. Copy the archive again.") from error


def _read_listing(file: Path) -> str:
    from psld.files import read_text

    return read_text(file, LISTING_BYTES)


def _listed_labels(text: str, known: Sequence[tuple[str, ...]], where: str) -> list[int] | None:
    """The label of each file; None where the listing says null.

    Raises:
        ValueError: it is not a listing, a file has no label, or labels are neither whole numbers nor one-hot.
    """
    labels = parse_json(text, where).get("labels")
    if labels is None:
        return None
    if not isinstance(labels, list) or not all(
        isinstance(row, list) and len(row) == 2 and isinstance(row[0], str) for row in labels
    ):
        raise ValueError(f'{where}: "labels" must be null or a list of [file, label].')
    label_of = {tuple(re.split(r"[/\\]", name)): _label(label, f"{where}: {name}") for name, label in labels}
    missing = [parts for parts in known if parts not in label_of]
    if missing:
        raise ValueError(
            f"{where} gives no label to {len(missing)} of {len(known)} images, {'/'.join(missing[0])} first: add "
            f'them, or write "labels": null.'
        )
    return [label_of[parts] for parts in known]


def _label(label: Any, where: str) -> int:
    if type(label) is int and label >= 0:
        return label
    if isinstance(label, list) and sorted(map(str, label))[-1:] in (["1"], ["1.0"]):
        ones = [position for position, value in enumerate(label) if value == 1]
        if len(ones) == 1 and all(value in (0, 1) for value in label):
            return ones[0]
    raise ValueError(f"{where} has label {str(label)[:60]}: labels are whole numbers ≥ 0, or lists with a single 1.")
