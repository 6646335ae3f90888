"""The half that score networks and classifiers share: time features, the way down, and the middle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from psld.networks.blocks import ResidualBlock, SelfAttention
from psld.networks.embeddings import Embedding, time_embedding
from psld.networks.initialisation import conv, dense
from psld.networks.levels import Combine, DownLevel, InputResidual, InputSkip, ProgressiveInput, recomputed
from psld.networks.resampling import ConvDownsample, ConvUpsample, Resample, Resampling, downsampling, upsampling
from psld.specs import Specified

__all__ = ["BlockKind", "Encoder"]

BlockKind = Literal["biggan", "ddpm"]
"""How a level is left: a residual block that resamples ("biggan"), or a layer that does nothing else ("ddpm")."""

FIR_TAPS = (1.0, 3.0, 3.0, 1.0)


class Encoder(Specified, nn.Module):
    """The way down of NCSN++ and its middle; base class of `NCSNpp` and `NoiseClassifier`, which list the arguments."""

    def __init__(
        self,
        in_channels: int,
        image_size: int,
        width: int,
        multipliers: Sequence[int],
        blocks: int,
        attention_resolutions: Sequence[int],
        dropout: float,
        embedding: Embedding,
        time_scale: float,
        fourier_scale: float,
        skip_rescale: bool,
        resampling: Resampling,
        fir_taps: Sequence[float],
        block: BlockKind,
        resample_with_conv: bool,
        progressive_input: ProgressiveInput,
        combine: Combine,
        channels_last: bool,
        recompute: bool,
    ):
        super().__init__()
        resolutions = _resolutions(image_size, multipliers)
        _require_counts(in_channels, blocks, width, dropout)
        _require_attended(attention_resolutions, resolutions)
        _require_names(block=block, progressive_input=progressive_input, combine=combine)
        self.in_channels, self.image_size = in_channels, image_size
        self.channels_last, self.recompute = channels_last, recompute
        self._time_width, self._dropout, self._skip_rescale = 4 * width, dropout, skip_rescale
        self._resampling: Resampling = resampling
        self._taps, self._block, self._with_conv = tuple(fir_taps), block, resample_with_conv

        self.embedding = time_embedding(embedding, width, time_scale, fourier_scale)
        self.time_in = dense(self.embedding.width, 4 * width)
        self.time_out = dense(4 * width, 4 * width)
        self.conv_in = conv(in_channels, width, 3)
        attended = [resolution in attention_resolutions for resolution in resolutions]
        channels = [multiplier * width for multiplier in multipliers]
        self.downs, self._saved = self._down_levels(width, channels, attended, blocks, progressive_input, combine)
        deepest = self._saved[-1]
        self.middle_in = self._residual(deepest, deepest)
        self.middle_attention = SelfAttention(deepest, skip_rescale)
        self.middle_out = self._residual(deepest, deepest)
        self._channels, self._attended, self._blocks, self._deepest = channels, attended, blocks, deepest

    def _residual(self, inputs: int, outputs: int, resample: Resample | None = None) -> ResidualBlock:
        return ResidualBlock(inputs, outputs, self._time_width, self._dropout, self._skip_rescale, resample)

    def _down(self, channels: int) -> ResidualBlock | ConvDownsample | Resample:
        """What halves the resolution at the end of a level."""
        if self._block == "ddpm" and self._with_conv:
            return ConvDownsample(channels, channels, self._resampling, self._taps)
        resample = downsampling(self._resampling, self._taps)
        return resample if self._block == "ddpm" else self._residual(channels, channels, resample)

    def _up(self, channels: int) -> ResidualBlock | ConvUpsample | Resample:
        """What doubles it."""
        if self._block == "ddpm" and self._with_conv:
            return ConvUpsample(channels, channels, self._resampling, self._taps)
        resample = upsampling(self._resampling, self._taps)
        return resample if self._block == "ddpm" else self._residual(channels, channels, resample)

    def _down_levels(
        self,
        width: int,
        channels: list[int],
        attended: list[bool],
        blocks: int,
        progressive_input: ProgressiveInput,
        combine: Combine,
    ) -> tuple[nn.ModuleList, list[int]]:
        """The levels going down, and the channels of the activations they save, first to last."""
        levels, saved, current, image = nn.ModuleList(), [width], width, self.in_channels
        for index, wide in enumerate(channels):
            residuals = [self._residual(current if i == 0 else wide, wide) for i in range(blocks)]
            attention = [SelfAttention(wide, self._skip_rescale) for _ in range(blocks if attended[index] else 0)]
            saved += [wide] * blocks
            leave, entry, current = None, None, wide
            if index < len(channels) - 1:
                leave = self._down(wide)
                if progressive_input == "input_skip":
                    entry = InputSkip(image, wide, combine, downsampling(self._resampling, self._taps))
                    current = 2 * wide if combine == "cat" else wide
                elif progressive_input == "residual":
                    down = ConvDownsample(image, wide, self._resampling, self._taps)
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

    def _folded(self, z: Tensor, t: Tensor) -> Float[Tensor, "B C H W"]:
        """z with its variables in the channels, checked.

        Raises:
            ValueError: z or t does not have a shape that fits this network.
        """
        size, name = self.image_size, type(self).__name__
        if z.ndim not in (4, 5) or tuple(z.shape[-2:]) != (size, size):
            raise ValueError(
                f"this {name} takes (B, k, C, {size}, {size}) or (B, k·C, {size}, {size}): got {tuple(z.shape)}."
            )
        channels = z.shape[1] if z.ndim == 4 else z.shape[1] * z.shape[2]
        if channels != self.in_channels:
            raise ValueError(
                f"this {name} has in_channels={self.in_channels}, the input has {channels}: got {tuple(z.shape)}. "
                "in_channels is k · C, all phase-space variables together."
            )
        if t.shape != z.shape[:1]:
            raise ValueError(f"t must have one time a sample, shape ({z.shape[0]},): got {tuple(t.shape)}.")
        return z.flatten(1, 2) if z.ndim == 5 else z


def _resolutions(image_size: int, multipliers: Sequence[int]) -> list[int]:
    if not multipliers or any(multiplier < 1 for multiplier in multipliers):
        raise ValueError(f"multipliers must be one or more positive integers: got {tuple(multipliers)}.")
    factor = 2 ** (len(multipliers) - 1)
    if image_size < 1 or image_size % factor:
        raise ValueError(
            f"image_size must be divisible by {factor} for {len(multipliers)} levels: got {image_size}. "
            "Use fewer multipliers, or images of another size."
        )
    return [image_size // 2**index for index in range(len(multipliers))]


def _require_counts(in_channels: int, blocks: int, width: int, dropout: float) -> None:
    for name, count in {"in_channels": in_channels, "blocks": blocks}.items():
        if count < 1:
            raise ValueError(f"{name} must be at least 1: got {count}.")
    if width < 4 or width % 2:
        raise ValueError(f"width must be even and at least 4: got {width}.")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be in [0, 1): got {dropout}.")


def _require_attended(attention_resolutions: Sequence[int], resolutions: list[int]) -> None:
    unknown = sorted(set(attention_resolutions) - set(resolutions))
    if unknown:
        raise ValueError(
            f"attention_resolutions {unknown} are not among the levels' resolutions {resolutions}. "
            "Use some of those, or () for attention in the middle only."
        )


ALLOWED = {
    "block": ("biggan", "ddpm"),
    "progressive_input": ("none", "input_skip", "residual"),
    "progressive_output": ("none", "output_skip", "residual"),
    "combine": ("sum", "cat"),
}


def _require_names(**given: str) -> None:
    for option, value in given.items():
        if value not in ALLOWED[option]:
            raise ValueError(f"{option} must be one of {', '.join(map(repr, ALLOWED[option]))}: got {value!r}.")
