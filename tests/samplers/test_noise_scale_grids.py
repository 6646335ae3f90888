"""Grids made in noise scale: Karras' formula, σ read backwards, and what the ends are."""

import math

import pytest
import torch

from psld.processes import CLD, EDM, PSLD, VESDE, VPSDE, HigherOrderLangevin, SubVPSDE
from psld.samplers.grids import edm_rho, log_snr, noise_scales

EVERY = [VPSDE(), CLD(), PSLD(0.01), PSLD(0.25), HigherOrderLangevin(2), HigherOrderLangevin(3)]
EVERY += [VESDE(), SubVPSDE(), EDM(), EDM(1.0)]


def karras(steps, low, high, rho=7.0):
    """Eq. 5 for N = steps + 1, in Python's own arithmetic."""
    return [(high ** (1 / rho) + i / steps * (low ** (1 / rho) - high ** (1 / rho))) ** rho for i in range(steps + 1)]


def close(a, b, rtol=1e-11):
    torch.testing.assert_close(a, torch.as_tensor(b, dtype=torch.float64), rtol=rtol, atol=0)


def test_edm_on_edm():
    """There σ is the time: 18 noise scales as published, from 80 to 0.002, and the last call at the last of them."""
    grid = edm_rho(EDM(), 18)
    close(grid.times, karras(17, 0.002, 80.0))
    assert (grid.steps, grid.nfe, grid.final) == (17, 18, "denoise")


@pytest.mark.parametrize("rho", [3.0, 7.0])
@pytest.mark.parametrize("process", EVERY, ids=repr)
def test_edm_in_the_process_own_noise_scale(process, rho):
    """Between the ends it is eq. 5; the first time is T even when the process is noisier there than sigma_max."""
    top = float(process.noise_scale(process.T))
    low, high = 0.01, 0.7 * min(top, 80.0)
    grid = edm_rho(process, 9, rho, low, high, final="none")
    sigmas = process.noise_scale(grid.times)
    close(sigmas[1:], karras(9, low, high, rho)[1:], rtol=1e-10)
    assert float(grid.times[0]) == process.T and grid.steps == grid.nfe == 9


@pytest.mark.parametrize("process", EVERY, ids=repr)
def test_a_process_less_noisy_than_sigma_max_starts_at_its_own(process):
    top = float(process.noise_scale(process.T))
    sigmas = process.noise_scale(edm_rho(process, 6, sigma_max=10 * top, final="none").times)
    close(sigmas, karras(6, 0.002, top), rtol=1e-10)


@pytest.mark.parametrize("process", EVERY, ids=repr)
def test_time_of_reads_the_noise_scale_backwards(process):
    """To 1e-12 of σ over four decades of time; three for a chain, whose σ itself is less precise near t = 0."""
    t = process.T * torch.logspace(-3 if process.k > 2 else -4, 0, 41, dtype=torch.float64)
    sigma = process.noise_scale(t)
    back = process.time_of(sigma)
    close(process.noise_scale(back), sigma, rtol=1e-12 if process.k < 3 else 1e-11)
    close(back, t, rtol=1e-11)
    assert process.time_of(sigma.reshape(41, 1)).shape == (41, 1)


def test_time_of_in_closed_form():
    """EDM: σ = t. VE: σ² = σ_min² ((σ_max/σ_min)²ᵗ − 1). VP: σ² = e^b − 1 with b = 0.1 t + 9.95 t²."""
    sigma = torch.tensor([0.003, 0.1, 1.0, 20.0], dtype=torch.float64)
    close(EDM().time_of(sigma), sigma, rtol=1e-12)
    close(VESDE().time_of(sigma), torch.log1p((sigma / 0.01) ** 2) / (2 * math.log(5000)), rtol=1e-12)
    b = torch.log1p(sigma**2)
    close(VPSDE().time_of(sigma), 2 * b / (0.1 + torch.sqrt(0.01 + 4 * 9.95 * b)), rtol=1e-12)


@pytest.mark.parametrize("sigma", [0.0, -1.0, 1e6, math.nan])
def test_noise_scales_out_of_reach_are_refused(sigma):
    with pytest.raises(ValueError, match=r"σ must lie in \(0, .*\], the noise scale at T: got"):
        PSLD().time_of(torch.tensor([0.5, sigma]))


@pytest.mark.parametrize("process", EVERY, ids=repr)
def test_grid_through_given_noise_scales(process):
    top = float(process.noise_scale(process.T))
    sigmas = top * torch.tensor([0.9, 0.5, 0.2, 0.05], dtype=torch.float64)
    grid = noise_scales(process, sigmas, "euler")
    assert float(grid.times[0]) == process.T and grid.final == "euler" and grid.nfe == 4
    close(process.noise_scale(grid.times)[1:], sigmas[1:], rtol=1e-11)


def test_a_grid_is_remade_from_its_noise_scales():
    for process in (PSLD(0.25), VPSDE(), HigherOrderLangevin(3)):
        grid = log_snr(process, 12)
        again = noise_scales(process, process.noise_scale(grid.times))
        close(again.times, grid.times, rtol=1e-10)


def test_noise_scales_that_make_no_grid_are_refused():
    with pytest.raises(ValueError, match="strictly decreasing"):
        noise_scales(PSLD(), torch.tensor([1.0, 0.5, 0.6]))
    with pytest.raises(ValueError, match="strictly decreasing"):
        noise_scales(PSLD(), torch.tensor([1e9, 1e8, 0.6]))  # both held at σ(T)


@pytest.mark.parametrize("options", [{"sigma_min": 0.0}, {"sigma_min": 90.0}, {"rho": 0.0}, {"rho": -7.0}])
def test_impossible_edm_grids_are_refused(options):
    with pytest.raises(ValueError, match="sigma_min must be positive and below .*80|rho must be in"):
        edm_rho(PSLD(), 10, **options)


def test_too_few_calls_are_refused():
    with pytest.raises(ValueError, match="nfe must be at least 2"):
        edm_rho(PSLD(), 1)
