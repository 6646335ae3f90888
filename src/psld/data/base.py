"""Images as training sees them: float32, (C, H, W), in [−1, 1] by convention."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.utils.data import Dataset

from psld.specs import SpecifiedValue

__all__ = ["ImageData", "Images"]


SAMPLED = 256
"""Images that a fingerprint reads, where reading all of them would take long."""


class ImageData(SpecifiedValue, Dataset[Tensor]):
    """A finite set of images of one shape.

    Attributes:
        image_shape: (C, H, W).
        labels: the class of every item, (len,) int64, or None where the data have no classes. Items are images alone;
            `psld.data.loader(labels=True)` gives both.
        classes: names of the classes, the label being the position; () where there are none.
    """

    image_shape: tuple[int, int, int]
    labels: Int64[Tensor, " N"] | None = None
    classes: tuple[str, ...] = ()

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Float[Tensor, "C H W"]:
        """Image `index`, float32."""

    def batch(self, indices: Sequence[int]) -> Float[Tensor, "B C H W"]:
        """The images of several indices, at once where the data allow it: what `psld.data.loader` asks for."""
        return torch.stack([self[index] for index in indices])

    def fingerprint(self) -> str:
        """SHA-256 of the content: the same data give the same 64 digits wherever they lie.

        Of data that are not in memory it reads 256 images, evenly spaced, beside the number, the shape and the labels
        of all; image files are known by their names and sizes as well.
        """
        return self._hashed(self.batch(range(0, len(self), max(1, len(self) // SAMPLED))))

    def _hashed(self, images: Tensor) -> str:
        """SHA-256 of the number and shape of all items, of these images, and of all labels."""
        digest = hashlib.sha256(str((len(self), *self.image_shape)).encode())
        digest.update(images.contiguous().numpy().tobytes())
        if self.labels is not None:
            digest.update(self.labels.numpy().tobytes())
        return digest.hexdigest()


class Images(ImageData):
    """Images held in memory.

    Args:
        images: (N, C, H, W), floating point, N ≥ 1; scaled to [−1, 1] by whoever made them. Kept as float32.

    Raises:
        ValueError: another shape, no images, or a value that is not finite (the first such image is named).
        TypeError: the values are not floating point, so not scaled.
    """

    def __init__(self, images: Float[Tensor, "N C H W"]):
        if images.ndim != 4 or 0 in images.shape:
            raise ValueError(f"images must have shape (N, C, H, W) with none of them 0: got {tuple(images.shape)}.")
        if not images.is_floating_point():
            raise TypeError(
                f"images must be floating point, scaled to [−1, 1]: got {images.dtype}. For uint8: x / 127.5 − 1."
            )
        bad = (~images.isfinite()).flatten(1).any(dim=1).nonzero().flatten().tolist()
        if bad:
            raise ValueError(
                f"image {bad[0]} holds NaN or infinity ({len(bad)} of {len(images)} do): remove or repair it."
            )
        self.images = images.detach().to("cpu", torch.float32)
        self.image_shape = (images.shape[1], images.shape[2], images.shape[3])
        if "images" in self._recorded:  # not of a subclass that makes them itself
            self._recorded["images"] = self.images  # no second copy is kept

    def __len__(self) -> int:
        return len(self.images)

    def fingerprint(self) -> str:
        """SHA-256 of all images and labels."""
        return self._hashed(self.images)

    def __getitem__(self, index: int) -> Float[Tensor, "C H W"]:
        return self.images[index]

    def batch(self, indices: Sequence[int]) -> Float[Tensor, "B C H W"]:
        """The images of several indices."""
        return self.images[torch.tensor(indices)]
