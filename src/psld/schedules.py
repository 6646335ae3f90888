"""Noise schedules β(t): how fast the process moves at time t.

A recipe fixes *where* the process goes, a schedule fixes *when*: everything depends on t only through ∫β. A schedule
therefore offers the rate β(t) and the increment ∫ₛᵗ β, the latter written so that nothing cancels when s is near t.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from psld.specs import SpecifiedValue
from psld.specs.arguments import positive

__all__ = ["Constant", "Cosine", "Geometric", "Karras", "Linear", "Schedule", "as_schedule"]

LONGEST = 1000.0
"""Of a cosine schedule's ∫β: more leaves an angle that float64 does not hold."""


class Schedule(SpecifiedValue):
    """A rate β(t), positive for t > 0, with its integral in closed form."""

    @abstractmethod
    def __call__(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        """β(t), per unit of time."""

    @abstractmethod
    def increment(self, s: Float[Tensor, "*#B"], t: Float[Tensor, "*#B"]) -> Float[Tensor, "*#B"]:
        """∫ₛᵗ β(u) du for s ≤ t, to full relative precision also when t − s is small."""


class Constant(Schedule):
    """β(t) = β, the schedule of PSLD and CLD (paper: β = 8)."""

    shown = ("beta",)

    def __init__(self, beta: float = 8.0):
        self.beta = float(positive("beta", beta))

    def __call__(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        return torch.full_like(t, self.beta)

    def increment(self, s: Float[Tensor, "*#B"], t: Float[Tensor, "*#B"]) -> Float[Tensor, "*#B"]:
        return self.beta * (t - s)


class Linear(Schedule):
    """β(t) = β_min + t (β_max − β_min), the schedule of VP-SDE (Song et al., 2021: 0.1 to 20)."""

    shown = ("beta_min", "beta_max")

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0):
        self.beta_min = float(positive("beta_min", beta_min))
        self.beta_max = float(positive("beta_max", beta_max))

    def __call__(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def increment(self, s: Float[Tensor, "*#B"], t: Float[Tensor, "*#B"]) -> Float[Tensor, "*#B"]:
        return (t - s) * (self.beta_min + 0.5 * (self.beta_max - self.beta_min) * (s + t))


class Cosine(Schedule):
    """exp(−∫₀ᵗβ) falls like a squared cosine (Nichol & Dhariwal, 2021), stopped at a finite total.

    With θ(t) = θ₀ + t (θ₁ − θ₀), exp(−∫₀ᵗβ) = (cos θ(t) / cos θ₀)². The published schedule ends at θ₁ = π/2, where the
    rate is infinite and has to be clipped; here θ₁ is chosen so that ∫₀¹β equals `total`.

    Args:
        total: ∫₀¹β, in (0, 1000]. 10 leaves VP with a signal variance of e⁻¹⁰.
        offset: s in θ₀ = (π/2) s / (1 + s), in (0, 1); keeps β(0) above zero.
    """

    shown = ("total", "offset")

    def __init__(self, total: float = 10.0, offset: float = 0.008):
        self.total, self.offset = float(positive("total", total)), float(positive("offset", offset))
        if self.total > LONGEST or self.offset >= 1:
            raise ValueError(f"total must be at most {LONGEST:g} and offset below 1: got {total!r} and {offset!r}.")
        start = 0.5 * math.pi * self.offset / (1.0 + self.offset)
        # kept as angles below π/2, where cos θ is the sine of a small number that does not round away
        self.start, self.stop = 0.5 * math.pi - start, math.asin(math.cos(start) * math.exp(-0.5 * self.total))

    def angle(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        """π/2 − θ(t)."""
        return (1.0 - t) * self.start + t * self.stop

    def __call__(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        return 2.0 * (self.start - self.stop) / torch.tan(self.angle(t))

    def increment(self, s: Float[Tensor, "*#B"], t: Float[Tensor, "*#B"]) -> Float[Tensor, "*#B"]:
        # cos θ_s − cos θ_t as a product, so that the logarithm never sees a difference of near-equal numbers
        half_width, centre = 0.5 * (t - s) * (self.start - self.stop), 0.5 * (self.angle(t) + self.angle(s))
        return 2.0 * torch.log1p(2.0 * torch.cos(centre) * torch.sin(half_width) / torch.sin(self.angle(t)))


class Geometric(Schedule):
    """β(t) = dσ²/dt for σ(t) = σ_min (σ_max / σ_min)ᵗ, the clock of VE-SDE (Song et al., 2021)."""

    shown = ("sigma_min", "sigma_max")

    def __init__(self, sigma_min: float = 0.01, sigma_max: float = 50.0):
        self.sigma_min, self.sigma_max = (
            float(positive("sigma_min", sigma_min)),
            float(positive("sigma_max", sigma_max)),
        )
        if self.sigma_max <= self.sigma_min:
            raise ValueError(f"sigma_max = {sigma_max} must be larger than sigma_min = {sigma_min}.")
        self.log_ratio = 2.0 * math.log(self.sigma_max / self.sigma_min)

    def __call__(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        return self.log_ratio * self.sigma_min**2 * torch.exp(self.log_ratio * t)

    def increment(self, s: Float[Tensor, "*#B"], t: Float[Tensor, "*#B"]) -> Float[Tensor, "*#B"]:
        return self.sigma_min**2 * torch.exp(self.log_ratio * s) * torch.expm1(self.log_ratio * (t - s))


class Karras(Schedule):
    """β(t) = 2t: the variance is t², so that time is the noise scale itself (Karras et al., 2022). Any horizon."""

    def __call__(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        return 2.0 * t

    def increment(self, s: Float[Tensor, "*#B"], t: Float[Tensor, "*#B"]) -> Float[Tensor, "*#B"]:
        return (t - s) * (t + s)


def as_schedule(beta: float | Schedule) -> Schedule:
    """A number means a constant rate; a schedule is returned as it is."""
    return beta if isinstance(beta, Schedule) else Constant(beta)
