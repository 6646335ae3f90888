"""Reading a checkpoint, and saying what is wrong with it (`psld.training.checkpoint` says what is in one)."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from psld.files.hashes import SUMS, ChangedFileError, UncheckedFilesWarning, read_sums, require_unchanged
from psld.files.reading import CONFIGURATION_BYTES, UnreadableFileError, read_text
from psld.files.tensors import read_torch
from psld.training.checkpoint import (
    AVERAGED,
    CONFIG,
    MOMENTS,
    ONLINE,
    STATE,
    Checkpoint,
    checkpoints_in,
    latest_checkpoint,
    weight_files,
)
from psld.training.slices import CheckpointError, read_tensors, slice_name, tensor_files

__all__ = ["load_weights", "read_checkpoint", "read_slices"]


def read_checkpoint(folder: Path) -> Checkpoint:
    """All of a checkpoint, on the CPU. One in slices is put together.

    Every file is compared with SHA256SUMS. A checkpoint without, of an older version or put together by hand, is read
    with a warning.

    Raises:
        CheckpointError: a file has changed, is missing, truncated or corrupt, or would run code.
    """
    with _naming_a_fallback(folder):
        if not _require_unchanged(folder, {*_names(folder), *_listed(folder)}):
            _warn_unchecked(folder)
        return _read(folder)


def read_slices(folder: Path, rank: int, ranks: int) -> Checkpoint | None:
    """What one process wrote of a checkpoint in slices, on the CPU; None of one that is whole.

    Args:
        folder: of the checkpoint.
        rank: of the process, counted from 0.
        ranks: how many there are.

    Raises:
        CheckpointError: a file of any process is missing, or one of this process has changed or is unsafe.
        ValueError: another number of processes wrote it.
    """
    if not _is_sliced(folder):
        return None
    written = len(tensor_files(folder, ONLINE))
    if written != ranks:
        raise ValueError(
            f"the run was started with devices={written}, not {ranks}: resume with that ({folder} is in slices)."
        )
    with _naming_a_fallback(folder):
        own = []
        for name in (ONLINE, AVERAGED, MOMENTS):
            files = [folder / slice_name(name, writer, ranks) for writer in range(ranks)]
            _require_all(files)
            own.append(files[rank])
        if not _require_unchanged(folder, {*(file.name for file in own), STATE, CONFIG}) and rank == 0:
            _warn_unchecked(folder)
        own = [read_tensors([file]) for file in own]
        return _with_state(folder, *own, sliced=True)


def _require_all(files: list[Path]) -> None:
    """All processes find the same file missing, whoever wrote it."""
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise CheckpointError(f"{missing[0]} is missing.")


def load_weights(path: str | Path, network: nn.Module, weights: Literal["ema", "online"] = "ema") -> Path:
    """Loads trained weights into a network, in place.

    Where there is SHA256SUMS, the weights and config.yaml, which the network was made from, are compared with it.

    Args:
        path: as for `latest_checkpoint`.
        network: of the same kind as the trained one.
        weights: the moving average, or the weights themselves.

    Returns:
        The folder they were read from.

    Raises:
        FileNotFoundError: no checkpoint, or none with such weights.
        CheckpointError: the file has changed, is truncated or corrupt, or of another network.
        ValueError: `weights` is neither.
    """
    if weights not in ("ema", "online"):
        raise ValueError(f"weights must be 'ema' or 'online': got {weights!r}.")
    folder = latest_checkpoint(path)
    files = weight_files(folder, weights)
    if not files:
        raise FileNotFoundError(
            f"{folder} has no {AVERAGED if weights == 'ema' else ONLINE}: "
            f"use weights={'online' if weights == 'ema' else 'ema'!r}."
        )
    with _naming_a_fallback(folder):
        _require_unchanged(folder, {CONFIG} & _listed(folder) | {file.name for file in files})
        state = read_tensors(files)
    _require_same_network(files[0], state, network)
    network.load_state_dict(state)
    return folder


def _read(folder: Path) -> Checkpoint:
    weights, averages = (read_tensors(_files(folder, name)) for name in (ONLINE, AVERAGED))
    moments = read_tensors(_files(folder, MOMENTS)) if _is_sliced(folder) else None
    return _with_state(folder, weights, averages, moments)


def _with_state(
    folder: Path,
    weights: Mapping[str, Tensor],
    averages: Mapping[str, Tensor],
    moments: Mapping[str, Tensor] | None,
    sliced: bool = False,
) -> Checkpoint:
    state, config = _read_state(folder / STATE), folder / CONFIG
    if _described(weights) != _described(averages):
        raise CheckpointError(f"{folder} holds weights of one network and averages of another.")
    if moments is not None:
        state["optimizer"]["state"] = _nested(moments)
    try:
        text = read_text(config, CONFIGURATION_BYTES) if config.exists() else ""
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    return Checkpoint(state.pop("step"), weights, averages, state, text, sliced)


def _is_sliced(folder: Path) -> bool:
    return _files(folder, ONLINE) != [folder / ONLINE]


def _files(folder: Path, name: str) -> list[Path]:
    """Those that are there, or the one that should be."""
    return tensor_files(folder, name) or [folder / name]


def _read_state(file: Path) -> dict[str, Any]:
    try:
        state = read_torch(file)
    except (OSError, UnreadableFileError) as error:
        raise CheckpointError(str(error)) from error
    if not isinstance(state, dict) or not isinstance(state.get("step"), int):
        raise CheckpointError(f"{file} is not the state of a training run.")
    return state


@contextmanager
def _naming_a_fallback(folder: Path) -> Iterator[None]:
    """Says in a CheckpointError which older checkpoint can be read."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{error} {_fallback(folder)}") from error


