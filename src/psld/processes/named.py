"""Forward processes by name: those of the paper, those it compares with, and those that no recipe gives."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from psld.kernels import Kernel
from psld.processes.process import Process, Times
from psld.recipe import LinearRecipe, RecipeReport
from psld.schedules import Constant, Geometric, Karras, Linear, Schedule, as_schedule

__all__ = ["CLD", "EDM", "PSLD", "VESDE", "VPSDE", "HigherOrderLangevin", "SubVPSDE"]


class PSLD(Process):
    """Phase Space Langevin Diffusion: noise in position and momentum (Pandey & Mandt, ICCV 2023, eq. 11).

        D = ½ diag(Γ, Mν),   Q = ½ [[0, −1], [1, 0]],   S = diag(1, M),   critical when (Γ − ν)² = 4 / M

    Args:
        gamma: Γ ≥ 0, noise in the position; the paper's best are 0.01 (CIFAR-10) and 0.005 (CelebA-64).
        nu: ν > 0, noise in the momentum; Γ + 4 when None, as published.
        kappa: initial momentum variance is κM.
        beta: β, a number or a schedule.
        mass: M; the critical value 4 / (Γ − ν)² when None. Larger is under-damped, smaller over-damped.

    Raises:
        ValueError: an argument is out of its range, or no critical mass exists (Γ = ν).
    """

    def __init__(
        self,
        gamma: float = 0.01,
        nu: float | None = None,
        kappa: float = 0.04,
        beta: float | Schedule = 8.0,
        mass: float | None = None,
    ):
        nu = gamma + 4.0 if nu is None else nu
        if gamma < 0 or nu <= 0 or kappa < 0:
            raise ValueError(
                f"PSLD needs gamma ≥ 0, nu > 0, kappa ≥ 0: got gamma = {gamma}, nu = {nu}, kappa = {kappa}."
            )
        if mass is None:
            if gamma == nu:
                raise ValueError(f"no mass is critical when gamma = nu = {gamma}: give mass, or another nu.")
            mass = 4.0 / (gamma - nu) ** 2
        if mass <= 0:
            raise ValueError(f"mass must be positive: got {mass}.")
        self.gamma, self.nu, self.kappa, self.mass = gamma, nu, kappa, mass
        recipe = LinearRecipe(
            diffusion=[[0.5 * gamma, 0.0], [0.0, 0.5 * mass * nu]],
            curl=[[0.0, -0.5], [0.5, 0.0]],
            covariance=[[1.0, 0.0], [0.0, mass]],
        )
        super().__init__(recipe, beta, auxiliary_covariance=kappa * mass)

    def __repr__(self) -> str:
        return _described("PSLD", gamma=self.gamma, **self._unusual(nu=self.gamma + 4.0))

    def _unusual(self, nu: float) -> dict[str, float | Schedule]:
        """Arguments other than gamma that differ from their defaults."""
        given: dict[str, float | Schedule] = {} if self.nu == nu else {"nu": self.nu}
        if self.kappa != 0.04:
            given["kappa"] = self.kappa
        given |= _unusual_rate(self.schedule)
        if self.gamma == self.nu or self.mass != 4.0 / (self.gamma - self.nu) ** 2:
            given["mass"] = self.mass
        return given


class CLD(PSLD):
    """Critically-damped Langevin diffusion (Dockhorn et al., ICLR 2022): PSLD with Γ = 0, noise in the momentum only.

    Args: as for `PSLD`.
    """

    def __init__(self, nu: float = 4.0, kappa: float = 0.04, beta: float | Schedule = 8.0, mass: float | None = None):
        super().__init__(gamma=0.0, nu=nu, kappa=kappa, beta=beta, mass=mass)

    def __repr__(self) -> str:
        return _described("CLD", **self._unusual(nu=4.0))


class VPSDE(Process):
    """Variance-preserving SDE (Song et al., ICLR 2021): S = 1, D = ½, Q = 0; the only scalar recipe for N(0, 1).

    Args:
        beta_min, beta_max: β(t) = beta_min + t (beta_max − beta_min).
        beta: another schedule (or a number) in place of the linear one.
    """

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0, beta: float | Schedule | None = None):
        schedule = Linear(beta_min, beta_max) if beta is None else as_schedule(beta)
        super().__init__(LinearRecipe([[0.5]], [[0.0]], [[1.0]]), schedule)

    def __repr__(self) -> str:
        return _described("VPSDE", **_unusual_line(self.schedule))


class HigherOrderLangevin(Process):
    """Critically damped Langevin dynamics with n variables in a chain, noise on the last one only.

        S = I,   D = diag(0, …, 0, ξ),   Q tridiagonal with entries γ₁ … γₙ₋₁

    All eigenvalues of A are −√(2n − 3) for γₙ₋ᵢ = √(2n − 3) √((n² − i²) / (4i² − 1)) and ξ = n √(2n − 3)
    (order 3: γ = (1, 2√2), ξ = 3√3; Shi & Liu, 2024).

    Args:
        order: n ≥ 2.
        beta: β, a number or a schedule.
        kappa: initial variance of the auxiliary variables.
    """

    def __init__(self, order: int = 3, beta: float | Schedule = 8.0, kappa: float = 0.04):
        if order < 2:
            raise ValueError(f"order must be at least 2: got {order}. Order 1 is VPSDE.")
        if kappa < 0:
            raise ValueError(f"kappa must be ≥ 0: got {kappa}.")
        self.order = order
        rate = math.sqrt(2 * order - 3)
        diffusion, curl = torch.zeros(2, order, order, dtype=torch.float64)
        diffusion[-1, -1] = order * rate
        for i in range(1, order):
            coupling = rate * math.sqrt((order**2 - i**2) / (4 * i**2 - 1))
            row = order - i - 1
            curl[row, row + 1], curl[row + 1, row] = -coupling, coupling
        super().__init__(LinearRecipe(diffusion, curl, torch.eye(order)), beta, auxiliary_covariance=kappa)

    def __repr__(self) -> str:
        kappa = float(self.initial_covariance[-1, -1])
        given = _unusual_rate(self.schedule) | ({} if kappa == 0.04 else {"kappa": kappa})
        return _described("HigherOrderLangevin", order=self.order, **given)


class VESDE(Process):
    """Variance-exploding SDE (Song et al., ICLR 2021): noise alone, no drift.

    A process with kernels and samplers like any other, but not a recipe: H is constant, there is no stationary law.
    Its marginal is x₀ + N(0, σ²(t) − σ_min²), exactly; sampling starts from N(0, σ_max² − σ_min²).

    Args:
        sigma_min, sigma_max: σ(t) = sigma_min (sigma_max / sigma_min)ᵗ.
    """

    def __init__(self, sigma_min: float = 0.01, sigma_max: float = 50.0):
        self.recipe = None
        drift, diffusion = torch.zeros(1, 1, dtype=torch.float64), torch.full((1, 1), 0.5, dtype=torch.float64)
        self.sigma_min, self.sigma_max = sigma_min, sigma_max
        self._set_dynamics(drift, diffusion, Geometric(sigma_min, sigma_max), T=1.0)

    def check(self) -> RecipeReport:
        """Not stationary: the variance grows without end."""
        reason = "the drift is zero, so H is constant and e^(−H) is not a probability density: the variance only grows."
        return RecipeReport(variables=1, stationary=False, ergodic=False, reasons=(reason,), lyapunov_residual=1.0)

    def __repr__(self) -> str:
        usual = {"sigma_min": 0.01, "sigma_max": 50.0}
        given = {"sigma_min": self.sigma_min, "sigma_max": self.sigma_max}
        return _described("VESDE", **{name: value for name, value in given.items() if value != usual[name]})


class EDM(Process):
    """Noise whose scale is the time, σ(t) = t: the space of EDM and all samplers written in σ (Karras et al., 2022).

    The variance-exploding SDE in another clock, and with the same status: a process, not a recipe.

    Args:
        sigma_max: T, where sampling starts, from N(0, σ_max²).
    """

    def __init__(self, sigma_max: float = 80.0):
        self.recipe = None
        drift, diffusion = torch.zeros(1, 1, dtype=torch.float64), torch.full((1, 1), 0.5, dtype=torch.float64)
        self._set_dynamics(drift, diffusion, Karras(), T=sigma_max)

    def check(self) -> RecipeReport:
        """Not stationary: as VE-SDE."""
        return VESDE().check()

    def __repr__(self) -> str:
        return f"EDM(sigma_max={self.T:g})"


class SubVPSDE(Process):
    """Sub-VP SDE (Song et al., ICLR 2021): dx = −½β x dt + √(β (1 − e^(−2b))) dw with b = ∫₀ᵗβ.

    A process, but an instance of the recipe only with a time-dependent H: frozen at time t its stationary variance is
    1 − e^(−2b(t)), which approaches 1 and never is.

    Args:
        beta_min, beta_max: β(t) = beta_min + t (beta_max − beta_min).
    """

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0):
        self.recipe = None
        half = torch.full((1, 1), 0.5, dtype=torch.float64)
        self._set_dynamics(-half, half, Linear(beta_min, beta_max), T=1.0)

    def _elapsed(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        return self.schedule.increment(torch.zeros_like(t), t)

    def diffusion_rate(self, t: Times) -> Float[Tensor, "*B k k"]:
        """½ β(t) (1 − e^(−2b(t)))."""
        growth = -torch.expm1(-2.0 * self._elapsed(self.times(t)))
        return growth[..., None, None] * super().diffusion_rate(t)

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

    def __repr__(self) -> str:
        return _described("SubVPSDE", **_unusual_line(self.schedule))


def _described(kind: str, **given: float | Schedule) -> str:
    """A constructor call; numbers short, unless that would hide a digit."""
    return f"{kind}({', '.join(f'{name}={_short(value)}' for name, value in given.items())})"


def _short(value: float | Schedule) -> str:
    return repr(value) if isinstance(value, Schedule) or float(f"{value:g}") != value else f"{value:g}"


def _unusual_rate(schedule: Schedule) -> dict[str, float | Schedule]:
    """`beta` of a process whose rate is 8 unless told otherwise."""
    if not isinstance(schedule, Constant):
        return {"beta": schedule}
    return {} if schedule.beta == 8.0 else {"beta": schedule.beta}


def _unusual_line(schedule: Schedule) -> dict[str, float | Schedule]:
    """`beta_min` and `beta_max`, or `beta`, of a process whose rate goes from 0.1 to 20 unless told otherwise."""
    if not isinstance(schedule, Linear):
        return {"beta": schedule.beta if isinstance(schedule, Constant) else schedule}
    given: dict[str, float | Schedule] = {} if schedule.beta_min == 0.1 else {"beta_min": schedule.beta_min}
    return given if schedule.beta_max == 20.0 else given | {"beta_max": schedule.beta_max}
