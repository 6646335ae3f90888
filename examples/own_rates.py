"""A linear process of one's own, from its two rates: Langevin dynamics that are cold at first and warm up.

    python examples/own_rates.py
    PYTHONPATH=examples psld train --config configs/digits.yaml --process own_rates.Warming --run runs/warming

Noise that grows in time beside a fixed drift belongs to no recipe, and the report says so. Kernels are solved for
numerically; here one is compared with an integration of the moment equation, and the process is sampled.
"""

import torch
from torch import Tensor

from psld import Ancestral, LinearProcess
from psld.data import Digits
from psld.evaluation.metrics.energy import energy_distance
from psld.exact import Empirical
from psld.processes import Times


class Warming(LinearProcess):
    """dx = βm dt, dm = −β(x + 2m) dt + √(4βτ(t)) dw at the temperature τ(t) = cold + (1 − cold) t."""

    def __init__(self, beta: float = 8.0, cold: float = 0.2):
        super().__init__(k=2, auxiliary_covariance=0.04)
        self.beta, self.cold = beta, cold

    def drift_rate(self, t: Times) -> Tensor:
        matrix = torch.tensor([[0.0, 1.0], [-1.0, -2.0]], dtype=torch.float64)
        return self.beta * matrix.expand(*self.times(t).shape, 2, 2)

    def diffusion_rate(self, t: Times) -> Tensor:
        temperature = self.cold + (1.0 - self.cold) * self.times(t)
        return self.beta * temperature[..., None, None] * torch.tensor([[0.0, 0.0], [0.0, 2.0]], dtype=torch.float64)


def covariance(process: LinearProcess, t: float, steps: int = 1000) -> Tensor:
    """Of z_t given x₀, by the midpoint rule from Σ' = AΣ + ΣAᵀ + 2D."""

    def slope(sigma: Tensor, at: float) -> Tensor:
        change = process.drift_rate(at) @ sigma
        return change + change.mT + 2.0 * process.diffusion_rate(at)

    sigma, h = process.initial_covariance, t / steps
    for i in range(steps):
        sigma = sigma + h * slope(sigma + 0.5 * h * slope(sigma, i * h), (i + 0.5) * h)
    return sigma


if __name__ == "__main__":
    process = Warming()
    print(process.check())
    error = (process.marginal(0.5).covariance - covariance(process, 0.5)).abs().max()
    print(f"the covariance at t = 0.5 is off by {error:.1e}")
    images, held_out = Digits("train").images.double(), Digits("heldout").images.double()
    samples = Ancestral().sample(Empirical(images, std=0.1).model(process), 360, steps=30)
    of_samples, of_digits = (energy_distance(of, held_out) for of in (samples.x, images[:360]))
    print(f"energy distance to held-out digits: {of_samples:.4f} of samples, {of_digits:.4f} of training digits")
