"""Checkpoints: folders that are either whole or not there.

    RUN/checkpoints/step-00001000/
        model.safetensors        the weights
        model_ema.safetensors    their moving average
        state.pt                 optimizer, step, random states; read with weights_only=True, so it cannot run code
        config.yaml              what the run was started with

or in slices, where each of n processes wrote what it held (`psld.training.slices` says how), here of two:

        model-00001-of-00002.safetensors, model_ema-…, optimizer-…      weights, averages, Adam's moments: of the first
        model-00002-of-00002.safetensors, model_ema-…, optimizer-…      and of the second
        state.pt                                                        as above, without the moments
        config.yaml

A checkpoint is written to a temporary folder beside its place, flushed to the disk, and renamed. A run killed at any
moment leaves its earlier checkpoints whole, and at most a temporary folder that the next write removes.
"""

from __future__ import annotations

import errno
import io
import os
import pickle
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from torch import Tensor, nn

from psld.training.devices import own_part
from psld.training.slices import (
    CheckpointError,
    plain,
    read_tensors,
    serialised_slice,
    slice_name,
    tensor_files,
)

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "has_checkpoint",
    "latest_checkpoint",
    "load_weights",
    "read_checkpoint",
    "read_slices",
    "require_space",
    "weight_files",
    "write_checkpoint",
    "write_slices",
]

ONLINE, AVERAGED, STATE, CONFIG = "model.safetensors", "model_ema.safetensors", "state.pt", "config.yaml"
MOMENTS = "optimizer.safetensors"
"""Only in slices, under its numbered names; else the moments are in the state."""
TEMPORARY = ".partial-"


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        step: completed optimizer steps.
        weights, averages: state dicts of the network.
        state: whatever else is needed to continue: tensors, numbers, strings and containers of them.
        config_text: the configuration, as text.
        sliced: weights, averages and the optimizer's moments are what one process holds of them.
    """

    step: int
    weights: Mapping[str, Tensor]
    averages: Mapping[str, Tensor]
    state: dict[str, Any]
    config_text: str = ""
    sliced: bool = False


# -- writing -----------------------------------------------------------------------------------------------------------


def write_checkpoint(run: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Writes RUN/checkpoints/step-…, then deletes all but the newest `keep`.

    Returns:
        The folder of the checkpoint.

    Raises:
        OSError: the disk is full or fails; nothing of this checkpoint is left, the earlier ones are as they were.
    """
    target, partial = _places(run, checkpoint.step)
    _prepare(target.parent)
    files = _serialised(checkpoint)
    require_space(target.parent, sum(len(content) for content in files.values()))
    try:
        partial.mkdir()
        for name, content in files.items():
            _write_durably(partial / name, content)
        _put_in_place(partial, target, keep)
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # there is one only if something above failed
    return target


def write_slices(
    run: Path, checkpoint: Checkpoint, keep: int, rank: int, ranks: int, first_problem: Callable[[str], str]
) -> Path:
    """As `write_checkpoint`, where every process writes what it holds. All of them must call it.

    Args:
        run: its folder.
        checkpoint: tensors in slices are written as such, others by every process.
        keep: how many of the newest stay.
        rank: of this process, counted from 0.
        ranks: how many processes there are.
        first_problem: given what went wrong here, or "", returns one thing that went wrong on any process, to all.

    Raises:
        OSError: on every process, as soon as one could not write; otherwise as there.
    """
    target, partial = _places(run, checkpoint.step)
    first = rank == 0
    with _failing_together(first_problem):
        if first:
            _prepare(target.parent)
    try:
        with _failing_together(first_problem):
            partial.mkdir(parents=True, exist_ok=True)
            _write_own_slices(partial, checkpoint, rank, ranks)
        with _failing_together(first_problem):
            if first:
                _put_in_place(partial, target, keep)
    finally:
        if first:
            shutil.rmtree(partial, ignore_errors=True)
    return target


def _write_own_slices(partial: Path, checkpoint: Checkpoint, rank: int, ranks: int) -> None:
    optimizer = checkpoint.state["optimizer"]
    named = {ONLINE: checkpoint.weights, AVERAGED: checkpoint.averages, MOMENTS: _flat(optimizer["state"])}
    require_space(partial, sum(own_part(tensor).nbytes for tensors in named.values() for tensor in tensors.values()))
    for name, tensors in named.items():
        content = serialised_slice(tensors, {"step": str(checkpoint.step)})
        _write_durably(partial / slice_name(name, rank, ranks), content)
    if rank == 0:
        rest = replace(checkpoint, state=checkpoint.state | {"optimizer": optimizer | {"state": {}}})
        for name, content in _serialised_state(rest).items():
            _write_durably(partial / name, content)
    _flush_folder(partial)


