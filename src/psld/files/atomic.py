"""Files and folders that are whole or not there, on the disk once they are, and never written over by mistake."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from psld.files.reading import read_json

__all__ = ["atomic_file", "claim_folder", "require_new_folder", "sync_folder", "write_json"]

CANNOT_SYNC = {errno.EBADF, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}
"""What file systems answer that have no way to flush a folder or a file (some network, FUSE and SMB mounts)."""


@contextmanager
def atomic_file(path: str | Path) -> Iterator[IO[bytes]]:
    """A binary file to write, in the folder of `path` (made where missing), that takes its place once it is complete.

    File and folder are flushed, so that a power cut right afterwards leaves the new content. After an exception `path`
    is as it was, and nothing is left beside it.

    Raises:
        OSError: the disk is full or fails; `filename` says where.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(unfinished, "wb") as file:
            yield file
            file.flush()
            _sync(file.fileno())
        os.replace(unfinished, path)
        sync_folder(path.parent)
    except OSError as error:
        if error.errno is not None and error.filename is None:  # of a write, which does not say which file it was
            error.filename = str(path)
        raise
    finally:
        unfinished.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Flushes the names in a folder to the disk, where the system and the file system can.

    Raises:
        OSError: the disk fails.
    """
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # a folder that may be written and not read
        return
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def _sync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in CANNOT_SYNC:
            raise


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
        UnreadableFileError: the file is there and holds no settings.
    """
    path = out / name
    if path.is_file():
        known = read_json(path)
        differ = [key for key in settings if known.get(key) != settings[key]]
        if differ:
            raise FileExistsError(
                f"{out} holds {held} of other settings (it differs in {', '.join(differ)}): give another --out."
            )
    else:
        require_new_folder(out)
    write_json(settings, path)
