"""`Autocast`: 16 bits in the layers, and nowhere else."""

import pytest
import torch
from torch import nn

from psld.networks import Autocast, Patched, Preconditioned, UNet


class Seen(nn.Module):
    """A layer in between that keeps the types it is called with and returns."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8, bias=False)

    def forward(self, z, t, **condition):
        out = self.layer(z)
        self.types, self.condition = (z.dtype, t.dtype, out.dtype), condition
        return out


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_layers_compute_in_16_bits_and_nothing_around_them(dtype):
    torch.manual_seed(0)
    inner, z = Seen(), torch.randn(4, 8)
    out = Autocast(inner, dtype)(z, torch.ones(4), label="kept")
    assert inner.types == (torch.float32, torch.float32, dtype) and inner.condition == {"label": "kept"}
    assert out.dtype == torch.float32 and inner.layer.weight.dtype == torch.float32
    by_hand = (z.to(dtype).double() @ inner.layer.weight.to(dtype).double().mT).float()
    torch.testing.assert_close(out, by_hand, atol=0, rtol=2 * torch.finfo(dtype).eps)
    assert not torch.equal(out, inner.layer(z))


def test_what_a_denoiser_passes_through_is_not_rounded():
    """At σ = 0.002 D(y; σ) is y to 1e-5 of σ_data, whatever 16 bits make of the network."""
    torch.manual_seed(0)
    unet = UNet(1, 1, 8, width=8, multipliers=(1,), blocks=1, attention_resolutions=())
    y, sigma = torch.rand(64, 1, 8, 8), torch.full((64,), 0.002)
    error = (Autocast(Preconditioned(unet, sigma_data=0.5))(y, sigma) - y).abs().max()
    assert error < 2e-5  # bfloat16 would round y by up to 2e-3


def test_other_types_are_refused():
    with pytest.raises(ValueError, match=r"torch\.bfloat16 or torch\.float16: got torch\.float32"):
        Autocast(nn.Identity(), torch.float32)


def test_labels_are_those_of_the_network():
    unet = UNet(4, 4, 8, width=8, multipliers=(1,), blocks=1, attention_resolutions=(), classes=10)
    assert Autocast(Patched(unet)).classes == 10 and Autocast(nn.Identity()).classes is None
