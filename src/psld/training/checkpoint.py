"""Checkpoints: folders that are either whole or not there.

    RUN/checkpoints/step-00001000/
        model.safetensors        the weights
        model_ema.safetensors    their moving average
        state.pt                 optimizer, step, random states; read with weights_only=True, so it cannot run code
        config.yaml              what the run was started with
        SHA256SUMS               of these files, as `sha256sum --check` reads it

or in slices, where each of n processes wrote what it held (`psld.training.slices` says how), here of two:

        model-00001-of-00002.safetensors, model_ema-…, optimizer-…      weights, averages, Adam's moments: of the first
        model-00002-of-00002.safetensors, model_ema-…, optimizer-…      and of the second
        state.pt                                                        as above, without the moments
        config.yaml, SHA256SUMS

A checkpoint is written to a temporary folder beside its place, flushed to the disk, and renamed. A run killed at any
moment leaves its earlier checkpoints whole, and at most a temporary folder that the next write removes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from psld.training.slices import CheckpointError, tensor_files

__all__ = ["Checkpoint", "CheckpointError", "checkpoints_in", "has_checkpoint", "latest_checkpoint", "weight_files"]

ONLINE, AVERAGED, STATE, CONFIG = "model.safetensors", "model_ema.safetensors", "state.pt", "config.yaml"
MOMENTS = "optimizer.safetensors"
"""Only in slices, under its numbered names; else the moments are in the state."""


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
    steps = checkpoints_in(path / "checkpoints") or checkpoints_in(path)
    return steps[-1] if steps else None


def checkpoints_in(parent: Path) -> list[Path]:
    """The checkpoints in a folder of checkpoints, oldest first."""
    numbered = [
        (folder.name.removeprefix("step-"), folder) for folder in parent.glob("step-*") if tensor_files(folder, ONLINE)
    ]
    return [folder for _, folder in sorted((int(step), folder) for step, folder in numbered if step.isdecimal())]


def weight_files(folder: Path, weights: Literal["ema", "online"]) -> list[Path]:
    """The files of a checkpoint that hold the averages, or the weights: one, or all of the slices; [] if none does."""
    return tensor_files(folder, AVERAGED if weights == "ema" else ONLINE)
