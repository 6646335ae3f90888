"""Channels and image size from process, data and what is predicted: the networks built so are called, and checked."""

import pytest
import torch
from torch import nn

from psld import CLD, PSLD, VPSDE, HigherOrderLangevin, ScoreModel
from psld.networks import (
    MLP,
    Autocast,
    DiT,
    NCSNpp,
    NoiseClassifier,
    Patched,
    Preconditioned,
    PreconditionedState,
    UNet,
    filled_channels,
    interface_of,
)
from psld.specs import UntrustedClassError, build

TINY = {
    UNet: dict(width=8, multipliers=(1, 2), blocks=1),
    NCSNpp: dict(width=8, multipliers=(1, 2), blocks=1),
    DiT: dict(width=8, depth=1, heads=2),
}
COLOUR = (3, 8, 8)


@pytest.mark.parametrize(
    ("process", "predicts", "variables"),
    [
        (VPSDE(), "eps", (1, 1)),
        (CLD(), "eps", (2, 1)),  # noise enters the momentum only
        (PSLD(0.01), "eps", (2, 2)),
        (HigherOrderLangevin(3), "eps", (3, 1)),
        (CLD(), "score", (2, 2)),
        (PSLD(0.01), "x0", (2, 1)),
        (PSLD(0.01), "v", (2, 1)),
        (PSLD(0.01), "denoiser", (1, 1)),
    ],
)
def test_variables_in_and_out(process, predicts, variables):
    assert interface_of(process, COLOUR, predicts) == (*variables, COLOUR)
    for kind, options in TINY.items():
        filled = filled_channels(kind, options, process, COLOUR, predicts)
        assert (filled["in_channels"], filled["out_channels"]) == (3 * variables[0], 3 * variables[1])
        assert filled.get("image_size") == (None if kind is DiT else 8)
        assert filled.items() >= options.items()


@pytest.mark.parametrize("predicts", ["eps", "score", "x0"])
@pytest.mark.parametrize("process", [VPSDE(), CLD(), PSLD(0.01), HigherOrderLangevin(3)], ids=repr)
@pytest.mark.parametrize("kind", TINY)
def test_a_network_for_data_is_one_that_a_model_accepts(kind, process, predicts):
    """ScoreModel refuses a wrong number of rows; and an untrained network predicts zero."""
    network = kind.for_data(process, COLOUR, predicts, **TINY[kind])
    z = torch.randn(2, process.k, *COLOUR)
    output = ScoreModel(network, process, predicts).output(z, torch.tensor([0.2, 0.7]))
    assert not output.any() and output.shape[2:] == COLOUR


def described(kind, **arguments):
    return {"class_path": f"psld.networks.{kind.__name__}", "init_args": arguments}


@pytest.mark.parametrize("kind", TINY)
def test_wrappers_ask_the_inner_network_for_what_they_need(kind):
    process = PSLD(0.01)
    z, t = torch.randn(2, 2, *COLOUR), torch.tensor([0.2, 0.7])
    inner = described(kind, **TINY[kind])

    denoiser = filled_channels(Preconditioned, {"sigma_data": 0.5, "network": inner}, process, COLOUR, "denoiser")
    assert denoiser["network"]["init_args"]["in_channels"] == denoiser["network"]["init_args"]["out_channels"] == 3
    model = ScoreModel(build(described(Preconditioned, **denoiser)), process, "denoiser")
    torch.testing.assert_close(model.denoise(z[:, 0], torch.tensor([0.5, 0.5])), 0.5 * z[:, 0])

    state = filled_channels(PreconditionedState, {"network": inner}, process, COLOUR, "x0")
    assert [state["network"]["init_args"][name] for name in ("in_channels", "out_channels")] == [6, 3]
    ScoreModel(build(described(PreconditionedState, **state, process=process.spec.config())), process, "x0")(z, t)

    patched = filled_channels(Patched, {"size": 4, "network": inner}, process, COLOUR, "eps")
    assert [patched["network"]["init_args"][name] for name in ("in_channels", "out_channels")] == [96, 96]
    assert patched["network"]["init_args"].get("image_size") == (None if kind is DiT else 2)
    ScoreModel(build(described(Patched, **patched)), process)(z, t)


def test_wrappers_in_wrappers_with_their_own_defaults():
    """Autocast passes on, Preconditioned asks for one variable, and Patched (of size 2, its default) for patches."""
    inner = described(Patched, network=described(UNet, width=8, multipliers=(1, 2)))
    around = {"network": described(Preconditioned, network=inner)}
    filled = filled_channels(Autocast, around, CLD(), (1, 32, 32), "denoiser")
    unet = filled["network"]["init_args"]["network"]["init_args"]["network"]
    assert unet["init_args"] == {
        "width": 8,
        "multipliers": (1, 2),
        "in_channels": 4,
        "out_channels": 4,
        "image_size": 16,
    }
    assert inner["init_args"]["network"]["init_args"] == {"width": 8, "multipliers": (1, 2)}  # what was given is whole


