"""Files and folders that are whole or not there, and never written over by mistake."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

__all__ = ["atomic_file", "claim_folder", "require_new_folder", "write_json"]


@contextmanager
def atomic_file(path: str | Path) -> Iterator[IO[bytes]]:
    """A binary file to write, in the folder of `path` (made where missing), that takes its place once it is complete.

    After an exception `path` is as it was, and nothing is left beside it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(unfinished, "wb") as file:
            yield file
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_json(content: Any, path: str | Path) -> None:
    """UTF-8, in place of what was there, or not at all."""
    with atomic_file(path) as file:
        file.write(json.dumps(content, indent=1, ensure_ascii=False).encode())


def require_new_folder(out: Path) -> None:
    """Raises FileExistsError if there is something at `out` other than an empty folder."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} is there already and is not an empty folder: give another --out, or remove it.")


def claim_folder(out: Path, name: str, settings: Mapping[str, Any], held: str) -> None:
    """Makes a folder for the results of some settings, which are written into it, or sees that it is that folder.

    Args:
        out: the folder.
        name: of the JSON file in it.
        settings: what the results depend on.
        held: what the folder holds, for the message.

    Raises:
        FileExistsError: there is something else, or results of other settings; the message says which differ.
    """
    path = out / name
    if path.is_file():
        known = json.loads(path.read_text(encoding="utf-8"))
        differ = [key for key in settings if known.get(key) != settings[key]]
        if differ:
            raise FileExistsError(
                f"{out} holds {held} of other settings (it differs in {', '.join(differ)}): give another --out."
            )
    else:
        require_new_folder(out)
    write_json(settings, path)
