"""Known pixels follow the forward process exactly; what is returned holds them unchanged."""

import pytest
import torch

import row_by_row
from psld import exact
from psld.evaluation import energy_distance
from psld.inverse.replacement import Replacement
from psld.processes import CLD, PSLD, VPSDE, HigherOrderLangevin
from psld.samplers import (
    RK45,
    SSCS,
    Ancestral,
    EulerMaruyama,
    Exponential,
    Heun,
    PredictorCorrector,
    Projected,
)
from psld.samplers.grids import Grid, log_snr

DATA = exact.GaussianMixture(
    means=torch.tensor([[0.8, -0.4, 0.3], [-0.7, 0.1, 0.0], [0.1, 1.2, -0.9]], dtype=torch.float64), std=0.3
)
KNOWN = torch.tensor([True, False, True])
IMAGE = torch.tensor([[0.5, 99.0, 0.1]], dtype=torch.float64)
PROCESSES = [VPSDE(), CLD(), PSLD(0.25), HigherOrderLangevin(3)]

every_process = pytest.mark.parametrize("process", PROCESSES, ids=repr)


@pytest.mark.parametrize(
    "sampler",
    [EulerMaruyama(), SSCS(), Ancestral(), Exponential(3), PredictorCorrector(), Heun()],
    ids=lambda sampler: type(sampler).__name__,
)
@pytest.mark.parametrize("resamplings", [1, 3])
def test_known_pixels_come_back_exactly(sampler, resamplings):
    process = PSLD()
    wrapped, grid = Replacement(sampler, IMAGE, KNOWN, resamplings), log_snr(process, 6, end=0.05)
    model = row_by_row.model(DATA, process)
    together = wrapped.sample(model, grid=grid, seeds=range(4), shape=(3,))
    assert torch.equal(together.x[:, KNOWN], IMAGE[:, KNOWN].expand(4, 2))
    assert together.nfe.tolist() == [5 * sampler.nfe_per_step * resamplings + 1] * 4
    assert torch.equal(together.x[2], wrapped.sample(model, grid=grid, seeds=[2], shape=(3,)).x[0])
    assert len(torch.unique(together.x[:, 1])) == 4


@every_process
@pytest.mark.parametrize("resamplings", [1, 2])
def test_known_pixels_follow_the_exact_path(process, resamplings):
    """Position and momentum at two times of the grid together, against marginals and transition of the process."""
    n, grid = 4000, Grid(torch.tensor([1.0, 0.5, 0.2, 0.1], dtype=torch.float64))
    known = torch.ones(n // 2, 3, dtype=torch.bool)
    known[0, 0] = False
    images, seen = torch.full((1, n // 2, 3), 0.7, dtype=torch.float64), []
    model = exact.Gaussian(0.0, 1.0, (n // 2, 3)).model(process)
    Replacement(Ancestral(), images, known, resamplings).sample(
        model, 1, grid, shape=(n // 2, 3), watch=lambda t, z: seen.append((float(t), z[0, :, known]))
    )
    for (t, later), (s, earlier) in zip(seen[:-1], seen[1:], strict=True):
        for time, state in ((t, later), (s, earlier)):
            kernel = process.marginal(time)
            scale = kernel.covariance.diagonal().sqrt()
            error = (state.mean(1) - 0.7 * kernel.mean_map[:, 0]) / scale
            assert error.abs().max() < 5 / state.shape[1] ** 0.5
            whitened = kernel.whitener @ torch.atleast_2d(torch.cov(state)) @ kernel.whitener.T
            assert (whitened - torch.eye(process.k)).abs().max() < 0.1
        if resamplings == 1:
            move = process.transition(s, t)
            joint = torch.cov(torch.cat([later, earlier]))[: process.k, process.k :]
            expected = move.mean_map @ process.marginal(s).covariance
            scale = process.marginal(t).covariance.diagonal().sqrt()[:, None]
            scale = scale * process.marginal(s).covariance.diagonal().sqrt()
            assert ((joint - expected) / scale).abs().max() < 0.1


def conditional(n):
    """Draws of the unknown pixel given the known ones, in closed form."""
    logits = -0.5 * (IMAGE[0, KNOWN] - DATA.means[:, KNOWN]).square().sum(1) / 0.09
    return exact.GaussianMixture(DATA.means[:, ~KNOWN], 0.3, torch.softmax(logits, 0)).sample(
        n, torch.Generator().manual_seed(0)
    )


def test_resampling_brings_it_nearer_to_the_conditional_law():
    process, n = PSLD(0.25), 1500
    grid, target = log_snr(process, 40, end=5e-3, final="none"), conditional(1500)
    distances = []
    for resamplings in (1, 8):
        wrapped = Replacement(Ancestral(), IMAGE, KNOWN, resamplings)
        x = wrapped.sample(DATA.model(process), grid=grid, seeds=range(n), shape=(3,)).x[:, ~KNOWN]
        distances.append(energy_distance(x, target, unbiased=True))
    assert distances[1] < 0.25 * distances[0]


def test_in_sigma_space():
    process = CLD()
    wrapped = Projected(Replacement(Ancestral(), IMAGE, KNOWN, 4))
    samples = wrapped.sample(DATA.model(process), 50, log_snr(process, 30, end=1e-3, final="none"), shape=(3,))
    assert (samples.x[:, KNOWN] - IMAGE[:, KNOWN]).abs().max() < 0.05
    assert float(samples.x[:, 1].mean()) == pytest.approx(float(conditional(4000).mean()), abs=0.3)


def test_refusals():
    for build, message in (
        (lambda: Replacement(Ancestral(), IMAGE, torch.tensor([True, False])), "the mask has size 2 and the images 3"),
        (lambda: Replacement(Ancestral(), IMAGE, ~torch.zeros(3, dtype=torch.bool)), "knows every pixel"),
        (lambda: Replacement(Ancestral(), IMAGE, torch.zeros(3, dtype=torch.bool)), "knows no pixel"),
        (lambda: Replacement(RK45(), IMAGE, KNOWN), "chooses its own steps"),  # pyright: ignore[reportArgumentType]
        (lambda: Replacement(Projected(Heun()), IMAGE, KNOWN), "Projected\\(Replacement"),  # pyright: ignore[reportArgumentType]
        (lambda: Replacement(Ancestral(), IMAGE, KNOWN, 0), "resamplings must be at least 1"),
        (
            lambda: Replacement(Ancestral(), IMAGE.expand(2, 3), KNOWN).sample(
                DATA.model(CLD()), 3, steps=5, shape=(3,)
            ),
            "2 images for 3 samples",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            build()
