"""What every backbone promises: the shape that process and prediction ask for, each sample by itself, and a spec.

A new network of `psld.networks` is picked up here. `SMALL` makes those quick whose defaults are large.
"""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import nn

import psld.networks
from psld import CLD, PSLD, HigherOrderLangevin, LinearProcess
from psld.model import Predicts
from psld.networks import DiT, ImageNetwork, NCSNpp, NoiseClassifier, UNet, interface_of, is_class_conditional
from psld.specs import build, listed_names

SMALL: dict[type[ImageNetwork], dict[str, Any]] = {
    UNet: dict(width=8, multipliers=(1, 2), blocks=1),
    NCSNpp: dict(width=8, multipliers=(1, 2), blocks=1),
    DiT: dict(width=16, depth=2, heads=2),
}
EVERY = [
    kind
    for kind in (getattr(psld.networks, name) for name in psld.networks.__all__)
    if isinstance(kind, type) and issubclass(kind, ImageNetwork) and not issubclass(kind, NoiseClassifier)
    if kind is not ImageNetwork
]
ASKED: list[tuple[LinearProcess, Predicts]] = [
    (CLD(), "eps"),
    (PSLD(), "score"),
    (HigherOrderLangevin(3), "x0"),
    (PSLD(), "denoiser"),
]
SHAPE = (3, 8, 8)
TIMES = torch.tensor([0.05, 0.4, 0.9], dtype=torch.float64)

every = pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)


def made(kind: type[ImageNetwork], process: LinearProcess, predicts: Predicts, **options: Any) -> ImageNetwork:
    """A small one, with every weight drawn: many are zero before training."""
    network = kind.for_data(process, SHAPE, predicts, **(SMALL.get(kind, {}) | options)).double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in network.parameters():
            weight.normal_(std=0.2, generator=generator)
    return network


def asked(process: LinearProcess, predicts: Predicts) -> torch.Tensor:
    variables = interface_of(process, SHAPE, predicts).variables
    return torch.randn(len(TIMES), variables, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@every
@pytest.mark.parametrize(("process", "predicts"), ASKED, ids=repr)
def test_what_comes_out_is_what_process_and_prediction_ask_for(kind, process, predicts):
    network, z = made(kind, process, predicts), asked(process, predicts)
    outputs = interface_of(process, SHAPE, predicts).outputs
    assert network(z, TIMES).shape == (len(z), outputs, *SHAPE)
    if predicts == "denoiser":  # inside Preconditioned it is shown images
        torch.testing.assert_close(network(z[:, 0], TIMES), network(z, TIMES)[:, 0])


@every
def test_a_sample_depends_on_itself_and_its_time(kind):
    network, z = made(kind, PSLD(), "eps"), asked(PSLD(), "eps")
    together = network(z, TIMES)
    for i in range(len(z)):
        torch.testing.assert_close(network(z[i : i + 1], TIMES[i : i + 1])[0], together[i], rtol=1e-9, atol=1e-9)
    later, moved = network(z, TIMES * 0.5), network(z + 0.1 * z.flip(0), TIMES)
    for changed in (later, moved):
        assert ((changed - together).flatten(1).norm(dim=1) > 1e-6 * together.flatten(1).norm(dim=1)).all()


@every
def test_every_weight_learns(kind):
    network, z = made(kind, PSLD(), "eps").train(), asked(PSLD(), "eps")
    network(z, TIMES).square().mean().backward()
    idle = [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert idle == []


@every
def test_it_is_made_again_from_its_spec(kind):
    network, z = made(kind, PSLD(), "eps"), asked(PSLD(), "eps")
    again = build(network.spec.config(), trust=network.spec.path not in listed_names())
    assert type(again) is kind and again.spec == network.spec
    again.double().load_state_dict(network.state_dict())
    assert torch.equal(again.eval()(z, TIMES), network(z, TIMES))


@every
def test_its_parameters_have_types(kind):
    """`psld train` reads a network's arguments from the command line and from YAML by them."""
    parameters = inspect.signature(kind).parameters.values()
    assert all(p.annotation is not inspect.Parameter.empty for p in parameters)


@every
def test_a_label_is_told_or_refused(kind):
    """The null class, number `classes`, and no label are one; a network without classes takes none."""
    if "classes" not in inspect.signature(kind).parameters:
        assert not is_class_conditional(made(kind, PSLD(), "eps"))
        return
    network: Any = made(kind, PSLD(), "eps", classes=4)
    z, label = asked(PSLD(), "eps"), torch.tensor([0, 3, 1])
    assert is_class_conditional(network) and isinstance(network, nn.Module)
    assert torch.equal(network(z, TIMES), network(z, TIMES, label=torch.full((3,), 4)))
    assert ((network(z, TIMES, label=label) - network(z, TIMES)).flatten(1).norm(dim=1) > 1e-6).all()
