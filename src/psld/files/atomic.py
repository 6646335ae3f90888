"""Files and folders that are whole or not there, on the disk once they are, and never written over by mistake."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import IO, Any

from psld.files.reading import read_json

__all__ = [
    "DiskFullError",
    "atomic_file",
    "claim_folder",
    "naming_full_disk",
    "remove_unfinished",
    "require_new_folder",
    "sync_file",
    "sync_folder",
    "write_json",
]

CANNOT_SYNC = {errno.EBADF, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}
"""What file systems answer that have no way to flush a folder or a file (some network, FUSE and SMB mounts)."""

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""What file systems answer where there is no room: a full disk, a quota, a limit on the size of a file."""

ROOM = "free some space, or choose a folder on another disk"
"""What to do then."""


class DiskFullError(OSError):
    """There is no room for a file; the message names it and says what to do. `errno` is the system's."""

    def __str__(self) -> str:
        return str(self.strerror)


@contextmanager
def naming_full_disk(path: str | Path) -> Iterator[None]:
    """Turns what the system says where there is no room into a `DiskFullError` that names the file or folder."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL or isinstance(error, DiskFullError):
            raise
        raise DiskFullError(error.errno, f"{path} cannot be written ({error.strerror}): {ROOM}.") from error


@contextmanager
def atomic_file(path: str | Path) -> Iterator[IO[bytes]]:
    """A binary file to write, in the folder of `path` (made where missing), that takes its place once it is complete.

    File and folder are flushed, so that a power cut right afterwards leaves the new content. After an exception `path`
    is as it was, and nothing is left beside it. There is one exception: if only the folder of a file that was there
    before could not be flushed, `path` has the new content, and a power cut may bring back the old.

    Raises:
        DiskFullError: there is no room.
        OSError: the disk fails; `filename` says where.
    """
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with naming_full_disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(unfinished, "wb") as file:
                yield file
                file.flush()
                _sync(file.fileno())
            known = path.exists()
            os.replace(unfinished, path)
            try:
                sync_folder(path.parent)
            except OSError:
                if not known:  # what is reported as not written must not be there, or it is in the way of another try
                    path.unlink(missing_ok=True)
                raise
        except OSError as error:
            if error.errno is not None and error.filename is None:  # of a write, which does not say which file it was
                error.filename = str(path)
            raise
        finally:
            unfinished.unlink(missing_ok=True)


def remove_unfinished(path: Path) -> None:
    """Removes what `atomic_file` of a process that was killed left of a file, or of the files of a folder.

    Only for who holds the lock of the path, so that no other process is writing there.
    """
    left = path.glob(".*.partial") if path.is_dir() else path.parent.glob(f".{escape(path.name)}.*.partial")
    for file in left:
        if re.fullmatch(r"\..+\.\d+\.partial", file.name):
            file.unlink(missing_ok=True)


def sync_file(file: Path) -> None:
    """Flushes what was written to a file to the disk, where the file system can.

    Raises:
        OSError: the file is not there, or the disk fails.
    """
    descriptor = os.open(file, os.O_RDWR)
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


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

    What a killed process left unfinished there is removed: whoever calls this holds the lock of the folder.

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
    for folder in (out, *(inner for inner in out.glob("*") if inner.is_dir())):
        remove_unfinished(folder)
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
