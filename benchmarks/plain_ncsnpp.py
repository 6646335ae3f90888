"""A plain NCSN++ to measure against: every operation in its most literal form.

Attention is two einsums and a softmax, its 1×1 layers are `tensordot`s with the channels moved last and back, FIR
resampling inserts zeros by reshaping and padding and then runs a dense convolution on every channel, and group norm and
SiLU are two operations that each keep what they saw. This is how the published layers are built, written anew here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["PlainNCSNpp"]


class PointwiseDense(nn.Module):
    """A matrix on the channels of every pixel, as a contraction with the channels moved to the end."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.matrix = nn.Parameter(torch.empty(inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.xavier_uniform_(self.matrix)

    def forward(self, x: Tensor) -> Tensor:
        last = x.permute(0, 2, 3, 1)
        return (torch.tensordot(last, self.matrix.to(last.dtype), dims=([3], [0])) + self.bias).permute(0, 3, 1, 2)  # pyright: ignore[reportArgumentType]


class PlainAttention(nn.Module):
    """All pixels against all pixels, with the table of weights spelt out."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.GroupNorm(min(channels // 4, 32), channels, eps=1e-6)
        self.query, self.key, self.value, self.out = (PointwiseDense(channels, channels) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        normed = self.norm(x)
        query, key, value = self.query(normed), self.key(normed), self.value(normed)
        weights = torch.einsum("bchw,bcij->bhwij", query, key) * channels**-0.5
        weights = weights.reshape(batch, height, width, height * width).softmax(-1)
        mixed = torch.einsum("bhwij,bcij->bchw", weights.reshape(batch, height, width, height, width), value)
        return (x + self.out(mixed)) / math.sqrt(2)


def filtered(x: Tensor, kernel: Tensor, up: int, down: int, before: int, after: int) -> Tensor:
    """Zeros inserted between pixels by reshaping, padding, one dense filter for all channels, pixels left out."""
    batch, channels, height, width = x.shape
    x = x.reshape(-1, height, 1, width, 1, 1)
    x = functional.pad(x, [0, 0, 0, up - 1, 0, 0, 0, up - 1])
    x = x.reshape(-1, height * up, width * up, 1)
    x = functional.pad(x, [0, 0, before, after, before, after])
    x = x.permute(0, 3, 1, 2).reshape(-1, 1, height * up + before + after, width * up + before + after)
    x = functional.conv2d(x, kernel.flip(0, 1)[None, None])[:, :, ::down, ::down]
    return x.reshape(batch, channels, x.shape[-2], x.shape[-1])


class PlainResample(nn.Module):
    """Twice or half the resolution, with FIR filters or by repeating and averaging."""

    kernel: Tensor

    def __init__(self, up: bool, fir: bool):
        super().__init__()
        self.up, self.fir = up, fir
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
        self.register_buffer("kernel", torch.outer(taps, taps) / 64, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        if self.fir:
            return filtered(x, 4 * self.kernel, 2, 1, 2, 1) if self.up else filtered(x, self.kernel, 1, 2, 1, 1)
        if self.up:
            x = x.reshape(batch, channels, height, 1, width, 1).repeat(1, 1, 1, 2, 1, 2)
            return x.reshape(batch, channels, 2 * height, 2 * width)
        return x.reshape(batch, channels, height // 2, 2, width // 2, 2).mean((3, 5))


class PlainFIRConv(nn.Module):
    """The residual input's way down: a FIR filter at full resolution, then a convolution with stride 2."""

    kernel: Tensor

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride=2)
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
        self.register_buffer("kernel", torch.outer(taps, taps) / 64, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(filtered(x, self.kernel, 1, 1, 2, 2))


class PlainBlock(nn.Module):
    """norm, SiLU, (resample), conv, time, norm, SiLU, dropout, conv, and the sum over √2."""

    def __init__(self, inputs: int, outputs: int, time_width: int, dropout: float, resample: nn.Module | None = None):
        super().__init__()
        self.norm_in = nn.GroupNorm(min(inputs // 4, 32), inputs, eps=1e-6)
        self.conv_in = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time = nn.Linear(time_width, outputs)
        self.norm_out = nn.GroupNorm(min(outputs // 4, 32), outputs, eps=1e-6)
        self.dropout, self.conv_out = nn.Dropout(dropout), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.act, self.resample = nn.SiLU(), resample
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs or resample is not None else None

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        branch = self.act(self.norm_in(x))
        if self.resample is not None:
            branch, x = self.resample(branch), self.resample(x)
        branch = self.conv_in(branch) + self.time(self.act(time))[:, :, None, None]
        branch = self.conv_out(self.dropout(self.act(self.norm_out(branch))))
        return ((x if self.skip is None else self.skip(x)) + branch) / math.sqrt(2)


class PlainNCSNpp(nn.Module):
    """Called as network(x, t) with x (B, channels, H, W) and t (B,), and returns the shape of x.

    Args:
        channels: in and out.
        image_size, width, multipliers, blocks, attention, dropout: as for `psld.networks.NCSNpp`.
        fir: FIR resampling and the residual progressive input with Fourier features of log t, or none of the three.
    """

    frequencies: Tensor

    def __init__(
        self,
        channels: int = 6,
        image_size: int = 32,
        width: int = 32,
        multipliers: Sequence[int] = (1, 2, 2, 2),
        blocks: int = 2,
        attention: Sequence[int] = (16,),
        dropout: float = 0.1,
        fir: bool = False,
    ):
        super().__init__()
        self.width, self.levels, self.blocks, self.attention, self.fir = width, len(multipliers), blocks, attention, fir
        self.register_buffer("frequencies", 16 * torch.randn(width), persistent=False)
        embedded, time_width = (2 * width if fir else width), 4 * width
        layers: list[nn.Module] = [nn.Linear(embedded, time_width), nn.Linear(time_width, time_width)]
        layers.append(nn.Conv2d(channels, width, 3, padding=1))
        saved, current, pyramid, size = [width], width, channels, image_size
        for level, multiplier in enumerate(multipliers):
            for _ in range(blocks):
                layers.append(PlainBlock(current, multiplier * width, time_width, dropout))
                current = multiplier * width
                if size in attention:
                    layers.append(PlainAttention(current))
                saved.append(current)
            if level < self.levels - 1:
                layers.append(PlainBlock(current, current, time_width, dropout, PlainResample(False, fir)))
                if fir:
                    layers.append(PlainFIRConv(pyramid, current))
                    pyramid = current
                saved.append(current)
                size //= 2
        layers.append(PlainBlock(current, current, time_width, dropout))
        layers.append(PlainAttention(current))
        layers.append(PlainBlock(current, current, time_width, dropout))
        for level in reversed(range(self.levels)):
            for _ in range(blocks + 1):
                layers.append(PlainBlock(current + saved.pop(), multipliers[level] * width, time_width, dropout))
                current = multipliers[level] * width
            if size in attention:
                layers.append(PlainAttention(current))
            if level:
                layers.append(PlainBlock(current, current, time_width, dropout, PlainResample(True, fir)))
                size *= 2
        layers.append(nn.GroupNorm(min(current // 4, 32), current, eps=1e-6))
        layers.append(nn.Conv2d(current, channels, 3, padding=1))
        self.layers = nn.ModuleList(layers)

    def embedded(self, t: Tensor) -> Tensor:
        if self.fir:
            angles = 2 * math.pi * t.log()[:, None] * self.frequencies
        else:
            half = self.width // 2
            angles = t[:, None] * torch.exp(torch.arange(half) * (-math.log(10_000) / (half - 1))).to(t)
        return torch.cat([angles.sin(), angles.cos()], 1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        layers = iter(self.layers)
        time = next(layers)(self.embedded(t))
        time = next(layers)(functional.silu(time))
        pyramid, saved = x, [next(layers)(x)]
        for level in range(self.levels):
            for _ in range(self.blocks):
                h = next(layers)(saved[-1], time)
                if h.shape[-1] in self.attention:
                    h = next(layers)(h)
                saved.append(h)
            if level < self.levels - 1:
                h = next(layers)(saved[-1], time)
                if self.fir:
                    h = pyramid = (next(layers)(pyramid) + h) / math.sqrt(2)
                saved.append(h)
        h = next(layers)(saved[-1], time)
        h = next(layers)(h)
        h = next(layers)(h, time)
        for level in reversed(range(self.levels)):
            for _ in range(self.blocks + 1):
                h = next(layers)(torch.cat([h, saved.pop()], 1), time)
            if h.shape[-1] in self.attention:
                h = next(layers)(h)
            if level:
                h = next(layers)(h, time)
        h = functional.silu(next(layers)(h))
        return next(layers)(h)
