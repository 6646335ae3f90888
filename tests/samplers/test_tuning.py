"""The judge against flow maps in closed form, and searches whose answer is known."""

import math

import pytest
import torch

from psld import exact
from psld.noise import SeededNoise
from psld.processes import EDM, VPSDE
from psld.samplers import Exponential, Samples
from psld.samplers.grids import Grid, log_snr, noise_scales
from psld.samplers.tuning import Judge, best_parameter, optimise_grid

SEEDS = range(8)
MEAN, STD = 0.3, 0.7
GAUSSIAN = exact.Gaussian(MEAN, STD, (3,))
MIXTURE = exact.GaussianMixture(torch.tensor([[0.8, -0.4], [-0.7, 0.1]], dtype=torch.float64), 0.2)


@pytest.mark.parametrize("process", [VPSDE(), EDM()], ids=repr)
def test_exact_solution_of_gaussian_data(process):
    """The flow of N(μ, s²) is affine: y − μ keeps its size in units of √(s² + σ²). Then x̂₀ at the last σ."""
    sigma = 0.01
    judge = Judge(GAUSSIAN.model(process), (3,), SEEDS, sigma, tolerance=1e-8)
    top = float(process.noise_scale(process.T))
    y = process.statistic(process.prior_sample(SeededNoise(SEEDS, (1, 3))()), process.T)[0]
    end = MEAN + (y - MEAN) * math.sqrt((STD**2 + sigma**2) / (STD**2 + top**2))
    expected = MEAN + (end - MEAN) * STD**2 / (STD**2 + sigma**2)
    torch.testing.assert_close(judge.images, expected, rtol=0, atol=1e-6)


def test_errors_by_hand():
    """A shift of all images by c: RMS c, and the Fréchet distance of the means alone, |c|² over 3 dimensions."""
    judge = Judge(GAUSSIAN.model(VPSDE()), (3,), SEEDS, 0.1, tolerance=1e-3)
    error = judge.compare(judge.images + 0.2)
    assert error.rms == pytest.approx(0.2, rel=1e-12)
    assert error.frechet == pytest.approx(3 * 0.04, rel=1e-6)
    assert error.total == pytest.approx(0.32, rel=1e-6)
    assert judge.compare(judge.images).total == pytest.approx(0.0, abs=1e-6)
    one = judge.images.clone()
    one[0, 0] += 1.0
    assert judge.compare(one).rms == pytest.approx(math.sqrt(1 / 24), rel=1e-12)


def test_error_of_a_sampler_falls():
    process = VPSDE()
    judge = Judge(MIXTURE.model(process), (2,), SEEDS, 0.01, tolerance=1e-5)
    errors = [judge.error(Exponential(2), log_snr(process, nfe, end=1e-2)).rms for nfe in (6, 12, 24)]
    assert errors[2] < errors[1] < errors[0] and errors[2] < 0.05


class Shifted:
    """Off by (value − best) in every image; not finite beyond a limit."""

    def __init__(self, judge, value, best=0.3, limit=2.0):
        self.images, self.shift = judge.images, value - best if value < limit else math.nan

    def batches(self, model, grid, seeds, shape, batch_size):
        x = self.images + self.shift
        yield Samples(x, x[:, None], torch.ones(len(x), dtype=torch.int64), tuple(seeds), x.isnan().any(1))


@pytest.mark.usefixtures("unchecked")  # `Shifted` is no sampler
def test_best_parameter_is_found():
    """|value − 0.3| has its minimum at 0.3; four halvings of a spacing of ½ leave at most 1/64 to either side."""
    judge = Judge(GAUSSIAN.model(VPSDE()), (3,), SEEDS, 0.1, tolerance=1e-3)
    grid = log_snr(VPSDE(), 3)
    found = best_parameter(judge, lambda value: Shifted(judge, value), grid, [-1.0, -0.5, 0.0, 0.5, 1.0])  # pyright: ignore[reportArgumentType]
    assert abs(found.best - 0.3) <= 1 / 64
    assert list(found.tried) == sorted(found.tried) and {-1.0, -0.5, 0.0, 0.5, 1.0} <= found.tried.keys()
    assert found.tried[found.best].rms == min(error.rms for error in found.tried.values())
    for value, error in found.tried.items():
        assert error.rms == pytest.approx(abs(value - 0.3), abs=1e-12)


@pytest.mark.usefixtures("unchecked")
def test_best_parameter_at_an_end():
    judge = Judge(GAUSSIAN.model(VPSDE()), (3,), SEEDS, 0.1, tolerance=1e-3)
    found = best_parameter(judge, lambda value: Shifted(judge, value), log_snr(VPSDE(), 3), [0.4, 0.8], refinements=1)  # pyright: ignore[reportArgumentType]
    assert found.best == 0.4 and len(found.tried) == 3


def test_an_optimised_grid_is_better_than_its_start():
    process = VPSDE()
    judge = Judge(MIXTURE.model(process), (2,), SEEDS, 0.01, tolerance=1e-4)
    start = torch.tensor([8.0, 1.0, 0.05], dtype=torch.float64)
    sigmas, error = optimise_grid(judge, Exponential(1), 4, start, evaluations=8)
    top = float(process.noise_scale(process.T))
    before = judge.error(Exponential(1), noise_scales(process, torch.cat([torch.tensor([top]).double(), start])))
    assert error.total < before.total
    assert len(sigmas) == 4 and float(sigmas[0]) == pytest.approx(top, rel=1e-6) and (sigmas.diff() < 0).all()
    again = judge.error(Exponential(1), noise_scales(process, sigmas))
    assert again.total == pytest.approx(error.total, rel=1e-9)


@pytest.mark.parametrize("nfe, final", [(2, "denoise"), (1, "none"), (0, "none")])
def test_too_few_steps_are_refused(nfe, final):
    judge = Judge(GAUSSIAN.model(VPSDE()), (3,), SEEDS, 0.1, tolerance=1e-3)
    with pytest.raises(ValueError, match=f"at least two steps to be optimised: got nfe = {nfe} with final='{final}'"):
        optimise_grid(judge, Exponential(1), nfe, final=final)


def test_known_images_are_not_solved_again():
    calls = []
    model = GAUSSIAN.model(VPSDE())
    model.network = lambda y, sigma: (calls.append(1), GAUSSIAN.denoiser(y, sigma))[1]
    known = torch.zeros(8, 3, dtype=torch.float64)
    judge = Judge(model, (3,), SEEDS, images=known)
    assert torch.equal(judge.images, known) and not calls
    judge.error(Exponential(1), Grid(torch.tensor([1.0, 0.1], dtype=torch.float64)))
    assert len(calls) == 2
