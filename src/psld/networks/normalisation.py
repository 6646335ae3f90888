"""Group norm, SiLU and dropout in one step, which remembers its input and not what lies between.

In training, autograd would keep the normalised image, its SiLU and a mask in floating point. Here the backward pass
computes the first two again from the input (one product and one sum a pixel) and the mask is one byte a pixel.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["NormSiLU", "group_norm", "groups_of", "keep_mask"]

LEAN_FROM = 2**18  # elements of the input: from there on what is not stored saves more time than the recomputing takes


def groups_of(channels: int) -> int:
    """The most groups, at most 32, that divide the channels and leave four or more channels in each."""
    groups = min(max(channels // 4, 1), 32)
    while channels % groups:
        groups -= 1
    return groups


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with the groups of `groups_of`."""
    return nn.GroupNorm(groups_of(channels), channels, eps=1e-6)


class NormSiLU(nn.GroupNorm):
    """dropout(SiLU(GroupNorm(x))); lean, as the module says, for inputs of `LEAN_FROM` elements and more.

    In training mode gradients can be differentiated again (create_graph=True), at the price of the plain operations,
    but torch.func transforms are refused; in eval mode, and under torch.compile, it is made of PyTorch's own
    operations, with every derivative and transform that those have.

    Args:
        channels: of the input; groups as in `groups_of`.
        dropout: probability, in training mode.
    """

    def __init__(self, channels: int, dropout: float = 0.0):
        super().__init__(groups_of(channels), channels, eps=1e-6)
        self.dropout = dropout

    def forward(self, input: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        lean = input.numel() >= LEAN_FROM and self.training and torch.is_grad_enabled()
        if lean and not torch.compiler.is_compiling():
            return _Lean.apply(input, self.weight, self.bias, self.num_groups, self.eps, self.dropout)  # pyright: ignore[reportReturnType]
        normed = functional.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)
        active = functional.silu(normed, inplace=not torch.is_grad_enabled())
        return functional.dropout(active, self.dropout, self.training)


class _Lean(torch.autograd.Function):
    """`NormSiLU` in training; keeps x, a mean and a deviation a group, and a mask in bytes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, dropout: float) -> Tensor:
        sizes = (x.shape[0], x.shape[1], x.shape[2] * x.shape[3], groups)
        wide = _computed(x, weight)
        y, mean, deviation = torch.native_group_norm(wide, weight, bias, *sizes, eps)
        functional.silu(y, inplace=True)
        y, mask = y.to(x.dtype), None
        if dropout > 0:
            mask = keep_mask(y, dropout)
            y.mul_(mask).mul_(1 / (1 - dropout))
        ctx.save_for_backward(x, weight, bias, mean, deviation, mask)
        ctx.sizes, ctx.eps, ctx.dropout = sizes, eps, dropout
        return y

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, deviation, mask = ctx.saved_tensors
        _, channels, _, groups = ctx.sizes
        if torch.is_grad_enabled():  # create_graph=True
            return (*_differentiable(ctx, grad, x, weight, bias, mask), None, None, None)
        if mask is not None:
            grad = (grad * mask).mul_(1 / (1 - ctx.dropout))
        wide = _computed(x, weight)
        each = deviation.repeat_interleave(channels // groups, 1) * weight
        shift = bias - mean.repeat_interleave(channels // groups, 1) * each
        normed = torch.addcmul(shift[:, :, None, None], wide, each[:, :, None, None]).to(wide.dtype)
        grad = torch.ops.aten.silu_backward(grad.to(wide.dtype), normed)
        grad = grad.contiguous(memory_format=_layout(wide))  # PyTorch's kernel reads it in the layout of x
        to_x, to_weight, to_bias = torch.ops.aten.native_group_norm_backward(
            grad, wide, mean, deviation, weight, *ctx.sizes, [True, True, True]
        )
        return to_x.to(x.dtype), to_weight, to_bias, None, None, None


def _differentiable(
    ctx: Any, grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mask: Tensor | None
) -> list[Tensor | None]:
    """Gradients of input, weight and bias that have gradients themselves, with the mask of the forward pass."""
    normed = functional.group_norm(_computed(x, weight), ctx.sizes[3], weight, bias, ctx.eps)
    y = functional.silu(normed).to(x.dtype)
    if mask is not None:
        y = y * mask * (1 / (1 - ctx.dropout))
    wanted = [index for index in range(3) if ctx.needs_input_grad[index]]
    found = torch.autograd.grad(y, [(x, weight, bias)[index] for index in wanted], grad, create_graph=True)
    gradients: list[Tensor | None] = [None, None, None]
    for index, gradient in zip(wanted, found, strict=True):
        gradients[index] = gradient
    return gradients


def _computed(x: Tensor, weight: Tensor) -> Tensor:
    """x in the precision to normalise in: the CPU takes 16 bits beside float32 parameters, other devices do not."""
    return (x if x.device.type == "cpu" else x.to(weight.dtype)).contiguous(memory_format=_layout(x))


def _layout(x: Tensor) -> torch.memory_format:
    channels_last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if channels_last else torch.contiguous_format


def keep_mask(x: Float[Tensor, "*shape"], dropout: float) -> Bool[Tensor, "*shape"]:
    """True with probability 1 − dropout, to within 2⁻¹⁷, from the global generator.

    On a CPU a number takes 16 random bits, four times fewer calls of the generator than PyTorch's dropout makes.
    """
    if x.device.type != "cpu":
        return torch.empty_like(x, dtype=torch.bool).bernoulli_(1 - dropout)
    words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    numbers = words.view(torch.int16)[: x.numel()].view(x.shape)
    return numbers >= round(dropout * 2**16) - 2**15
