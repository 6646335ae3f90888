"""Known data: moments, limits of the denoiser, and closed forms."""

import numpy as np
import pytest
import torch

import laws
from psld.exact import Empirical, Gaussian, GaussianMixture
from psld.processes import CLD, VPSDE

MEANS = torch.tensor([[0.8, -0.4], [-0.7, 0.1], [0.1, 1.2]], dtype=torch.float64)
STD = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
WEIGHTS = torch.tensor([5.0, 3.0, 2.0])
MIXTURE = GaussianMixture(MEANS, STD, WEIGHTS)


def test_sample_moments():
    n = 200_000
    x = MIXTURE.sample(n, torch.Generator().manual_seed(0))
    w = WEIGHTS.double() / 10
    mean = w @ MEANS
    covariance = (MEANS - mean).T @ torch.diag(w) @ (MEANS - mean) + (w @ STD**2) * torch.eye(2, dtype=torch.float64)
    assert x.dtype == torch.float64 and x.shape == (n, 2)
    assert ((x.mean(0) - mean).abs() < 4 * (covariance.diagonal() / n).sqrt()).all()
    assert (torch.cov(x.T) - covariance).abs().max() < 0.02
    assert torch.equal(x, MIXTURE.sample(n, torch.Generator().manual_seed(0)))


def test_denoiser_limits():
    y = torch.tensor([[0.5, 0.2], [-1.0, 2.0]], dtype=torch.float64)
    near = MIXTURE.denoiser(y, torch.full((2,), 1e-6, dtype=torch.float64))
    torch.testing.assert_close(near, y, rtol=0, atol=1e-9)
    far = MIXTURE.denoiser(y, torch.full((2,), 1e6, dtype=torch.float64))
    torch.testing.assert_close(far, (WEIGHTS.double() / 10 @ MEANS).expand(2, 2), rtol=0, atol=1e-9)


def test_empirical_denoiser_returns_the_nearest_image():
    images = torch.rand(20, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    data = Empirical(images, std=0.0)
    noisy = images + 0.01 * torch.randn(images.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(data.denoiser(noisy, torch.full((20,), 0.01, dtype=torch.float64)), images)
    assert data.data_shape == (1, 4, 4)


def test_gaussian_closed_form():
    data = Gaussian(0.3, 0.7, shape=(2, 3))
    y = torch.randn(4, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.01, 0.5, 1.0, 20.0], dtype=torch.float64)
    s = sigma.reshape(-1, 1, 1)
    expected = (0.49 * y + s**2 * 0.3) / (0.49 + s**2)
    torch.testing.assert_close(data.denoiser(y, sigma), expected, rtol=1e-12, atol=1e-14)


def test_gaussian_density_closed_form():
    process, t = CLD(), 0.3
    kernel = process.marginal(t)
    signal = kernel.mean_map[:, 0]
    law = torch.distributions.MultivariateNormal(0.3 * signal, kernel.covariance + 0.49 * torch.outer(signal, signal))
    z = torch.randn(5, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = law.log_prob(z.mT).sum(1)
    torch.testing.assert_close(Gaussian(0.3, 0.7, (3,)).log_prob(process, z, t), expected, rtol=1e-10, atol=0)


def test_mixture_density_integrates_to_one():
    data = GaussianMixture(MEANS[:, :1], STD, WEIGHTS)
    x = torch.linspace(-9.0, 9.0, 4001, dtype=torch.float64)
    density = data.log_prob(VPSDE(), x[:, None, None], 0.2).exp()
    assert float(np.trapezoid(density, x)) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(
    "std, weights",
    [
        (-0.1, None),
        (float("nan"), None),
        (torch.ones(2), None),
        (0.1, torch.ones(2)),
        (0.1, torch.tensor([1.0, 0.0, 1.0])),
    ],
)
def test_impossible_mixtures_are_refused(std, weights):
    with pytest.raises(laws.REFUSALS):
        GaussianMixture(MEANS, std, weights)


def test_missing_pixels_are_refused():
    with pytest.raises(ValueError, match="finite"):
        GaussianMixture(torch.tensor([[float("nan")]]), 0.1)
