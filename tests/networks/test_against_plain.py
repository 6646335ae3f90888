"""The network is the same function as the plain one that benchmarks compare it with, gradients included."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn

from psld.networks import FIR, FourierTime, NCSNpp, ResidualInput
from psld.networks.levels import InputResidual
from psld.pretrained.official_keys import _in_official_order


def plain_network(**arguments):
    file = Path(__file__).parents[2] / "benchmarks" / "plain_ncsnpp.py"
    spec = importlib.util.spec_from_file_location("plain_ncsnpp", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.PlainNCSNpp(**arguments)


def pairs(plain, network):
    """Parameters of both, layer by layer; a matrix of the plain one belongs to a 1×1 convolution."""
    entries = [module for module in _in_official_order(network) if module is not network.embedding]
    assert len(entries) == len(plain.layers)
    for theirs, own in zip(plain.layers, entries, strict=True):
        own = own.down if isinstance(own, InputResidual) else own
        for name, parameter in theirs.named_parameters():
            yield parameter, own.get_parameter(name.replace("matrix", "weight"))


def aligned(parameter, own):
    return parameter.T[:, :, None, None] if parameter.ndim == 2 and own.ndim == 4 else parameter


@pytest.mark.parametrize("fir", [False, True])
def test_same_outputs_and_gradients_in_float64(fir):
    torch.manual_seed(0)
    plain = plain_network(
        channels=6, image_size=16, width=8, multipliers=(1, 2), blocks=2, attention=(8,), dropout=0, fir=fir
    )
    options = dict(time=FourierTime(), resampling=FIR(), progressive_input=ResidualInput()) if fir else {}
    sizes = dict(width=8, multipliers=(1, 2), blocks=2, attention_resolutions=(8,), dropout=0.0)
    network = NCSNpp(6, 6, 16, **sizes, **options).double()  # pyright: ignore[reportArgumentType]
    plain = plain.double()
    plain.embedded = lambda t: network.embedding(t).double()  # float32 in both
    for parameter, own in pairs(plain, network):
        nn.init.normal_(parameter, std=0.3)
        own.data.copy_(aligned(parameter.data, own))
    x, t = torch.randn(2, 6, 16, 16, dtype=torch.float64), torch.tensor([0.2, 0.9], dtype=torch.float64)
    theirs, ours = plain(x, t), network(x, t)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    for output in (theirs, ours):
        output.square().sum().backward()
    for parameter, own in pairs(plain, network):
        torch.testing.assert_close(own.grad, aligned(parameter.grad, own), rtol=1e-8, atol=1e-8)
