"""The folder of a run: whether it may be started, and how an old one gives way to a new one.

With `overwrite` the old folder is renamed aside and stays there until the new run has a checkpoint. Whatever ends the
new run before that, a kill included, the old one is put back: at once, or when the next run starts.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from psld.training.checkpoint import has_checkpoint, latest_checkpoint

__all__ = ["push_aside", "require_startable", "settle"]


def require_startable(run: Path, resume: bool, overwrite: bool) -> None:
    """Refuses what would lose data or cannot be continued. Writes nothing.

    Raises:
        FileExistsError: there is something in the folder, and neither resume nor overwrite; or overwrite would replace
            a folder that is not a run.
        FileNotFoundError: resume, and there is no checkpoint.
        ValueError: both resume and overwrite.
    """
    if resume and overwrite:
        raise ValueError("resume continues a run, overwrite replaces it: give one of them.")
    if resume:
        latest_checkpoint(run)
        return
    if not run.exists() or (run.is_dir() and not any(run.iterdir())):
        return
    begun = (run / "tensorboard").is_dir() or any(run.glob(".metrics.csv.*.partial"))  # killed as soon as it started
    looks_like_run = (run / "checkpoints").is_dir() or (run / "metrics.csv").is_file() or begun
    if not looks_like_run:
        raise FileExistsError(
            f"{run} exists and is not a training run (no checkpoints/, no metrics.csv): choose another folder."
        )
    if not overwrite:
        content = (
            f"its latest checkpoint is {latest_checkpoint(run).name}" if has_checkpoint(run) else "it has no checkpoint"
        )
        raise FileExistsError(
            f"{run} exists, {content}. Continue it with --resume, replace it with --overwrite (in Python resume=True "
            "and overwrite=True), or choose another folder."
        )


def push_aside(run: Path) -> None:
    """Renames the run to where `settle` finds it; nothing if there is no such folder."""
    if run.exists():
        run.rename(_aside(run))


def settle(run: Path) -> None:
    """Decides about a run that stands aside: deleted if the new one has a checkpoint, else put back in its place."""
    aside = _aside(run)
    if not aside.exists():
        return
    if has_checkpoint(run):
        shutil.rmtree(aside)
        return
    if run.exists():
        shutil.rmtree(run)
    aside.rename(run)


def _aside(run: Path) -> Path:
    return run.with_name(f".{run.name}.replaced")
