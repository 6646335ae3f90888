"""Checkpoints: folders that are either whole or not there.

    RUN/checkpoints/step-00001000/
        model.safetensors        the weights
        model_ema.safetensors    their moving average
        state.pt                 optimizer, step, random states; read with weights_only=True, so it cannot run code
        config.yaml              what the run was started with

A checkpoint is written to a temporary folder beside its place, flushed to the disk, and renamed. A run killed at any
moment leaves its earlier checkpoints whole, and at most a temporary folder that the next write removes.
"""

from __future__ import annotations

import errno
import io
import os
import pickle
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "has_checkpoint",
    "latest_checkpoint",
    "load_weights",
    "read_checkpoint",
    "require_space",
    "write_checkpoint",
]

ONLINE, AVERAGED, STATE, CONFIG = "model.safetensors", "model_ema.safetensors", "state.pt", "config.yaml"
TEMPORARY = ".partial-"


class CheckpointError(RuntimeError):
    """A checkpoint is truncated, corrupt, unsafe or of another network; the message names the file."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        step: completed optimizer steps.
        weights, averages: state dicts of the network.
        state: whatever else is needed to continue: tensors, numbers, strings and containers of them.
        config_text: the configuration, as text.
    """

    step: int
    weights: Mapping[str, Tensor]
    averages: Mapping[str, Tensor]
    state: dict[str, Any]
    config_text: str = ""


# -- writing -----------------------------------------------------------------------------------------------------------


def write_checkpoint(run: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Writes RUN/checkpoints/step-…, then deletes all but the newest `keep`.

    Returns:
        The folder of the checkpoint.

    Raises:
        OSError: the disk is full or fails; nothing of this checkpoint is left, the earlier ones are as they were.
    """
    parent = run / "checkpoints"
    parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(parent)
    files = _serialised(checkpoint)
    require_space(parent, sum(len(content) for content in files.values()))
    target = parent / f"step-{checkpoint.step:08d}"
    partial = parent / f"{TEMPORARY}{target.name}"
    try:
        partial.mkdir()
        for name, content in files.items():
            _write_durably(partial / name, content)
        _flush_folder(partial)
        _discard(target)
        partial.rename(target)
        _flush_folder(parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # there is one only if something above failed
    for old in _steps(parent)[:-keep]:
        _discard(old)
    return target


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
    buffer = io.BytesIO()
    torch.save(checkpoint.state | {"step": checkpoint.step}, buffer)
    return {
        ONLINE: safetensors.torch.save(_plain(checkpoint.weights), metadata),
        AVERAGED: safetensors.torch.save(_plain(checkpoint.averages), metadata),
        STATE: buffer.getvalue(),
        CONFIG: checkpoint.config_text.encode(),
    }


def _plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Safetensors takes contiguous tensors that share no memory."""
    return {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}


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


def _remove_leftovers(parent: Path) -> None:
    for leftover in parent.glob(f"{TEMPORARY}*"):
        shutil.rmtree(leftover)


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
    if (path / ONLINE).is_file() or (path / AVERAGED).is_file():
        return path
    steps = _steps(path / "checkpoints") or _steps(path)
    return steps[-1] if steps else None


def _steps(parent: Path) -> list[Path]:
    """The checkpoints in a folder of checkpoints, oldest first."""
    numbered = [
        (folder.name.removeprefix("step-"), folder) for folder in parent.glob("step-*") if (folder / ONLINE).is_file()
    ]
    return [folder for _, folder in sorted((int(step), folder) for step, folder in numbered if step.isdecimal())]


# -- reading -----------------------------------------------------------------------------------------------------------


def read_checkpoint(folder: Path) -> Checkpoint:
    """All of a checkpoint, on the CPU.

    Raises:
        CheckpointError: a file is missing, truncated, corrupt, or would run code.
    """
    try:
        return _read(folder)
    except CheckpointError as error:
        raise CheckpointError(f"{error} {_fallback(folder)}") from error


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
    file = folder / (AVERAGED if weights == "ema" else ONLINE)
    if not file.is_file():
        raise FileNotFoundError(
            f"{folder} has no {file.name}: use weights={'online' if weights == 'ema' else 'ema'!r}."
        )
    try:
        state = _read_tensors(file)
    except CheckpointError as error:
        raise CheckpointError(f"{error} {_fallback(folder)}") from error
    _require_same_network(file, state, network)
    network.load_state_dict(state)
    return folder


def _read(folder: Path) -> Checkpoint:
    weights, averages = _read_tensors(folder / ONLINE), _read_tensors(folder / AVERAGED)
    state, config = _read_state(folder / STATE), folder / CONFIG
    text = config.read_text(encoding="utf-8") if config.is_file() else ""
    return Checkpoint(state.pop("step"), weights, averages, state, text)


def _read_tensors(file: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(file)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} is missing, truncated or corrupt ({error}).") from error


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


def _fallback(folder: Path) -> str:
    """Which older checkpoint can be read."""
    older = [other for other in _steps(folder.parent) if other.name < folder.name]
    for candidate in reversed(older):
        try:
            _read(candidate)
        except CheckpointError:
            continue
        return f"The older {candidate} is whole: delete {folder} to continue from it."
    return "There is no older checkpoint that is whole."


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
