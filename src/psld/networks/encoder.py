"""The half that score networks and classifiers share: time features, the way down, and the middle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from psld.networks.blocks import ResidualBlock, SelfAttention
from psld.networks.embeddings import TimeEmbedding, even_width
from psld.networks.image_network import ImageNetwork
from psld.networks.initialisation import conv, dense
from psld.networks.levels import DownLevel, InputResidual, InputSkip, ResidualInput, SkipInput, recomputed
from psld.networks.resampling import FIR, ConvDownsample, ConvUpsample, Resample, downsampling, upsampling
from psld.networks.sizes import require_division
from psld.specs.arguments import MOST, height_and_width, shown, whole

__all__ = ["Encoder", "LevelChange"]

LevelChange = Literal["block", "convolution", "resampling"]
"""What ends a level: a residual block that resamples (BigGAN), a convolution that does, or resampling alone (DDPM)."""


class Encoder(ImageNetwork):
    """The way down of NCSN++ and its middle; base class of `NCSNpp` and `NoiseClassifier`.

    Args:
        in_channels: k · C, the channels of all phase-space variables together; None: 3, an RGB image.
        image_size: height and width, one number for a square, or two; each divisible by 2^(len(multipliers) − 1).
            None: 32.
        width: channels at the first level; even.
        multipliers: channels of each level, in units of `width`.
        blocks: residual blocks a level.
        attention_resolutions: resolutions with self-attention, each one of the levels', of images that are not square
            the shorter side; None: the coarsest level's, which there is for any image size; (): none. The middle, at
            the coarsest resolution, always has it.
        dropout: probability in every residual block.
        time: how the time is embedded.
        skip_rescale: divide every residual sum by √2.
        resampling: a filter for going down and up; None: 2×2 means down and repeated pixels up.
        level_change: "block", levels are left by a residual block that resamples; or by a layer that does only that,
            "convolution" or plain "resampling".
        progressive_input: how the image joins every level going down; None: it does not.
        channels_last: run in the channels-last memory layout.
        recompute: in training, keep only what lies between blocks and compute the rest again in the backward pass
            (activation checkpointing): less memory, one more forward pass.

    Raises:
        ValueError: a size that does not fit, a resolution no level has, an unknown name, or one where an object is
            meant.
    """

    def __init__(
        self,
        *,
        in_channels: int | None,
        image_size: int | Sequence[int] | None,
        width: int,
        multipliers: Sequence[int],
        blocks: int,
        attention_resolutions: Sequence[int] | None,
        dropout: float,
        time: TimeEmbedding,
        skip_rescale: bool,
        resampling: FIR | None,
        level_change: LevelChange,
        progressive_input: SkipInput | ResidualInput | None,
        channels_last: bool,
        recompute: bool,
    ):
        super().__init__(in_channels)
        self.image_size = 32 if image_size is None else image_size
        self._sides = height_and_width("image_size", self.image_size)
        resolutions = _resolutions(*self._sides, multipliers)
        _require_counts(blocks, width, dropout)
        attended = resolutions[-1:] if attention_resolutions is None else attention_resolutions
        _require_attended(attended, resolutions)
        self.channels_last, self.recompute = channels_last, recompute
        self._time_width, self._dropout, self._skip_rescale = 4 * width, dropout, skip_rescale
        self._resampling, self._level_change = resampling, level_change

        self.embedding = time.of_width(width)
        self.time_in = dense(self.embedding.width, 4 * width)
        self.time_out = dense(4 * width, 4 * width)
        self.conv_in = conv(self.in_channels, width, 3)
        self._channels = [multiplier * width for multiplier in multipliers]
        self._attended, self._blocks = [resolution in attended for resolution in resolutions], blocks
        self.downs, self._saved = self._down_levels(width, progressive_input)
        self._deepest = self._saved[-1]
        self.middle_in = self._residual(self._deepest, self._deepest)
        self.middle_attention = SelfAttention(self._deepest, skip_rescale)
        self.middle_out = self._residual(self._deepest, self._deepest)

    def _residual(self, inputs: int, outputs: int, resample: Resample | None = None) -> ResidualBlock:
        return ResidualBlock(inputs, outputs, self._time_width, self._dropout, self._skip_rescale, resample)

    def _down(self, channels: int) -> ResidualBlock | ConvDownsample | Resample:
        """What halves the resolution at the end of a level."""
        if self._level_change == "convolution":
            return ConvDownsample(channels, channels, self._resampling)
        resample = downsampling(self._resampling)
        return self._residual(channels, channels, resample) if self._level_change == "block" else resample

    def _up(self, channels: int) -> ResidualBlock | ConvUpsample | Resample:
        """What doubles it."""
        if self._level_change == "convolution":
            return ConvUpsample(channels, channels, self._resampling)
        resample = upsampling(self._resampling)
        return self._residual(channels, channels, resample) if self._level_change == "block" else resample

    def _down_levels(
        self, width: int, progressive_input: SkipInput | ResidualInput | None
    ) -> tuple[nn.ModuleList, list[int]]:
        """The levels going down, and the channels of the activations they save, first to last."""
        levels, saved, current, image = nn.ModuleList(), [width], width, self.in_channels
        for index, wide in enumerate(self._channels):
            residuals = [self._residual(current if i == 0 else wide, wide) for i in range(self._blocks)]
            attended = self._blocks if self._attended[index] else 0
            attention = [SelfAttention(wide, self._skip_rescale) for _ in range(attended)]
            saved += [wide] * self._blocks
            leave, entry, current = None, None, wide
            if index < len(self._channels) - 1:
                leave = self._down(wide)
                if isinstance(progressive_input, SkipInput):
                    combine = progressive_input.combine
                    entry = InputSkip(image, wide, combine, downsampling(self._resampling))
                    current = 2 * wide if combine == "cat" else wide
                elif progressive_input is not None:
                    down = ConvDownsample(image, wide, self._resampling)
                    entry, image = InputResidual(down, self._skip_rescale), wide
                saved.append(current)
            levels.append(DownLevel(residuals, attention, leave, entry, self.recompute))
        return levels, saved

    def _encoded(
        self, x: Float[Tensor, "B C H W"], t: Float[Tensor, " B"], label_features: Tensor | None = None
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The middle's output, the features of time (and label) behind their SiLU, and the saved activations."""
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        embedded = self.embedding(t).to(self.time_in.weight.dtype)
        features = self.time_out(functional.silu(self.time_in(embedded)))
        time = functional.silu(features if label_features is None else features + label_features)
        image, x = x, self.conv_in(x)
        saved = [x]
        for level in self.downs:
            x, image, activations = level(x, time, image)
            saved += activations
        x = recomputed(self.middle_in, x, time, recompute=self.recompute)
        x = recomputed(self.middle_attention, x, recompute=self.recompute)
        return recomputed(self.middle_out, x, time, recompute=self.recompute), time, saved

    def _finish(self) -> None:
        """Last step of construction: the weights in the layout that channels_last asks for."""
        if self.channels_last:
            self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def _sized(self, z: Tensor, t: Tensor) -> Float[Tensor, "B C H W"]:
        """z with its variables in the channels, checked.

        Raises:
            ValueError: z or t does not have a shape that fits this network.
        """
        if z.ndim in (4, 5) and tuple(z.shape[-2:]) != self._sides:
            kind = type(self).__name__
            raise ValueError(f"this {kind} takes images of {self._sides}: got a state of {tuple(z.shape)}.")
        return self._folded(z, t)


def _resolutions(height: int, width: int, multipliers: Sequence[int]) -> list[int]:
    """Of every level, the shorter side."""
    if not multipliers or not all(1 <= multiplier <= MOST for multiplier in multipliers):
        raise ValueError(
            f"multipliers must be whole numbers in 1 … {MOST}, at least one: got {shown(list(multipliers))}."
        )
    factor = 2 ** (len(multipliers) - 1)
    given = height if height == width else f"{height}×{width}"
    refusal = f"image_size must be divisible by {factor} for {len(multipliers)} levels: got {given}"
    require_division(height, width, factor, refusal, "Use fewer multipliers, or images of another size.")
    return [min(height, width) // 2**index for index in range(len(multipliers))]


def _require_counts(blocks: int, width: int, dropout: float) -> None:
    whole("blocks", blocks, most=MOST)
    even_width(width)
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be in [0, 1): got {shown(dropout)}.")


def _require_attended(attention_resolutions: Sequence[int], resolutions: list[int]) -> None:
    unknown = sorted(set(attention_resolutions) - set(resolutions))
    if unknown:
        raise ValueError(
            f"attention_resolutions {unknown} are not among the levels' resolutions {resolutions}. "
            "Use some of those, or () for attention in the middle only."
        )
