"""A network around a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from psld.networks.channels import Interface
from psld.networks.class_conditional import is_class_conditional
from psld.specs import Specified

__all__ = ["Wrapping"]


class Wrapping(Specified, nn.Module):
    """Base of networks that call another one, and can be told whatever that one can: `ClassConditional` if it is.

    Args:
        network: the one inside.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    @property
    def classes(self) -> int | None:
        """Labels that the network can be told; None where it takes none."""
        return self.network.classes if is_class_conditional(self.network) else None

    @classmethod
    def inner_interface(cls, arguments: Mapping[str, Any], interface: Interface) -> Interface:
        """What the inner network takes and returns, where this one has `interface`; the same unless a class says so.

        Args:
            arguments: those of this class, as far as they are given.
            interface: what this network takes and returns.

        Raises:
            ValueError: no network of this class has such an interface.
        """
        return interface
