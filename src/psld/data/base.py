"""Images as training sees them: float32, (C, H, W), in [−1, 1] by convention."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.utils.data import Dataset

__all__ = ["ImageData", "Images"]


class ImageData(Dataset[Tensor], ABC):
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

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Float[Tensor, "C H W"]:
        return self.images[index]

    def batch(self, indices: Sequence[int]) -> Float[Tensor, "B C H W"]:
        """The images of several indices."""
        return self.images[torch.tensor(indices)]
