"""A metric of one's own, with features of one's own, beside the Fréchet distance and against closed forms.

    python examples/own_metric.py

A metric is given statistics of samples and of data: here of white noise, for which the figures are known.
"""

import math

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from psld.evaluation.features import FeatureExtractor
from psld.evaluation.metrics.frechet import FrechetDistance
from psld.evaluation.metrics.metric import Metric
from psld.evaluation.metrics.quality import compare
from psld.evaluation.statistics import ImageStatistics, measured


class GaussianDivergence(Metric):
    """KL(samples ‖ data) in nats, of Gaussians with the moments of both, plus a variance that dead features lack."""

    name = "Gaussian divergence"

    def __init__(self, blur: float = 1e-6):
        self.blur = blur

    def __call__(self, samples: ImageStatistics, data: ImageStatistics) -> dict[str, float]:
        blur = self.blur * torch.eye(len(data.moments.mean))
        p, q = (MultivariateNormal(of.moments.mean, of.moments.covariance + blur) for of in (samples, data))
        return {self.name: float(kl_divergence(p, q))}


class Pixels(FeatureExtractor):
    """The values of the pixels themselves, as features."""

    identity, convention = "pixels", "values within [−1, 1], not rounded"

    def of_images(self, images: Tensor) -> tuple[Tensor, None]:
        return images.flatten(1), None

    def of_bytes(self, pixels: Tensor) -> tuple[Tensor, None]:
        return self.of_images(pixels.float() / 127.5 - 1)


def noise(mean: float, std: float, seed: int, count: int = 50_000) -> ImageStatistics:
    """Of white noise, 3×3 pixels."""
    images = mean + std * torch.randn(count, 1, 3, 3, generator=torch.Generator().manual_seed(seed))
    return measured([images], range(count), count, Pixels(), keep=2)


if __name__ == "__main__":
    samples, data = noise(0.1, 0.12, seed=0), noise(0.0, 0.2, seed=1)
    figures = compare(samples, data, "Fréchet distance", [GaussianDivergence(), FrechetDistance()])["figures"]
    divergence = 9 * (math.log(0.2 / 0.12) + (0.12**2 + 0.1**2) / (2 * 0.2**2) - 0.5)
    for (name, figure), expected in zip(figures.items(), (divergence, 9 * (0.1**2 + (0.2 - 0.12) ** 2)), strict=True):
        print(f"{name}: {figure:.4f}, in closed form {expected:.4f}")
