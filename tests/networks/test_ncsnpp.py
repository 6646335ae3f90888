"""The whole family: every option runs, trains and resumes its shape; layouts, precisions and recomputing agree."""

from typing import Any

import pytest
import torch
from torch import nn

from psld.networks import FIR, FourierTime, NCSNpp, NoiseClassifier, ResidualInput, SkipInput


def small(**changes) -> NCSNpp:
    sizes = dict(in_channels=6, out_channels=6, image_size=16, width=8, multipliers=(1, 2), blocks=1)
    defaults: dict[str, Any] = dict(**sizes, attention_resolutions=(8,), dropout=0.0)
    return NCSNpp(**(defaults | changes))


def randomised(network):
    torch.manual_seed(1)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network


FAMILY = [
    dict(),
    dict(resampling=FIR(), time=FourierTime(), progressive_input=ResidualInput()),
    dict(resampling=FIR(), progressive_input=SkipInput(), progressive_output="output_skip"),
    dict(progressive_input=SkipInput("cat"), progressive_output="residual"),
    dict(progressive_output="output_skip", skip_rescale=False),
    dict(resampling=FIR(), progressive_output="residual"),
    dict(level_change="convolution"),
    dict(level_change="resampling"),
    dict(level_change="convolution", resampling=FIR(), progressive_input=ResidualInput()),
]
INPUT = torch.randn(2, 2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
TIMES = torch.tensor([0.1, 0.8])


@pytest.mark.parametrize("options", FAMILY, ids=str)
def test_every_member_starts_at_zero_and_reaches_every_parameter(options):
    network = small(**options)
    assert torch.equal(network(INPUT, TIMES), torch.zeros_like(INPUT))
    randomised(network)(INPUT, TIMES).square().sum().backward()
    unreached = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert [name for name in unreached if not name.endswith("key.bias")] == []


@pytest.mark.parametrize("options", FAMILY, ids=str)
def test_training_mode_and_eval_mode_are_one_function(options):
    network = randomised(small(**options)).double()
    trained = network.train()(INPUT.double(), TIMES.double())
    torch.testing.assert_close(trained, network.eval()(INPUT.double(), TIMES.double()), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("change", [dict(channels_last=True), dict(recompute=True)], ids=str)
@pytest.mark.parametrize("options", FAMILY[:3], ids=str)
def test_layout_and_recomputing_change_no_number(options, change):
    plain, changed = (randomised(small(**options, **extra)).double() for extra in ({}, change))
    changed.load_state_dict(plain.state_dict())
    gradients = []
    for network in (plain, changed):
        output = network(INPUT.double(), TIMES.double())
        assert output.is_contiguous()
        output.square().sum().backward()
        gradients.append([output, *(parameter.grad for parameter in network.parameters())])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("options", [dict(), dict(recompute=True)], ids=str)
def test_gradients_of_gradients(options, training):
    """By finite differences along one direction, attention and recomputing included."""
    network = randomised(small(**options)).double().train(training)

    def slope(z):
        return torch.autograd.grad(network(z, TIMES.double()).square().mean(), z, create_graph=True)[0]

    z = INPUT.double().requires_grad_()
    direction, h = torch.randn_like(z), 1e-6
    (second,) = torch.autograd.grad(slope(z), z, direction)
    with torch.no_grad():
        ahead, behind = z + h * direction, z - h * direction
    numeric = (slope(ahead.requires_grad_()) - slope(behind.requires_grad_())) / (2 * h)
    torch.testing.assert_close(second, numeric.detach(), rtol=1e-5, atol=1e-5 * float(numeric.detach().abs().max()))


def test_recomputing_keeps_less():
    kept = {}
    for recompute in (False, True):
        network = small(recompute=recompute, blocks=2)
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, s=sizes: s.append(x.numel()) or x, lambda x: x):
            network(INPUT, TIMES)
        kept[recompute] = sum(sizes)
    assert kept[True] < 0.6 * kept[False]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("options", FAMILY[:2], ids=str)
def test_autocast_is_close_to_float32(options, dtype):
    network = randomised(small(**options))
    whole = network(INPUT, TIMES)
    with torch.autocast("cpu", dtype=dtype):
        half = network(INPUT, TIMES)
    half.float().square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())
    assert float((half.float() - whole).detach().norm() / whole.detach().norm()) < (
        0.1 if dtype == torch.bfloat16 else 0.02
    )


@pytest.mark.parametrize("size", [32, 64, 128])
def test_published_image_sizes(size):
    network = small(image_size=size, width=4, multipliers=(1, 1, 2, 2), attention_resolutions=(16,), resampling=FIR())
    assert network(torch.zeros(1, 2, 3, size, size), torch.ones(1)).shape == (1, 2, 3, size, size)


def test_a_classifier_gives_a_logit_a_class_for_noisy_states():
    network = randomised(
        NoiseClassifier(
            in_channels=6, classes=5, image_size=16, width=8, multipliers=(1, 2), blocks=1, attention_resolutions=(8,)
        )
    ).eval()
    logits = network(INPUT, TIMES)
    assert logits.shape == (2, 5)
    assert torch.equal(logits, network(INPUT.flatten(1, 2), TIMES))
    assert not torch.allclose(logits, network(INPUT, TIMES.flip(0)))
    state = INPUT.clone().requires_grad_()
    network(state, TIMES).log_softmax(1)[:, 0].sum().backward()
    assert state.grad is not None and float(state.grad.abs().max()) > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(progressive_output="skip"), "progressive_output must be 'output_skip' or 'residual' or None"),
        (dict(level_change="resnet"), "level_change must be 'block', 'convolution' or 'resampling'"),
    ],
)
def test_refusals(changes, message):
    with pytest.raises(ValueError, match=message):
        small(**changes)
    with pytest.raises(ValueError, match="classes must be at least 2: got 1"):
        NoiseClassifier(in_channels=6, classes=1)
    with pytest.raises(ValueError, match="combine must be 'sum' or 'cat'"):
        SkipInput("mean")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(progressive_input="residual"), "must be a SkipInput, a ResidualInput or None: got 'residual'"),
        (dict(resampling="fir"), "resampling must be a FIR or None: got 'fir'"),
        (dict(time="fourier"), "time must be a TimeEmbedding or None: got 'fourier'"),
    ],
)
def test_names_are_refused_where_objects_are_meant(changes, message):
    with pytest.raises(ValueError, match=message):
        small(**changes)


@pytest.mark.slow
def test_compiled_is_the_same_function():
    network = randomised(small(resampling=FIR(), progressive_input=ResidualInput()))
    compiled = torch.compile(network)
    for train in (True, False):
        network.train(train)
        torch.testing.assert_close(compiled(INPUT, TIMES), network(INPUT, TIMES), rtol=1e-4, atol=1e-4)
