"""Images that are not square, and sizes that a network cannot take."""

import pytest
import torch

from psld import VPSDE
from psld.networks import FIR, DiT, NCSNpp, NoiseClassifier, Patched, ResidualInput, SkipInput, UNet
from psld.networks.sizes import nearest_sizes, require_division

TIMES = torch.tensor([0.2, 0.7])
SMALL = dict(width=8, multipliers=(1, 2, 2), blocks=1, attention_resolutions=(4,), dropout=0.0)


def transposed(network: torch.nn.Module, of: torch.nn.Module) -> None:
    """Gives a network the weights of another, every kernel transposed."""
    state = {name: value.mT if value.ndim == 4 else value for name, value in of.state_dict().items()}
    network.load_state_dict(state)


def randomised(network):
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return network.double().eval()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"resampling": FIR(), "progressive_input": ResidualInput(), "progressive_output": "residual"},
        {"progressive_input": SkipInput(), "progressive_output": "output_skip", "level_change": "convolution"},
    ],
    ids=["plain", "residual", "skip"],
)
def test_turning_image_and_kernels_turns_the_output(options):
    """On 16×24 pixels as on 24×16, by the symmetry of every layer: so both sides are treated alike."""
    wide = randomised(NCSNpp(2, 2, (16, 24), **SMALL, **options))
    tall = NCSNpp(2, 2, (24, 16), **SMALL, **options).double().eval()
    transposed(tall, wide)
    x = torch.randn(2, 2, 16, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    there = wide(x, TIMES.double())
    assert float(there.detach().std()) > 1e-3
    torch.testing.assert_close(tall(x.mT, TIMES.double()), there.mT, rtol=1e-9, atol=1e-9)
    square = NCSNpp(2, 2, 16, **SMALL, **options).double().eval()  # the weights do not depend on the size
    square.load_state_dict(wide.state_dict())
    assert square(x[..., :16], TIMES.double()).shape == (2, 2, 16, 16)


def test_a_square_is_one_number_or_two():
    x = torch.randn(2, 2, 8, 8)
    one, two = (randomised(UNet(2, 2, size, width=8, multipliers=(1, 2), blocks=1)) for size in (8, (8, 8)))
    assert torch.equal(one(x.double(), TIMES.double()), two(x.double(), TIMES.double()))


def test_a_classifier_of_images_that_are_not_square():
    network = randomised(
        NoiseClassifier.for_data(
            VPSDE(), (3, 8, 24), None, classes=4, **SMALL | {"blocks": 1, "attention_resolutions": (2,)}
        )
    )
    assert network.image_size == [8, 24] and network.logits.weight.shape == (4, 16 * 2 * 6)
    assert network(torch.randn(2, 3, 8, 24).double(), TIMES.double()).shape == (2, 4)
    with pytest.raises(ValueError, match=r"takes images of \(8, 24\): got a state of \(2, 3, 24, 8\)"):
        network(torch.randn(2, 3, 24, 8).double(), TIMES.double())


def test_nearest_sizes():
    for factor in (1, 2, 4, 8, 7):
        for side in range(1, 40):
            multiples = [n for n in range(1, 60) if n % factor == 0]
            closest = [[n for n in multiples if n <= side][-1:], [n for n in multiples if n >= side][:1]]
            assert nearest_sizes(side, factor) == sorted({n for side_of in closest for n in side_of})


def test_sizes_that_do_not_fit_are_refused_with_the_nearest_that_do():
    with pytest.raises(ValueError, match="by 4 for 3 levels: got 30; the nearest sizes that fit are 28 or 32"):
        UNet(3, 3, 30)
    with pytest.raises(ValueError, match="got 32×45; the nearest sizes that fit are height 32, width 44 or 48"):
        UNet(3, 3, (32, 45))
    with pytest.raises(ValueError, match="got 3; the nearest sizes that fit are 4"):
        UNet(3, 3, 3)
    with pytest.raises(ValueError, match="image_size must be one whole number, of a square, or two"):
        UNet(3, 3, (32, 32, 32))
    with pytest.raises(ValueError, match="10×12 do not divide into patches of 4×4; .* height 8 or 12, width 12"):
        DiT(in_channels=2, patch_size=4, width=16, depth=1, heads=2)(torch.randn(2, 2, 10, 12), TIMES)
    with pytest.raises(ValueError, match="9×9 do not divide into patches of 2×2; the nearest .* 8 or 10"):
        Patched(torch.nn.Identity(), 2)(torch.randn(2, 1, 1, 9, 9), TIMES)
    require_division(8, 12, 4, "", "")
