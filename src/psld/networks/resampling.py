"""Changes of resolution by a factor of two, each a module without parameters."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["AverageDownsample", "NearestUpsample"]


class AverageDownsample(nn.Module):
    """The mean of every 2×2 square: (B, C, 2h, 2w) → (B, C, h, w)."""

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C h w"]:
        return functional.avg_pool2d(x, kernel_size=2)


class NearestUpsample(nn.Module):
    """Every pixel becomes a 2×2 square: (B, C, h, w) → (B, C, 2h, 2w)."""

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C H W"]:
        return functional.interpolate(x, scale_factor=2, mode="nearest")
