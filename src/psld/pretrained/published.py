"""The checkpoints that come with psld: small networks with their configuration and a card of measured numbers.

`make reproduce` trains, measures and writes them (benchmarks/reproduce.py).
"""

from __future__ import annotations

import difflib
from pathlib import Path

__all__ = ["published_checkpoint", "published_checkpoints", "with_place_for_results"]

FOLDER = Path(__file__).parent / "checkpoints"


def published_checkpoints() -> list[str]:
    """Their names, as `psld sample NAME` takes them."""
    return sorted(file.parent.name for file in FOLDER.glob("*/config.yaml"))


def published_checkpoint(path: str | Path) -> Path:
    """The folder of the published checkpoint of this name; the path itself where it exists or is no such name.

    A folder of the user's own with that name comes first.

    Raises:
        FileNotFoundError: no path that exists, and nearly the name of a published checkpoint.
    """
    if Path(path).exists():
        return Path(path)
    known = published_checkpoints()
    if str(path) in known:
        return FOLDER / path
    if near := difflib.get_close_matches(str(path), known, n=2):
        raise FileNotFoundError(
            f"there is no folder {path}, and no published checkpoint of that name: did you mean {' or '.join(near)}?"
        )
    return Path(path)


def with_place_for_results(path: str | Path, out: str | None) -> Path:
    """As `published_checkpoint`, for a command that writes beside the weights unless `out` says where.

    Raises:
        ValueError: a published checkpoint, and no `out`.
    """
    folder = published_checkpoint(path)
    if out is None and folder != Path(path):
        raise ValueError(f"{path} is part of psld, and results do not go there: give --out.")
    return folder
