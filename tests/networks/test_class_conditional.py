"""Networks that can be told a label, of this library and of someone else."""

import pytest
import torch
from torch import nn

from psld.networks import Autocast, DiT, Patched, UNet
from psld.networks.class_conditional import is_class_conditional, null_class_for_none


class Own(nn.Module):
    """Someone's network: adds its label to the state."""

    classes = 4

    def forward(self, z, t, *, label=None):
        told = null_class_for_none(label, t, self.classes)
        assert told is not None
        return z + told[:, None, None, None, None]


def test_the_protocol_is_an_attribute_and_a_keyword():
    unet = UNet(1, 1, 8, width=8, multipliers=(1,), blocks=1, classes=10)
    dit = DiT(in_channels=1, width=8, depth=1, heads=1, classes=10)
    for network, classes in ((unet, 10), (dit, 10), (Own(), 4), (Autocast(Patched(Own())), 4)):
        assert is_class_conditional(network) and network.classes == classes
    without = UNet(1, 1, 8, width=8, multipliers=(1,), blocks=1)
    for network in (without, Patched(without), nn.Identity()):
        assert not is_class_conditional(network)


def test_a_wrapper_tells_the_network_inside():
    z, t = torch.zeros(2, 1, 1, 4, 4), torch.ones(2)
    wrapped = Patched(Own())
    assert wrapped(z, t, label=torch.tensor([1, 3])).flatten(1)[:, 0].tolist() == [1, 3]
    assert wrapped(z, t).flatten(1)[:, 0].tolist() == [4, 4]


def test_an_attribute_that_is_no_number_of_labels_is_not_meant():
    """Data sets and other classes have `classes` that are names."""
    network = nn.Identity()
    network.classes = ("cat", "dog")  # pyright: ignore[reportArgumentType]
    assert not is_class_conditional(network)


def test_labels_are_checked_against_the_times():
    t = torch.ones(3)
    assert null_class_for_none(None, t, None) is None
    assert null_class_for_none(None, t, 7).tolist() == [7, 7, 7]  # pyright: ignore[reportOptionalMemberAccess]
    with pytest.raises(ValueError, match=r"one a sample, shape \(3,\): got \(1,\)"):
        null_class_for_none(torch.tensor([0]), t, 7)