def _fallback(folder: Path) -> str:
    older = [other for other in checkpoints_in(folder.parent) if other.name < folder.name]
    for candidate in reversed(older):
        try:
            _require_readable(candidate)
        except CheckpointError:
            continue
        return f"The older {candidate} is whole: delete {folder} to continue from it."
    return "There is no older checkpoint that is whole."


def _require_readable(folder: Path) -> None:
    """Opens every file of a checkpoint, one after the other."""
    _require_unchanged(folder, {*_names(folder), *_listed(folder)})
    for name in _names(folder):
        if name not in (STATE, CONFIG):
            read_tensors([folder / name])
    _read_state(folder / STATE)


def _names(folder: Path) -> list[str]:
    """The files that a checkpoint needs to be whole; of older ones config.yaml may be missing."""
    sets = (ONLINE, AVERAGED, MOMENTS) if _is_sliced(folder) else (ONLINE, AVERAGED)
    return [file.name for name in sets for file in _files(folder, name)] + [STATE]


def _listed(folder: Path) -> set[str]:
    """The files that SHA256SUMS names; none without it."""
    try:
        return set(read_sums(folder))
    except ChangedFileError as error:
        raise CheckpointError(str(error)) from error


def _require_unchanged(folder: Path, names: Iterable[str]) -> bool:
    """As psld.files.require_unchanged, of a checkpoint."""
    try:
        return require_unchanged(folder, sorted(names))
    except ChangedFileError as error:
        raise CheckpointError(str(error)) from error


def _warn_unchecked(folder: Path) -> None:
    message = f"{folder} has no {SUMS}, so it cannot be seen whether its files are what was written."
    warnings.warn(message, UncheckedFilesWarning, stacklevel=4)


def _described(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    return {name: f"{tuple(t.shape)} {str(t.dtype).removeprefix('torch.')}" for name, t in tensors.items()}


def _require_same_network(file: Path, state: Mapping[str, Tensor], network: nn.Module) -> None:
    found, expected = _described(state), _described(network.state_dict())
    different = [name for name in sorted(found | expected) if found.get(name) != expected.get(name)]
    if different:
        name = different[0]
        raise CheckpointError(
            f"{file} is of another network: {len(different)} of {len(expected)} tensors differ. First: "
            f"{name} is {found.get(name, 'missing')} in the file, {expected.get(name, 'missing')} here."
        )


def _nested(moments: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    nested: dict[int, dict[str, Tensor]] = {}
    for key, tensor in moments.items():
        index, name = key.split(".", 1)
        nested.setdefault(int(index), {})[name] = tensor
    return dict(sorted(nested.items()))
