"""A network around a network."""

from __future__ import annotations

from torch import nn

from psld.specs import Specified

__all__ = ["Wrapping"]


class Wrapping(Specified, nn.Module):
    """Base of networks that call another one, and can be told whatever that one can.

    Args:
        network: the one inside.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    @property
    def classes(self) -> int | None:
        """Labels that the network can be told; None where it takes none."""
        return getattr(self.network, "classes", None)
