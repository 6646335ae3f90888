"""Linear measurements y = A x + noise of images: masks, block averages, blurs, grey from colour.

Posterior guidance needs A, its adjoint, and the solution of (a AAᵀ + b I) u = v, which is in closed form for all of
these: AAᵀ is a multiple of I, or diagonal in the Fourier basis.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from psld.kernels import per_sample
from psld.specs import SpecifiedValue
from psld.specs.arguments import LARGEST_IMAGE, checked, finite, shown, whole

__all__ = ["Blur", "GaussianBlur", "Grayscale", "LinearOperator", "Mask", "SuperResolution"]


WIDEST_BLUR = 2**11
"""Its kernel is six times as wide."""


class LinearOperator(SpecifiedValue, ABC):
    """A: from images (B, *data) to measurements (B, *measured)."""

    @abstractmethod
    def forward(self, x: Float[Tensor, "B *data"]) -> Float[Tensor, "B *measured"]:
        """A x. Raises ValueError where images have a shape that A does not take."""

    @abstractmethod
    def adjoint(self, y: Float[Tensor, "B *measured"]) -> Float[Tensor, "B *data"]:
        """Aᵀ y."""

    @abstractmethod
    def solve(
        self, v: Float[Tensor, "B *measured"], a: Float[Tensor, "*A"], b: Float[Tensor, "*B"]
    ) -> Float[Tensor, "B *measured"]:
        """(a AAᵀ + b I)⁻¹ v for a, b ≥ 0, a number each or one a sample; the least solution where that is singular."""


class _Multiple(LinearOperator):
    """A whose rows are orthogonal and of one length: AAᵀ = gram · I."""

    gram: float = 1.0

    def solve(
        self, v: Float[Tensor, "B *measured"], a: Float[Tensor, "*A"], b: Float[Tensor, "*B"]
    ) -> Float[Tensor, "B *measured"]:
        return v / (per_sample(torch.as_tensor(a), v) * self.gram + per_sample(torch.as_tensor(b), v))


class Mask(_Multiple):
    """Known pixels, (B, n) of them in the order of the image. A is a part of the identity, AAᵀ = I.

    Args:
        known: True where a value is known, of the shape of one image.

    Raises:
        ValueError: nothing is known, or everything.
    """

    def __init__(self, known: Bool[Tensor, "*data"]):
        self.known = require_mask(known)

    def forward(self, x: Float[Tensor, "B *data"]) -> Float[Tensor, "B *measured"]:
        return x[:, require_mask(self.known, tuple(x.shape[1:])).to(x.device)]

    def adjoint(self, y: Float[Tensor, "B *measured"]) -> Float[Tensor, "B *data"]:
        x = y.new_zeros(len(y), *self.known.shape)
        x[:, self.known.to(y.device)] = y
        return x


class SuperResolution(_Multiple):
    """Averages of factor × factor blocks: AAᵀ = I / factor².

    Args:
        factor: height and width of a block; those of the image must be multiples of it.

    Raises:
        ValueError: factor below 2; at a call, an image that is not made of whole blocks.
    """

    shown = ("factor",)

    def __init__(self, factor: int = 2):
        whole("factor", factor, least=2, most=LARGEST_IMAGE)
        self.factor, self.gram = factor, 1.0 / factor**2

    def forward(self, x: Float[Tensor, "B *data"]) -> Float[Tensor, "B *measured"]:
        height, width = x.shape[-2:]
        if height % self.factor or width % self.factor:
            raise ValueError(f"images of {height}×{width} are not made of {self.factor}×{self.factor} blocks.")
        return x.unflatten(-1, (-1, self.factor)).unflatten(-3, (-1, self.factor)).mean((-3, -1))

    def adjoint(self, y: Float[Tensor, "B *measured"]) -> Float[Tensor, "B *data"]:
        return y.repeat_interleave(self.factor, -2).repeat_interleave(self.factor, -1) * self.gram


class Grayscale(_Multiple):
    """One weighted mean of the three channels, (B, 1, H, W): what colourisation starts from.

    Args:
        weights: of red, green and blue; the default is the luma of ITU-R BT.601.

    Raises:
        ValueError: there are not three weights; at a call, images without three channels.
    """

    shown = ("weights",)

    def __init__(self, weights: Sequence[float] = (0.299, 0.587, 0.114)):
        if len(weights) != 3 or not any(finite("weights", weight) for weight in weights):
            raise ValueError(f"weights must be three, one a channel, and not all 0: got {shown(tuple(weights))}.")
        self.weights = tuple(weights)
        self.gram = sum(w**2 for w in self.weights)

    def forward(self, x: Float[Tensor, "B *data"]) -> Float[Tensor, "B *measured"]:
        if x.ndim != 4 or x.shape[1] != 3:
            raise ValueError(f"colour images (B, 3, H, W) are needed: got shape {tuple(x.shape)}.")
        return (x * self._column(x)).sum(1, keepdim=True)

    def adjoint(self, y: Float[Tensor, "B *measured"]) -> Float[Tensor, "B *data"]:
        return y * self._column(y)

    def _column(self, like: Tensor) -> Tensor:
        return torch.tensor(self.weights, dtype=like.dtype, device=like.device)[:, None, None]


class Blur(LinearOperator):
    """Circular convolution with one kernel (edges wrap around), so that A is diagonal in the Fourier basis.

    Args:
        kernel: (h, w), no larger than the image; its centre is at (h // 2, w // 2).

    Raises:
        ValueError: at a call, images smaller than the kernel.
    """

    def __init__(self, kernel: Float[Tensor, "h w"]):
        self.kernel = torch.as_tensor(kernel, dtype=torch.float64)

    @staticmethod
    @checked
    def uniform(size: int) -> Blur:
        """The mean over size × size pixels."""
        whole("size", size, most=LARGEST_IMAGE)
        return Blur(torch.full((size, size), 1.0 / size**2, dtype=torch.float64))

    def forward(self, x: Float[Tensor, "B *data"]) -> Float[Tensor, "B *measured"]:
        return self._filter(x, self._response(x))

    def adjoint(self, y: Float[Tensor, "B *measured"]) -> Float[Tensor, "B *data"]:
        return self._filter(y, self._response(y).conj())

    def solve(
        self, v: Float[Tensor, "B *measured"], a: Float[Tensor, "*A"], b: Float[Tensor, "*B"]
    ) -> Float[Tensor, "B *measured"]:
        power = self._response(v).abs().square()
        denominator = per_sample(torch.as_tensor(a), v) * power + per_sample(torch.as_tensor(b), v)
        # the least solution: what the blur takes to rounding is left out when there is no noise to bound it
        floor = torch.finfo(v.dtype).eps * denominator.amax((-2, -1), keepdim=True)
        return self._filter(v, torch.where(denominator > floor, 1.0 / denominator, 0.0))

    def _filter(self, x: Tensor, response: Tensor) -> Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(x) * response, s=x.shape[-2:])

    def _response(self, like: Tensor) -> Tensor:
        """The kernel's Fourier transform on the image's grid, its centre at the origin."""
        (h, w), (height, width) = self.kernel.shape, like.shape[-2:]
        if h > height or w > width:
            raise ValueError(f"a kernel of {h}×{w} does not fit images of {height}×{width}: take a smaller blur.")
        padded = self.kernel.new_zeros(height, width)
        padded[:h, :w] = self.kernel
        response = torch.fft.rfft2(padded.roll((-(h // 2), -(w // 2)), (0, 1)))
        return response.to(like.device, torch.complex128 if like.dtype == torch.float64 else torch.complex64)


class GaussianBlur(Blur):
    """A circular blur by a Gaussian.

    Args:
        std: its standard deviation in pixels.
        size: height and width of the kernel, odd; 6 standard deviations when None.

    Raises:
        ValueError: a standard deviation that is not positive, or an even size; at a call, images smaller than the
            kernel.
    """

    def __init__(self, std: float, size: int | None = None):
        if not 0 < std <= WIDEST_BLUR:
            raise ValueError(f"std must be positive, and at most {WIDEST_BLUR} pixels: got {shown(std)}.")
        size = 2 * math.ceil(3 * std) + 1 if size is None else size
        if whole("size", size, most=LARGEST_IMAGE) % 2 == 0:
            raise ValueError(f"size must be odd: got {size}.")
        profile = torch.exp(-0.5 * ((torch.arange(size, dtype=torch.float64) - size // 2) / std) ** 2)
        profile = profile / profile.sum()
        super().__init__(profile[:, None] * profile)


def require_mask(known: Bool[Tensor, "*data"], shape: tuple[int, ...] | None = None) -> Bool[Tensor, "*data"]:
    """The mask itself, if it can be one for images of that shape.

    Raises:
        ValueError: another size, not boolean, or nothing or everything known.
    """
    if known.dtype != torch.bool:
        raise ValueError(f"a mask is True where a value is known: got dtype {known.dtype}.")
    if shape is not None and tuple(known.shape) != shape:
        raise ValueError(f"the mask has size {_size(known.shape)} and the images {_size(shape)}: they must agree.")
    if not known.any():
        raise ValueError("the mask knows no pixel: there is nothing to complete from. Sample without one.")
    if known.all():
        raise ValueError("the mask knows every pixel: there is nothing to complete.")
    return known


def _size(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))
