"""What every network for images does at its own door: variables into channels, and channels from process and data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from jaxtyping import Float
from torch import Tensor, nn

from psld.networks.channels import Output, filled_channels
from psld.processes import LinearProcess
from psld.specs import Specified
from psld.specs.arguments import WIDEST, whole

__all__ = ["ImageNetwork"]

RGB = 3
Built = TypeVar("Built", bound="ImageNetwork")


class ImageNetwork(Specified, nn.Module):
    """Base of networks for images, which fold the k variables of a state into its channels.

    Args:
        in_channels: k · C, the channels of all variables together; None: 3, an RGB image.

    Raises:
        ValueError: it is below 1.
    """

    def __init__(self, in_channels: int | None = None):
        super().__init__()
        self.in_channels = RGB if in_channels is None else in_channels
        whole("in_channels", self.in_channels, most=WIDEST)

    def _out_channels(self, out_channels: int | None) -> int:
        """The channels that come out: as many as go in, unless they are given."""
        channels = self.in_channels if out_channels is None else out_channels
        return whole("out_channels", channels, most=WIDEST)

    @classmethod
    def for_data(
        cls: type[Built], process: LinearProcess, image_shape: Sequence[int], predicts: Output | None, **options: Any
    ) -> Built:
        """The network whose channels and image size are those of a process and its data.

        Args:
            process: the forward process; its k variables go in.
            image_shape: (C, H, W) of one image.
            predicts: what the network's output means, which decides how many variables go out; None for a classifier.
            options: the other arguments of the class. A channel count or image size among them is taken as given.

        Raises:
            ValueError: as for `filled_channels`, or as for the class.
        """
        return cls(**filled_channels(cls, options, process, image_shape, predicts))

    def _folded(self, z: Tensor, t: Tensor) -> Float[Tensor, "B C H W"]:
        """z with its variables in the channels, checked but for the size of the image.

        Raises:
            ValueError: z or t does not have a shape that fits this network.
        """
        name = type(self).__name__
        if z.ndim not in (4, 5):
            raise ValueError(f"this {name} takes (B, k, C, H, W) or (B, k·C, H, W): got {tuple(z.shape)}.")
        channels = z.shape[1] if z.ndim == 4 else z.shape[1] * z.shape[2]
        if channels != self.in_channels:
            raise ValueError(
                f"this {name} has in_channels={self.in_channels}, the input has {channels}: got {tuple(z.shape)}. "
                "in_channels is k · C, all phase-space variables together."
            )
        if t.shape != z.shape[:1]:
            raise ValueError(f"t must have one time a sample, shape ({z.shape[0]},): got {tuple(t.shape)}.")
        return z.flatten(1, 2) if z.ndim == 5 else z

    def _unfolded(self, output: Float[Tensor, "B rC H W"], z: Tensor) -> Float[Tensor, "B *out_shape"]:
        """The output in the form in which z came.

        Raises:
            ValueError: the channels of z do not divide those of the output.
        """
        if z.ndim == 4:
            return output
        if output.shape[1] % z.shape[2]:
            raise ValueError(
                f"out_channels={output.shape[1]} is no multiple of the {z.shape[2]} channels of {tuple(z.shape)}."
            )
        return output.unflatten(1, (-1, z.shape[2]))
