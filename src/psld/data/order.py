"""The order of training data: shuffled, and a pure function of (seed, step).

Epoch e is the permutation drawn from the seed (seed, e); the epochs follow one another as one stream, and step n takes
positions n·B … (n+1)·B − 1 of it. No state is kept, so a resumed run continues in mid-epoch with the very next batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

from psld.specs.arguments import checked, seed_number, whole

__all__ = ["ShuffledBatches", "derived_seed"]


def derived_seed(*parts: int | str) -> int:
    """A 63-bit seed that depends on every part, e.g. (seed, "noise", step, rank); the same on every machine."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class ShuffledBatches(Sampler[list[int]]):
    """Lists of indices, one a step: a `batch_sampler` for DataLoader.

    Args:
        length: items in the data set.
        batch_size: items in a step, of all ranks together; a multiple of `world`.
        seed: of the order.
        start_step: the first step to give; n after n completed steps.
        steps: the last step, excluded: iterating gives steps − start_step batches.
        rank, world: of the ranks that share a step, this one takes every world-th index, starting at rank.

    Raises:
        ValueError: a count is below 1, a step below 0, or the batch does not divide among the ranks.
    """

    @checked
    def __init__(
        self, length: int, batch_size: int, seed: int, start_step: int, steps: int, rank: int = 0, world: int = 1
    ):
        whole("length", length)
        whole("batch_size", batch_size)
        whole("start_step", start_step, least=0)
        whole("steps", steps, least=0)
        seed_number("seed", seed)
        if not 0 <= rank < whole("world", world):
            raise ValueError(f"rank must be in 0 … world − 1: got rank {rank}, world {world}.")
        if batch_size % world:
            raise ValueError(f"batch_size is of all ranks together: {batch_size} does not divide among {world}.")
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.start_step, self.steps, self.rank, self.world = start_step, steps, rank, world
        self._epoch: tuple[int, list[int]] | None = None

    def __len__(self) -> int:
        return max(self.steps - self.start_step, 0)

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.start_step, self.steps):
            yield self.batch(step)

    def batch(self, step: int) -> list[int]:
        """This rank's indices of a step, counted from 0."""
        first = step * self.batch_size
        return [self._item(position) for position in range(first + self.rank, first + self.batch_size, self.world)]

    def _item(self, position: int) -> int:
        epoch, offset = divmod(position, self.length)
        if self._epoch is None or self._epoch[0] != epoch:
            generator = torch.Generator().manual_seed(derived_seed(self.seed, "order", epoch))
            self._epoch = (epoch, torch.randperm(self.length, generator=generator).tolist())
        return self._epoch[1][offset]
