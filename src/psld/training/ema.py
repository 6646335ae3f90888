"""An exponential moving average of a network's weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

__all__ = ["ExponentialMovingAverage"]


class ExponentialMovingAverage:
    """a ← d a + (1 − d) w after every step, d = min(decay, (1 + n) / (10 + n)) at the n-th, n = 1, 2, ….

    The averages live beside the network and are never swapped into it: whoever wants them loads `state_dict()` into
    another instance, so no error can leave a network with the wrong weights.

    Args:
        network: whose parameters are averaged, on their device. Of a network in slices each process averages its own.
            Buffers are not averaged, they are the network's own.
        decay: in [0, 1).
        updates: n so far; for a resumed run.
    """

    def __init__(self, network: nn.Module, decay: float, updates: int = 0):
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1): got {decay}.")
        self.decay, self.updates = decay, updates
        self._network = network
        self._names = [name for name, _ in network.named_parameters()]
        self._weights = [parameter.detach() for parameter in network.parameters()]
        self._averages = [weight.clone() for weight in self._weights]

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the network's present weights."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self._averages, self._weights, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]

    def state_dict(self) -> dict[str, Tensor]:
        """The network's state with averages for parameters: loads into a network of the same kind."""
        return self._network.state_dict() | dict(zip(self._names, self._averages, strict=True))

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes the averages from a `state_dict()`.

        Raises:
            KeyError: a parameter is missing.
        """
        for name, average in zip(self._names, self._averages, strict=True):
            average.copy_(state[name])
