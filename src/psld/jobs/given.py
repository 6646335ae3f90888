"""Draws given a measurement of each picture: guidance and replacement, a batch of pictures at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from psld.inverse.operators import LinearOperator
from psld.jobs.drawing import Draw, Drawing
from psld.model import Model
from psld.noise import SeededNoise
from psld.samplers import Sampler, Samples

__all__ = ["Told", "conditional", "degraded"]

SEED_OF_MEASUREMENTS = 2**31
"""Beyond the seeds of draws: torch's generators read 32 bits of a seed."""

Told = Callable[[Model, Tensor], tuple[Sampler, Model]]
"""From a model and measurements, (1, *measured) or one a sample, to a sampler and the model it asks."""


def conditional(drawing: Drawing, given: Float[Tensor, "n *measured"], told: Told) -> Draw:
    """How to draw given one measurement per picture, for `draw_given`; tables are made here, once.

    Args:
        drawing: with the model as it is before it is told anything, and a sampler as `told` makes it.
        given: the measurements, a row per picture.
        told: puts measurements into the model (posterior guidance) or into the sampler (replacement).
    """
    grid, device = drawing.grid, drawing.fabric.device if drawing.fabric else "cpu"
    plan = drawing.sampler.prepare(drawing.model.process, grid)
    model = drawing.model.tabulate(grid.times)

    def draw(positions: Sequence[int], seeds: Sequence[int]) -> Samples:
        rows = positions if len(set(positions)) > 1 else positions[:1]
        sampler, asked = told(model, given[list(rows)].to(device, torch.float64))
        return sampler.sample(asked, grid=plan, seeds=seeds, device=device)

    return draw


def degraded(
    operator: LinearOperator, images: Float[Tensor, "n C H W"], noise: float, seed: int
) -> Float[Tensor, "n *measured"]:
    """y = A x + noise · ξ, float64, with one seed per image, none of them that of a draw."""
    y = operator.forward(images.double())
    first = SEED_OF_MEASUREMENTS + seed
    return y + noise * SeededNoise(range(first, first + len(y)), tuple(y.shape[1:]))()
