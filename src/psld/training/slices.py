"""Tensors in slices: each of n processes has its own part of every tensor in a file of its own.

    model-00001-of-00002.safetensors, model-00002-of-00002.safetensors

Every file names every tensor and holds the process's slice along dimension 0, as torch's fully_shard cuts it (chunks of
equal size, the last ones shorter or empty). The metadata hold the shapes of the whole tensors: the slices, one after
the other, make up the whole, and a tensor that has its whole shape in the first file (a buffer, Adam's count of steps)
is that one. This is not the split by names that other libraries write under such file names; there is no index file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from psld.distributed import own_part
from psld.files.reading import UnreadableFileError, parse_json, said
from psld.files.tensors import read_metadata, read_safetensors

__all__ = ["CheckpointError", "plain", "read_tensors", "serialised_slice", "slice_name", "tensor_files"]

MOST = 10_000
"""Slices of one checkpoint; a name can claim any number, and each is looked for."""

LAYOUT = "slices along dimension 0, one file a process"


class CheckpointError(RuntimeError):
    """A checkpoint is truncated, corrupt, unsafe or of another network; the message names the file."""


def slice_name(name: str, rank: int, ranks: int) -> str:
    """model.safetensors → model-00001-of-00002.safetensors, ranks counted from 0."""
    path = Path(name)
    return f"{path.stem}-{rank + 1:05d}-of-{ranks:05d}{path.suffix}"


def tensor_files(folder: Path, name: str) -> list[Path]:
    """The file of that name, or all the files that its slices must be in, or none if there is neither.

    As soon as one slice is there all are named, so that reading says which is missing.
    """
    if (folder / name).is_file():
        return [folder / name]
    path = Path(name)
    numbered = re.compile(rf"{re.escape(path.stem)}-\d{{5}}-of-(\d{{5}}){re.escape(path.suffix)}")
    counts = {int(found[1]) for file in folder.glob(f"{path.stem}-*") if (found := numbered.fullmatch(file.name))}
    ranks = max((count for count in counts if count <= MOST), default=0)
    return [folder / slice_name(name, rank, ranks) for rank in range(ranks)]


def serialised_slice(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A file of what this process holds of some tensors; of those that are not cut, all."""
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    return safetensors.torch.save(
        {name: plain(own_part(tensor)) for name, tensor in tensors.items()},
        {**metadata, "layout": LAYOUT, "shapes": json.dumps(shapes, sort_keys=True)},
    )


def plain(tensor: Tensor) -> Tensor:
    """Safetensors takes contiguous tensors that share no memory."""
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def read_tensors(files: Sequence[Path]) -> dict[str, Tensor]:
    """The tensors of a file, or the whole tensors of all the files of slices, put together one after the other.

    Raises:
        CheckpointError: a file is missing, truncated or corrupt, or they are not slices of one checkpoint.
    """
    try:
        slices = [read_safetensors(file) for file in files]
        if len(slices) == 1:
            return slices[0]
        described = [read_metadata(file) for file in files]
    except FileNotFoundError as error:
        missing = next((file for file in files if not file.is_file()), files[0])
        raise CheckpointError(f"{missing} is missing.") from error
    except (OSError, UnreadableFileError) as error:
        raise CheckpointError(str(error)) from error
    for file, metadata in zip(files, described, strict=True):
        if "shapes" not in metadata or metadata != described[0]:
            raise CheckpointError(f"{file} and {files[0]} are not slices of one checkpoint: their metadata differ.")
    try:
        shapes = parse_json(described[0]["shapes"], f"the metadata of {files[0]}")
        return {name: _joined([held.pop(name) for held in slices], shape) for name, shape in shapes.items()}
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        wrong = f"{files[0]} and its other slices do not make up whole tensors"
        raise CheckpointError(f"{wrong} ({said(error)}).") from error


def _joined(parts: list[Tensor], shape: list[int]) -> Tensor:
    return parts[0] if list(parts[0].shape) == shape else torch.cat(parts)
