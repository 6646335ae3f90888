"""One process at a time writes to a folder or a file; a second one is refused and told who the first is.

The lock of PARENT/NAME is the file PARENT/.NAME.lock, which exists while a process writes (filelock's SoftFileLock).
It holds process id, host and start of the process, and is created with O_EXCL, which is atomic on local file systems
and on NFS from version 3. It lies beside the folder because a folder can be renamed or replaced while it is written; a
mount point, and a folder whose parent may not be written, have it inside.

After a kill the file stays. The next process on the same host sees that the owner is gone, also where another process
has its number by now or the machine was restarted, and takes the lock over. Of an owner on another host that cannot be
known, and on file systems that cannot exchange two names at once (NFS) it cannot be done safely: then the refusal says
which file to delete. Nothing is decided by the age of a file that names its owner: a run that is slow is not a run that
is dead.

A process killed between creating the file and writing its record leaves a file that names nobody; so can a power cut.
Such a file is taken over once it has not changed for 2 seconds. Its owner may be alive and only halted at that point.
So every process checks, after it has written its record, that the file is still its own, and is refused if it is not.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import SoftFileLock, Timeout

from psld.files.atomic import DiskFullError, naming_full_disk, remove_unfinished, sync_file

if TYPE_CHECKING:
    from lightning.fabric import Fabric

__all__ = ["FolderInUseError", "lock_file", "locked"]

PATIENCE = 0.2  # seconds: a takeover can need a second attempt
PATIENCE_WITHOUT_NAME = 1.0  # seconds: for the refusal, of an owner that has just created the file
PATIENCE_WITHOUT_OWNER = 4.0  # seconds: filelock watches a file that names nobody for 2 before it is taken over


class FolderInUseError(RuntimeError):
    """Another process writes there; the message names process and host, since when, and what to do."""


def lock_file(path: str | Path) -> Path:
    """The file that exists while a process writes to a folder or a file."""
    path = Path(os.path.realpath(path))
    parent = next(folder for folder in path.parents if folder.exists())
    if path.is_dir() and (path.is_mount() or not os.access(parent, os.W_OK)):
        return path / ".psld.lock"
    return path.with_name(f".{path.name}.lock")


@contextmanager
def locked(path: str | Path, purpose: str, fabric: Fabric | None = None) -> Iterator[None]:
    """Holds the lock of a folder or a file, which need not exist yet. What is inside may write there.

    A process must not ask twice: it would be refused by itself. Locks of a folder and of a file in it are two.

    Args:
        path: the folder or file.
        purpose: what is to be written, for the message: "a training run", "samples".
        fabric: of several processes, all of which must call it. The first holds the lock; if it is refused, all are.

    Raises:
        FolderInUseError: another process holds it.
        DiskFullError: there is no room for the lock.
        OSError: the lock cannot be written: no permission.
    """
    if fabric is None or fabric.world_size == 1:
        with _locked(Path(path), purpose):
            yield
        return
    from psld.distributed import first_problem

    holding, refusal = _locked(Path(path), purpose), None
    if fabric.is_global_zero:
        try:
            holding.__enter__()
        except (FolderInUseError, OSError) as error:
            refusal = error
    problem = first_problem(fabric, "" if refusal is None else str(refusal))
    if problem:
        raise refusal or FolderInUseError(problem)
    try:
        yield
    finally:
        if fabric.is_global_zero:
            holding.__exit__(None, None, None)


@contextmanager
def _locked(path: Path, purpose: str) -> Iterator[None]:
    file = lock_file(path)
    made = [folder for folder in file.parents if not folder.exists()]  # the innermost first
    lock = SoftFileLock(file, timeout=PATIENCE)
    try:
        _acquire(lock, path, file, purpose)
        try:
            yield
        finally:
            lock.release()
    finally:
        for folder in made:
            try:
                folder.rmdir()  # what was made for the lock and holds nothing else
            except OSError:
                break


def _acquire(lock: SoftFileLock, path: Path, file: Path, purpose: str) -> None:
    for last in (False, False, True):
        try:
            with naming_full_disk(path):
                file.parent.mkdir(parents=True, exist_ok=True)
                _wait_for(lock, file)
                _confirm(lock, file)
            if not path.is_dir():
                remove_unfinished(path)
            return
        except DiskFullError:
            raise
        except Timeout as error:
            raise FolderInUseError(_refusal(path, file, purpose)) from error
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not last:  # another process has just cleaned up the folder
                continue
            message = f"{purpose} cannot be written to {path} ({error.strerror or error}): choose another folder"
            raise type(error)(f"{message}, or make {file.parent} writable.") from error


def _wait_for(lock: SoftFileLock, file: Path) -> None:
    """Acquires the lock, or raises Timeout; a file that names no owner is watched for longer, and taken over."""
    try:
        lock.acquire()
    except Timeout:
        if lock.pid is not None:
            raise
        _mark_empty(file)
        lock.acquire(timeout=PATIENCE_WITHOUT_OWNER)


def _mark_empty(file: Path) -> None:
    """Makes an empty lock file one that filelock takes over: it holds empty ones for locks of its versions before 3.22.

    The owner may write its record at the same moment. A line feed appended to a record leaves it valid, and a record
    written at the start of the file replaces the line feed.
    """
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0))
    except OSError:  # it is gone, or another account's
        return
    try:
        if os.fstat(descriptor).st_size == 0:
            os.write(descriptor, b"\n")
    finally:
        os.close(descriptor)


def _confirm(lock: SoftFileLock, file: Path) -> None:
    """Flushes the record, so that other hosts and the time after a power cut know the owner.

    Raises:
        Timeout: another process has taken the file over while this one was halted before it wrote its record.
    """
    try:
        sync_file(file)
        if not lock.is_lock_held_by_us:
            raise Timeout(str(file))
    except BaseException:
        lock.release()
        raise


def _refusal(path: Path, file: Path, purpose: str) -> str:
    until = time.monotonic() + PATIENCE_WITHOUT_NAME
    try:
        while True:
            about = file.lstat()
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
            if len(lines) >= 2 or time.monotonic() > until:
                break
            time.sleep(0.01)
    except OSError:
        return f"{purpose} cannot be written to {path}: another process was writing there until now. Try again."
    since = datetime.fromtimestamp(about.st_mtime).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z").strip()
    owner = f"process {lines[0]} on {lines[1].split('?pidns-')[0]}" if len(lines) >= 2 else "an unknown process"
    return (
        f"{purpose} cannot be written to {path}: {owner} has been writing there since {since}. Wait until it ends, "
        f"stop it, or choose another folder. If that process does not exist any more, delete {file}."
    )
