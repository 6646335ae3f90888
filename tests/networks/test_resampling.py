"""Resampling against its definition, spelt out pixel by pixel, and merged with the convolution that follows it."""

import pytest
import torch
from torch.nn import functional

from psld.networks.initialisation import conv
from psld.networks.resampling import (
    FIR,
    AverageDownsample,
    ConvDownsample,
    ConvUpsample,
    FIRDownsample,
    FIRUpsample,
    NearestUpsample,
)

TAPS = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64) / 8


@pytest.fixture(autouse=True)
def double():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def filtered(line, pad):
    """Every window of four along a line with zeros around it, against the taps."""
    line = torch.cat([torch.zeros(pad[0]), line, torch.zeros(pad[1])])
    return torch.stack([(line[i : i + 4] * TAPS).sum() for i in range(len(line) - 3)])


def along_both(image, operation):
    rows = torch.stack([operation(row) for row in image])
    return torch.stack([operation(column) for column in rows.T]).T


def zeros_between(line):
    return torch.stack([line, torch.zeros_like(line)], 1).flatten()


def test_fir_down_is_its_definition():
    x = torch.randn(1, 1, 6, 8)
    wanted = along_both(x[0, 0], lambda line: filtered(line, (1, 1))[::2])
    torch.testing.assert_close(FIRDownsample()(x)[0, 0], wanted, rtol=0, atol=1e-12)


def test_fir_up_is_its_definition():
    x = torch.randn(1, 1, 3, 4)
    wanted = along_both(x[0, 0], lambda line: 2 * filtered(zeros_between(line), (2, 1)))
    torch.testing.assert_close(FIRUpsample()(x)[0, 0], wanted, rtol=0, atol=1e-12)


def test_uneven_taps_are_those_of_a_convolution():
    """A single pixel becomes the taps themselves, in their order."""
    taps, x = (1.0, 2.0, 3.0, 4.0), torch.zeros(1, 1, 8, 8)
    x[0, 0, 4, 4] = 1
    line = torch.tensor(taps) / 10
    torch.testing.assert_close(FIRUpsample(taps)(x)[0, 0, 7:11, 7:11], 4 * torch.outer(line, line), rtol=1e-6, atol=0)
    torch.testing.assert_close(FIRDownsample(taps)(x)[0, 0, 2, 2], line[2] ** 2, rtol=1e-6, atol=0)


def test_fir_keeps_the_inside_of_a_constant_image():
    for resample in (FIRDownsample(), FIRUpsample()):
        inside = resample(torch.ones(1, 2, 8, 8))[:, :, 1:-1, 1:-1]
        torch.testing.assert_close(inside, torch.ones_like(inside))


@pytest.mark.parametrize("resample", [AverageDownsample(), NearestUpsample(), FIRDownsample(), FIRUpsample()])
def test_merged_with_a_convolution_it_gives_the_same_numbers(resample):
    x = torch.randn(2, 3, 8, 8)
    wide, pointwise = conv(3, 5, 3), conv(3, 5, 1)
    for layer in (wide, pointwise):
        torch.nn.init.normal_(layer.bias)  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(resample.convolved(x, wide), wide(resample(x)), rtol=0, atol=1e-12)
    torch.testing.assert_close(resample.projected(x, pointwise), pointwise(resample(x)), rtol=0, atol=1e-12)


def test_strided_fir_convolution_is_filter_then_stride():
    """By definition: two zeros around, the filter at every pixel, then the 3×3 convolution with stride 2."""
    layer = ConvDownsample(1, 2, FIR())
    x = torch.randn(1, 1, 8, 8)
    full = along_both(x[0, 0], lambda line: filtered(line, (2, 2)))[None, None]
    torch.testing.assert_close(layer(x), functional.conv2d(full, layer.conv.weight, layer.conv.bias, stride=2))


def test_convolved_fir_upsampling_is_convolution_between_zeros_then_filter():
    layer = ConvUpsample(1, 1, FIR())
    x = torch.randn(1, 1, 4, 4)
    spread = along_both(x[0, 0], zeros_between)[:-1, :-1]
    mixed = functional.conv2d(spread[None, None], layer.conv.weight, padding=2)
    wanted = along_both(mixed[0, 0], lambda line: 2 * filtered(line, (1, 1)))
    torch.testing.assert_close(layer(x)[0, 0], wanted, rtol=0, atol=1e-12)


def test_plain_convolutions_that_resample():
    x = torch.randn(1, 2, 8, 8)
    down, up = ConvDownsample(2, 3, None), ConvUpsample(2, 3, None)
    padded = functional.pad(x, (0, 1, 0, 1))
    torch.testing.assert_close(down(x), functional.conv2d(padded, down.conv.weight, down.conv.bias, stride=2))
    torch.testing.assert_close(up(x), up.conv(NearestUpsample()(x)), rtol=0, atol=1e-12)


def test_refusals():
    with pytest.raises(ValueError, match=r"taps must be an even number of them .* got \(1.0, 2.0, 1.0\)"):
        FIRDownsample((1.0, 2.0, 1.0))
    with pytest.raises(ValueError, match=r"taps must be an even number of them .* got \(1.0, 2.0, 1.0\)"):
        FIR((1.0, 2.0, 1.0))
