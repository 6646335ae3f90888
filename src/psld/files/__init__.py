"""Files that are either whole or not there."""

from psld.files.atomic import atomic_file, claim_folder, require_new_folder, write_json

__all__ = ["atomic_file", "claim_folder", "require_new_folder", "write_json"]
