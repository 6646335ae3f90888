"""Files that are whole or not there, that are checked when they are read, and that one process at a time writes."""

from psld.files.atomic import (
    DiskFullError,
    atomic_file,
    claim_folder,
    naming_full_disk,
    remove_unfinished,
    require_new_folder,
    sync_folder,
    write_json,
)
from psld.files.hashes import (
    SUMS,
    ChangedFileError,
    UncheckedFilesWarning,
    file_sha256,
    read_sums,
    require_unchanged,
    sums_text,
)
from psld.files.locks import FolderInUseError, locked
from psld.files.reading import (
    UnreadableFileError,
    parse_json,
    parse_yaml,
    read_json,
    read_table,
    read_text,
    read_yaml,
)

__all__ = [
    "SUMS",
    "ChangedFileError",
    "DiskFullError",
    "FolderInUseError",
    "UncheckedFilesWarning",
    "UnreadableFileError",
    "atomic_file",
    "claim_folder",
    "file_sha256",
    "locked",
    "naming_full_disk",
    "parse_json",
    "parse_yaml",
    "read_json",
    "read_sums",
    "read_table",
    "read_text",
    "read_yaml",
    "remove_unfinished",
    "require_new_folder",
    "require_unchanged",
    "sums_text",
    "sync_folder",
    "write_json",
]
