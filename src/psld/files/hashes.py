"""SHA-256 of files: what a folder held when it was written, in the format that `sha256sum --check` reads.

    cd RUN/checkpoints/step-00001000 && sha256sum --check SHA256SUMS

A hash shows that a file changed by accident: a flipped bit, a cut transfer. It does not show who wrote it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from psld.files.reading import UnreadableFileError, read_text

__all__ = [
    "SUMS",
    "ChangedFileError",
    "UncheckedFilesWarning",
    "file_sha256",
    "joined_sums",
    "read_sums",
    "require_unchanged",
    "sums_text",
]

SUMS = "SHA256SUMS"
SUMS_BYTES = 16 * 1024**2
"""Of SHA256SUMS: the slices of ten thousand processes."""

LINE = re.compile(r"([0-9a-f]{64})  ([^/\x00-\x1f\\]+)")


class UncheckedFilesWarning(UserWarning):
    """Files are read that cannot be compared with what was written."""


class ChangedFileError(ValueError):
    """A file is not what was written: changed, missing or not listed; the message names it."""


def file_sha256(*files: Path) -> str:
    """In hexadecimal; of several files, of their contents one after the other."""
    digest = hashlib.sha256()
    for file in files:
        with open(file, "rb") as content:
            while block := content.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def sums_text(hashes: Mapping[str, str]) -> str:
    """The lines of SHA256SUMS, of hashes by file name."""
    return "".join(f"{value}  {name}\n" for name, value in sorted(hashes.items()))


def joined_sums(texts: Iterable[str]) -> str:
    """The lines of several such texts, ordered by the names of the files."""
    return "".join(sorted((line for text in texts for line in text.splitlines(keepends=True)), key=lambda s: s[64:]))


def read_sums(folder: Path) -> dict[str, str]:
    """Hashes by file name, as SHA256SUMS of a folder says; {} if the folder has no such file.

    Raises:
        ChangedFileError: the file is not as `sums_text` writes it.
    """
    file = folder / SUMS
    if not file.is_file():
        return {}
    try:
        text = read_text(file, SUMS_BYTES)
    except (OSError, UnreadableFileError) as error:
        raise ChangedFileError(f"{file} cannot be read ({error})") from error
    lines = [LINE.fullmatch(line) for line in text.split("\n")[:-1]]
    found = {match[2]: match[1] for match in lines if match}
    if not text.endswith("\n") or len(found) != len(lines):
        raise ChangedFileError(f"{file} is damaged: it must have lines of a SHA-256, two spaces and a file name.")
    return found


def require_unchanged(folder: Path, names: Iterable[str]) -> bool:
    """Compares files of a folder with its SHA256SUMS.

    Returns:
        Whether the folder has SHA256SUMS; without, nothing was compared.

    Raises:
        ChangedFileError: a file differs, is missing, or is not listed; or SHA256SUMS itself is damaged.
    """
    sums = read_sums(folder)
    if not sums:
        return False
    for name in names:
        if name not in sums:
            raise ChangedFileError(f"{folder / name} is not listed in {SUMS} beside it.")
        try:
            found = file_sha256(folder / name)
        except OSError as error:
            raise ChangedFileError(
                f"{folder / name} is missing or cannot be read, and {SUMS} lists it ({error})."
            ) from error
        if found != sums[name]:
            raise ChangedFileError(
                f"{folder / name} has changed since it was written: its SHA-256 is {found[:12]}…, {SUMS} says "
                f"{sums[name][:12]}…. If it was changed on purpose, delete {folder / SUMS}."
            )
    return True
