"""A network that sees patches: pixels of a square as channels, so that every layer runs on a smaller image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from psld.networks.channels import Interface, argument
from psld.networks.sizes import require_division
from psld.networks.wrapping import Wrapping
from psld.specs.arguments import LARGEST_IMAGE, whole

__all__ = ["Patched"]


class Patched(Wrapping):
    """`network` on images of 1/size the side and size² the channels, its output put back together.

    Most of a U-Net's time goes to its largest level, for pixels that look like their neighbours. With size 2 every
    level has a quarter of the pixels.

    Args:
        network: called with (B, k, size² C, H/size, W/size); returns (B, r, size² C, H/size, W/size).
        size: side of a patch, in pixels.

    Raises:
        ValueError: size is below 1; or, when called, does not divide the image.
    """

    def __init__(self, network: nn.Module, size: int = 2):
        super().__init__(network)
        self.size = whole("size", size, most=LARGEST_IMAGE)

    @classmethod
    def inner_interface(cls, arguments: Mapping[str, Any], interface: Interface) -> Interface:
        """The same variables, on images of 1/size the side and size² the channels."""
        size: int = argument(cls, arguments, "size")
        if len(interface.shape) != 3:
            raise ValueError(f"Patched is for images, (C, H, W): the data have shape {interface.shape}.")
        channels, height, width = interface.shape
        _require_division(height, width, size)
        return interface._replace(shape=(channels * size**2, height // size, width // size))

    def forward(self, z: Float[Tensor, "B k C H W"], t: Float[Tensor, " B"], **condition: Any) -> Tensor:
        """The network's r variables, (B, r, C, H, W)."""
        height, width = z.shape[-2:]
        _require_division(height, width, self.size)
        return pixel_shuffle(self.network(pixel_unshuffle(z, self.size), t, **condition), self.size)


def _require_division(height: int, width: int, size: int) -> None:
    refusal = f"images of {height}×{width} do not divide into patches of {size}×{size}"
    require_division(height, width, size, refusal, "Use another size of patches, or of images.")
