"""Grids from a spectrum: better than others on data they were not fitted to, and the Gaussian start is exact."""

import pytest
import torch

from psld import exact
from psld.data import Digits
from psld.model import Clamped, ModelWrapper
from psld.processes import CLD, PSLD, VPSDE
from psld.samplers import RK45, EulerMaruyama, Exponential, PredictorCorrector, Projected
from psld.samplers.defaults import default_sampler
from psld.samplers.fitting import fitted
from psld.samplers.grids import log_snr, quadratic, safe
from psld.samplers.tuning import Judge
from psld.spectrum import Spectrum

SOLVER = PredictorCorrector(2)


@pytest.fixture(scope="module")
def spectrum():
    return Spectrum.measure(Digits("train"))


@pytest.fixture(scope="module")
def heldout():
    """A mixture over digits that the spectrum has not seen."""
    return exact.Empirical(Digits("heldout").images.double(), std=0.05)


@pytest.mark.parametrize("process", [VPSDE(), CLD(), PSLD(0.01)], ids=repr)
def test_a_fitted_grid_is_better_on_other_data(process, spectrum, heldout):
    """RMS distance to the exact flow from the same noise, five evaluations."""
    judge = Judge(heldout.model(process), heldout.data_shape, seeds=range(64), projected=True)
    found = {
        grid: judge.error(Projected(SOLVER), make(process, 5)).rms
        for grid, make in {"fitted": lambda p, n: fitted(p, n, spectrum), "safe": safe, "log_snr": log_snr}.items()
    }
    assert found["fitted"] < 0.9 * found["safe"] < 0.9 * found["log_snr"]


def test_a_start_at_the_gaussian_is_better_still(spectrum, heldout):
    process = PSLD(0.01)
    model = heldout.model(process)
    model.spectrum = spectrum
    judge = Judge(model, heldout.data_shape, seeds=range(64), projected=True)
    begun = judge.error(Projected(SOLVER, start="gaussian"), fitted(process, 4, spectrum, gaussian_start=True))
    plain = judge.error(Projected(SOLVER), fitted(process, 4, spectrum))
    assert begun.rms < 0.95 * plain.rms


def test_of_gaussian_data_a_single_call_has_the_exact_law():
    """y at σ is N(m, λ + σ²), and x̂₀ = m + λ/(λ + σ²) (y − m): mean and variance from the map, without sampling."""
    process, data = VPSDE(), exact.Gaussian(mean=0.25, std=0.5, shape=(1,))
    model = data.model(process)
    model.spectrum = Spectrum(torch.tensor([0.25]), torch.ones(1, 1), torch.tensor([0.25]))
    grid = fitted(process, 1, model.spectrum, gaussian_start=True)
    top, first = (float(value) for value in process.noise_scale(grid.times))
    sampler = Projected(SOLVER, start="gaussian")
    plan = sampler.prepare(process, grid)
    z = process.prior_sample(torch.tensor([[[0.0]], [[1.0]]], dtype=torch.float64))
    ends, nfe = sampler.integrate(model, z, plan, lambda: torch.zeros_like(z))
    x, _, last = sampler.finish(model, ends, grid)
    assert nfe.tolist() == [0, 0] and last == 1
    drawn = float(process.statistic(z, 1.0)[0][1, 0]) / top  # the prior is that of the process, near to 1
    y = (0.25 + first**2) ** 0.5 * drawn
    assert float(x[0, 0]) == pytest.approx(0.25, abs=1e-9)
    assert float(x[1, 0] - x[0, 0]) == pytest.approx(0.25 / (0.25 + first**2) * y, abs=1e-9)


@pytest.mark.parametrize("nfe", [1, 2, 5, 40])
def test_as_many_calls_as_were_asked_for(nfe, spectrum, heldout):
    model = heldout.model(CLD())
    model.spectrum = spectrum
    samples = model.sample(2, steps=nfe)
    assert samples.nfe.tolist() == [nfe, nfe]


