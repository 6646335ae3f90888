"""The U-Net of DDPM++: `NCSNpp` with its plain options, and time spread as in DDPM."""

from __future__ import annotations

from collections.abc import Sequence

from psld.networks.embeddings import PositionalTime, TimeEmbedding
from psld.networks.ncsnpp import NCSNpp

__all__ = ["UNet"]


class UNet(NCSNpp):
    """Score network for images of one size, square or not; its output is zero until it is trained.

    Its arguments are those of `NCSNpp` that small networks need, with `time` None for PositionalTime(1000), which spans
    DDPM's integer steps; published PSLD weights use 1.

    Raises:
        ValueError: a size that does not fit, or a resolution no level has.
    """

    def __init__(
        self,
        in_channels: int | None = None,
        out_channels: int | None = None,
        image_size: int | Sequence[int] | None = None,
        *,
        width: int = 64,
        multipliers: Sequence[int] = (1, 2, 2),
        blocks: int = 2,
        attention_resolutions: Sequence[int] | None = None,
        dropout: float = 0.0,
        time: TimeEmbedding | None = None,
        skip_rescale: bool = True,
        classes: int | None = None,
    ):
        super().__init__(
            in_channels,
            out_channels,
            image_size,
            width=width,
            multipliers=multipliers,
            blocks=blocks,
            attention_resolutions=attention_resolutions,
            dropout=dropout,
            time=PositionalTime() if time is None else time,
            skip_rescale=skip_rescale,
            classes=classes,
        )