@contextmanager
def _failing_together(first_problem: Callable[[str], str]) -> Iterator[None]:
    """Waits for the other processes, and raises OSError if one of them, or this one, could not do what is inside."""
    own = None
    try:
        yield
    except OSError as error:
        own = error
    problem = first_problem("" if own is None else str(own))
    if own is not None:
        raise own
    if problem:
        raise OSError(f"another process could not write its part of a checkpoint: {problem}")


def _places(run: Path, step: int) -> tuple[Path, Path]:
    """The folder of a checkpoint, and where it is written first."""
    target = run / "checkpoints" / f"step-{step:08d}"
    return target, target.with_name(f"{TEMPORARY}{target.name}")


def _prepare(parent: Path) -> None:
    """The folder of the checkpoints, without what a killed write left."""
    parent.mkdir(parents=True, exist_ok=True)
    for leftover in parent.glob(f"{TEMPORARY}*"):
        shutil.rmtree(leftover)


def _put_in_place(partial: Path, target: Path, keep: int) -> None:
    """A complete folder gets its name, and only the newest `keep` stay."""
    _flush_folder(partial)
    _discard(target)
    partial.rename(target)
    _flush_folder(target.parent)
    for old in _steps(target.parent)[:-keep]:
        _discard(old)


def require_space(folder: Path, size: int) -> None:
    """Refuses to start what would not fit.

    Args:
        folder: where it will be written; need not exist yet.
        size: bytes.

    Raises:
        OSError: (ENOSPC) the file system has less space than that.
    """
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < size:
        space = f"a checkpoint takes {size / 1e6:.1f} MB, {existing} has {free / 1e6:.1f} MB free"
        raise OSError(errno.ENOSPC, f"{space}: free some, or choose a folder on another disk")


def _serialised(checkpoint: Checkpoint) -> dict[str, bytes]:
    metadata = {"step": str(checkpoint.step)}
    weights, averages = (
        {name: plain(tensor) for name, tensor in state.items()} for state in (checkpoint.weights, checkpoint.averages)
    )
    return {
        ONLINE: safetensors.torch.save(weights, metadata),
        AVERAGED: safetensors.torch.save(averages, metadata),
        **_serialised_state(checkpoint),
    }


def _serialised_state(checkpoint: Checkpoint) -> dict[str, bytes]:
    buffer = io.BytesIO()
    torch.save(checkpoint.state | {"step": checkpoint.step}, buffer)
    return {STATE: buffer.getvalue(), CONFIG: checkpoint.config_text.encode()}


