"""Features of images with transparency, by a network that sees colours: the images flattened onto one."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from psld.evaluation.features.extractors import ROUNDED, FeatureExtractor

__all__ = ["Flattened", "flattened"]


def flattened(images: Float[Tensor, "n 4 H W"]) -> Float[Tensor, "n 3 H W"]:
    """Onto white: α x + (1 − α), for x and 2α − 1 in [−1, 1]."""
    alpha = (images[:, 3:] + 1) / 2
    return alpha * images[:, :3] + (1 - alpha)


class Flattened(FeatureExtractor):
    """Another extractor, of images (4, H, W) flattened onto white.

    Args:
        extractor: of images (3, H, W).
    """

    def __init__(self, extractor: FeatureExtractor):
        super().__init__()
        self.extractor, self.identity, self.distance = extractor, extractor.identity, extractor.distance
        self.convention = f"{ROUNDED}, transparency flattened onto white; {extractor.convention}"

    def require_shape(self, shape: tuple[int, ...]) -> None:
        """Raises ValueError for images that do not have four channels, or that the other does not take."""
        if shape[0] != 4:
            raise ValueError(f"images are of shape {shape}: to flatten them, four channels are needed.")
        self.extractor.require_shape((3, *shape[1:]))

    def of_bytes(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Of what is seen on white."""
        return self.extractor.of_images(flattened(pixels.to(torch.float32) / 127.5 - 1))
