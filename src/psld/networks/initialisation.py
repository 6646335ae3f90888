"""Layers with the initial weights of DDPM and NCSN++: Xavier-uniform times a gain, or zeros; every bias zero."""

from __future__ import annotations

import math

from torch import nn

__all__ = ["ATTENTION_GAIN", "conv", "dense"]

ATTENTION_GAIN = math.sqrt(0.1)
"""Gain of query, key and value: a variance of a tenth (NCSN++)."""


def conv(inputs: int, outputs: int, size: int, zero: bool = False, gain: float = 1.0) -> nn.Conv2d:
    """A size×size convolution that keeps the resolution."""
    layer = nn.Conv2d(inputs, outputs, size, padding=size // 2)
    _initialise(layer, zero, gain)
    return layer


def dense(inputs: int, outputs: int, zero: bool = False, bias: bool = True) -> nn.Linear:
    """A linear layer."""
    layer = nn.Linear(inputs, outputs, bias)
    _initialise(layer, zero)
    return layer


def _initialise(layer: nn.Conv2d | nn.Linear, zero: bool, gain: float = 1.0) -> None:
    if zero:
        nn.init.zeros_(layer.weight)
    else:
        nn.init.xavier_uniform_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
