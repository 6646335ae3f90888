"""Exact scores of known data, the judge of every sampler.

Data are mixtures of isotropic Gaussians. Their optimal denoiser D(y; σ) is in closed form, and through the sufficient
statistic it is the exact score of *every* linear process:

    ScoreModel(data.denoiser, process, predicts="denoiser")

`log_prob` evaluates the full k-dimensional density without that detour, so the two can be held against each other.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from psld.kernels import Kernel, outer, product
from psld.model import ScoreModel
from psld.processes import LinearProcess, Times

__all__ = ["Empirical", "Gaussian", "GaussianMixture"]


class GaussianMixture:
    """Σᵢ wᵢ N(μᵢ, sᵢ² I) over data of any shape.

    Args:
        means: μᵢ, (n, *data).
        std: sᵢ ≥ 0: one number, or n of them.
        weights: wᵢ > 0, n of them (normalised here); equal when None.

    Raises:
        ValueError: NaN or a negative std, weights that are not positive, or counts that differ.
    """

    def __init__(
        self,
        means: Float[Tensor, "n *data"],
        std: float | Float[Tensor, " n"],
        weights: Float[Tensor, " n"] | None = None,
    ):
        self.means = torch.as_tensor(means, dtype=torch.float64)
        n = len(self.means)
        std = torch.as_tensor(std, dtype=torch.float64)
        if std.ndim > 0 and std.shape != (n,):
            raise ValueError(f"std must be one number or {n}, one a component: got shape {tuple(std.shape)}.")
        self.std = std.expand(n)
        weights = torch.ones(n) if weights is None else torch.as_tensor(weights)
        if weights.shape != (n,) or not (weights > 0).all():
            raise ValueError(
                f"weights must be {n} positive numbers, one a component: got shape {tuple(weights.shape)}."
            )
        if not (self.means.isfinite().all() and (self.std >= 0).all()):
            raise ValueError("means must be finite and std ≥ 0.")
        self.log_weights = torch.log_softmax(weights.double().log(), 0)

    @property
    def data_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self.means.shape[1:])

    def sample(self, n: int, generator: torch.Generator | None = None) -> Float[Tensor, "n *data"]:
        """n independent draws, float64."""
        chosen = torch.multinomial(self.log_weights.exp(), n, replacement=True, generator=generator)
        noise = torch.randn(n, *self.data_shape, dtype=torch.float64, generator=generator)
        return self.means[chosen] + self.std[chosen].reshape(-1, *[1] * len(self.data_shape)) * noise

    def denoiser(self, y: Float[Tensor, "B *data"], sigma: Float[Tensor, " B"]) -> Float[Tensor, "B *data"]:
        """E[x₀ | y] for y = x₀ + σ ξ."""
        flat, means, std = y.flatten(1), self.means.flatten(1).to(y), self.std.to(y)
        log_weights = self.log_weights.to(y)
        if (self.std == self.std[0]).all():  # what a component shares with all others drops out of the posterior
            variance = std[0] ** 2 + sigma.to(y)[:, None] ** 2
            logits = (flat @ means.T - 0.5 * means.square().sum(1)) / variance + log_weights
            shrink = std[0] ** 2 / variance
            return (torch.softmax(logits, dim=1) @ means * (1.0 - shrink) + shrink * flat).reshape(y.shape)
        variance = std**2 + sigma.to(y)[:, None] ** 2
        square = flat.square().sum(1)[:, None] - 2.0 * flat @ means.T + means.square().sum(1)
        dimensions = flat.shape[1]
        logits = log_weights - 0.5 * square / variance - 0.5 * dimensions * variance.log()
        posterior = torch.softmax(logits, dim=1)
        shrink = posterior * std**2 / variance  # how far each component's mean moves towards y
        x0 = (posterior - shrink) @ means + shrink.sum(1, keepdim=True) * flat
        return x0.reshape(y.shape)

    def model(self, process: LinearProcess) -> ScoreModel:
        """The exact score model of this data under a process."""
        return ScoreModel(self.denoiser, process, predicts="denoiser", data_shape=self.data_shape)

    def log_prob(self, process: LinearProcess, z: Float[Tensor, "B k *data"], t: Times) -> Float[Tensor, " B"]:
        """log p_t(z) in nats, from the k-dimensional Gaussian of each component."""
        kernel = process.marginal(t)
        signal = kernel.mean_map[..., 0]
        terms = []
        for mean, std, log_weight in zip(self.means, self.std, self.log_weights, strict=True):
            spread = kernel.covariance + std**2 * product(signal[..., :, None], signal[..., None, :])
            centre = outer(signal, mean.to(z).expand(len(z), *self.data_shape))
            identity = torch.eye(process.k, dtype=torch.float64).expand_as(spread)
            terms.append(log_weight + Kernel(identity, spread).log_prob(z, centre))
        return torch.logsumexp(torch.stack(terms), 0)


class Gaussian(GaussianMixture):
    """N(mean, std² I) over data of a given shape: the law on which every sampler step is affine."""

    def __init__(self, mean: float = 0.0, std: float = 1.0, shape: tuple[int, ...] = (1,)):
        super().__init__(torch.full((1, *shape), float(mean), dtype=torch.float64), std)


class Empirical(GaussianMixture):
    """A data set as a mixture: each image a component with the given standard deviation."""

    def __init__(self, images: Float[Tensor, "n *data"], std: float = 0.05):
        super().__init__(images, std)
