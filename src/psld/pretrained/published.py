"""The checkpoints that come with psld: small networks with their configuration and a card of measured numbers.

`make reproduce` trains, measures and writes them (benchmarks/reproduce.py).
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["published_checkpoint", "published_checkpoints", "with_place_for_results"]

FOLDER = Path(__file__).parent / "checkpoints"


def published_checkpoints() -> list[str]:
    """Their names, as `psld sample NAME` takes them."""
    return sorted(file.parent.name for file in FOLDER.glob("*/config.yaml"))


def published_checkpoint(path: str | Path) -> Path:
    """The folder of the published checkpoint of this name; the path itself where it exists or is no such name.

    A folder of the user's own with that name comes first.
    """
    return FOLDER / path if not Path(path).exists() and str(path) in published_checkpoints() else Path(path)


def with_place_for_results(path: str | Path, out: str | None) -> Path:
    """As `published_checkpoint`, for a command that writes beside the weights unless `out` says where.

    Raises:
        ValueError: a published checkpoint, and no `out`.
    """
    folder = published_checkpoint(path)
    if out is None and folder != Path(path):
        raise ValueError(f"{path} is part of psld, and results do not go there: give --out.")
    return folder
