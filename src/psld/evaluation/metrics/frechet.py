"""The Fréchet distance between Gaussians fitted to two sets of features.

    d² = |μ_a − μ_b|² + tr Σ_a + tr Σ_b − 2 tr (Σ_a^½ Σ_b Σ_a^½)^½

(Dowson & Landau, 1982; with Inception features this is the FID of Heusel et al., 2017, which like here is d², not d.)
The last trace is the nuclear norm of Σ_a^½ Σ_b^½. Taken so, from two symmetric eigendecompositions and one singular
value decomposition, no root is taken of a product that is not symmetric, and rank-deficient covariances (fewer samples
than features) need no jitter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from psld.evaluation.metrics.metric import Metric
from psld.evaluation.metrics.moments import Moments
from psld.specs.arguments import checked

if TYPE_CHECKING:
    from psld.evaluation.statistics import ImageStatistics

__all__ = ["FrechetDistance", "frechet_between", "frechet_distance", "frechet_from_moments", "symmetric_root"]


class FrechetDistance(Metric):
    """Between the Gaussians with the moments of both sets; FID where the features are Inception's."""

    name = "Fréchet distance"
    with_inception = {"Fréchet distance": "FID"}

    def __call__(self, samples: ImageStatistics, data: ImageStatistics) -> dict[str, float]:
        return {self.name: frechet_between(samples, data)}


def frechet_between(samples: ImageStatistics, data: ImageStatistics) -> float:
    """The Fréchet distance of two sets of images. Raises ValueError where they were measured in different ways."""
    data.require_comparable(samples.measurement)
    a, b = samples.moments, data.moments
    return frechet_from_moments(a.mean, a.covariance, b.mean, b.covariance)


@checked
def frechet_distance(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> float:
    """d² ≥ 0 between the Gaussians with the means and the unbiased covariances of two samples, in float64.

    It is 0 for identical samples. Between finite samples of one law it is above 0, by O(1/n + 1/m), and more so the
    larger d is: compare values at equal sizes only. Raises ValueError where a sample has fewer than two rows.
    """
    return frechet_from_moments(*_moments(a), *_moments(b))


def frechet_from_moments(
    mean_a: Float[Tensor, " d"], cov_a: Float[Tensor, "d d"], mean_b: Float[Tensor, " d"], cov_b: Float[Tensor, "d d"]
) -> float:
    """d² ≥ 0 between two Gaussians, in float64; for statistics that were stored, such as those published for FID.

    Covariances are symmetric positive semi-definite; eigenvalues below rounding, or negative, count as 0.
    """
    mean_a, cov_a, mean_b, cov_b = (moment.double() for moment in (mean_a, cov_a, mean_b, cov_b))
    overlap = torch.linalg.svdvals(symmetric_root(cov_a) @ symmetric_root(cov_b)).sum()
    distance = (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * overlap
    return max(float(distance), 0.0)


def _moments(features: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " d"], Float[Tensor, "d d"]]:
    """Mean and unbiased covariance, float64."""
    if len(features) < 2:
        raise ValueError(f"a covariance needs at least 2 rows of features, got shape {tuple(features.shape)}.")
    moments = Moments.of(features)
    return moments.mean, moments.covariance


def symmetric_root(covariance: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """The symmetric square root; what rounding leaves of a zero eigenvalue is cut: its root would be 1e8 times it."""
    values, vectors = torch.linalg.eigh(covariance)
    floor = len(values) * torch.finfo(values.dtype).eps * values[-1]
    return (vectors * values.where(values > floor, 0.0).sqrt()) @ vectors.mT