def _flat(moments: Mapping[int, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """{3: {"exp_avg": …}} → {"3.exp_avg": …}; `_nested` is the way back."""
    return {f"{index}.{name}": tensor for index, entries in moments.items() for name, tensor in entries.items()}


def _nested(moments: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    nested: dict[int, dict[str, Tensor]] = {}
    for key, tensor in moments.items():
        index, name = key.split(".", 1)
        nested.setdefault(int(index), {})[name] = tensor
    return dict(sorted(nested.items()))


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _discard(folder: Path) -> None:
    """Deletes a checkpoint; renamed first, so that a kill half-way leaves a temporary and not half a checkpoint."""
    if folder.exists():
        doomed = folder.with_name(f"{TEMPORARY}old-{folder.name}")
        folder.rename(doomed)
        shutil.rmtree(doomed)


# -- finding -----------------------------------------------------------------------------------------------------------


def latest_checkpoint(path: str | Path) -> Path:
    """The newest checkpoint of a run, or the folder itself if it holds weights.

    Args:
        path: the folder of a run, of its checkpoints, of one checkpoint, or of exported weights.

    Raises:
        FileNotFoundError: there is none; the message lists the runs beside it that have one.
    """
    path = Path(path)
    found = _checkpoint_in(path)
    if found is not None:
        return found
    neighbours = sorted(path.parent.iterdir()) if path.parent.is_dir() else []
    runs = [
        str(folder) for folder in neighbours if not folder.name.startswith(".") and _checkpoint_in(folder) is not None
    ]
    hint = (
        f"Runs with one: {', '.join(runs[:10])}{', …' if len(runs) > 10 else ''}."
        if runs
        else "No run beside it has one."
    )
    raise FileNotFoundError(f"no checkpoint in {path} (looked for {ONLINE} and {AVERAGED}). {hint}")


def has_checkpoint(path: str | Path) -> bool:
    """Whether `latest_checkpoint` would find one."""
    return _checkpoint_in(Path(path)) is not None


def _checkpoint_in(path: Path) -> Path | None:
    if tensor_files(path, ONLINE) or tensor_files(path, AVERAGED):
        return path
    steps = _steps(path / "checkpoints") or _steps(path)
    return steps[-1] if steps else None


def _steps(parent: Path) -> list[Path]:
    """The checkpoints in a folder of checkpoints, oldest first."""
    numbered = [
        (folder.name.removeprefix("step-"), folder) for folder in parent.glob("step-*") if tensor_files(folder, ONLINE)
    ]
    return [folder for _, folder in sorted((int(step), folder) for step, folder in numbered if step.isdecimal())]


# -- reading -----------------------------------------------------------------------------------------------------------


def read_checkpoint(folder: Path) -> Checkpoint:
    """All of a checkpoint, on the CPU. One in slices is put together.

    Raises:
        CheckpointError: a file is missing, truncated, corrupt, or would run code.
    """
    with _naming_a_fallback(folder):
        return _read(folder)


def read_slices(folder: Path, rank: int, ranks: int) -> Checkpoint | None:
    """What one process wrote of a checkpoint in slices, on the CPU; None of one that is whole.

    Args:
        folder: of the checkpoint.
        rank: of the process, counted from 0.
        ranks: how many there are.

    Raises:
        CheckpointError: a file of any process is missing, or one of this process is truncated, corrupt, or unsafe.
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
            own.append(read_tensors([files[rank]]))
        return _with_state(folder, *own, sliced=True)


def _require_all(files: list[Path]) -> None:
    """All processes find the same file missing, whoever wrote it."""
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise CheckpointError(f"{missing[0]} is missing.")


def weight_files(folder: Path, weights: Literal["ema", "online"]) -> list[Path]:
    """The files of a checkpoint that hold the averages, or the weights: one, or all of the slices; [] if none does."""
    return tensor_files(folder, AVERAGED if weights == "ema" else ONLINE)


def load_weights(path: str | Path, network: nn.Module, weights: Literal["ema", "online"] = "ema") -> Path:
    """Loads trained weights into a network, in place.

    Args:
        path: as for `latest_checkpoint`.
        network: of the same kind as the trained one.
        weights: the moving average, or the weights themselves.

    Returns:
        The folder they were read from.

    Raises:
        FileNotFoundError: no checkpoint, or none with such weights.
        CheckpointError: the file is truncated or corrupt, or of another network.
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
    if moments is not None:
        state["optimizer"]["state"] = _nested(moments)
    text = config.read_text(encoding="utf-8") if config.is_file() else ""
    return Checkpoint(state.pop("step"), weights, averages, state, text, sliced)


def _is_sliced(folder: Path) -> bool:
    return _files(folder, ONLINE) != [folder / ONLINE]


def _files(folder: Path, name: str) -> list[Path]:
    """Those that are there, or the one that should be."""
    return tensor_files(folder, name) or [folder / name]


def _read_state(file: Path) -> dict[str, Any]:
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{file} is corrupt, or holds objects that would run code, and was not loaded."
        ) from error
    except (RuntimeError, EOFError, OSError, KeyError, ValueError) as error:
        raise CheckpointError(f"{file} is missing, truncated or corrupt ({error}).") from error
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
    older = [other for other in _steps(folder.parent) if other.name < folder.name]
    for candidate in reversed(older):
        try:
            _require_readable(candidate)
        except CheckpointError:
            continue
        return f"The older {candidate} is whole: delete {folder} to continue from it."
    return "There is no older checkpoint that is whole."


def _require_readable(folder: Path) -> None:
    """Opens every file of a checkpoint, one after the other."""
    for name in (ONLINE, AVERAGED, MOMENTS) if _is_sliced(folder) else (ONLINE, AVERAGED):
        for file in _files(folder, name):
            read_tensors([file])
    _read_state(folder / STATE)


def _require_same_network(file: Path, state: Mapping[str, Tensor], network: nn.Module) -> None:
    own = network.state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    expected = {name: tuple(tensor.shape) for name, tensor in own.items()}
    different = [name for name in sorted(shapes | expected) if shapes.get(name) != expected.get(name)]
    if different:
        name = different[0]
        raise CheckpointError(
            f"{file} is of another network: {len(different)} of {len(expected)} tensors differ. First: "
            f"{name} is {shapes.get(name, 'missing')} in the file, {expected.get(name, 'missing')} here."
        )
