"""A file a measurement, so that a benchmark goes on where it was stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from psld.files import write_json

__all__ = ["cell"]


def cell(folder: Path, name: str, measure: Callable[[], dict]) -> dict:
    """What is in the file of that name, measured where there is none."""
    path = folder / f"{name}.json"
    if not path.exists():
        print(f"measuring {name}", flush=True)
        write_json(measure(), path)
    return json.loads(path.read_text(encoding="utf-8"))
