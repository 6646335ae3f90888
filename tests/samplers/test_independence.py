"""A sample does not depend on the samples beside it: to the last bit where the score does not, else to its rounding.

Batches of 1, 7 and 64, one thread and two. Exact scores see one sample at a time (row_by_row.py); everything else in a
sampler, a guidance and an inverse method is element-wise in float64. A network is not: a convolution in float32 rounds
otherwise in a batch of another size, and bfloat16 rounds coarser. What that makes of an image is bounded here, on a
published network. That two processes draw what one does, tests/cli/test_cli.py shows.
"""

from contextlib import contextmanager

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
from psld.model import Clamped, ScoreModel
from psld.networks import Autocast
from psld.processes import PSLD, VPSDE
from psld.samplers import RK45, SSCS, Ancestral, EulerMaruyama, Exponential, FixedStepSampler, Heun, Projected
from psld.samplers.catalogue import CATALOGUE
from psld.samplers.grids import Grid

F64 = torch.float64
SHAPE, COUNT, SEED, GRID = (1, 6, 6), 64, 4, Grid([1.0, 0.6, 0.35])
MEANS = torch.randn(3, *SHAPE, dtype=F64, generator=torch.Generator().manual_seed(0))
DATA = exact.GaussianMixture(MEANS, torch.tensor([0.2, 0.5, 0.3], dtype=F64))
PARTS = [exact.GaussianMixture(mean[None], 0.3) for mean in MEANS]
IMAGES = DATA.sample(1, torch.Generator().manual_seed(1))
KNOWN = torch.arange(36).reshape(SHAPE) % 3 == 0
SAMPLERS = [
    pytest.param(RK45(1e-3, 1e-4), marks=pytest.mark.slow) if isinstance(entry.sampler, RK45) else entry.sampler
    for entry in CATALOGUE
]

BFLOAT16 = [EulerMaruyama(), SSCS(), Exponential(), Ancestral(), Projected(Exponential()), Heun()]
CUDA = torch.cuda.is_available()


def require_independence(model, sampler=None, tolerance=0.0):
    sampler = sampler or Exponential(2)
    together = sampler.sample(model, COUNT, GRID, SEED, shape=SHAPE)
    assert together.x.isfinite().all()
    for size, rows in ((7, range(14)), (1, (0, 31, 63))):
        with threads(2 if size == 7 else 1):
            parts = sampler.sample(model, grid=GRID, seeds=[SEED + i for i in rows], shape=SHAPE, batch_size=size)
        torch.testing.assert_close(parts.x, together.x[list(rows)], rtol=0.0, atol=tolerance)
        torch.testing.assert_close(parts.z, together.z[list(rows)], rtol=0.0, atol=tolerance)
        assert torch.equal(parts.nfe, together.nfe[list(rows)])
        assert torch.equal(parts.diverged, together.diverged[list(rows)])


@contextmanager
def threads(count):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("process", [pytest.param(VPSDE(), marks=pytest.mark.slow), PSLD(0.25)], ids=repr)
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
@pytest.mark.parametrize("method", [DPS, *(pytest.param(method, marks=pytest.mark.slow) for method in (PiGDM, MMPS))])
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


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_large_states_do_not_depend_on_the_number_of_threads(sampler):
    """40,000 numbers a state are shared among threads, which the small ones above are not; pixels N(0.3, 0.5²)."""

    def denoiser(y, sigma):
        shrink = (0.25 / (0.25 + sigma.square()))[:, None, None, None]
        return shrink * y + (1.0 - shrink) * 0.3

    model = ScoreModel(denoiser, PSLD(0.25), "denoiser", data_shape=(1, 100, 100))
    drawn = []
    for count in (1, 2):
        with threads(count):
            drawn.append(sampler.sample(model, 2, GRID, SEED))
    assert torch.equal(drawn[0].x, drawn[1].x) and torch.equal(drawn[0].z, drawn[1].z)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_images_of_a_network_to_its_rounding(sampler):
    """In a batch of 7 and alone, of psld-digits: 0.02 of a grey level, and 0.2 with steps of its own (rtol = 1e-3)."""
    model = psld.load("psld-digits")
    together = sampler.sample(model, 7, steps=8).x
    alone = sampler.sample(model, seeds=[3], steps=8).x
    scale = together.abs().max().clamp(min=1.0)  # a few samplers diverge in so few steps
    bound = (1e-4 if isinstance(sampler, FixedStepSampler | Projected) else 1e-3) * scale
    assert (alone - together[[3]]).abs().max() < bound


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not CUDA, reason="no GPU"))])
@pytest.mark.parametrize("sampler", BFLOAT16, ids=repr)
def test_images_of_a_network_in_bfloat16(sampler, device):
    """The same seeds give the same pictures: RMS below 0.015, two grey levels of 255, of 20 evaluations in [−1, 1].

    States and noise are never of 16 bits: what differs is what the network answered.
    """
    model = psld.load("psld-digits", device=device)
    assert isinstance(model.network, torch.nn.Module)
    seen = []

    def drawn(network):
        asked = Clamped(model.around(network))
        watch = None if isinstance(sampler, RK45) else lambda t, z: seen.append(z.dtype)
        return sampler.sample(asked, 8, "log-snr", SEED, steps=20, watch=watch)

    plain, rounded = drawn(model.network), drawn(Autocast(model.network, torch.bfloat16))
    assert rounded.x.dtype == rounded.z.dtype == plain.z.dtype == (F64 if device == "cpu" else torch.float32)
    assert set(seen) == {plain.z.dtype}
    difference = float((rounded.x - plain.x).square().mean().sqrt())
    assert 1e-5 < difference < 0.015
