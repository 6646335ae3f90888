"""`Patched`: what a network is given, and where its output lands."""

import pytest
import torch
from torch import nn

from psld.networks import Patched, Preconditioned, UNet


class Recording(nn.Module):
    """Returns its input, and keeps it."""

    def forward(self, z, t, **condition):
        self.seen, self.condition = z, condition
        return z


def test_pixels_of_a_square_become_channels_and_come_back():
    z = torch.arange(2 * 3 * 2 * 4 * 6, dtype=torch.float32).reshape(2, 3, 2, 4, 6)
    network = Recording()
    out = Patched(network, size=2)(z, torch.ones(2), label="kept")
    assert network.seen.shape == (2, 3, 8, 2, 3) and network.condition == {"label": "kept"}
    for c in range(2):
        for row in range(2):
            for column in range(2):
                channel = 4 * c + 2 * row + column
                assert torch.equal(network.seen[:, :, channel], z[:, :, c, row::2, column::2])
    assert torch.equal(out, z)


def test_a_denoiser_of_patches_starts_as_the_best_linear_one():
    unet = UNet(4, 4, 8, width=8, multipliers=(1, 2), blocks=1, attention_resolutions=())
    denoiser = Preconditioned(Patched(unet), sigma_data=0.5)
    y = torch.randn(3, 1, 16, 16)
    torch.testing.assert_close(denoiser(y, torch.tensor([0.5, 0.5, 0.5])), 0.5 * y)


def test_what_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        Patched(Recording(), size=0)
    with pytest.raises(ValueError, match="7×8 do not divide into patches of 2×2"):
        Patched(Recording(), size=2)(torch.zeros(1, 1, 1, 7, 8), torch.ones(1))


def test_labels_are_those_of_the_network():
    unet = UNet(4, 4, 8, width=8, multipliers=(1,), blocks=1, attention_resolutions=(), classes=10)
    assert Patched(unet).classes == 10 and Patched(Recording()).classes is None
