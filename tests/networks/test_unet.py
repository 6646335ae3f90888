import math

import pytest
import torch
from torch import nn

from psld.networks import FourierTime, PositionalTime, UNet
from psld.networks.blocks import ResidualBlock, SelfAttention
from psld.networks.resampling import AverageDownsample, NearestUpsample


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def small(**changes) -> UNet:
    arguments = dict(in_channels=6, out_channels=6, image_size=8, width=8, multipliers=(1, 2), blocks=1)
    return UNet(**(arguments | dict(attention_resolutions=(4,)) | changes))  # pyright: ignore[reportArgumentType]


def randomised(network: UNet) -> UNet:
    """Zero-initialised layers made visible."""
    torch.manual_seed(1)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network.eval()


@pytest.mark.parametrize(
    ("multipliers", "blocks", "millions"), [((1, 2, 2, 2), 2, 39.40), ((1, 2, 2, 2), 4, 61.81), ((2, 2, 2), 4, 55.74)]
)
def test_parameter_counts_of_the_published_networks(multipliers, blocks, millions):
    with torch.device("meta"):
        network = UNet(6, 6, 32, width=128, multipliers=multipliers, blocks=blocks, attention_resolutions=(16,))
    assert round(parameters(network) / 1e6, 2) == millions


def test_untrained_output_is_zero():
    assert torch.equal(small()(torch.randn(2, 6, 8, 8), torch.rand(2)), torch.zeros(2, 6, 8, 8))


@pytest.mark.parametrize("time", [PositionalTime(), FourierTime()])
def test_variables_are_folded_into_channels(time):
    network = randomised(small(out_channels=3, time=time))
    z, t = torch.randn(2, 2, 3, 8, 8), torch.rand(2)
    unfolded, folded = network(z, t), network(z.reshape(2, 6, 8, 8), t)
    assert unfolded.shape == (2, 1, 3, 8, 8)
    assert torch.equal(unfolded[:, 0], folded)
    assert float(folded.detach().std()) > 0


def test_samples_do_not_see_one_another_but_see_their_time():
    network = randomised(small())
    z, t = torch.randn(3, 6, 8, 8), torch.tensor([0.1, 0.5, 0.9])
    torch.testing.assert_close(network(z, t)[1:2], network(z[1:2], t[1:2]), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(network(z, t), network(z, t.flip(0)))


def test_every_parameter_is_reached_by_the_gradient():
    network = randomised(small())
    network(torch.randn(2, 6, 8, 8), torch.rand(2)).square().sum().backward()
    unreached = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    # The key's bias shifts all logits of a query alike, which softmax does not see.
    assert [name for name in unreached if not name.endswith("key.bias")] == []


def test_zero_initialised_blocks_are_scaled_identities():
    x, time = torch.randn(2, 8, 4, 4), torch.randn(2, 16)
    torch.testing.assert_close(ResidualBlock(8, 8, 16)(x, time), x / math.sqrt(2))
    torch.testing.assert_close(ResidualBlock(8, 8, 16, skip_rescale=False)(x, time), x)
    torch.testing.assert_close(SelfAttention(8)(x), x / math.sqrt(2))


def test_attention_is_softmax_of_scaled_products():
    torch.manual_seed(0)
    attention = SelfAttention(4, skip_rescale=False)
    nn.init.normal_(attention.out.weight)
    x = torch.randn(1, 4, 3, 3)
    pixels = attention.norm(x)[0].flatten(1).T
    query, key, value = (
        pixels @ layer.weight[:, :, 0, 0].T for layer in (attention.query, attention.key, attention.value)
    )
    mixed = torch.softmax(query @ key.T / math.sqrt(4), dim=1) @ value @ attention.out.weight[:, :, 0, 0].T
    torch.testing.assert_close(attention(x)[0].flatten(1).T, x[0].flatten(1).T + mixed)


def test_resampling():
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert AverageDownsample()(x).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert torch.equal(AverageDownsample()(NearestUpsample()(x)), x)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(image_size=9), "divisible by 2 for 2 levels: got 9"),
        (dict(multipliers=()), "multipliers must be"),
        (dict(attention_resolutions=(16,)), r"\[16\] are not among the levels' resolutions \[8, 4\]"),
        (dict(width=7), "width must be even"),
        (dict(dropout=1.0), r"dropout must be in \[0, 1\)"),
        (dict(in_channels=0), "in_channels must be at least 1"),
        (dict(out_channels=0), "out_channels must be at least 1"),
    ],
)
def test_construction_refuses(changes, message):
    with pytest.raises(ValueError, match=message):
        small(**changes)


@pytest.mark.parametrize(
    ("shape", "times", "message"),
    [
        ((2, 4, 8, 8), 2, "in_channels=6, the input has 4"),
        ((2, 6, 16, 16), 2, r"takes images of \(8, 8\): got a state of \(2, 6, 16, 16\)"),
        ((2, 6, 8), 2, r"takes \(B, k, C, H, W\) .*: got"),
        ((2, 6, 8, 8), 1, r"shape \(2,\): got \(1,\)"),
    ],
)
def test_call_refuses(shape, times, message):
    with pytest.raises(ValueError, match=message):
        small()(torch.zeros(shape), torch.ones(times))
    with pytest.raises(ValueError, match="no multiple of the 3 channels"):
        small(out_channels=4)(torch.zeros(2, 2, 3, 8, 8), torch.ones(2))
