"""The U-Net of DDPM++ and NCSN++ (Ho et al., 2020; Song et al., 2021, arXiv 2011.13456), for phase-space images.

Going down, every level has `blocks` residual blocks and, but for the last, one that halves the resolution; going up,
`blocks + 1` that each take one of the saved activations, and one that doubles it. Attention follows every block of the
attended resolutions going down, the level going up, and sits in the middle.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from psld.networks.blocks import ResidualBlock, SelfAttention, conv, dense, group_norm
from psld.networks.embeddings import Embedding, time_embedding
from psld.networks.resampling import AverageDownsample, NearestUpsample

__all__ = ["UNet"]


class Level(nn.Module):
    """The residual blocks of one resolution on one side, what attends after them, and the block that leaves it."""

    def __init__(self, blocks: list[ResidualBlock], attention: list[SelfAttention], leave: ResidualBlock | None):
        super().__init__()
        self.blocks, self.attention, self.leave = nn.ModuleList(blocks), nn.ModuleList(attention), leave

    def down(self, x: Tensor, time: Tensor, saved: list[Tensor]) -> Tensor:
        """Runs the level and appends every activation the way up will need to `saved`."""
        for index, block in enumerate(self.blocks):
            x = block(x, time)
            if self.attention:
                x = self.attention[index](x)
            saved.append(x)
        if self.leave is not None:
            x = self.leave(x, time)
            saved.append(x)
        return x

    def up(self, x: Tensor, time: Tensor, saved: list[Tensor]) -> Tensor:
        """Runs the level, taking one activation off `saved` for each block."""
        for block in self.blocks:
            x = block(torch.cat([x, saved.pop()], dim=1), time)
        for attention in self.attention:
            x = attention(x)
        return x if self.leave is None else self.leave(x, time)


class UNet(nn.Module):
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
        time_scale: for "positional"; 1000 spans DDPM's integer steps, published PSLD weights use 1.
        fourier_scale: for "fourier", standard deviation of the frequencies.
        skip_rescale: divide every residual sum by √2.

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
    ):
        super().__init__()
        resolutions = _resolutions(image_size, multipliers)
        _require_counts(in_channels, out_channels, width, blocks, dropout)
        _require_attended(attention_resolutions, resolutions)
        self.in_channels, self.out_channels, self.image_size = in_channels, out_channels, image_size
        self._time_width, self._dropout, self._skip_rescale = 4 * width, dropout, skip_rescale

        self.embedding = time_embedding(embedding, width, time_scale, fourier_scale)
        self.time_in = dense(self.embedding.width, 4 * width)
        self.time_out = dense(4 * width, 4 * width)

        channels = [multiplier * width for multiplier in multipliers]
        attended = [resolution in attention_resolutions for resolution in resolutions]
        self.conv_in = conv(in_channels, width, 3)
        self.downs, saved = self._downs(width, channels, attended, blocks)
        self.middle_in = self._residual(channels[-1], channels[-1])
        self.middle_attention = SelfAttention(channels[-1], skip_rescale)
        self.middle_out = self._residual(channels[-1], channels[-1])
        self.ups = self._ups(saved, channels, attended, blocks)
        self.norm_out, self.conv_out = group_norm(channels[0]), conv(channels[0], out_channels, 3, zero=True)

    def _residual(self, inputs: int, outputs: int, resample: nn.Module | None = None) -> ResidualBlock:
        return ResidualBlock(inputs, outputs, self._time_width, self._dropout, self._skip_rescale, resample)

    def _downs(self, width: int, channels: list[int], attended: list[bool], blocks: int):
        """The levels going down, and the channels of the activations they save, first to last."""
        levels, saved, current = nn.ModuleList(), [width], width
        for index, wide in enumerate(channels):
            residuals = [self._residual(current if i == 0 else wide, wide) for i in range(blocks)]
            attention = [SelfAttention(wide, self._skip_rescale) for _ in range(blocks if attended[index] else 0)]
            last = index == len(channels) - 1
            leave = None if last else self._residual(wide, wide, AverageDownsample())
            levels.append(Level(residuals, attention, leave))
            saved += [wide] * (blocks if last else blocks + 1)
            current = wide
        return levels, saved

    def _ups(self, saved: list[int], channels: list[int], attended: list[bool], blocks: int) -> nn.ModuleList:
        """The levels going up, lowest resolution first; `saved` is used up from its end."""
        levels, current = nn.ModuleList(), channels[-1]
        for index, wide in reversed(list(enumerate(channels))):
            residuals = []
            for _ in range(blocks + 1):
                residuals.append(self._residual(current + saved.pop(), wide))
                current = wide
            attention = [SelfAttention(wide, self._skip_rescale)] if attended[index] else []
            leave = None if index == 0 else self._residual(wide, wide, NearestUpsample())
            levels.append(Level(residuals, attention, leave))
        return levels

    def forward(self, z: Float[Tensor, "B *shape"], t: Float[Tensor, " B"]) -> Float[Tensor, "B *out_shape"]:
        """Predicts from the state.

        Args:
            z: (B, k, C, H, W), or (B, k·C, H, W) with the variables folded into the channels.
            t: (B,) times, on the device of z.

        Returns:
            (B, r, C, H, W) for the first form of z, (B, r·C, H, W) for the second.

        Raises:
            ValueError: z or t does not have such a shape.
        """
        self._require_input(z, t)
        output = self._folded(z.flatten(1, 2) if z.ndim == 5 else z, t)
        return output.unflatten(1, (-1, z.shape[2])) if z.ndim == 5 else output

    def _folded(self, x: Float[Tensor, "B C H W"], t: Float[Tensor, " B"]) -> Float[Tensor, "B C2 H W"]:
        time = self.time_out(functional.silu(self.time_in(self.embedding(t))))
        x = self.conv_in(x)
        saved = [x]
        for level in self.downs:
            x = cast(Level, level).down(x, time, saved)
        x = self.middle_out(self.middle_attention(self.middle_in(x, time)), time)
        for level in self.ups:
            x = cast(Level, level).up(x, time, saved)
        return self.conv_out(functional.silu(self.norm_out(x)))

    def _require_input(self, z: Tensor, t: Tensor) -> None:
        size = self.image_size
        if z.ndim not in (4, 5) or tuple(z.shape[-2:]) != (size, size):
            raise ValueError(
                f"this U-Net takes (B, k, C, {size}, {size}) or (B, k·C, {size}, {size}): got {tuple(z.shape)}."
            )
        channels = z.shape[1] if z.ndim == 4 else z.shape[1] * z.shape[2]
        if channels != self.in_channels:
            raise ValueError(
                f"this U-Net has in_channels={self.in_channels}, the input has {channels}: got {tuple(z.shape)}. "
                "in_channels is k · C, all phase-space variables together."
            )
        if z.ndim == 5 and self.out_channels % z.shape[2]:
            raise ValueError(
                f"out_channels={self.out_channels} is no multiple of the {z.shape[2]} channels of {tuple(z.shape)}."
            )
        if t.shape != z.shape[:1]:
            raise ValueError(f"t must have one time a sample, shape ({z.shape[0]},): got {tuple(t.shape)}.")


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


def _require_counts(in_channels: int, out_channels: int, width: int, blocks: int, dropout: float) -> None:
    for name, count in {"in_channels": in_channels, "out_channels": out_channels, "blocks": blocks}.items():
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