def test_the_same_spectrum_gives_the_same_grid(spectrum):
    twin = Spectrum(spectrum.mean, spectrum.components, spectrum.variances, spectrum.remainder)
    assert fitted(VPSDE(), 6, spectrum).times.tolist() == fitted(VPSDE(), 6, twin).times.tolist()


@pytest.mark.slow
def test_images_may_take_the_place_of_draws(spectrum):
    images = Digits("train").images
    grid = fitted(VPSDE(), 5, spectrum, images=images)
    assert grid.times.tolist() == fitted(VPSDE(), 5, spectrum, images=images).times.tolist()
    assert grid.times.tolist() != fitted(VPSDE(), 5, spectrum).times.tolist()
    with pytest.raises(ValueError, match="images must be"):
        fitted(VPSDE(), 5, spectrum, images=torch.zeros(4, 3, 8, 8))


def test_wide_data_have_their_steps_at_larger_scales(spectrum):
    """All is in proportion: data ten times as wide have a grid of ten times the σ, where σ(T) is far above both."""
    wide = Spectrum(3 * spectrum.mean, spectrum.components, 9 * spectrum.variances, 9 * spectrum.remainder)
    narrow, scaled = (PSLD(0.25).noise_scale(fitted(PSLD(0.25), 6, s, True).times)[1:] for s in (spectrum, wide))
    torch.testing.assert_close(scaled, 3 * narrow, rtol=0.25, atol=0)


def test_best_is_of_the_data_where_they_are_known(spectrum):
    process = VPSDE()
    for sampler in (Exponential(), SOLVER, Projected(SOLVER)):
        known = sampler.grid("best", process, 6, spectrum).times
        assert known.tolist() == fitted(process, 6, spectrum).times.tolist()
        assert sampler.grid("best", process, 6).times.tolist() == safe(process, 6).times.tolist()
    assert EulerMaruyama().best_grid(process, 6, spectrum).times.tolist() == quadratic(process, 6).times.tolist()
    assert len(RK45().best_grid(process, 6, spectrum).times) == 2


def test_a_safe_grid_has_the_spacing_of_a_vp_process():
    process = PSLD(0.01)
    sigmas = process.noise_scale(safe(process, 5).times)
    expected = VPSDE().noise_scale(torch.tensor([0.8, 0.6, 0.4, 0.2], dtype=torch.float64))
    torch.testing.assert_close(sigmas[1:], expected, rtol=1e-6, atol=0)
    assert float(sigmas[0]) == pytest.approx(float(process.noise_scale(1.0)))


def test_the_gaussian_start_is_for_all_of_the_data(spectrum, heldout):
    class Other(ModelWrapper):
        def __call__(self, z, t, **condition):
            return self.model(z, t, **condition)

    model = heldout.model(CLD())
    assert default_sampler(model, 5) == Projected(SOLVER)
    model.spectrum = spectrum
    assert default_sampler(Clamped(model), 5) == Projected(SOLVER, start="gaussian")
    assert default_sampler(Clamped(model), 5, "log-snr") == Projected(SOLVER)
    assert default_sampler(Clamped(Other(model)), 5) == Projected(SOLVER)
    assert default_sampler(Clamped(model), 10) == Projected(SOLVER)
    model.classes = 10  # a class is told by guidance, and without any the model is that of all classes
    assert default_sampler(model, 5) == Projected(SOLVER, start="gaussian")


def test_a_gaussian_start_without_a_spectrum_is_refused(heldout):
    with pytest.raises(ValueError, match="model.spectrum"):
        Projected(SOLVER, start="gaussian").sample(heldout.model(CLD()), 1, steps=5)
    with pytest.raises(ValueError, match="start must be"):
        Projected(SOLVER, start="else")  # pyright: ignore[reportArgumentType]


def test_a_budget_without_a_step_is_refused(spectrum):
    for nfe, start in ((1, False), (0, True)):
        with pytest.raises(ValueError, match="nfe must be at least"):
            fitted(VPSDE(), nfe, spectrum, start)
