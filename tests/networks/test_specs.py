"""Networks and the objects in them are written to a configuration and come back the same."""

from typing import Any

import pytest
import torch
import yaml

from psld import PSLD
from psld.networks import (
    FIR,
    DiT,
    FourierTime,
    NCSNpp,
    NoiseClassifier,
    Patched,
    PositionalTime,
    Preconditioned,
    PreconditionedState,
    ResidualInput,
    SkipInput,
    UNet,
)
from psld.specs import build

SMALL: dict[str, Any] = dict(width=8, multipliers=(1, 2), blocks=1, attention_resolutions=(4,))
NETWORKS = [
    UNet(2, 1, 8, width=8, time=FourierTime(3.0), classes=4),
    NCSNpp(2, 2, 8, **SMALL, resampling=FIR((1.0, 1.0)), progressive_input=ResidualInput(), level_change="convolution"),
    NCSNpp(2, 2, 8, **SMALL, progressive_input=SkipInput("cat"), progressive_output="output_skip"),
    NoiseClassifier(in_channels=2, image_size=8, classes=3, **SMALL, time=PositionalTime(5.0)),
    DiT(in_channels=2, width=8, depth=1, heads=2, time=PositionalTime(7.0), classes=2),
    Preconditioned(Patched(DiT(in_channels=4, width=8, depth=1, heads=2)), sigma_data=0.7),
    PreconditionedState(UNet(2, 1, 8, width=8), PSLD(0.01)),
]


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: type(network).__name__)
def test_a_network_comes_back_from_its_configuration(network):
    again = build(yaml.safe_load(yaml.safe_dump(network.spec.config())))
    assert again.spec == network.spec
    again.load_state_dict(network.state_dict())
    if not isinstance(network, Preconditioned):
        z, t = torch.randn(2, 2, 1, 8, 8), torch.tensor([0.2, 0.7])
        assert torch.equal(again.eval()(z, t), network.eval()(z, t))


@pytest.mark.parametrize(
    ("made", "shown"),
    [
        (PositionalTime(), "PositionalTime()"),
        (FourierTime(4.0), "FourierTime(scale=4)"),
        (FIR(), "FIR()"),
        (SkipInput("cat"), "SkipInput(combine='cat')"),
        (ResidualInput(), "ResidualInput()"),
    ],
)
def test_objects_are_their_arguments(made, shown):
    assert repr(made) == shown
    assert build(made.spec) == made and hash(build(made.spec)) == hash(made)
    assert PositionalTime(1.0) != PositionalTime(2.0) and FIR((1.0, 1.0)) == FIR([1.0, 1.0])
