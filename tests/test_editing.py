"""Round trips, and the laws that SDEdit and the prior's geodesics must have."""

import math

import pytest
import torch

from psld import exact
from psld.editing import decode, edit, encode, from_time, slerp
from psld.evaluation import energy_distance
from psld.processes import CLD, PSLD, VPSDE
from psld.samplers import Ancestral, Exponential, Projected
from psld.samplers.grids import log_snr

DATA = exact.GaussianMixture(torch.tensor([[0.8, -0.4], [-0.7, 0.1]], dtype=torch.float64), 0.3)

every_process = pytest.mark.parametrize("process", [VPSDE(), CLD(), PSLD(0.25)], ids=repr)


@every_process
def test_decoding_returns_what_was_encoded(process):
    images = DATA.sample(8, torch.Generator().manual_seed(0))
    model = DATA.model(process)
    z = encode(model, images, range(8), tolerance=1e-6)
    torch.testing.assert_close(decode(model, z, tolerance=1e-6), images, rtol=0, atol=1e-4)
    assert not torch.allclose(z[:, 0], images, atol=0.1)
    torch.testing.assert_close(encode(model, images[3:4], [3], tolerance=1e-6), z[3:4], rtol=1e-8, atol=1e-8)


def test_codes_of_data_are_draws_of_the_prior():
    process, n = PSLD(), 400
    z = encode(DATA.model(process), DATA.sample(n, torch.Generator().manual_seed(0)), range(n))
    scale = process.prior_covariance.diagonal().sqrt()
    assert (z.mean((0, 2)) / scale).abs().max() < 4.5 / (2 * n) ** 0.5
    torch.testing.assert_close(z.transpose(0, 1).flatten(1).std(1) / scale, torch.ones(2).double(), rtol=0.12, atol=0)


@every_process
@pytest.mark.parametrize("sampler", [Ancestral(), Projected(Exponential())], ids=repr)
def test_editing_keeps_the_law_of_data(process, sampler):
    """Data perturbed by the exact kernel are data at t₀, so what is sampled from there is data again."""
    n = 600
    images = DATA.sample(n, torch.Generator().manual_seed(0))
    grid = from_time(log_snr(process, 150), 0.4)
    x = edit(sampler, DATA.model(process), images, grid, range(n)).x
    fresh = DATA.sample(5 * n, torch.Generator().manual_seed(1))
    assert energy_distance(x, fresh, unbiased=True) < 0.008
    assert (x - images).abs().mean() > 0.1


def test_editing_from_early_times_leaves_images_as_they_are():
    process, images = CLD(), DATA.sample(5, torch.Generator().manual_seed(0))
    distances = [
        float(
            (
                edit(Exponential(), DATA.model(process), images, from_time(log_snr(process, 80), t), range(5)).x
                - images
            ).norm()
        )
        for t in (0.02, 0.1, 0.5)
    ]
    assert distances[0] < 0.2 and distances == sorted(distances)


def test_slerp():
    a, b = (torch.randn(3, 2, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    torch.testing.assert_close(slerp(a, b, 0.0), a, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(slerp(a, b, 1.0), b, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(slerp(a, a, 0.3), a, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(slerp(a, 2 * a, 0.5), 1.5 * a, rtol=1e-12, atol=1e-14)
    x = torch.tensor([[[1.0, 0.0], [0.0, 3.0]]], dtype=torch.float64)
    y = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]], dtype=torch.float64)
    half = math.sqrt(0.5)
    expected = torch.tensor([[[half, half], [2 * half, 2 * half]]], dtype=torch.float64)
    torch.testing.assert_close(slerp(x, y, 0.5), expected)


def test_a_grid_from_a_time():
    grid = log_snr(CLD(), 10)
    cut = from_time(grid, 0.3)
    assert float(cut.times[0]) == 0.3 and torch.equal(cut.times[1:], grid.times[grid.times < 0.3])
    assert torch.equal(from_time(grid, 1.0).times, grid.times)
    for start in (1e-3, 1.5):
        with pytest.raises(ValueError, match="start must lie in"):
            from_time(grid, start)
