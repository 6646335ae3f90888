"""Networks that are told a label: one more embedding, and nothing else changes."""

import pytest
import torch
from torch import nn

from psld.networks import NCSNpp, Preconditioned, PreconditionedState, UNet
from psld.processes import CLD

Z = torch.randn(3, 2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
TIMES = torch.tensor([0.1, 0.5, 0.9])


def small(kind=UNet, **changes):
    torch.manual_seed(0)
    return kind(2, 2, image_size=8, width=8, multipliers=(1,), blocks=1, attention_resolutions=(), **changes)


def randomised(network):
    """Zero-initialised layers made visible, in eval mode."""
    torch.manual_seed(1)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network.eval()


@pytest.mark.parametrize("kind", [UNet, NCSNpp])
def test_every_other_weight_starts_as_without_classes(kind):
    plain, labelled = small(kind).state_dict(), small(kind, classes=10).state_dict()
    assert labelled.pop("class_embedding.weight").shape == (11, 32)
    assert list(plain) == list(labelled)
    assert all(torch.equal(plain[name], labelled[name]) for name in plain)


@pytest.mark.parametrize("kind", [UNet, NCSNpp])
def test_an_embedding_of_zeros_is_the_network_without_classes(kind):
    labelled, plain = randomised(small(kind, classes=3)), small(kind).eval()
    nn.init.zeros_(labelled.class_embedding.weight)
    plain.load_state_dict({n: w for n, w in labelled.state_dict().items() if n != "class_embedding.weight"})
    assert torch.equal(labelled(Z, TIMES, torch.tensor([0, 1, 3])), plain(Z, TIMES))


def test_a_label_moves_the_time_features_by_its_row():
    """The embedding against the bias of the layer that it is added to."""
    network = randomised(small(classes=3))
    found = network(Z, TIMES, label=torch.full((3,), 2))
    row = network.class_embedding.weight[2].detach().clone()
    nn.init.zeros_(network.class_embedding.weight)
    assert not torch.allclose(network(Z, TIMES), found)
    with torch.no_grad():
        network.time_out.bias.add_(row)
    torch.testing.assert_close(network(Z, TIMES), found, rtol=1e-5, atol=1e-5)


def test_no_label_is_the_null_class_and_samples_have_their_own():
    network = randomised(small(classes=3))
    assert torch.equal(network(Z, TIMES), network(Z, TIMES, label=torch.full((3,), 3)))
    mixed = network(Z, TIMES, label=torch.tensor([0, 2, 3]))
    for i, label in enumerate((0, 2, 3)):
        alone = network(Z, TIMES, label=torch.full((3,), label))
        torch.testing.assert_close(mixed[i], alone[i], rtol=1e-5, atol=1e-5)
        assert torch.allclose(network(Z, TIMES)[i], alone[i]) == (label == 3)


def test_preconditioning_hands_the_label_on():
    inner = randomised(UNet(1, 1, 8, width=8, multipliers=(1,), blocks=1, attention_resolutions=(), classes=3))
    y, label = Z[:, 0], torch.tensor([0, 1, 2])
    denoiser = Preconditioned(inner, 0.5)
    assert denoiser.classes == 3 and Preconditioned(nn.Identity()).classes is None
    assert not torch.allclose(denoiser(y, TIMES, label=label), denoiser(y, TIMES))
    inner = UNet(2, 1, 8, width=8, multipliers=(1,), blocks=1, attention_resolutions=(), classes=3)
    state = PreconditionedState(randomised(inner), CLD(), 0.5)
    assert state.classes == 3
    assert not torch.allclose(state(Z, TIMES, label=label), state(Z, TIMES))


def test_refusals():
    with pytest.raises(ValueError, match="a label was given to a network without classes"):
        small()(Z, TIMES, label=torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match=r"one a sample, shape \(3,\): got \(1,\)"):
        small(classes=3)(Z, TIMES, label=torch.tensor([0]))
    with pytest.raises(ValueError, match="classes must be at least 1: got 0"):
        small(classes=0)
