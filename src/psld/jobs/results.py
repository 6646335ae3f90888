"""What was drawn for pictures, beside what there was: a grid to look at, and an error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from psld.plots.pictures import save_panels

__all__ = ["ENLARGED", "rms", "write_grid"]

ROWS = 16
"""Pictures that a grid shows, the first ones."""

ENLARGED = 128
"""Pixels that small pictures are enlarged to."""


def rms(difference: Float[Tensor, "..."]) -> float:
    """Root of the mean square."""
    return float(difference.double().square().mean().sqrt())


def write_grid(path: Path, before: Mapping[str, Float[Tensor, "n _ _ _"]], draws: Float[Tensor, "n d C H W"]) -> None:
    """A row an image: what there was, in columns with titles, and its draws. The first only, small ones large."""
    scale = max(1, ENLARGED // max(draws.shape[-2:]))
    shape = draws.shape[2:]
    panels: dict[str, tuple[Tensor, int | None]] = {
        name: (_as_large(images[:ROWS], shape), 1) for name, images in before.items()
    }
    count = draws.shape[1]
    panels["draw" if count == 1 else f"{count} draws"] = (draws[:ROWS].flatten(0, 1), count)
    save_panels(panels, path, scale)


def _as_large(images: Float[Tensor, "n c h w"], shape: Sequence[int]) -> Float[Tensor, "n C H W"]:
    """Fewer pixels as blocks, and grey in as many channels, to stand beside images of that shape; grey is opaque."""
    channels, height, width = shape
    blocks = images.repeat_interleave(height // images.shape[-2], -2).repeat_interleave(width // images.shape[-1], -1)
    if channels == 4 and blocks.shape[1] == 1:
        return torch.cat([blocks.expand(-1, 3, -1, -1), torch.ones_like(blocks)], dim=1)
    return blocks.expand(-1, channels, -1, -1)
