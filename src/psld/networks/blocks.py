"""What the networks are built of: residual blocks and self-attention, both starting as (scaled) identities.

A residual branch ends in weights of zero, so it adds nothing at first (Ho et al., 2020). With `skip_rescale` the sum of
skip and branch is divided by √2, which keeps the variance (Song et al., 2021, NCSN++).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from psld.networks.initialisation import ATTENTION_GAIN, conv, dense
from psld.networks.normalisation import NormSiLU, group_norm
from psld.networks.resampling import Resample

__all__ = ["ResidualBlock", "SelfAttention", "rescaled_sum"]


def rescaled_sum(a: Float[Tensor, "B C H W"], b: Float[Tensor, "B C H W"], scale: float) -> Float[Tensor, "B C H W"]:
    """scale · (a + b), in one piece of memory."""
    total = a + b
    return total if scale == 1 else total.mul_(scale)


class ResidualBlock(nn.Module):
    """norm – SiLU – (resample) – conv – (+ time) – norm – SiLU – dropout – conv, added to the (resampled) input.

    With `resample` it is the BigGAN block of NCSN++; without, the same as that of DDPM.

    Args:
        inputs, outputs: channels.
        time_width: width of the time features.
        dropout: probability, before the second convolution.
        skip_rescale: divide the sum by √2.
        resample: of psld.networks.resampling, applied to branch and skip; None keeps the resolution.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        time_width: int,
        dropout: float = 0.0,
        skip_rescale: bool = True,
        resample: Resample | None = None,
    ):
        super().__init__()
        self.resample = resample
        self.norm_in, self.conv_in = NormSiLU(inputs), conv(inputs, outputs, 3)
        self.time = dense(time_width, outputs)
        self.norm_out, self.conv_out = NormSiLU(outputs, dropout), conv(outputs, outputs, 3, zero=True)
        self.skip = conv(inputs, outputs, 1) if inputs != outputs or resample is not None else None
        self.scale = math.sqrt(0.5) if skip_rescale else 1.0

    def forward(self, x: Float[Tensor, "B C H W"], time: Float[Tensor, "B D"]) -> Float[Tensor, "B C2 H2 W2"]:
        """`time` is behind its SiLU already: the network computes that once for all blocks."""
        branch = self.norm_in(x)
        branch = self.conv_in(branch) if self.resample is None else self.resample.convolved(branch, self.conv_in)
        branch = branch.add_(self.time(time)[:, :, None, None])
        branch = self.conv_out(self.norm_out(branch))
        return rescaled_sum(self._skipped(x), branch, self.scale)

    def _skipped(self, x: Tensor) -> Tensor:
        if self.skip is None:
            return x
        return self.skip(x) if self.resample is None else self.resample.projected(x, self.skip)


class SelfAttention(nn.Module):
    """Single-head attention between all pixels, added to the input.

    Args:
        channels: of the input and the output.
        skip_rescale: divide the sum by √2.
    """

    def __init__(self, channels: int, skip_rescale: bool = True):
        super().__init__()
        self.norm = group_norm(channels)
        self.query, self.key, self.value = (conv(channels, channels, 1, gain=ATTENTION_GAIN) for _ in range(3))
        self.out = conv(channels, channels, 1, zero=True)
        self.scale = math.sqrt(0.5) if skip_rescale else 1.0

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        normed = self.norm(x)
        query, key, value = (_sequence(layer(normed)) for layer in (self.query, self.key, self.value))
        mixed = functional.scaled_dot_product_attention(query, key, value)
        mixed = mixed[:, 0].transpose(1, 2).reshape(x.shape)
        return rescaled_sum(x, self.out(mixed), self.scale)


def _sequence(x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 1 HW C"]:
    return torch.flatten(x, 2).transpose(1, 2)[:, None]
