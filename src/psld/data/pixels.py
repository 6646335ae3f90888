"""8-bit images, kept as bytes and scaled to [−1, 1] when they are read; their mirror images if asked for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from psld.data.base import ImageData

__all__ = ["PixelArray", "PixelData", "chosen_split"]


class PixelData(ImageData):
    """Images with values 0 … 255, given out as x / 127.5 − 1.

    Args:
        count: how many images there are.
        image_shape: (C, H, W) of every one of them.
        flip: the mirror images are items too: item i + count mirrors item i, and the set has 2 · count items. Being
            items and not coin tosses, they leave training a function of its seed; an epoch shows each image both ways.
        labels: the class of each of the `count` images, or None.
        classes: the names of the classes.

    Raises:
        ValueError: there are no images, or not one label an image.
    """

    def __init__(
        self,
        count: int,
        image_shape: tuple[int, int, int],
        flip: bool = False,
        labels: Sequence[int] | Tensor | None = None,
        classes: Sequence[str] = (),
    ):
        if count < 1:
            raise ValueError("there are no images: the data set has length 0.")
        self.image_shape, self.flip, self.classes = image_shape, flip, tuple(classes)
        self._count = count
        if labels is not None:
            once = torch.as_tensor(labels, dtype=torch.int64)
            if once.shape != (count,):
                raise ValueError(
                    f"{count} images need {count} labels: labels must be one an image, got shape {tuple(once.shape)}."
                )
            self.labels = once.repeat(2) if flip else once

    @abstractmethod
    def pixels(self, position: int) -> UInt8[Tensor, "C H W"]:
        """Image `position`, 0 … count − 1, as it is stored: not mirrored, not scaled."""

    def __len__(self) -> int:
        return self._count * (2 if self.flip else 1)

    def __getitem__(self, index: int) -> Float[Tensor, "C H W"]:
        return self.batch([index])[0]

    def batch(self, indices: Sequence[int]) -> Float[Tensor, "B C H W"]:
        """The images of several indices, read together and scaled together.

        Raises:
            IndexError: an index outside −len … len − 1.
        """
        mirrored, positions = [], []
        for row, index in enumerate(indices):
            if not -len(self) <= index < len(self):
                raise IndexError(f"item {index} of {len(self)}.")
            is_mirrored, position = divmod(index % len(self), self._count)
            positions.append(position)
            if is_mirrored:
                mirrored.append(row)
        batch = self._gathered(positions)
        if mirrored:
            batch[mirrored] = batch[mirrored].flip(-1)
        return batch.float().div_(127.5).sub_(1)

    def _gathered(self, positions: list[int]) -> UInt8[Tensor, "B C H W"]:
        """A copy."""
        return torch.stack([self.pixels(position) for position in positions])


class PixelArray(PixelData):
    """8-bit images held in memory: a quarter of the room that float32 takes.

    Args:
        array: (N, C, H, W) uint8.
        flip, labels, classes: as for PixelData.

    Raises:
        ValueError: another shape, no images, or not one label an image.
        TypeError: the values are not uint8.
    """

    def __init__(
        self,
        array: UInt8[Tensor, "N C H W"],
        flip: bool = False,
        labels: Sequence[int] | Tensor | None = None,
        classes: Sequence[str] = (),
    ):
        if array.dtype != torch.uint8:
            raise TypeError(f"pixels must be uint8, 0 … 255: got {array.dtype}. For images in [−1, 1] use Images.")
        if array.ndim != 4 or 0 in array.shape[1:]:
            raise ValueError(f"pixels must have shape (N, C, H, W) with none of them 0: got {tuple(array.shape)}.")
        super().__init__(len(array), (array.shape[1], array.shape[2], array.shape[3]), flip, labels, classes)
        self.array = array.contiguous()

    def pixels(self, position: int) -> UInt8[Tensor, "C H W"]:
        """Image `position` as it is stored: a view, not mirrored, not scaled."""
        return self.array[position]

    def fingerprint(self) -> str:
        """SHA-256 of all images and labels."""
        return self._hashed(self.array)

    def _gathered(self, positions: list[int]) -> UInt8[Tensor, "B C H W"]:
        return self.array[torch.tensor(positions)]


def chosen_split(split: str, allowed: Sequence[str]) -> str:
    """`split`, if it is one of those a data set has.

    Raises:
        ValueError: it is not.
    """
    if split not in allowed:
        *others, last = (repr(name) for name in allowed)
        raise ValueError(f"split must be {', '.join(others)} or {last}: got {split!r}.")
    return split
