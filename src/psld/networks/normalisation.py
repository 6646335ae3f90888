"""Group norm, and group norm with SiLU and dropout, as every block has them."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["NormSiLU", "group_norm", "groups_of"]


def groups_of(channels: int) -> int:
    """The most groups, at most 32, that divide the channels and leave four or more channels in each."""
    groups = min(max(channels // 4, 1), 32)
    while channels % groups:
        groups -= 1
    return groups


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with the groups of `groups_of`."""
    return nn.GroupNorm(groups_of(channels), channels, eps=1e-6)


class NormSiLU(nn.GroupNorm):
    """dropout(SiLU(GroupNorm(x))).

    Args:
        channels: of the input; groups as in `groups_of`.
        dropout: probability, in training mode.
    """

    def __init__(self, channels: int, dropout: float = 0.0):
        super().__init__(groups_of(channels), channels, eps=1e-6)
        self.dropout = dropout

    def forward(self, input: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        normed = functional.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)
        active = functional.silu(normed, inplace=not torch.is_grad_enabled())
        return functional.dropout(active, self.dropout, self.training)
