"""Writing a checkpoint: whole, or not at all (`psld.training.checkpoint` says what is in one)."""

from __future__ import annotations

import errno
import io
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from psld.distributed import own_part
from psld.training.checkpoint import AVERAGED, CONFIG, MOMENTS, ONLINE, STATE, Checkpoint, checkpoints_in
from psld.training.slices import plain, serialised_slice, slice_name

__all__ = ["require_space", "write_checkpoint", "write_slices"]

TEMPORARY = ".partial-"


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
    for old in checkpoints_in(target.parent)[:-keep]:
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
    """{3: {"exp_avg": …}} → {"3.exp_avg": …}; reading goes back."""
    return {f"{index}.{name}": tensor for index, entries in moments.items() for name, tensor in entries.items()}


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
