"""Embeddings of the time: what a network is told about how noisy its input is.

    sinusoidal     [sin(ω_j c t), cos(ω_j c t)],      ω_j = 10000^(−j/(n−1)),  j = 0 … n−1        (Vaswani et al., 2017)
    Fourier        [sin(2π w_j log t), cos(2π w_j log t)],      w_j ~ N(0, scale²), drawn once    (Tancik et al., 2020)

Both have 2n numbers for a time. They are computed in float32 whatever the precision of the network.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from psld.specs import SpecifiedValue
from psld.specs.arguments import WIDEST, positive, whole

__all__ = ["FourierEmbedding", "FourierTime", "PositionalTime", "SinusoidalEmbedding", "TimeEmbedding"]


def even_width(width: int) -> int:
    """An even number of channels, at least 4; raises ValueError for another."""
    if whole("width", width, most=WIDEST) < 4 or width % 2:
        raise ValueError(f"width must be even and at least 4: got {width}.")
    return width


class SinusoidalEmbedding(nn.Module):
    """Sines, then cosines, of c·t at geometrically spaced frequencies from 1 down to 1/10000.

    Args:
        width: how many numbers a time becomes; even, at least 4.
        time_scale: c. With 1000, t ∈ [0, 1] spans what DDPM's integer steps span; published PSLD weights use 1.

    Raises:
        ValueError: the width is odd or below 4.
    """

    frequencies: Tensor

    def __init__(self, width: int, time_scale: float = 1000.0):
        super().__init__()
        self.width, self.time_scale = even_width(width), positive("time_scale", time_scale)
        exponents = torch.arange(width // 2, dtype=torch.float64) / (width // 2 - 1)
        frequencies = torch.exp(-math.log(10_000.0) * exponents).float()
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, t: Float[Tensor, " B"]) -> Float[Tensor, "B width"]:
        angles = (self.time_scale * t.float())[:, None] * self.frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class FourierEmbedding(nn.Module):
    """Sines, then cosines, of log t at random frequencies, drawn once and saved with the weights.

    Args:
        width: how many frequencies; a time becomes 2 × width numbers, as in NCSN++.
        scale: standard deviation of the frequencies.

    Raises:
        ValueError: the width or the scale is not positive.
    """

    frequencies: Tensor

    def __init__(self, width: int, scale: float = 16.0):
        super().__init__()
        self.width, scale = 2 * whole("width", width, most=WIDEST), positive("scale", scale)
        self.register_buffer("frequencies", torch.randn(width) * scale)

    def forward(self, t: Float[Tensor, " B"]) -> Float[Tensor, "B width"]:
        """t must be positive: log t is what is embedded."""
        # in this order: angles reach thousands, where another order of products would round to another sine
        angles = t.float().log()[:, None] * self.frequencies * (2 * math.pi)
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class TimeEmbedding(SpecifiedValue):
    """A choice of embedding, before the network says how wide it is."""

    @abstractmethod
    def of_width(self, width: int) -> SinusoidalEmbedding | FourierEmbedding:
        """The embedding for a network of this width."""


class PositionalTime(TimeEmbedding):
    """Sines and cosines of scale · t: `SinusoidalEmbedding`.

    Args:
        scale: with 1000, t ∈ [0, 1] spans what DDPM's integer steps span; published PSLD weights use 1.

    Raises:
        ValueError: the scale is not positive.
    """

    def __init__(self, scale: float = 1000.0):
        self.scale = positive("scale", scale)

    def of_width(self, width: int) -> SinusoidalEmbedding:
        return SinusoidalEmbedding(width, self.scale)


class FourierTime(TimeEmbedding):
    """Gaussian Fourier features of log t, which must be positive: `FourierEmbedding`.

    Args:
        scale: standard deviation of the frequencies.

    Raises:
        ValueError: the scale is not positive.
    """

    def __init__(self, scale: float = 16.0):
        self.scale = positive("scale", scale)

    def of_width(self, width: int) -> FourierEmbedding:
        return FourierEmbedding(width, self.scale)
