"""Processes of one variable: VP-SDE, which is a recipe, and VE-SDE, EDM and sub-VP, which are not."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from psld.kernels import Kernel
from psld.processes.forward import Times
from psld.processes.linear import Process, ScheduledProcess
from psld.recipe import LinearRecipe, RecipeReport
from psld.schedules import Geometric, Karras, Linear, Schedule, as_schedule
from psld.specs.arguments import positive

__all__ = ["EDM", "VESDE", "VPSDE", "SubVPSDE"]

HALF = torch.full((1, 1), 0.5, dtype=torch.float64)


class VPSDE(Process):
    """Variance-preserving SDE (Song et al., ICLR 2021): S = 1, D = ½, Q = 0; the only scalar recipe for N(0, 1).

    Args:
        beta_min, beta_max: β(t) = beta_min + t (beta_max − beta_min).
        beta: another schedule (or a number) in place of the linear one.
    """

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0, beta: float | Schedule | None = None):
        schedule = Linear(beta_min, beta_max) if beta is None else as_schedule(beta)
        super().__init__(LinearRecipe([[0.5]], [[0.0]], [[1.0]]), schedule)


class NoiseAlone(ScheduledProcess):
    """No drift, and noise at the rate of a schedule: z_t = x₀ + N(0, ∫₀ᵗβ).

    A process with kernels and samplers like any other, but not a recipe: H is constant, there is no stationary law.

    Args:
        schedule: β(t).
        T: the horizon.
    """

    def __init__(self, schedule: Schedule, T: float):
        super().__init__(torch.zeros(1, 1, dtype=torch.float64), schedule, T=T)

    def diffusion_rate(self, t: Times) -> Float[Tensor, "*B k k"]:
        """½ β(t)."""
        return self.schedule(self.times(t))[..., None, None] * HALF

    def diffusion_increment(self, s: Times, t: Times) -> Float[Tensor, "*B k k"]:
        """½ ∫ₛᵗ β."""
        return self.schedule.increment(self.times(s), self.times(t))[..., None, None] * HALF

    def _transition(self, s: Float[Tensor, "*B"], t: Float[Tensor, "*B"]) -> Kernel:
        variance = self.schedule.increment(s, t)[..., None, None]
        return Kernel(torch.ones_like(variance), variance)

    def check(self) -> RecipeReport:
        """Not stationary: the variance grows without end."""
        reason = "the drift is zero, so H is constant and e^(−H) is not a probability density: the variance only grows."
        return RecipeReport(variables=1, stationary=False, ergodic=False, reasons=(reason,), lyapunov_residual=1.0)


class VESDE(NoiseAlone):
    """Variance-exploding SDE (Song et al., ICLR 2021): noise alone, no drift.

    Its marginal is x₀ + N(0, σ²(t) − σ_min²), exactly; sampling starts from N(0, σ_max² − σ_min²).

    Args:
        sigma_min, sigma_max: σ(t) = sigma_min (sigma_max / sigma_min)ᵗ.
    """

    def __init__(self, sigma_min: float = 0.01, sigma_max: float = 50.0):
        super().__init__(Geometric(sigma_min, sigma_max), T=1.0)
        self.sigma_min, self.sigma_max = sigma_min, sigma_max


class EDM(NoiseAlone):
    """Noise whose scale is the time, σ(t) = t: the space of EDM and all samplers written in σ (Karras et al., 2022).

    The variance-exploding SDE in another clock, and with the same status: a process, not a recipe.

    Args:
        sigma_max: T, where sampling starts, from N(0, σ_max²).
    """

    shown = ("sigma_max",)

    def __init__(self, sigma_max: float = 80.0):
        super().__init__(Karras(), T=positive("sigma_max", sigma_max))


class SubVPSDE(ScheduledProcess):
    """Sub-VP SDE (Song et al., ICLR 2021): dx = −½β x dt + √(β (1 − e^(−2b))) dw with b = ∫₀ᵗβ.

    A process, but an instance of the recipe only with a time-dependent H: frozen at time t its stationary variance is
    1 − e^(−2b(t)), which approaches 1 and never is.

    Args:
        beta_min, beta_max: β(t) = beta_min + t (beta_max − beta_min).
    """

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0):
        super().__init__(-HALF, Linear(beta_min, beta_max))

    def _elapsed(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        return self.schedule.increment(torch.zeros_like(t), t)

    def diffusion_rate(self, t: Times) -> Float[Tensor, "*B k k"]:
        """½ β(t) (1 − e^(−2b(t)))."""
        t = self.times(t)
        growth = -torch.expm1(-2.0 * self._elapsed(t))
        return growth[..., None, None] * (self.schedule(t)[..., None, None] * HALF)

    def _transition(self, s: Float[Tensor, "*B"], t: Float[Tensor, "*B"]) -> Kernel:
        db = self.schedule.increment(s, t)
        variance = torch.expm1(-db) * torch.expm1(-(self._elapsed(s) + self._elapsed(t)))
        return Kernel(torch.exp(-0.5 * db)[..., None, None], variance[..., None, None])

    def check(self) -> RecipeReport:
        """Not stationary under one H; the reason states how far the frozen variance moves."""
        early, late = (-torch.expm1(-2.0 * self._elapsed(self.times(t))) for t in (0.1, 1.0))
        reason = (
            f"frozen at time t its stationary variance is 1 − e^(−2b(t)): {float(early):.4f} at t = 0.1 and "
            f"{float(late):.6f} at t = 1. H depends on time, so no one law is stationary."
        )
        return RecipeReport(variables=1, stationary=False, ergodic=True, reasons=(reason,))
