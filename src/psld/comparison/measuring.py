"""How a cell is measured: samples are drawn, counted and held against a reference."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from psld.comparison.cells import Cell
from psld.comparison.drawing import draw
from psld.comparison.references import Reference
from psld.comparison.results import SweepResult
from psld.model import Model

__all__ = ["measure"]


def measure(
    cell: Cell,
    model: Model,
    reference: Reference,
    seeds: Sequence[int],
    batch_size: int = 500,
    device: str = "cpu",
    see: Callable[[Tensor], object] | None = None,
) -> SweepResult:
    """Samples one cell and compares.

    Args:
        cell: sampler, grid and budget.
        model: what is sampled; it knows the shape of its data.
        reference: what samples are held against.
        seeds: one a sample.
        batch_size: images at a time.
        device: of the states; the network must be there.
        see: is shown every batch of images.
    """
    sampler, grid = cell.build(reference.judge)
    calls: list[Tensor] = []
    started = time.perf_counter()

    def images() -> Iterator[Tensor]:
        for batch in draw(sampler, model, model.known_shape(), grid, seeds, batch_size, device):
            calls.append(batch.nfe.cpu())
            if see is not None:
                see(batch.x)
            yield batch.x

    figures = reference.figures(sampler, images(), len(seeds))
    return SweepResult(
        process=repr(model.process),
        family=cell.family,
        sampler=cell.label,
        budget=cell.nfe,
        nfe=float(torch.cat(calls).double().mean()),
        samples=len(seeds),
        seconds=time.perf_counter() - started,
        spec=sampler.spec.config(),
        key=cell.key(model.process),
        **figures,  # pyright: ignore[reportArgumentType]: every reference has a distance
    )
