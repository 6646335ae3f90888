"""`Sampler.sample`: what it knows by itself, what it refuses, and how deep a call of the network lies."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import psld
from psld import exact
from psld.model import Clamped, ScoreModel
from psld.noise import SeededNoise
from psld.processes import CLD, PSLD, VPSDE, HigherOrderLangevin
from psld.samplers import RK45, Ancestral, Exponential, Heun, PredictorCorrector, Projected, SymplecticEuler
from psld.samplers.grids import Grid, ends, log_snr, optimised, optimised_projected, quadratic, safe

DATA = exact.GaussianMixture(
    means=torch.tensor([[0.8, -0.4, 0.3], [-0.7, 0.1, 0.0]], dtype=torch.float64),
    std=torch.tensor([0.2, 0.5], dtype=torch.float64),
)


def told(process, shape=(3,)):
    """The exact model, which knows the shape of its data."""
    model = DATA.model(process)
    model.data_shape = shape  # pyright: ignore[reportAttributeAccessIssue]
    return model


def test_a_model_and_a_number_are_enough():
    """Shape of the model, seeds 0 … n − 1, 20 evaluations on the best grid, float64."""
    process, sampler = PSLD(0.01), Exponential(2)
    samples = sampler.sample(told(process), 5)
    by_hand = sampler.sample(
        DATA.model(process), grid=safe(process, 20), seeds=[0, 1, 2, 3, 4], shape=(3,), dtype=torch.float64
    )
    assert torch.equal(samples.x, by_hand.x) and torch.equal(samples.z, by_hand.z)
    assert samples.nfe.tolist() == [20] * 5 and samples.seeds == (0, 1, 2, 3, 4) and len(samples) == 5
    assert repr(samples) == "Samples(5 of shape (3,), float64, nfe 20, seeds 0 … 4)"


@pytest.mark.parametrize(
    "sampler, process, nfe, expected",
    [
        (Exponential(2), CLD(), 10, safe(CLD(), 10)),
        (Ancestral(), HigherOrderLangevin(3), 11, safe(HigherOrderLangevin(3), 11)),
        (Heun(), VPSDE(), 19, quadratic(VPSDE(), 10)),  # nine steps of two calls, and the denoising
        (Projected(PredictorCorrector()), CLD(), 10, safe(CLD(), 10)),
        (Projected(Heun()), CLD(), 19, safe(CLD(), 10)),
        (Projected(RK45(), "mean"), CLD(), 10, ends(CLD())),
        (RK45(), VPSDE(), 5, Grid([1.0, 1e-3])),
    ],
    ids=repr,
)
def test_the_best_grid_is_the_default(sampler, process, nfe, expected):
    assert sampler.best_grid(process, nfe) == expected


def test_optimised_grids_belong_to_processes_not_to_their_names():
    """repr once was the key, and it left arguments out."""
    assert optimised(PSLD(gamma=0.01), 10) == optimised(PSLD(0.01, kappa=0.04), 10)
    with pytest.raises(ValueError, match=r"no optimised grid for PSLD\(gamma=0.01, kappa=0.1\); there are some for V"):
        optimised(PSLD(0.01, kappa=0.1), 10)
    with pytest.raises(ValueError, match="nfe must be one of 5, 8, 10, 15, 20, 50 for an optimised grid: got 7"):
        optimised_projected(HigherOrderLangevin(3), 7)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({}, "n must be how many samples to draw, or seeds a sequence, one a sample: got None"),
        ({"n": 0}, "n must be at least 1: got 0"),
        ({"n": 3, "seeds": [1, 2]}, "2 seeds for n = 3 samples"),
        ({"seeds": []}, r"seeds must be at least one whole number, one a sample: got \[\]"),
        ({"n": 2, "grid": "fine"}, "unknown grid 'fine'"),
        ({"n": 2, "steps": 1}, "nfe must be at least 2"),
        ({"n": 4, "batch_size": 0}, "batch_size must be at least 1: got 0"),
    ],
)
def test_contradictions_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Exponential().sample(told(PSLD()), **arguments)


def test_an_unknown_shape_is_asked_for():
    with pytest.raises(ValueError, match=r"does not know the shape of one image: make it with data_shape="):
        Exponential().sample(ScoreModel(Depth(), PSLD(), "denoiser"), 2)


def test_states_in_batches_are_those_together():
    model, seen = told(PSLD()), []
    together = Ancestral().sample(model, 5, steps=6, seeds=7)
    parts = list(Ancestral().batches(model, 5, None, 7, steps=6, batch_size=2))
    assert [len(part) for part in parts] == [2, 2, 1]
    assert torch.equal(torch.cat([part.x for part in parts]), together.x)
    batched = Ancestral().sample(model, 5, steps=6, seeds=7, batch_size=2, watch=lambda t, z: seen.append(len(z)))
    assert torch.equal(batched.z, together.z) and batched.seeds == (7, 8, 9, 10, 11)
    assert seen == [2] * 6 + [2] * 6 + [1] * 6  # the first time and five steps, each batch


@pytest.mark.parametrize("sampler", [Ancestral(), RK45(1e-3, 1e-3)], ids=repr)
def test_a_progress_bar_reaches_its_end(sampler, capsys):
    model = told(VPSDE())
    quiet = sampler.sample(model, 4, steps=5, batch_size=2)
    assert capsys.readouterr().err == ""
    shown = sampler.sample(model, 4, steps=5, batch_size=2, progress=True)
    assert torch.equal(quiet.x, shown.x)
    assert "100%" in capsys.readouterr().err


def test_states_given_are_carried_on():
    process = CLD()
    model, grid = told(process), log_snr(process, 6)
    noise = SeededNoise([3, 4], (2, 3))
    carried = Ancestral().carry(model, process.prior_sample(noise()), grid, noise)
    assert torch.equal(carried.x, Ancestral().sample(model, seeds=[3, 4], grid=grid).x) and carried.seeds == (3, 4)


class Depth(nn.Module):
    """A denoiser that counts the frames of psld above it."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.depths: set[int] = set()

    def forward(self, y, sigma):
        frame, count = sys._getframe(), 0
        while frame is not None:
            count += frame.f_code.co_filename.startswith(str(Path(psld.__file__).parent))
            frame = frame.f_back
        self.depths.add(count)
        return 0.5 * y


@pytest.mark.parametrize(
    "sampler, most", [(Exponential(2), 6), (SymplecticEuler(), 6), (Projected(Heun()), 8)], ids=repr
)
def test_few_frames_lie_between_a_user_and_the_network(sampler, most):
    """sample → integrate → step, two more for the σ-space of `Projected`, and three of the model."""
    network = Depth()
    model = Clamped(ScoreModel(network, PSLD(), "denoiser"))
    sampler.sample(model, 2, steps=9, shape=(1, 4, 4))
    assert max(network.depths) <= most


def test_states_are_where_the_network_is():
    """float64 on a CPU; a device without it gets float32 (here one that computes nothing)."""
    network = Depth().to("meta")
    samples = Exponential().sample(ScoreModel(network, VPSDE(), "denoiser"), 2, steps=4, shape=(1, 4, 4))
    assert samples.x.device.type == "meta" and samples.x.dtype == torch.float32
