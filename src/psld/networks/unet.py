"""The U-Net of DDPM++: `NCSNpp` with its plain options, and time spread as in DDPM."""

from __future__ import annotations

from collections.abc import Sequence

from psld.networks.embeddings import Embedding
from psld.networks.ncsnpp import NCSNpp

__all__ = ["UNet"]


class UNet(NCSNpp):
    """Score network for square images; its output is zero until it is trained.

    With time_scale = 1000 times span DDPM's integer steps; published PSLD weights use 1.

    Args: those of `NCSNpp` that small networks need.

    Raises:
        ValueError: a size that does not fit, a resolution no level has, an unknown embedding.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        image_size: int,
        width: int = 64,
        multipliers: Sequence[int] = (1, 2, 2),
        blocks: int = 2,
        attention_resolutions: Sequence[int] = (16,),
        dropout: float = 0.0,
        embedding: Embedding = "positional",
        time_scale: float = 1000.0,
        fourier_scale: float = 16.0,
        skip_rescale: bool = True,
        classes: int | None = None,
    ):
        super().__init__(
            in_channels,
            out_channels,
            image_size,
            width,
            multipliers,
            blocks,
            attention_resolutions,
            dropout,
            embedding,
            time_scale,
            fourier_scale,
            skip_rescale,
            classes=classes,
        )
