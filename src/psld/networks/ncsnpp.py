"""NCSN++ and DDPM++ (Ho et al., 2020; Song et al., 2021, arXiv 2011.13456), for images in phase space.

Going down, every level has `blocks` residual blocks and, but for the last, a step to half the resolution; going up,
`blocks + 1` that each take one of the saved activations, and a step to twice the resolution. Attention follows every
block of the attended resolutions going down, the level going up, and sits in the middle.

    DDPM++ (the paper's ablations)      positional embedding of t, 2×2 means and repeated pixels
    NCSN++ (the paper's best)           Fourier features of log t, FIR filters, ResidualInput
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from psld.networks.blocks import SelfAttention
from psld.networks.class_conditional import null_class_for_none
from psld.networks.embeddings import PositionalTime, TimeEmbedding
from psld.networks.encoder import Encoder, LevelChange
from psld.networks.initialisation import conv
from psld.networks.levels import (
    OutputHead,
    OutputResidual,
    OutputSkip,
    ProgressiveOutput,
    ResidualInput,
    SkipInput,
    UpLevel,
)
from psld.networks.normalisation import group_norm
from psld.networks.resampling import FIR, ConvUpsample, upsampling
from psld.specs.arguments import MOST_CLASSES, whole

__all__ = ["NCSNpp"]


class NCSNpp(Encoder):
    """Score network for images of one size, square or not; its output is zero until it is trained.

    Args: those of `Encoder`, with `time` None for PositionalTime(1), that of the published PSLD weights, and
        out_channels: r · C, for the r variables that are predicted; None: as many as go in.
        progressive_output: how every level going up joins the output, "output_skip" or "residual"; None: only the last
            level is the output.
        classes: how many labels the network can be told; their embedding is added to that of the time. One more row is
            the null class, for no label. None: the network takes no label.

    Raises:
        ValueError: a size that does not fit, a resolution no level has, an unknown name.
    """

    def __init__(
        self,
        in_channels: int | None = None,
        out_channels: int | None = None,
        image_size: int | Sequence[int] | None = None,
        *,
        width: int = 128,
        multipliers: Sequence[int] = (1, 2, 2, 2),
        blocks: int = 2,
        attention_resolutions: Sequence[int] | None = None,
        dropout: float = 0.1,
        time: TimeEmbedding | None = None,
        skip_rescale: bool = True,
        resampling: FIR | None = None,
        level_change: LevelChange = "block",
        progressive_input: SkipInput | ResidualInput | None = None,
        progressive_output: ProgressiveOutput | None = None,
        channels_last: bool = False,
        recompute: bool = False,
        classes: int | None = None,
    ):
        if classes is not None:
            whole("classes", classes, most=MOST_CLASSES)
        super().__init__(
            in_channels=in_channels,
            image_size=image_size,
            width=width,
            multipliers=multipliers,
            blocks=blocks,
            attention_resolutions=attention_resolutions,
            dropout=dropout,
            time=PositionalTime(1.0) if time is None else time,
            skip_rescale=skip_rescale,
            resampling=resampling,
            level_change=level_change,
            progressive_input=progressive_input,
            channels_last=channels_last,
            recompute=recompute,
        )
        self.out_channels, self.progressive_output = self._out_channels(out_channels), progressive_output
        self.ups = self._up_levels(progressive_output)
        if progressive_output != "output_skip":
            self.norm_out = group_norm(self._channels[0])
            self.conv_out = conv(self._channels[0], self.out_channels, 3, zero=True)
        self.classes = classes
        if classes is not None:  # last, so that all other weights start as they do without it
            self.class_embedding = nn.Embedding(classes + 1, self._time_width)
        self._finish()

    def _up_levels(self, progressive_output: ProgressiveOutput | None) -> nn.ModuleList:
        """The levels going up, lowest resolution first."""
        levels, current, saved = nn.ModuleList(), self._deepest, list(self._saved)
        running = None  # channels of the running output, None at the lowest resolution
        for index, wide in reversed(list(enumerate(self._channels))):
            residuals = []
            for _ in range(self._blocks + 1):
                residuals.append(self._residual(current + saved.pop(), wide))
                current = wide
            attention = [SelfAttention(wide, self._skip_rescale)] if self._attended[index] else []
            output, running = self._output(progressive_output, wide, running)
            leave = None if index == 0 else self._up(wide)
            levels.append(UpLevel(residuals, attention, leave, output, self.recompute))
        return levels

    def _output(
        self, progressive_output: ProgressiveOutput | None, wide: int, running: int | None
    ) -> tuple[OutputSkip | OutputResidual | None, int | None]:
        if progressive_output == "output_skip":
            head = OutputHead(wide, self.out_channels, zero=True)
            up = None if running is None else upsampling(self._resampling)
            return OutputSkip(head, up), self.out_channels
        if progressive_output == "residual":
            head = OutputHead(wide, wide, zero=False) if running is None else None
            up = None if running is None else ConvUpsample(running, wide, self._resampling)
            return OutputResidual(head, up, self._skip_rescale), wide
        return None, None

    def _label_features(self, label: Tensor | None, t: Tensor) -> Float[Tensor, "B width"] | None:
        told = null_class_for_none(label, t, self.classes)
        return None if told is None else self.class_embedding(told)

    def forward(
        self, z: Float[Tensor, "B *shape"], t: Float[Tensor, " B"], label: Int64[Tensor, " B"] | None = None
    ) -> Float[Tensor, "B *out_shape"]:
        """Predicts from the state.

        Args:
            z: (B, k, C, H, W), or (B, k·C, H, W) with the variables folded into the channels.
            t: (B,) times, on the device of z.
            label: (B,) in 0 … classes, on the device of z; `classes` itself is the null class, and so is None.

        Returns:
            (B, r, C, H, W) for the first form of z, (B, r·C, H, W) for the second.

        Raises:
            ValueError: z, t or label does not have such a shape, or the network has no classes and is given a label.
        """
        x = self._sized(z, t)
        x, time, saved = self._encoded(x, t, self._label_features(label, t))
        running = None
        for level in self.ups:
            own = [saved.pop() for _ in cast(UpLevel, level).blocks]
            x, running = level(x, time, running, own)
        if running is None or self.progressive_output != "output_skip":
            running = self.conv_out(functional.silu(self.norm_out(x)))
        return self._unfolded(running.contiguous(), z)
