"""The processes that every contract test goes through: all named ones, and two that a user might write."""

from __future__ import annotations

import torch
from torch import Tensor

from psld.kernels import per_sample
from psld.processes import (
    CLD,
    EDM,
    PSLD,
    VESDE,
    VPSDE,
    ForwardProcess,
    HigherOrderLangevin,
    LinearProcess,
    Process,
    SubVPSDE,
    Times,
)
from psld.recipe import LinearRecipe
from psld.schedules import Cosine


class WarmingLangevin(LinearProcess):
    """Two variables whose noise grows in time, β(1 + t)D beside the drift β A of PSLD: linear, and no recipe."""

    def __init__(self, gamma: float = 0.25, beta: float = 4.0):
        self.base, self.beta = PSLD(gamma).recipe, beta
        super().__init__(k=2, auxiliary_covariance=0.04 * float(self.base.covariance[1, 1]))

    def drift_rate(self, t: Times) -> Tensor:
        return self.beta * self.base.drift_matrix.expand(*self.times(t).shape, 2, 2)

    def diffusion_rate(self, t: Times) -> Tensor:
        return self.beta * (1.0 + self.times(t))[..., None, None] * self.base.diffusion


class GeometricBrownianMotion(ForwardProcess):
    """dz = −½β z dt + √β σ z dw, data positive: noise that depends on the state, so no Gaussian kernel."""

    def __init__(self, beta: float = 1.0, sigma: float = 0.6):
        super().__init__(k=1)
        self.beta, self.sigma = beta, sigma

    def _log_law(self, x0: Tensor, t: Times) -> tuple[Tensor, Tensor]:
        """Mean and variance of log z_t given x₀, (B, 1, *data)."""
        b = per_sample(self.beta * self.times(t), x0.unsqueeze(1))
        return x0.log().unsqueeze(1) - 0.5 * (1 + self.sigma**2) * b, self.sigma**2 * b

    def drift(self, z: Tensor, t: Times) -> Tensor:
        return -0.5 * self.beta * z

    def diffusion_factor(self, z: Tensor, t: Times) -> Tensor:
        return (self.beta**0.5 * self.sigma * z).unsqueeze(1)

    def perturb(self, x0: Tensor, t: Times, eps: Tensor) -> Tensor:
        mean, variance = self._log_law(x0, t)
        return (mean + variance.sqrt() * eps).exp()

    def conditional_score(self, z: Tensor, x0: Tensor, t: Times) -> Tensor:
        mean, variance = self._log_law(x0, t)
        return -(1.0 + (z.log() - mean) / variance) / z

    def prior_sample(self, eps: Tensor) -> Tensor:
        return self.perturb(torch.ones_like(eps[:, 0]), self.T, eps)

    def prior_log_prob(self, z: Tensor) -> Tensor:
        b = self.beta * self.T
        mean, variance = -0.5 * (1 + self.sigma**2) * b, torch.tensor(self.sigma**2 * b)
        log_density = -0.5 * (z.log() - mean).square() / variance - 0.5 * (2 * torch.pi * variance).log() - z.log()
        return log_density.flatten(1).sum(1)


OWN = Process(
    LinearRecipe(
        [[0.01, 0, 0], [0, 0, 0], [0, 0, 2.0]], [[0, -1, 0], [1, 0, -1.5], [0, 1.5, 0]], torch.eye(3).tolist()
    ),
    8.0,
    0.04,
    T=1.5,
)
LINEAR: list[LinearProcess] = [
    VPSDE(),
    VPSDE(beta=Cosine()),
    CLD(),
    PSLD(0.01),
    PSLD(0.25, kappa=0.1),
    HigherOrderLangevin(3),
    OWN,
    SubVPSDE(),
    VESDE(),
    EDM(20.0),
    WarmingLangevin(),
]
EVERY: list[ForwardProcess] = [*LINEAR, GeometricBrownianMotion()]
