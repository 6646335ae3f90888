"""One resolution of the U-Net, going down and going up, with the progressive input and output that pass beside it.

Progressive input: the image itself is halved level by level and joins the way down (`SkipInput`: through a 1×1
convolution, summed or concatenated; `ResidualInput`: through a strided convolution of its own, and the sum goes on as
the image). Progressive output: every level going up adds to an image ("output_skip") or to features ("residual") that
are doubled level by level (Karras et al., 2020; Song et al., 2021, NCSN++).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from psld.networks.blocks import ResidualBlock, SelfAttention, rescaled_sum
from psld.networks.initialisation import conv
from psld.networks.normalisation import NormSiLU
from psld.networks.resampling import ConvDownsample, ConvUpsample, Resample
from psld.specs import SpecifiedValue

__all__ = [
    "Combine",
    "DownLevel",
    "InputResidual",
    "InputSkip",
    "OutputHead",
    "OutputResidual",
    "OutputSkip",
    "ProgressiveOutput",
    "ResidualInput",
    "SkipInput",
    "UpLevel",
    "recomputed",
]

ProgressiveOutput = Literal["output_skip", "residual"]
"""How every level going up joins the output: an image of its own at every level, or features and one image at last."""
Combine = Literal["sum", "cat"]
"""Added to the features, or put before them as channels."""
Features = Float[Tensor, "B C H W"]
Image = Float[Tensor, "B D H2 W2"]
"""What passes beside the features: of their resolution behind a step, of twice or half of it before."""
Time = Float[Tensor, "B E"]
Left = Float[Tensor, "B C_left H_left W_left"]
LeftImage = Float[Tensor, "B D_left H2_left W2_left"]
"""Features and image as a layer leaves them: of other channels or another resolution."""


class SkipInput(SpecifiedValue):
    """Progressive input through 1×1 convolutions of the halved image: `InputSkip` at every level going down.

    Args:
        combine: "sum", added to the features, or "cat", put before them as channels.

    Raises:
        ValueError: another way to combine.
    """

    def __init__(self, combine: Combine = "sum"):
        self.combine: Combine = combine


class ResidualInput(SpecifiedValue):
    """Progressive input through strided convolutions that add up: `InputResidual` at every level, as in NCSN++."""

    def __init__(self):
        super().__init__()


def recomputed(module: nn.Module, *inputs: Tensor, recompute: bool) -> Tensor:
    """`module(*inputs)`; with `recompute`, in training, its activations are computed again in the backward pass."""
    if recompute and module.training and torch.is_grad_enabled():
        return checkpoint(module, *inputs, use_reentrant=False)
    return module(*inputs)


class InputSkip(nn.Module):
    """The image, halved, through a 1×1 convolution, summed with the features or put before them as channels."""

    def __init__(self, image_channels: int, channels: int, combine: Combine, down: Resample):
        super().__init__()
        self.down, self.conv, self.combine = down, conv(image_channels, channels, 1), combine

    def forward(self, image: Image, x: Features) -> tuple[LeftImage, Left]:
        """The halved image and the new features."""
        image = self.down(image)
        entered = self.conv(image)
        return image, torch.cat([entered, x], dim=1) if self.combine == "cat" else entered + x


class InputResidual(nn.Module):
    """The image through a strided convolution, plus the features: both the next image and the new features."""

    def __init__(self, down: ConvDownsample, skip_rescale: bool):
        super().__init__()
        self.down, self.scale = down, math.sqrt(0.5) if skip_rescale else 1.0

    def forward(self, image: Image, x: Features) -> tuple[LeftImage, Left]:
        """The sum, twice."""
        total = rescaled_sum(self.down(image), x, self.scale)
        return total, total


class OutputHead(nn.Module):
    """norm – SiLU – 3×3 convolution; zero at first where its result is the output."""

    def __init__(self, channels: int, outputs: int, zero: bool):
        super().__init__()
        self.norm, self.conv = NormSiLU(channels), conv(channels, outputs, 3, zero=zero)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C2 H W"]:
        return self.conv(self.norm(x))


class OutputSkip(nn.Module):
    """The output so far, doubled, plus this level's own; the features go on as they are."""

    def __init__(self, head: OutputHead, up: Resample | None):
        super().__init__()
        self.head, self.up = head, up

    def forward(self, image: Image | None, x: Features) -> tuple[LeftImage, Left]:
        """The output at this resolution, and the features."""
        own = self.head(x)
        return own if image is None or self.up is None else self.up(image) + own, x


