"""What the U-Net is built of: BigGAN residual blocks and self-attention, both starting as (scaled) identities.

A residual branch ends in weights of zero, so it adds nothing at first (Ho et al., 2020). With `skip_rescale` the sum of
skip and branch is divided by √2, which keeps the variance (Song et al., 2021, NCSN++).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["ResidualBlock", "SelfAttention", "conv", "dense", "group_norm"]


def conv(inputs: int, outputs: int, size: int, zero: bool = False) -> nn.Conv2d:
    """A size×size convolution that keeps the resolution; Xavier-uniform weights, or zeros; bias zero."""
    layer = nn.Conv2d(inputs, outputs, size, padding=size // 2)
    _initialise(layer, zero)
    return layer


def dense(inputs: int, outputs: int, zero: bool = False) -> nn.Linear:
    """A linear layer; Xavier-uniform weights, or zeros; bias zero."""
    layer = nn.Linear(inputs, outputs)
    _initialise(layer, zero)
    return layer


def _initialise(layer: nn.Conv2d | nn.Linear, zero: bool) -> None:
    if zero:
        nn.init.zeros_(layer.weight)
    else:
        nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with the most groups, at most 32, that divide the channels and leave four or more channels in each."""
    groups = min(max(channels // 4, 1), 32)
    while channels % groups:
        groups -= 1
    return nn.GroupNorm(groups, channels, eps=1e-6)


class ResidualBlock(nn.Module):
    """norm – SiLU – (resample) – conv – (+ time) – norm – SiLU – dropout – conv, added to the (resampled) input.

    Args:
        inputs, outputs: channels.
        time_width: width of the time features.
        dropout: probability, before the second convolution.
        skip_rescale: divide the sum by √2.
        resample: a module of psld.networks.resampling, applied to branch and skip; None keeps the resolution.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        time_width: int,
        dropout: float = 0.0,
        skip_rescale: bool = True,
        resample: nn.Module | None = None,
    ):
        super().__init__()
        self.resample = nn.Identity() if resample is None else resample
        self.norm_in, self.conv_in = group_norm(inputs), conv(inputs, outputs, 3)
        self.time = dense(time_width, outputs)
        self.norm_out, self.dropout, self.conv_out = (
            group_norm(outputs),
            nn.Dropout(dropout),
            conv(outputs, outputs, 3, zero=True),
        )
        projected = inputs != outputs or resample is not None
        self.skip = conv(inputs, outputs, 1) if projected else nn.Identity()
        self.scale = math.sqrt(0.5) if skip_rescale else 1.0

    def forward(self, x: Float[Tensor, "B C H W"], time: Float[Tensor, "B D"]) -> Float[Tensor, "B C2 H2 W2"]:
        branch = self.conv_in(self.resample(functional.silu(self.norm_in(x))))
        branch = branch + self.time(functional.silu(time))[:, :, None, None]
        branch = self.conv_out(self.dropout(functional.silu(self.norm_out(branch))))
        return (self.skip(self.resample(x)) + branch) * self.scale


class SelfAttention(nn.Module):
    """Single-head attention between all pixels, added to the input.

    Args:
        channels: of the input and the output.
        skip_rescale: divide the sum by √2.
    """

    def __init__(self, channels: int, skip_rescale: bool = True):
        super().__init__()
        self.norm = group_norm(channels)
        self.query, self.key, self.value = (conv(channels, channels, 1) for _ in range(3))
        self.out = conv(channels, channels, 1, zero=True)
        self.scale = math.sqrt(0.5) if skip_rescale else 1.0

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        normed = self.norm(x)
        query, key, value = (_sequence(layer(normed)) for layer in (self.query, self.key, self.value))
        mixed = functional.scaled_dot_product_attention(query, key, value)
        mixed = mixed[:, 0].transpose(1, 2).reshape(x.shape)
        return (x + self.out(mixed)) * self.scale


def _sequence(x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 1 HW C"]:
    return torch.flatten(x, 2).transpose(1, 2)[:, None]
