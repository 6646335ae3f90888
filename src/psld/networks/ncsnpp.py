"""NCSN++ and DDPM++ (Ho et al., 2020; Song et al., 2021, arXiv 2011.13456), for images in phase space.

Going down, every level has `blocks` residual blocks and, but for the last, a step to half the resolution; going up,
`blocks + 1` that each take one of the saved activations, and a step to twice the resolution. Attention follows every
block of the attended resolutions going down, the level going up, and sits in the middle.

    DDPM++ (the paper's ablations)      positional embedding of t, 2×2 means and repeated pixels
    NCSN++ (the paper's best)           Fourier features of log t, FIR filters, progressive_input="residual"
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from psld.networks.blocks import SelfAttention
from psld.networks.embeddings import Embedding
from psld.networks.encoder import FIR_TAPS, BlockKind, Encoder, _require_names
from psld.networks.initialisation import conv
from psld.networks.levels import (
    Combine,
    OutputHead,
    OutputResidual,
    OutputSkip,
    ProgressiveInput,
    ProgressiveOutput,
    UpLevel,
)
from psld.networks.normalisation import group_norm
from psld.networks.resampling import ConvUpsample, Resampling, upsampling

__all__ = ["NCSNpp"]


class NCSNpp(Encoder):
    """Score network for square images; its output is zero until it is trained.

    Args:
        in_channels: k · C, the channels of all phase-space variables together.
        out_channels: r · C, for the r variables that are predicted.
        image_size: height and width; divisible by 2^(len(multipliers) − 1).
        width: channels at the first level; even.
        multipliers: channels of each level, in units of `width`.
        blocks: residual blocks a level.
        attention_resolutions: resolutions with self-attention, each one of the levels'. The middle always has it.
        dropout: probability in every residual block.
        embedding: "positional", sinusoidal in time_scale · t, or "fourier", Gaussian features of log t (needs t > 0).
        time_scale: for "positional"; 1 is that of the published PSLD weights, 1000 spans DDPM's integer steps.
        fourier_scale: for "fourier", standard deviation of the frequencies.
        skip_rescale: divide every residual sum by √2.
        resampling: "average", 2×2 means down and repeated pixels up, or "fir", filtered by `fir_taps`.
        fir_taps: an even number of taps, the same in both directions.
        block: "biggan", levels are left by a residual block that resamples, or "ddpm", by a layer that does only that.
        resample_with_conv: for block "ddpm": that layer has a 3×3 convolution.
        progressive_input: "none", or how the image joins every level going down: "input_skip" or "residual".
        progressive_output: "none", or how every level going up joins the output: "output_skip" or "residual".
        combine: for "input_skip": "sum" or "cat".
        channels_last: run in the channels-last memory layout.
        recompute: in training, keep only what lies between blocks and compute the rest again in the backward pass
            (activation checkpointing): less memory, one more forward pass.
        classes: how many labels the network can be told; their embedding is added to that of the time. One more row is
            the null class, for no label. None: the network takes no label.

    Raises:
        ValueError: a size that does not fit, a resolution no level has, an unknown name.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        image_size: int = 32,
        width: int = 128,
        multipliers: Sequence[int] = (1, 2, 2, 2),
        blocks: int = 2,
        attention_resolutions: Sequence[int] = (16,),
        dropout: float = 0.1,
        embedding: Embedding = "positional",
        time_scale: float = 1.0,
        fourier_scale: float = 16.0,
        skip_rescale: bool = True,
        resampling: Resampling = "average",
        fir_taps: Sequence[float] = FIR_TAPS,
        block: BlockKind = "biggan",
        resample_with_conv: bool = True,
        progressive_input: ProgressiveInput = "none",
        progressive_output: ProgressiveOutput = "none",
        combine: Combine = "sum",
        channels_last: bool = False,
        recompute: bool = False,
        classes: int | None = None,
    ):
        super().__init__(
            in_channels,
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
            resampling,
            fir_taps,
            block,
            resample_with_conv,
            progressive_input,
            combine,
            channels_last,
            recompute,
        )
        if out_channels < 1:
            raise ValueError(f"out_channels must be at least 1: got {out_channels}.")
        _require_names(progressive_output=progressive_output)
        self.out_channels, self.progressive_output = out_channels, progressive_output
        self.ups = self._up_levels(progressive_output)
        if progressive_output != "output_skip":
            self.norm_out = group_norm(self._channels[0])
            self.conv_out = conv(self._channels[0], out_channels, 3, zero=True)
        if classes is not None and classes < 1:
            raise ValueError(f"classes must be at least 1, or None for a network without labels: got {classes}.")
        self.classes = classes
        if classes is not None:  # last, so that all other weights start as they do without it
            self.class_embedding = nn.Embedding(classes + 1, self._time_width)
        self._finish()

    def _up_levels(self, progressive_output: ProgressiveOutput) -> nn.ModuleList:
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
        self, progressive_output: ProgressiveOutput, wide: int, running: int | None
    ) -> tuple[OutputSkip | OutputResidual | None, int | None]:
        if progressive_output == "output_skip":
            head = OutputHead(wide, self.out_channels, zero=True)
            up = None if running is None else upsampling(self._resampling, self._taps)
            return OutputSkip(head, up), self.out_channels
        if progressive_output == "residual":
            head = OutputHead(wide, wide, zero=False) if running is None else None
            up = None if running is None else ConvUpsample(running, wide, self._resampling, self._taps)
            return OutputResidual(head, up, self._skip_rescale), wide
        return None, None

    def _label_features(self, label: Tensor | None, t: Tensor) -> Float[Tensor, "B width"] | None:
        if self.classes is None:
            if label is not None:
                raise ValueError(
                    "a label was given to a network without classes: build it with classes=…, the number of labels."
                )
            return None
        if label is None:
            label = torch.full(t.shape, self.classes, device=t.device)
        if label.shape != t.shape:
            raise ValueError(f"label must be one a sample, shape {tuple(t.shape)}: got {tuple(label.shape)}.")
        return self.class_embedding(label)

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
        x = self._folded(z, t)
        if z.ndim == 5 and self.out_channels % z.shape[2]:
            raise ValueError(
                f"out_channels={self.out_channels} is no multiple of the {z.shape[2]} channels of {tuple(z.shape)}."
            )
        x, time, saved = self._encoded(x, t, self._label_features(label, t))
        running = None
        for level in self.ups:
            own = [saved.pop() for _ in cast(UpLevel, level).blocks]
            x, running = level(x, time, running, own)
        if running is None or self.progressive_output != "output_skip":
            running = self.conv_out(functional.silu(self.norm_out(x)))
        output = running.contiguous()
        return output.unflatten(1, (-1, z.shape[2])) if z.ndim == 5 else output
