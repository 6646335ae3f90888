"""Samples by the batch: the one place where the comparison, and what measures a run, asks a sampler for images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from psld.model import Model
from psld.samplers import Sampler, Samples
from psld.samplers.grids import Grid

__all__ = ["draw"]


def draw(
    sampler: Sampler,
    model: Model,
    shape: tuple[int, ...],
    grid: Grid,
    seeds: Sequence[int],
    batch_size: int,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> Iterator[Samples]:
    """Samples in batches, one a seed, from tables made once.

    Args:
        sampler: takes the steps.
        model: the score.
        shape: of one image.
        grid: times.
        seeds: one a sample; a sample depends on its own alone.
        batch_size: images at a time.
        device: of the states.
        progress: show a bar, on a terminal.
    """
    from tqdm import tqdm

    with tqdm(total=len(seeds), unit="img", disable=None if progress else True, desc=type(sampler).__name__) as bar:
        for batch in sampler.batches(model, grid=grid, seeds=seeds, shape=shape, batch_size=batch_size, device=device):
            bar.update(len(batch.x))
            yield batch
