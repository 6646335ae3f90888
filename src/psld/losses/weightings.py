"""Weightings: how much an error of the prediction counts, at each time."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from psld.kernels import Kernel, product
from psld.processes import LinearProcess
from psld.specs import SpecifiedValue
from psld.specs.arguments import positive

__all__ = ["Likelihood", "MinSNR", "UniformNoise", "Weighting"]


class Weighting(SpecifiedValue, ABC):
    """How much an error counts, at each time."""

    @abstractmethod
    def metric(
        self, process: LinearProcess, kernel: Kernel, t: Float[Tensor, " B"], rows: int
    ) -> Float[Tensor, "B r r"]:
        """M for the last `rows` entries of the error of ε, in float64.

        Args:
            process: the forward process.
            kernel: its marginal at t that ε belongs to.
            t: times.
            rows: r, the number of predicted rows.
        """


class UniformNoise(Weighting):
    """M = I/r: the mean squared error of ε, the same at every time, whatever the model predicts."""

    def metric(self, process: LinearProcess, kernel: Kernel, t: Tensor, rows: int) -> Tensor:
        return torch.eye(rows, dtype=torch.float64).expand(len(t), rows, rows) / rows


class MinSNR(Weighting):
    """The squared error of x̂₀, times min(SNR, γ), with SNR = 1/σ(t)² of the sufficient statistic y = x₀ + σξ.

    For VP this is the published weighting (Hang et al., 2023): min(SNR, γ)/SNR for the squared error of ε. With k
    variables the r predicted rows see x₀ with an SNR of |w_R|², w = L⁻¹Φ₀, hence M = I · min(SNR, γ)/|w_R|².

    Args:
        gamma: γ > 0, where the weight stops to grow; published: 5.
    """

    def __init__(self, gamma: float = 5.0):
        self.gamma = positive("gamma", gamma)

    def metric(self, process: LinearProcess, kernel: Kernel, t: Tensor, rows: int) -> Tensor:
        snr = process.noise_scale(t) ** -2
        seen = kernel.whitened_signal[:, -rows:].square().sum(-1)
        weight = snr.clamp(max=self.gamma) / seen
        return weight[:, None, None] * torch.eye(rows, dtype=torch.float64)


class Likelihood(Weighting):
    """The squared error of the score in the metric of the noise, 2βD: M = L⁻¹ 2βD L⁻ᵀ.

    Half its integral over t bounds −log p, up to what does not depend on the model (Song et al., 2021, whose g² is the
    2βD of one variable). Rows where no noise enters do not count, predicted or not. M grows like 1/t for t → 0, so the
    mean over uniform t is noisy: raise t_min, or use stratified times.
    """

    def metric(self, process: LinearProcess, kernel: Kernel, t: Tensor, rows: int) -> Tensor:
        whitener = kernel.whitener[:, -rows:]
        return product(product(whitener, 2.0 * process.diffusion_rate(t)), whitener.mT)
