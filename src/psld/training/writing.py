"""Writing a checkpoint: whole, or not at all (`psld.training.checkpoint` says what is in one)."""

from __future__ import annotations

import errno
import io
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from psld.distributed import own_part
from psld.files.atomic import ROOM, DiskFullError, atomic_file, naming_full_disk, sync_folder
from psld.files.hashes import SUMS, joined_sums, sums_text
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
    with naming_full_disk(target):
        _prepare(target.parent)
        files = _serialised(checkpoint)
        require_space(target.parent, sum(len(content) for content in files.values()))
        try:
            partial.mkdir()
            _write_files(partial, files.items(), SUMS)
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
    with _failing_together(target, first_problem):
        if first:
            _prepare(target.parent)
    try:
        with _failing_together(target, first_problem):
            partial.mkdir(parents=True, exist_ok=True)
            _write_own_slices(partial, checkpoint, rank, ranks)
        with _failing_together(target, first_problem):
            if first:
                _join_sums(partial, ranks)
                _put_in_place(partial, target, keep)
    finally:
        if first:
            shutil.rmtree(partial, ignore_errors=True)
    return target


def _write_own_slices(partial: Path, checkpoint: Checkpoint, rank: int, ranks: int) -> None:
    moments = _flat(checkpoint.state["optimizer"]["state"])
    named = {ONLINE: checkpoint.weights, AVERAGED: checkpoint.averages, MOMENTS: moments}
    require_space(partial, sum(own_part(tensor).nbytes for tensors in named.values() for tensor in tensors.values()))
    _write_files(partial, _own_files(checkpoint, named, rank, ranks), slice_name(SUMS, rank, ranks))


def _own_files(
    checkpoint: Checkpoint, named: Mapping[str, Mapping[str, Tensor]], rank: int, ranks: int
) -> Iterator[tuple[str, bytes]]:
    """Names and contents, made one after the other so that only one is in memory."""
    for name, tensors in named.items():
        yield slice_name(name, rank, ranks), serialised_slice(tensors, {"step": str(checkpoint.step)})
    if rank == 0:
        optimizer = checkpoint.state["optimizer"] | {"state": {}}
        yield from _serialised_state(replace(checkpoint, state=checkpoint.state | {"optimizer": optimizer})).items()


def _write_files(partial: Path, files: Iterable[tuple[str, bytes]], sums: str) -> None:
    """Files and their hashes, which are of what was to be written and not of what the disk took."""
    hashes = {}
    for name, content in files:
        with atomic_file(partial / name) as file:
            file.write(content)
        hashes[name] = sha256(content).hexdigest()
    with atomic_file(partial / sums) as file:
        file.write(sums_text(hashes).encode())


def _join_sums(partial: Path, ranks: int) -> None:
    """One file of hashes instead of one of every process."""
    own = [partial / slice_name(SUMS, rank, ranks) for rank in range(ranks)]
    with atomic_file(partial / SUMS) as file:
        file.write(joined_sums(part.read_text(encoding="utf-8") for part in own).encode())
    for part in own:
        part.unlink()


@contextmanager
def _failing_together(target: Path, first_problem: Callable[[str], str]) -> Iterator[None]:
    """Waits for the other processes, and raises OSError if one of them, or this one, could not do what is inside."""
    own = None
    try:
        with naming_full_disk(target):
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
    if not parent.is_dir():
        parent.mkdir(parents=True)
        for folder in (parent.parent, parent.parent.parent):  # the names of the folder and of the run
            sync_folder(folder)
    for leftover in parent.glob(f"{TEMPORARY}*"):
        shutil.rmtree(leftover)


def _put_in_place(partial: Path, target: Path, keep: int) -> None:
    """A complete folder gets its name, and only the newest `keep` stay."""
    sync_folder(partial)
    _discard(target)
    partial.rename(target)
    sync_folder(target.parent)
    for old in checkpoints_in(target.parent)[:-keep]:
        _discard(old)


def require_space(folder: Path, size: int) -> None:
    """Refuses to start what would not fit.

    Args:
        folder: where it will be written; need not exist yet.
        size: bytes.

    Raises:
        DiskFullError: the file system has less space than that.
    """
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < size:
        space = f"it takes {size / 1e6:.1f} MB, {existing} has {free / 1e6:.1f} MB free"
        raise DiskFullError(errno.ENOSPC, f"a checkpoint cannot be written to {folder} ({space}): {ROOM}.")


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


def _discard(folder: Path) -> None:
    """Deletes a checkpoint; renamed first, so that a kill half-way leaves a temporary and not half a checkpoint."""
    if folder.exists():
        doomed = folder.with_name(f"{TEMPORARY}old-{folder.name}")
        folder.rename(doomed)
        shutil.rmtree(doomed)
