"""The Fréchet distance against scipy's matrix square root and against laws whose distance is known."""

import numpy as np
import pytest
import scipy.linalg
import torch

from psld.evaluation.metrics.frechet import frechet_distance, frechet_from_moments


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_agrees_with_scipy_matrix_square_root() -> None:
    a, b = normal(0, 300, 12) @ normal(1, 12, 12), normal(2, 200, 12) @ normal(3, 12, 12) + 0.5
    cov_a, cov_b = np.cov(a.numpy().T), np.cov(b.numpy().T)
    root = np.real(np.asarray(scipy.linalg.sqrtm(cov_a @ cov_b)))
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(float(expected), rel=1e-10)


def test_closed_form_for_commuting_covariances() -> None:
    """In a shared eigenbasis d² = |Δμ|² + Σ (σ_a − σ_b)²."""
    basis, _ = torch.linalg.qr(normal(0, 6, 6))
    std_a, std_b = normal(1, 6).abs(), normal(2, 6).abs()
    shift = normal(3, 6)
    cov_a, cov_b = ((basis * std.square()) @ basis.mT for std in (std_a, std_b))
    expected = shift.square().sum() + (std_a - std_b).square().sum()
    assert frechet_from_moments(torch.zeros(6).double(), cov_a, shift, cov_b) == pytest.approx(
        float(expected), rel=1e-12
    )


def test_samples_of_two_gaussians_approach_their_distance() -> None:
    """N(0, 1) and N(1, 4) in 3 dimensions: 3 · (1² + (2 − 1)²) = 6."""
    a, b = normal(0, 40_000, 3), 2 * normal(1, 40_000, 3) + 1
    assert frechet_distance(a, b) == pytest.approx(6.0, abs=0.15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rank_deficient_covariances(dtype: torch.dtype) -> None:
    """Ten samples span 9 of 64 dimensions. d² to themselves is 0, to a translate |Δ|², to their double tr Σ + |μ|²."""
    a = normal(0, 10, 64).to(dtype)
    assert frechet_distance(a, a) == pytest.approx(0.0, abs=1e-11)
    assert frechet_distance(a, a + 2.0) == pytest.approx(4.0 * 64, rel=1e-6)
    expected = a.double().var(0).sum() + a.double().mean(0).square().sum()
    assert frechet_distance(a, 2 * a) == pytest.approx(float(expected), rel=1e-10)


def test_orthogonal_supports() -> None:
    """Σ_a Σ_b = 0, so d² is the sum of both traces, without the 1e-8 that roots of rounding would leave."""
    a, b = torch.zeros(50, 8), torch.zeros(50, 8)
    a[:, :4], b[:, 4:] = normal(0, 50, 4).float(), normal(1, 50, 4).float()
    means = (a.double().mean(0) - b.double().mean(0)).square().sum()
    expected = a.double().var(0).sum() + b.double().var(0).sum() + means
    assert frechet_distance(a, b) == pytest.approx(float(expected), rel=1e-12)


def test_is_symmetric() -> None:
    a, b = normal(0, 50, 5), normal(1, 60, 5)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-12)


def test_constant_features_differ_by_their_means() -> None:
    assert frechet_distance(torch.zeros(5, 3), torch.ones(5, 3)) == pytest.approx(3.0)


def test_one_row_has_no_covariance() -> None:
    with pytest.raises(ValueError, match=r"at least 2 rows.*\(1, 4\)"):
        frechet_distance(normal(0, 1, 4), normal(1, 10, 4))
