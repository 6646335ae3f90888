"""A sample does not depend on the samples beside it: to the last bit where the score does not, else to its rounding.

Batches of 1, 7 and 64. Exact scores see one sample at a time (row_by_row.py); everything else in a sampler, a guidance
and an inverse method is element-wise in float64. A network is not: a convolution in float32 rounds otherwise in a batch
of another size. What that makes of an image is bounded here, on a published network.
"""

import pytest
import torch

import psld
import row_by_row
from psld import exact
from psld.guidance.classifier_free import ClassifierFreeGuidance
from psld.guidance.classifier_guidance import ClassifierGuidance
from psld.inverse.operators import Blur, Mask, SuperResolution
from psld.inverse.posterior import DPS, MMPS, PiGDM
from psld.inverse.replacement import Replacement
from psld.model import ScoreModel
from psld.processes import PSLD, VPSDE
from psld.samplers import RK45, EulerMaruyama, Exponential, FixedStepSampler, Projected
from psld.samplers.catalogue import CATALOGUE
from psld.samplers.grids import Grid

F64 = torch.float64
SHAPE, COUNT, GRID = (1, 6, 6), 64, Grid([1.0, 0.6, 0.35])
MEANS = torch.randn(3, *SHAPE, dtype=F64, generator=torch.Generator().manual_seed(0))
DATA = exact.GaussianMixture(MEANS, torch.tensor([0.2, 0.5, 0.3], dtype=F64))
PARTS = [exact.GaussianMixture(mean[None], 0.3) for mean in MEANS]
IMAGES = DATA.sample(1, torch.Generator().manual_seed(1))
KNOWN = torch.arange(36).reshape(SHAPE) % 3 == 0
SAMPLERS = [
    pytest.param(RK45(1e-3, 1e-4), marks=pytest.mark.slow) if isinstance(entry.sampler, RK45) else entry.sampler
    for entry in CATALOGUE
]


def require_independence(model, sampler=None, tolerance=0.0):
    sampler = sampler or Exponential(2)
    together = sampler.sample(model, COUNT, GRID, 4, shape=SHAPE)
    assert together.x.isfinite().all()
    for size in (7, 1):
        parts = sampler.sample(model, COUNT, GRID, 4, shape=SHAPE, batch_size=size)
        torch.testing.assert_close(parts.x, together.x, rtol=0.0, atol=tolerance)
        torch.testing.assert_close(parts.z, together.z, rtol=0.0, atol=tolerance)
        assert torch.equal(parts.nfe, together.nfe)


@pytest.mark.parametrize("process", [VPSDE(), PSLD(0.25)], ids=repr)
@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_every_sampler_to_the_last_bit(sampler, process):
    if not next(entry for entry in CATALOGUE if type(entry.sampler) is type(sampler)).takes(process):
        pytest.skip("needs another process")
    require_independence(row_by_row.model(DATA, process), sampler)


def test_solvers_that_choose_their_steps_let_samples_leave_at_different_times():
    """So the check above has something to find: the samples of a batch do not all arrive with the same step."""
    samples = RK45(1e-4, 1e-5).sample(DATA.model(PSLD(0.25)), COUNT, Grid([1.0, 0.05]), 4)
    assert len(set(samples.nfe.tolist())) > 2


def classifier(z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    distances = [(z[:, 0] - mean).square().flatten(1).sum(1) for mean in MEANS]
    return -torch.stack(distances, 1) / (1.0 + t[..., None])


def labelled(process) -> ScoreModel:
    def denoiser(y, sigma, label):
        rows = range(len(y))
        own = [[*PARTS, DATA][int(label[row])].denoiser(y[row : row + 1], sigma[row : row + 1]) for row in rows]
        return torch.cat(own)

    return ScoreModel(denoiser, process, "denoiser")


@pytest.mark.parametrize(
    "sampler", [Exponential(2), EulerMaruyama(), pytest.param(RK45(1e-3, 1e-4), marks=pytest.mark.slow)], ids=repr
)
@pytest.mark.parametrize("kind", ["classifier", "classifier-free"])
def test_every_guidance_to_the_last_bit(kind, sampler):
    process = PSLD(0.25)
    if kind == "classifier":
        guided = ClassifierGuidance(row_by_row.model(DATA, process), classifier, 1, 2.0)
    else:
        guided = ClassifierFreeGuidance(labelled(process), 1, 3, lambda t: 1.0 + t, interval=(0.4, 0.9))
    require_independence(guided, sampler)


BLUR = Blur(torch.tensor([[0.1, 0.2, 0.1], [0.0, 0.4, 0.1], [0.0, 0.1, 0.0]], dtype=F64))


@pytest.mark.parametrize("operator", [Mask(KNOWN), SuperResolution(2), BLUR], ids=lambda own: type(own).__name__)
@pytest.mark.parametrize("method", [DPS, PiGDM, MMPS])
def test_every_inverse_method_to_the_last_bit(method, operator):
    observation = operator.forward(IMAGES)
    model = method(row_by_row.model(DATA, PSLD(0.25)), operator, observation, 0.5)
    require_independence(
        model, tolerance=1e-10 if operator is BLUR else 0.0
    )  # the last bit of an FFT depends on others


@pytest.mark.parametrize("resamplings", [1, 3])
def test_replacement_to_the_last_bit(resamplings):
    model, inner = row_by_row.model(DATA, PSLD(0.25)), Replacement(EulerMaruyama(), IMAGES, KNOWN, resamplings)
    require_independence(model, inner)
    require_independence(model, Projected(Replacement(Exponential(2), IMAGES, KNOWN)))


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_images_of_a_network_to_its_rounding(sampler):
    """Batches of 14, 7 and 1 of psld-digits: 0.02 of a grey level, and 0.2 with steps of its own (rtol = 1e-3)."""
    model = psld.load("psld-digits")
    together, parts = (sampler.sample(model, 14, steps=12, batch_size=size).x for size in (14, 7))
    alone = sampler.sample(model, 2, seeds=[3, 11], steps=12, batch_size=1).x
    scale = together.abs().max().clamp(min=1.0)  # a few samplers diverge in so few steps
    bound = (1e-4 if isinstance(sampler, FixedStepSampler | Projected) else 1e-3) * scale
    assert (parts - together).abs().max() < bound and (alone - together[[3, 11]]).abs().max() < bound
