"""A folder of weights and their configuration, written beside its place and then renamed: whole, or not there."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from psld.files import (
    SUMS,
    atomic_file,
    file_sha256,
    naming_full_disk,
    require_new_folder,
    sums_text,
    sync_folder,
)
from psld.spectrum import SPECTRUM, Spectrum
from psld.training.checkpoint import AVERAGED, CONFIG, ONLINE
from psld.training.writing import require_space

__all__ = ["write_model_folder"]


def write_model_folder(
    out: Path,
    weights: Mapping[str, Tensor] | None,
    averages: Mapping[str, Tensor] | None,
    config_text: str,
    spectrum: Spectrum | None = None,
) -> Path:
    """Writes model.safetensors, model_ema.safetensors, spectrum.safetensors (those given), config.yaml and SHA256SUMS.

    Raises:
        FileExistsError: there is something in `out`.
        OSError: the disk is full or fails; nothing is left.
    """
    require_new_folder(out)
    sets = {name: state for name, state in {ONLINE: weights, AVERAGED: averages}.items() if state is not None}
    size = sum(tensor.numel() * tensor.element_size() for state in sets.values() for tensor in state.values())
    require_space(out, size)
    partial = out.absolute().with_name(f".{out.absolute().name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with naming_full_disk(out):
            partial.mkdir(parents=True)
        for name, state in sets.items():
            plain = {key: tensor.clone(memory_format=torch.contiguous_format) for key, tensor in state.items()}
            with atomic_file(partial / name) as file:
                file.write(safetensors.torch.save(plain))
        with atomic_file(partial / CONFIG) as file:
            file.write(config_text.encode())
        if spectrum is not None:
            spectrum.save(partial)
        names = (*sets, CONFIG, *([SPECTRUM] if spectrum is not None else []))
        hashes = {name: file_sha256(partial / name) for name in names}
        with atomic_file(partial / SUMS) as file:
            file.write(sums_text(hashes).encode())
        if out.is_dir():
            out.rmdir()
        partial.rename(out)
        sync_folder(out.absolute().parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out
