"""Image data sets of the `datasets` library: saved to disk, as Parquet files, or on the hub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import UInt8
from torch import Tensor

from psld.data.decoding import MODES, Framing, Notes, Resample, decode, read_header, require_background
from psld.data.folders import labels_by_name, require_classes
from psld.data.pixels import PixelData

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["HuggingFace", "holds_dataset"]

HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


class FoundTable(NamedTuple):
    """What is found in a table of images.

    Attributes:
        source: where it is.
        image_column: the first column of images.
        label_column: the first column of classes, or one that is called so; None for none.
        sizes: every (height, width) that an image has.
    """

    source: str | Path
    image_column: str
    label_column: str | None
    sizes: set[tuple[int, int]]


def holds_dataset(folder: Path) -> bool:
    """Whether `save_to_disk` wrote the folder, or it holds .parquet files."""
    saved = any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))
    return saved or any(folder.rglob("*.parquet"))


class HuggingFace(PixelData):
    """A column of images, scaled from 0 … 255 to [−1, 1]; needs `psld[datasets]`.

    The encoded bytes are taken from the table as they are and decoded here, in every worker at once: the library's own
    torch format is many times slower. The header of every image is read at construction. No code of a data set is run.

    Args:
        source: a folder that `save_to_disk` wrote; a .parquet file, or a folder with some, of which those are used
            that are named after the split or lie in a folder of its name; or, if nothing of that name is on disk, the
            name of a data set on the hub, "owner/name".
        image_size: height and width that every image must have; one number for a square, or two.
        split: which split; a single table without splits is used whole.
        image_column: the column of images.
        label_column: the column of whole numbers ≥ 0, or of names, that are classes; None for no labels.
        config: of a hub data set that has several.
        revision: of a hub data set: a commit, so that it is the same data next year.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA).
        flip: mirror images are items too, as for ImageFolder.
        resize: take the largest centred box and make it smaller, as for ImageFolder.
        resample: the filter of `resize`.
        background: behind transparent pixels, as for ImageFolder.
        classes: the names of the labels. Of labels that are names, None: all there are, in natural order; of others,
            those that the table knows.

    Warns:
        ImageWarning: what is done to images so that they fit, as for ImageFolder.

    Raises:
        ModuleNotFoundError: `datasets` is not installed.
        FileNotFoundError: nothing of that name on disk or on the hub.
        ValueError: an unknown split or column, a column that holds no images, no whole numbers, or an image that does
            not fit (see ImageFolder).
    """

    def __init__(
        self,
        source: str | Path,
        image_size: int | tuple[int, int],
        split: str = "train",
        image_column: str = "image",
        label_column: str | None = None,
        config: str | None = None,
        revision: str | None = None,
        channels: int = 3,
        flip: bool = False,
        resize: bool = False,
        resample: Resample = "bilinear",
        background: str = "white",
        classes: Sequence[str] | None = None,
    ):
        if channels not in MODES:
            raise ValueError(f"channels must be 1 (grey), 3 (RGB) or 4 (RGBA): got {channels}.")
        require_classes(classes)
        self.background = require_background(background)
        self.framing = Framing(image_size, "center" if resize else "none", resample)
        self.name, self.column = f"{source}[{split}]", image_column
        table = _table(source, split, config, revision)
        labels, names = _labels(table, label_column, self.name, classes)
        self.table = _encoded(table, image_column, self.name)
        shape = channels, self.framing.height, self.framing.width
        super().__init__(len(self.table), shape, flip, labels, names)
        if "classes" in self._recorded:  # not of a subclass with arguments of its own
            self._recorded["classes"] = list(names) or None  # the map that was found goes into config.yaml
        notes = Notes(channels, background)
        for position in range(len(self.table)):
            name = self._name(position)
            header = read_header(_source(self.table[position][image_column], name), name)
            self.framing.require_fit(header.width, header.height, name)
            notes.add(header, name)
        notes.say(len(self.table))

    @classmethod
    def found(cls, source: str | Path, split: str = "train") -> FoundTable:
        """What a table has that must be named to open it.

        Args:
            source: as for the class.
            split: as for the class.

        Raises:
            ModuleNotFoundError, FileNotFoundError: as for the class.
            ValueError: no column of images, or a broken image.
        """
        from datasets import ClassLabel, Image

        table, name = _table(source, split, None, None), f"{source}[{split}]"
        images = [column for column, feature in table.features.items() if isinstance(feature, Image)]
        if not images:
            raise ValueError(f"{name} has no column of images. It has: {', '.join(table.column_names)}.")
        classes = [column for column, feature in table.features.items() if isinstance(feature, ClassLabel)]
        named = [column for column in ("label", "labels") if column in table.column_names]
        cells = _encoded(table, images[0], name)[images[0]]
        headers = [read_header(_source(cell, name), f"row {row} of {name}") for row, cell in enumerate(cells)]
        sizes = {(header.height, header.width) for header in headers}
        return FoundTable(source, images[0], next(iter([*classes, *named]), None), sizes)

    def pixels(self, position: int) -> UInt8[Tensor, "C H W"]:
        """Image `position`, decoded and framed: not mirrored, not scaled.

        Raises:
            ValueError: it is broken.
        """
        return self._gathered([position])[0]

    def _gathered(self, positions: list[int]) -> UInt8[Tensor, "B C H W"]:
        cells = self.table[positions][self.column]
        names = [self._name(position) for position in positions]
        channels, framing, background = self.image_shape[0], self.framing, self.background
        named = zip(cells, names, strict=True)
        return torch.stack([decode(_source(cell, name), name, channels, framing, background) for cell, name in named])

    def _name(self, position: int) -> str:
        return f"row {position} of {self.name}"


def _table(source: str | Path, split: str, config: str | None, revision: str | None) -> Dataset:
    try:
        from datasets import Dataset, DatasetDict, load_dataset, load_from_disk
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the library `datasets` is not installed, which reads Hugging Face data sets: pip install 'psld[datasets]'."
        ) from error
    path = Path(source)
    if path.is_dir() and any((path / name).is_file() for name in ("dataset_dict.json", "state.json")):
        found = load_from_disk(str(path))
        if isinstance(found, DatasetDict):
            if split not in found:
                raise ValueError(f"{path} has no split {split!r}. It has: {', '.join(map(str, found))}.")
            return found[split]
        return found
    if path.exists():
        table = Dataset.from_parquet([str(file) for file in _parquet_files(path, split)])
        assert isinstance(table, Dataset)
        return table
    if not HUB_NAME.fullmatch(str(source)) or path.suffix == ".parquet":
        raise FileNotFoundError(f"no folder or file {source}, and it is not the name of a data set on the hub.")
    try:
        return load_dataset(str(source), name=config, split=split, revision=revision)
    except (FileNotFoundError, ConnectionError) as error:
        raise FileNotFoundError(f"no folder {source} here, and the hub did not give it: {error}") from error


def _parquet_files(path: Path, split: str) -> list[Path]:
    if path.is_file():
        if path.suffix != ".parquet":
            raise ValueError(f"{path} is not a .parquet file: give one, or a folder.")
        return [path]
    files = sorted(path.rglob("*.parquet"))
    if not files:
        raise FileNotFoundError(f"no data set in {path}: neither what save_to_disk writes nor .parquet files.")
    named = re.compile(rf"{re.escape(split)}([-_.].*)?\.parquet")
    chosen = [file for file in files if named.fullmatch(file.name) or split in file.relative_to(path).parent.parts]
    if not chosen:
        raise ValueError(
            f"{path} has no Parquet file of split {split!r}. It has: {', '.join(file.name for file in files[:5])}"
            f"{' …' if len(files) > 5 else ''}."
        )
    return chosen


def _encoded(table: Dataset, column: str, name: str) -> Dataset:
    """The table of the images alone, its cells left encoded."""
    from datasets import Image, Value

    feature = _feature(table, column, "image_column", name)
    if isinstance(feature, Image):
        table = table.cast_column(column, Image(decode=False))
    elif not (isinstance(feature, dict) and "bytes" in feature) and feature != Value("binary"):
        raise ValueError(f"column {column!r} of {name} holds {feature}, not encoded images.")
    return table.select_columns([column]).with_format(None)


def _labels(
    table: Dataset, column: str | None, name: str, classes: Sequence[str] | None
) -> tuple[list[int] | None, list[str]]:
    if column is None:
        return None, []
    feature = _feature(table, column, "label_column", name)
    labels = list(table.with_format(None)[column])
    if all(isinstance(label, list) and len(label) == 1 for label in labels):
        labels = [label[0] for label in labels]
    if all(isinstance(label, str) for label in labels):
        return labels_by_name(labels, classes, f"column {column!r} of {name}")
    if not all(type(label) is int and label >= 0 for label in labels):
        raise ValueError(
            f"column {column!r} of {name} must hold names or whole numbers ≥ 0 as labels: it is {feature}."
        )
    names = list(classes if classes is not None else getattr(feature, "names", None) or [])
    if names and labels and max(labels) >= len(names):
        raise ValueError(f"column {column!r} of {name} has a label {max(labels)}, and there are {len(names)} classes.")
    return labels, names


def _feature(table: Dataset, column: str, argument: str, name: str) -> Any:
    if column not in table.column_names:
        raise ValueError(f"{argument}={column!r} is not a column of {name}. It has: {', '.join(table.column_names)}.")
    return table.features[column]


def _source(cell: Any, name: str) -> Path | bytes:
    """The encoded bytes of a cell, or the file that it names."""
    content = cell["bytes"] if isinstance(cell, dict) else cell
    if content is not None:
        return content
    if isinstance(cell, dict) and cell.get("path"):
        return Path(cell["path"])
    raise ValueError(f"{name} holds no image: remove or repair it.")