def test_what_is_given_stays_and_null_is_not_given():
    given = {"in_channels": 5, "out_channels": None, "image_size": 16}
    assert filled_channels(UNet, given, PSLD(0.01), COLOUR, "eps") == given | {"out_channels": 6}
    network = UNet(2, 2, 8)
    assert filled_channels(Patched, {"network": network}, PSLD(0.01), COLOUR, "eps")["network"] is network
    assert filled_channels(nn.Identity, {"any": 1}, PSLD(0.01), COLOUR, "eps") == {"any": 1}


def test_a_classifier_takes_what_a_network_takes_and_returns_logits():
    network = NoiseClassifier.for_data(CLD(), COLOUR, None, classes=5, width=8, multipliers=(1, 2), blocks=1)
    assert network(torch.randn(2, 2, *COLOUR), torch.ones(2)).shape == (2, 5)


def test_vectors():
    filled = filled_channels(MLP, {"width": 8}, CLD(), (7,), "eps")
    assert filled == {"width": 8, "variables": 2, "dimension": 7, "out_variables": 1}
    model = ScoreModel(MLP(**filled), CLD())
    assert not model.output(torch.randn(3, 2, 7), 0.5).any()


def test_images_that_are_not_square():
    shape = (1, 8, 12)
    network = DiT.for_data(PSLD(0.01), shape, "eps", **TINY[DiT])
    assert network(torch.randn(2, 2, *shape), torch.ones(2)).shape == (2, 2, *shape)
    network = UNet.for_data(PSLD(0.01), shape, "eps", width=8, multipliers=(1, 2), blocks=1)
    assert network.image_size == [8, 12]
    assert network(torch.randn(2, 2, *shape), torch.ones(2)).shape == (2, 2, *shape)


@pytest.mark.parametrize(
    ("kind", "shape", "predicts", "message"),
    [
        (UNet, COLOUR, "noise", "predicts must be 'eps', 'score', 'x0', 'v' or 'denoiser': got 'noise'"),
        (UNet, (7,), "eps", r"UNet is for images, \(C, H, W\): the data have shape \(7,\)"),
        (MLP, COLOUR, "eps", r"MLP is for vectors, \(d,\): the data have shape \(3, 8, 8\)"),
        (UNet, COLOUR, None, "UNet returns variables, not logits"),
        (Preconditioned, COLOUR, "eps", r"use it with predicts='denoiser'. Asked for: 2 variables in, 2 out"),
        (PreconditionedState, COLOUR, "score", r"use it with predicts='x0'. Asked for: 2 variables in, 2 out"),
        (Patched, (3, 7, 8), "eps", "images of 7×8 do not divide into patches of 2×2"),
    ],
)
def test_refusals(kind, shape, predicts, message):
    with pytest.raises(ValueError, match=message):
        filled_channels(kind, {"network": described(UNet)}, PSLD(0.01), shape, predicts)


def test_an_inner_network_of_someone_elses_is_not_imported_unless_trusted():
    inner = {"class_path": "torch.nn.Identity", "init_args": {}}
    with pytest.raises(UntrustedClassError, match="names 'torch.nn.Identity', which is not one of psld's classes"):
        filled_channels(Patched, {"network": inner}, PSLD(0.01), COLOUR, "eps")
    assert filled_channels(Patched, {"network": inner}, PSLD(0.01), COLOUR, "eps", trust=True)["network"] == inner


def test_a_network_of_defaults_is_built_and_runs():
    """Attention is at the coarsest level, which there is for any image size."""
    for network in (UNet(), UNet(3, 3, 8), NCSNpp(3, 3, 8, width=8)):
        size = network.image_size
        assert isinstance(size, int)
        assert not network.eval()(torch.randn(1, 3, size, size), torch.ones(1)).any()
        *finer, coarsest = [len(level.attention) for level in network.downs]  # pyright: ignore[reportArgumentType]
        assert not any(finer) and coarsest == len(network.downs[-1].blocks)  # pyright: ignore[reportArgumentType]
    with torch.device("meta"):
        assert not any(len(level.attention) for level in UNet(attention_resolutions=()).downs)  # pyright: ignore[reportArgumentType]
        assert DiT().in_channels == DiT().out_channels == 3
        assert NoiseClassifier(classes=2).image_size == 32
