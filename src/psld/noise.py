"""Where randomness comes from: one stream a sample, so that a sample does not depend on its batch or its device."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from psld.specs.arguments import seed_numbers

__all__ = ["Generators", "SeededNoise", "standard_normal"]

Generators = torch.Generator | Sequence[torch.Generator] | None
"""One generator for all samples, one a sample, or None for the global one."""


def standard_normal(
    shape: tuple[int, ...], generator: Generators = None, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "B ..."]:
    """ε ~ N(0, I) of shape (B, …), on the CPU.

    With one generator a sample, a sample's noise does not depend on the batch it is in: cut the batch in parts, or
    spread it over machines, and every sample still gets the same numbers.

    Raises:
        ValueError: there are several generators, and not B of them.
    """
    if generator is None or isinstance(generator, torch.Generator):
        return torch.randn(shape, dtype=dtype, generator=generator)
    if len(generator) != shape[0]:
        raise ValueError(f"one generator a sample is needed: got {len(generator)} for {shape[0]} samples.")
    noise = torch.empty(shape, dtype=dtype)
    for row, own in zip(noise, generator, strict=True):
        torch.randn(row.shape, dtype=dtype, generator=own, out=row)
    return noise


class SeededNoise:
    """Standard normal states, each sample from a generator of its own. Calling it draws the next (B, *shape).

    Args:
        seeds: one integer a sample.
        shape: shape of one draw, (k, *data).
        dtype, device: of what is returned; the draws themselves are float64 on the CPU, the same everywhere.
    """

    def __init__(
        self,
        seeds: Iterable[int],
        shape: tuple[int, ...],
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ):
        self.seeds = seed_numbers("seeds", seeds)
        self.generators = [torch.Generator().manual_seed(seed) for seed in self.seeds]
        self.shape, self.dtype, self.device = tuple(shape), dtype, device
        self._ahead: list[Tensor] = []

    def __len__(self) -> int:
        return len(self.generators)

    def __call__(self) -> Float[Tensor, "B ..."]:
        if not self._ahead:
            # several draws a call of each generator; how many depends on the shape only, so a sample's numbers do not
            block = torch.empty(len(self), _draws_ahead(self.shape), *self.shape, dtype=torch.float64)
            for row, generator in zip(block, self.generators, strict=True):
                torch.randn(row.shape, dtype=torch.float64, generator=generator, out=row)
            self._ahead = list(block.unbind(1))[::-1]
        return self._ahead.pop().to(self.device, self.dtype)


def _draws_ahead(shape: tuple[int, ...]) -> int:
    return max(1, min(16, 2**14 // max(1, math.prod(shape))))
