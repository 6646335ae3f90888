"""A file a measurement, so that a benchmark goes on where it was stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from psld.files import atomic_file

__all__ = ["cell"]


def cell(folder: Path, name: str, measure: Callable[[], dict]) -> dict:
    """What is in the file of that name, measured where there is none."""
    path = folder / f"{name}.json"
    if not path.exists():
        print(f"measuring {name}", flush=True)
        result = measure()
        with atomic_file(path) as file:
            file.write(json.dumps(result).encode())
    return json.loads(path.read_text())
