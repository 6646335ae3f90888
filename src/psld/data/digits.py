"""The 1,797 handwritten digits that scikit-learn ships: 8×8, 17 grey levels, no download."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Int64
from torch import Tensor

from psld.data.base import Images

__all__ = ["Digits"]

TRAIN_SIZE = 1437
SPLIT_SEED = 0


class Digits(Images):
    """Handwritten digits, (1, 8, 8), scaled from 0 … 16 to [−1, 1].

    Args:
        split: "train" (1,437) or "heldout" (360), cut from one fixed permutation; or "all", in scikit-learn's order.

    Attributes:
        labels: (N,) int64, 0 … 9.
        indices: (N,) int64, where each image stands in scikit-learn's arrays.

    Raises:
        ValueError: an unknown split.
    """

    def __init__(self, split: Literal["train", "heldout", "all"] = "train"):
        from sklearn.datasets import load_digits

        arrays = load_digits(return_X_y=True)
        pixels, labels = torch.as_tensor(arrays[0]).view(-1, 1, 8, 8), torch.as_tensor(arrays[1])
        order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(SPLIT_SEED))
        splits = {"train": order[:TRAIN_SIZE], "heldout": order[TRAIN_SIZE:], "all": torch.arange(len(pixels))}
        if split not in splits:
            raise ValueError(f"split must be 'train', 'heldout' or 'all': got {split!r}.")
        self.indices = splits[split]
        self.classes = tuple(str(digit) for digit in range(10))
        own = labels[self.indices].long()
        self.labels: Int64[Tensor, " N"] = own  # pyright: ignore[reportIncompatibleVariableOverride]: never None here
        super().__init__((pixels[self.indices] / 8 - 1).float())
