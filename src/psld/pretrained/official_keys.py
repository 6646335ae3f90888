"""Where every tensor of the official layout goes.

The official networks are one list, `all_modules`, in the order of construction. The same order is walked here over our
network: the N-th entry of the list is a layer, a block or an attention, and the tensors in it have the names below.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

from torch import Tensor, nn

from psld.networks import FourierEmbedding, NCSNpp, NoiseClassifier
from psld.networks.blocks import ResidualBlock, SelfAttention
from psld.networks.levels import (
    DownLevel,
    InputResidual,
    InputSkip,
    OutputResidual,
    OutputSkip,
    UpLevel,
)
from psld.networks.resampling import ConvDownsample, ConvUpsample, Resample

__all__ = ["from_official", "official_names"]

BLOCK = {
    "GroupNorm_0": "norm_in",
    "Conv_0": "conv_in",
    "Dense_0": "time",
    "GroupNorm_1": "norm_out",
    "Conv_1": "conv_out",
}
ATTENTION = {"NIN_0": "query", "NIN_1": "key", "NIN_2": "value", "NIN_3": "out"}


def official_names(network: NCSNpp | NoiseClassifier) -> dict[str, str]:
    """Official name → name in `network.state_dict()`, for every tensor that is learned or drawn."""
    places = {id(module): name for name, module in network.named_modules()}
    names: dict[str, str] = {}
    for index, module in enumerate(_in_official_order(network)):
        for official, own in _inside(module).items():
            names[f"all_modules.{index}.{official}"] = f"{places[id(module)]}.{own}"
    return names


def from_official(tensors: Mapping[str, Tensor], network: NCSNpp | NoiseClassifier) -> dict[str, Tensor]:
    """Tensors under official names, prefix taken off, as a state dict for the network.

    Names that the network has no place for keep their official form, so that whoever compares sees them. A 1×1 layer
    that officially is a matrix (inputs, outputs) becomes the weight of a convolution (outputs, inputs, 1, 1).
    """
    names = official_names(network)
    return {
        names.get(official, official): tensor.T[:, :, None, None] if _is_matrix(official, tensor) else tensor
        for official, tensor in tensors.items()
    }


def _is_matrix(official: str, tensor: Tensor) -> bool:
    return official.endswith(".W") and tensor.ndim == 2


def _in_official_order(network: NCSNpp | NoiseClassifier) -> Iterator[nn.Module]:
    if isinstance(network.embedding, FourierEmbedding):
        yield network.embedding
    yield from (network.time_in, network.time_out, network.conv_in)
    for level in network.downs:
        level = cast(DownLevel, level)
        for index, block in enumerate(level.blocks):
            yield block
            if level.attention:
                yield level.attention[index]
        yield from _with_tensors(level.leave)
        yield from _with_tensors(level.entry)
    yield from (network.middle_in, network.middle_attention, network.middle_out)
    if isinstance(network, NoiseClassifier):
        yield network.logits
        return
    for level in network.ups:
        level = cast(UpLevel, level)
        yield from level.blocks
        yield from level.attention
        yield from _running_output(level.output)
        yield from _with_tensors(level.leave)
    if network.progressive_output != "output_skip":
        yield from (network.norm_out, network.conv_out)


def _with_tensors(module: nn.Module | None) -> Iterator[nn.Module]:
    """The module, if the official list has an entry for it: resampling without a convolution has none."""
    if module is not None and not isinstance(module, Resample):
        yield module


def _running_output(output: OutputSkip | OutputResidual | None) -> Iterator[nn.Module]:
    if output is None:
        return
    if output.head is not None:
        yield from (output.head.norm, output.head.conv)
    elif isinstance(output, OutputResidual):
        yield from _with_tensors(output.up)


def _inside(module: nn.Module) -> dict[str, str]:
    """Official name → own name of the tensors in one entry of the list."""
    if isinstance(module, FourierEmbedding):
        return {"W": "frequencies"}
    if isinstance(module, ResidualBlock):
        parts = BLOCK | ({} if module.skip is None else {"Conv_2": "skip"})
        if module.resample is None and module.skip is not None:
            # DDPM's block calls the same layer NIN_0; whichever is in the file is taken
            return _weights(parts) | _matrices({"NIN_0": "skip"})
        return _weights(parts)
    if isinstance(module, SelfAttention):
        return _weights({"GroupNorm_0": "norm"}) | _matrices(ATTENTION)
    if isinstance(module, InputSkip):
        return _weights({"Conv_0": "conv"})
    if isinstance(module, InputResidual):
        return _weights({("Conv_0" if module.down.filter is None else "Conv2d_0"): "down.conv"})
    if isinstance(module, (ConvDownsample, ConvUpsample)):
        return _weights({("Conv_0" if module.filter is None else "Conv2d_0"): "conv"})
    return {name: name for name, _ in module.named_parameters()}


def _weights(parts: Mapping[str, str]) -> dict[str, str]:
    return {f"{official}.{kind}": f"{own}.{kind}" for official, own in parts.items() for kind in ("weight", "bias")}


def _matrices(parts: Mapping[str, str]) -> dict[str, str]:
    pairs = (("W", "weight"), ("b", "bias"))
    return {f"{official}.{kind}": f"{own}.{own_kind}" for official, own in parts.items() for kind, own_kind in pairs}