class OutputResidual(nn.Module):
    """The running features, doubled by a convolution, plus this level's: both what runs on and the new features."""

    def __init__(self, head: OutputHead | None, up: ConvUpsample | None, skip_rescale: bool):
        super().__init__()
        self.head, self.up, self.scale = head, up, math.sqrt(0.5) if skip_rescale else 1.0

    def forward(self, image: Image | None, x: Features) -> tuple[LeftImage, Left]:
        """The sum, twice; at the lowest resolution the head of the features, and the features."""
        if image is None or self.up is None:
            return (x if self.head is None else self.head(x)), x
        total = rescaled_sum(self.up(image), x, self.scale)
        return total, total


class DownLevel(nn.Module):
    """The residual blocks of one resolution going down, what attends after each, and how the level is left."""

    def __init__(
        self,
        blocks: Sequence[ResidualBlock],
        attention: Sequence[SelfAttention],
        leave: ResidualBlock | ConvDownsample | Resample | None,
        entry: InputSkip | InputResidual | None,
        recompute: bool,
    ):
        super().__init__()
        self.blocks, self.attention, self.leave = nn.ModuleList(blocks), nn.ModuleList(attention), leave
        self.entry, self.recompute = entry, recompute

    def forward(self, x: Features, time: Time, image: Image) -> tuple[Left, LeftImage, list[Tensor]]:
        """Features and image below, and every activation that the way up will need, in order.

        They are returned, not appended to a list of the caller's: a level in slices gets copies of lists.
        """
        saved = []
        for index, block in enumerate(self.blocks):
            x = recomputed(block, x, time, recompute=self.recompute)
            if self.attention:
                x = recomputed(self.attention[index], x, recompute=self.recompute)
            saved.append(x)
        if self.leave is not None:
            x = left(self.leave, x, time, self.recompute)
            if self.entry is not None:
                image, x = self.entry(image, x)
            saved.append(x)
        return x, image, saved


class UpLevel(nn.Module):
    """The residual blocks of one resolution going up, the attention behind them, its output, and how it is left."""

    def __init__(
        self,
        blocks: Sequence[ResidualBlock],
        attention: Sequence[SelfAttention],
        leave: ResidualBlock | ConvUpsample | Resample | None,
        output: OutputSkip | OutputResidual | None,
        recompute: bool,
    ):
        super().__init__()
        self.blocks, self.attention, self.leave = nn.ModuleList(blocks), nn.ModuleList(attention), leave
        self.output, self.recompute = output, recompute

    def forward(
        self, x: Features, time: Time, image: Image | None, saved: list[Tensor]
    ) -> tuple[Left, LeftImage | None]:
        """Features and running output above; `saved` has one activation for each block in turn, and is emptied."""
        for block in self.blocks:
            x = recomputed(block, torch.cat([x, saved.pop(0)], dim=1), time, recompute=self.recompute)
        for attention in self.attention:
            x = recomputed(attention, x, recompute=self.recompute)
        if self.output is not None:
            image, x = self.output(image, x)
        return x if self.leave is None else left(self.leave, x, time, self.recompute), image


def left(module: nn.Module, x: Tensor, time: Tensor, recompute: bool) -> Tensor:
    """Through the change of resolution that ends a level: a residual block sees the time, the others do not."""
    inputs = (x, time) if isinstance(module, ResidualBlock) else (x,)
    return recomputed(module, *inputs, recompute=recompute)
