"""A network that computes in 16 bits where that is safe."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from psld.networks.wrapping import Wrapping

__all__ = ["Autocast"]


class Autocast(Wrapping):
    """`network` under torch.autocast, for hardware that computes faster in 16 bits.

    Weights, state, t and σ come as they are, so what a preconditioned network passes through itself is not rounded, and
    a sampler's state never is.

    Args:
        network: called as network(z, t).
        dtype: torch.bfloat16 or torch.float16.

    Raises:
        ValueError: another dtype.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype = torch.bfloat16):
        super().__init__(network)
        if dtype not in (torch.bfloat16, torch.float16):
            raise ValueError(f"dtype must be torch.bfloat16 or torch.float16: got {dtype}.")
        self.dtype = dtype

    def forward(self, z: Float[Tensor, "B ..."], t: Float[Tensor, " B"], **condition: Any) -> Tensor:
        """What the network returns, in the dtype of z."""
        with torch.autocast(z.device.type, self.dtype):
            return self.network(z, t, **condition).to(z.dtype)
