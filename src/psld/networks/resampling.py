"""Changes of resolution by a factor of two.

A `Resample` has no parameters. It also knows how to run together with the convolution that follows it, which gives
the same numbers for less work: repeating pixels and then a 3×3 convolution is one transposed 4×4 convolution (4
products a pixel instead of 9), and a 1×1 convolution commutes with upsampling, so it runs on the small image.

FIR filtering with taps (1, 3, 3, 1) is that of StyleGAN2 and NCSN++ (Zhang, 2019; Karras et al., 2020): a depthwise
4×4 convolution with stride 2, or its transpose, zeros outside the image. Filtered this way a resampled image has less
aliasing; its border is darker, because the zeros outside take part.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from psld.networks.initialisation import conv
from psld.specs import SpecifiedValue
from psld.specs.arguments import finite, shown

__all__ = [
    "AverageDownsample",
    "ConvDownsample",
    "ConvUpsample",
    "FIR",
    "FIRDownsample",
    "FIRUpsample",
    "NearestUpsample",
    "Resample",
    "downsampling",
    "upsampling",
]

TAPS = (1.0, 3.0, 3.0, 1.0)


MOST_TAPS = 64


class FIR(SpecifiedValue):
    """Resampling with a filter, down and up; in place of 2×2 means and repeated pixels.

    Args:
        taps: of the filter, an even number of them, the same in both directions; (1, 3, 3, 1) is that of NCSN++.

    Raises:
        ValueError: an odd number of taps, none, or taps with a sum of zero.
    """

    def __init__(self, taps: Sequence[float] = TAPS):
        _require_taps(taps)
        self.taps = tuple(taps)


class Resample(nn.Module):
    """A change of resolution without parameters, alone or together with a convolution."""

    def convolved(self, x: Float[Tensor, "B C H W"], layer: nn.Conv2d) -> Float[Tensor, "B C2 H2 W2"]:
        """`layer(self(x))`, for a 3×3 layer."""
        return layer(self(x))

    def projected(self, x: Float[Tensor, "B C H W"], layer: nn.Conv2d) -> Float[Tensor, "B C2 H2 W2"]:
        """`layer(self(x))`, for a 1×1 layer."""
        return layer(self(x))


class AverageDownsample(Resample):
    """The mean of every 2×2 square: (B, C, 2h, 2w) → (B, C, h, w)."""

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C h w"]:
        return functional.avg_pool2d(x, kernel_size=2)


class NearestUpsample(Resample):
    """Every pixel becomes a 2×2 square: (B, C, h, w) → (B, C, 2h, 2w)."""

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C H W"]:
        return functional.interpolate(x, scale_factor=2, mode="nearest")

    def convolved(self, x: Float[Tensor, "B C h w"], layer: nn.Conv2d) -> Float[Tensor, "B C2 H W"]:
        weight = _transposed(layer.weight)  # its 3×3 taps, each on the 2×2 square that a pixel becomes
        squares = sum(functional.pad(weight, (i, 1 - i, j, 1 - j)) for i in (0, 1) for j in (0, 1))
        return functional.conv_transpose2d(x, squares, layer.bias, stride=2, padding=1)  # pyright: ignore[reportArgumentType]

    def projected(self, x: Float[Tensor, "B C h w"], layer: nn.Conv2d) -> Float[Tensor, "B C2 H W"]:
        return self(layer(x))


class _FIR(Resample):
    """A separable filter whose taps sum to 1 in each direction.

    Args:
        taps: an even number of them.
        gain: of the filtered image.

    Raises:
        ValueError: an odd number of taps, none, or taps with a sum of zero.
    """

    kernel: Tensor

    def __init__(self, taps: Sequence[float] = TAPS, gain: float = 1.0):
        super().__init__()
        _require_taps(taps)
        line = torch.tensor(taps, dtype=torch.float64) / sum(taps)
        kernel = (gain * torch.outer(line, line)).float()
        self.register_buffer("kernel", kernel.flip(0, 1)[None, None], persistent=False)  # as a convolution layer has it
        self.reach = len(taps) // 2

    def _applied(self, x: Tensor, padding: int, stride: int = 1, transposed: bool = False) -> Tensor:
        """The filter on every channel, in 32 bits on a CPU.

        In 16 bits a CPU takes far longer for a transposed depthwise convolution, and so for the gradient of a strided
        one: benchmarks/network.py --convolutions.
        """
        if x.device.type == "cpu":
            with torch.autocast("cpu", enabled=False):
                wide = x if x.dtype == torch.float64 else x.float()
                return self._convolved(wide, padding, stride, transposed).to(x.dtype)
        return self._convolved(x, padding, stride, transposed)

    def _convolved(self, x: Tensor, padding: int, stride: int, transposed: bool) -> Tensor:
        channels = x.shape[1]
        kernel = self.kernel.to(x.dtype).expand(channels, -1, -1, -1)  # (C, 1, n, n)
        if transposed:  # turns its weight over
            return functional.conv_transpose2d(x, kernel.flip(2, 3), stride=stride, padding=padding, groups=channels)
        return functional.conv2d(x, kernel, stride=stride, padding=padding, groups=channels)


class FIRDownsample(_FIR):
    """Filters and keeps every second pixel: (B, C, 2h, 2w) → (B, C, h, w)."""

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C h w"]:
        return self._applied(x, padding=self.reach - 1, stride=2)

    def strided(self, x: Float[Tensor, "B C H W"], layer: nn.Conv2d) -> Float[Tensor, "B C2 h w"]:
        """The filter at full resolution, with all of its border, and then `layer`, 3×3 with stride 2."""
        return functional.conv2d(self._applied(x, padding=self.reach), layer.weight, layer.bias, stride=2)


class FIRUpsample(_FIR):
    """Puts zeros between pixels and filters, with a gain of 4: (B, C, h, w) → (B, C, 2h, 2w)."""

    def __init__(self, taps: Sequence[float] = TAPS):
        super().__init__(taps, gain=4.0)

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C H W"]:
        return self._applied(x, padding=self.reach - 1, stride=2, transposed=True)

    def projected(self, x: Float[Tensor, "B C h w"], layer: nn.Conv2d) -> Float[Tensor, "B C2 H W"]:
        mixed = self(
            functional.conv2d(x, layer.weight)
        )  # the bias comes after: filtered, it would darken at the border
        return mixed if layer.bias is None else mixed + layer.bias[:, None, None].to(mixed.dtype)

    def strided(self, x: Float[Tensor, "B C h w"], layer: nn.Conv2d) -> Float[Tensor, "B C2 H W"]:
        """`layer`, 3×3, on the image with zeros between its pixels, and then the filter."""
        spread = functional.conv_transpose2d(x, _transposed(layer.weight), stride=2)
        filtered = self._applied(spread, padding=self.reach - 1)
        return filtered if layer.bias is None else filtered + layer.bias[:, None, None].to(filtered.dtype)


class ConvDownsample(nn.Module):
    """A 3×3 convolution with stride 2, behind the filter if there is one: (B, C, 2h, 2w) → (B, C2, h, w).

    Without the filter a row and a column of zeros is added after the last ones only, as in DDPM.
    """

    def __init__(self, inputs: int, outputs: int, resampling: FIR | None):
        super().__init__()
        self.filter = None if resampling is None else FIRDownsample(resampling.taps)
        self.conv = conv(inputs, outputs, 3)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C2 h w"]:
        if self.filter is not None:
            return self.filter.strided(x, self.conv)
        return functional.conv2d(functional.pad(x, (0, 1, 0, 1)), self.conv.weight, self.conv.bias, stride=2)


class ConvUpsample(nn.Module):
    """Twice the resolution and a 3×3 convolution, before the filter if there is one: (B, C, h, w) → (B, C2, 2h, 2w)."""

    def __init__(self, inputs: int, outputs: int, resampling: FIR | None):
        super().__init__()
        self.filter = None if resampling is None else FIRUpsample(resampling.taps)
        self.repeat = NearestUpsample()
        self.conv = conv(inputs, outputs, 3)

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C2 H W"]:
        return self.repeat.convolved(x, self.conv) if self.filter is None else self.filter.strided(x, self.conv)


def downsampling(resampling: FIR | None) -> Resample:
    """What halves the resolution: the filter, or 2×2 means for None."""
    return AverageDownsample() if resampling is None else FIRDownsample(resampling.taps)


def upsampling(resampling: FIR | None) -> Resample:
    """What doubles the resolution: the filter, or repeated pixels for None."""
    return NearestUpsample() if resampling is None else FIRUpsample(resampling.taps)


def _require_taps(taps: Sequence[float]) -> None:
    if not 2 <= len(taps) <= MOST_TAPS or len(taps) % 2 or sum(finite("taps", tap) for tap in taps) == 0:
        raise ValueError(f"taps must be an even number of them with a sum other than 0: got {shown(tuple(taps))}.")


def _transposed(weight: Float[Tensor, "O I a b"]) -> Float[Tensor, "I O a b"]:
    """The weight with which a transposed convolution does what a convolution does on an image with zeros in between."""
    return weight.flip(2, 3).transpose(0, 1)
