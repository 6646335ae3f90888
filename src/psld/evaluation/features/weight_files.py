"""Files of network weights: found or downloaded, checked by their hash, and read without running code of theirs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from psld.files import UnreadableFileError, atomic_file, file_sha256
from psld.files.tensors import read_safetensors, read_torch

__all__ = ["PublishedFile", "cache_folder", "load_tensors", "weights_file"]


@dataclass(frozen=True)
class PublishedFile:
    """A file of weights that others published.

    Attributes:
        name: what it is called there.
        address: of its download.
        sha256: of its content.
        size: in bytes.
    """

    name: str
    address: str
    sha256: str
    size: int


def cache_folder() -> Path:
    """Where downloads are kept: ~/.cache/psld, or $XDG_CACHE_HOME/psld."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "psld"


def weights_file(
    weights: str | Path | PublishedFile, sha256: str | None = None, download: bool = False
) -> tuple[Path, str]:
    """A file, downloaded first if `weights` is an address (with ://) and a download is asked for, and its SHA-256.

    A download goes to `cache_folder()` under its hash, and is kept only if that is right.

    Args:
        weights: a file, an address, or a published file, whose hash is known.
        sha256: what the file must hash to; needed for an address.
        download: fetch the address, if it was not fetched before.

    Raises:
        ValueError: no hash for an address, or another one than was asked for; an address that was not fetched before,
            without `download`.
        FileNotFoundError: there is no such file.
        OSError: the address cannot be read.
    """
    published = None
    if isinstance(weights, PublishedFile):
        published, weights, sha256 = weights, weights.address, sha256 or weights.sha256
    expected = sha256.lower() if sha256 else None
    if "://" not in str(weights):
        file = Path(weights)
        if not file.is_file():
            raise FileNotFoundError(f"no weights file {file}: give the path or the address of the published weights.")
        found = file_sha256(file)
        _require_hash(str(file), found, expected)
        return file, found
    if expected is None:
        raise ValueError(
            f"{weights} is an address: give the SHA-256 that the file must have, so that it can be checked."
        )
    file = cache_folder() / f"{expected}.weights"
    if not file.is_file():
        if not download and published is not None:
            raise ValueError(
                f"the weights {published.name} ({published.size / 1e6:.0f} MB, SHA-256 {published.sha256}) are not in "
                f"{cache_folder()}, and nothing is downloaded unasked: give --extractor_download once (download=True) "
                f"to fetch them from {published.address}, or the file itself with --extractor_weights."
            )
        if not download:
            raise ValueError(
                f"{weights} is an address, and nothing is downloaded unasked: say so (download=True, "
                "--extractor_download), or give the file."
            )
        _download(str(weights), file, expected)
    found = file_sha256(file)
    _require_hash(str(file), found, expected)
    return file, found


def _download(address: str, file: Path, expected: str) -> None:
    """Writes the file, whole and of that hash, or nothing."""
    from urllib.request import urlopen

    digest = hashlib.sha256()
    with urlopen(address) as source, atomic_file(file) as target:
        while block := source.read(1 << 20):
            digest.update(block)
            target.write(block)
        _require_hash(address, digest.hexdigest(), expected)


def _require_hash(name: str, found: str, expected: str | None) -> None:
    if expected is not None and found != expected:
        raise ValueError(f"{name} has SHA-256 {found}, not {expected}: it is another file, or a damaged one.")


def _read_tensors(file: Path) -> Mapping[str, Tensor]:
    """A state dict from safetensors or from a file of torch.save, which is read with weights_only=True.

    Raises:
        UnreadableFileError: it is neither.
    """
    state = read_safetensors(file) if file.suffix == ".safetensors" else read_torch(file)
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise UnreadableFileError(f"{file} does not hold a state dict: tensors by name. Give a file of weights.")
    return state


def load_tensors(network: nn.Module, file: Path) -> None:
    """Loads a file into a network, of which every parameter and running statistic must be there.

    Counters of batches, which old files lack and evaluation does not use, need not be.

    Raises:
        ValueError: the file is not one of weights, or of another network.
    """
    state = _read_tensors(file)
    try:
        missing, unexpected = network.load_state_dict(dict(state), strict=False)
    except RuntimeError as error:
        wrong = str(error).splitlines()[-1].strip()
        raise ValueError(f"{file} holds weights of another network: {wrong[:300]}") from error
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        wrong = [f"no {name}" for name in missing[:3]] + [f"unknown {name}" for name in unexpected[:3]]
        raise ValueError(f"{file} holds weights of another network: {', '.join(wrong)}.")
