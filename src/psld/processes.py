"""Forward processes: a recipe in time, with its kernels, its prior and its sufficient statistic.

    dz = β(t) A z dt + √(2 β(t) D) dw,      A = −(D + Q) S⁻¹,      z of shape (B, k, *data), t ∈ [0, T]

The first variable is the data ("position"), the others are auxiliary and start as N(0, Σ₀), independent of the data.
Times and coefficient tables are float64 on the CPU; states may live anywhere. Pairs of times are (s, t) with s ≤ t.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from psld.kernels import Kernel, cholesky, linear_kernel, mix, outer, product, relax
from psld.recipe import LinearRecipe, RecipeReport
from psld.schedules import Constant, Geometric, Karras, Linear, Schedule, as_schedule

__all__ = [
    "CLD",
    "EDM",
    "PSLD",
    "Conditioning",
    "HigherOrderLangevin",
    "Process",
    "SubVPSDE",
    "Times",
    "VESDE",
    "VPSDE",
]

Times = float | Tensor
"""A time, or a batch of times of any shape."""

Conditioning = Literal["hsm", "dsm"]
"""What a marginal is conditioned on: x₀ alone (hybrid score matching) or all of z₀ (denoising score matching)."""


class Process:
    """A linear recipe run at the rate β(t) from data at t = 0 to noise at t = T.

    Args:
        recipe: D, Q and S.
        schedule: β(t), or a number for a constant rate.
        auxiliary_covariance: covariance of the k − 1 auxiliary variables at t = 0: a matrix, or a number for a multiple
            of the identity. The paper starts PSLD at κM (κ = 0.04).
        T: the horizon; 1 for every published process.

    Raises:
        ValueError: the auxiliary covariance has the wrong shape or is not positive semi-definite, or T is not positive.
    """

    recipe: LinearRecipe | None

    def __init__(
        self,
        recipe: LinearRecipe,
        schedule: float | Schedule,
        auxiliary_covariance: float | Tensor | list[list[float]] = 0.0,
        T: float = 1.0,
    ):
        self.recipe = recipe
        self._set_dynamics(recipe.drift_matrix, recipe.diffusion, as_schedule(schedule), T)
        self.initial_covariance = _initial_covariance(auxiliary_covariance, self.k)

    def _set_dynamics(self, drift_matrix: Tensor, diffusion: Tensor, schedule: Schedule, T: float) -> None:
        if not (math.isfinite(T) and T > 0):
            raise ValueError(f"T must be a positive, finite time: got {T}.")
        self.drift_matrix, self.diffusion, self.schedule, self.T = drift_matrix, diffusion, schedule, float(T)
        self.k = len(drift_matrix)
        self.initial_covariance = torch.zeros(self.k, self.k, dtype=torch.float64)

    # -- what drives it ------------------------------------------------------------------------------------------

    def drift_rate(self, t: Times) -> Float[Tensor, "*B k k"]:
        """β(t) A: the matrix of the drift, per unit of time."""
        return self.schedule(self.times(t))[..., None, None] * self.drift_matrix

    def diffusion_rate(self, t: Times) -> Float[Tensor, "*B k k"]:
        """β(t) D: half the variance added per unit of time."""
        return self.schedule(self.times(t))[..., None, None] * self.diffusion

    @property
    def noisy_rows(self) -> int:
        """r: noise enters the last r variables only, so that many rows of ε determine the reverse process (CLD: 1)."""
        return self.k - int(self.diffusion.any(dim=1).nonzero()[0])

    def check(self) -> RecipeReport:
        """The report of the recipe behind this process: stationary, ergodic, and why not."""
        if self.recipe is None:
            raise TypeError(f"{type(self).__name__} has no constant recipe and must report for itself.")
        return self.recipe.check()

    # -- kernels -------------------------------------------------------------------------------------------------

    def transition(self, s: Times, t: Times) -> Kernel:
        """z_t given z_s, for 0 ≤ s ≤ t ≤ T. Matrices are float64 of shape (…, k, k)."""
        start, stop = torch.broadcast_tensors(self.times(s), self.times(t))
        if (start > stop).any():
            raise ValueError("transition(s, t) runs forward in time: every s must be ≤ t.")
        return self._transition(start, stop)

    def _transition(self, s: Float[Tensor, "*B"], t: Float[Tensor, "*B"]) -> Kernel:
        kernel = linear_kernel(self.drift_matrix, self.diffusion, self.schedule.increment(s, t))
        return kernel if self.recipe is None else relax(kernel, self.recipe.covariance)

    def marginal(self, t: Times, conditioning: Conditioning = "hsm", jitter: float = 0.0) -> Kernel:
        """z_t given the data.

        Args:
            t: times in [0, T].
            conditioning: "hsm" given x₀, the auxiliary variables integrated out; "dsm" given z₀.
            jitter: added to the diagonal of the covariance; 0 is exact, published weights were trained with 1e-9.
        """
        if conditioning not in ("hsm", "dsm"):
            raise ValueError(f"conditioning must be 'hsm' or 'dsm': got {conditioning!r}.")
        t = self.times(t)
        kernel = self._transition(torch.zeros_like(t), t)
        covariance = kernel.covariance
        if conditioning == "hsm":
            phi = kernel.mean_map
            covariance = covariance + product(product(phi, self.initial_covariance), phi.mT)
        if jitter:
            covariance = covariance + jitter * torch.eye(self.k, dtype=torch.float64)
        return Kernel(kernel.mean_map, covariance)

    def perturb(
        self,
        x0: Float[Tensor, "B *data"],
        t: Times,
        eps: Float[Tensor, "B k *data"],
        conditioning: Conditioning = "hsm",
        auxiliary: Float[Tensor, "B a *data"] | None = None,
    ) -> Float[Tensor, "B k *data"]:
        """z_t = Φ(t) z₀ + L(t) ε. `auxiliary` is needed for (and only for) conditioning="dsm" with k > 1."""
        if conditioning == "dsm" and auxiliary is None and self.k > 1:
            raise ValueError("'dsm' conditions on the auxiliary variables too: give auxiliary, or use 'hsm'.")
        if conditioning == "hsm" and auxiliary is not None:
            raise ValueError("'hsm' integrates the auxiliary variables out: leave auxiliary out, or use 'dsm'.")
        return self.marginal(t, conditioning).sample(self.lift(x0, auxiliary), eps)

    # -- data, prior ---------------------------------------------------------------------------------------------

    def lift(
        self, x0: Float[Tensor, "B *data"], auxiliary: Float[Tensor, "B a *data"] | None = None
    ) -> Float[Tensor, "B k *data"]:
        """Data into phase space; the auxiliary variables are at their mean, 0, unless given."""
        if auxiliary is None:
            auxiliary = x0.new_zeros(len(x0), self.k - 1, *x0.shape[1:])
        return torch.cat([x0.unsqueeze(1), auxiliary], dim=1)

    def project(self, z: Float[Tensor, "B k *data"]) -> Float[Tensor, "B *data"]:
        """The data variable of a state."""
        return z[:, 0]

    def initial_auxiliary(self, eps: Float[Tensor, "B a *data"]) -> Float[Tensor, "B a *data"]:
        """Auxiliary variables at t = 0 from standard normal draws."""
        return mix(cholesky(self.initial_covariance[1:, 1:]), eps) if self.k > 1 else eps

    @property
    def prior_covariance(self) -> Float[Tensor, "k k"]:
        """Covariance of the law that sampling starts from: the stationary S."""
        if self.recipe is None:
            return self.marginal(self.T).covariance
        return self.recipe.covariance

    def prior_sample(self, eps: Float[Tensor, "B k *data"]) -> Float[Tensor, "B k *data"]:
        """z_T from standard normal draws ε."""
        return mix(cholesky(self.prior_covariance), eps)

    def prior_log_prob(self, z: Float[Tensor, "B k *data"]) -> Float[Tensor, " B"]:
        """log density of the prior at z, in nats, summed over variables and data dimensions."""
        prior = Kernel(torch.eye(self.k, dtype=torch.float64), self.prior_covariance)
        return prior.log_prob(z, torch.zeros_like(z))

    # -- the sufficient statistic --------------------------------------------------------------------------------

    def signal(self, t: Times) -> Float[Tensor, "*B k"]:
        """Φ₀(t), the first column of the mean map: E[z_t | x₀] = Φ₀ x₀."""
        return self.marginal(t).mean_map[..., 0]

    def noise_scale(self, t: Times) -> Float[Tensor, "*B"]:
        """σ(t) = (Φ₀ᵀ Σ⁻¹ Φ₀)^(−1/2): the noise left in x₀ when z_t is known, increasing in t; t > 0."""
        return statistic_weights(self.marginal(t))[1]

    def time_of(self, sigma: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        """The time at which the noise scale is σ: `noise_scale` read backwards, to rounding.

        Raises:
            ValueError: σ is not positive, or larger than σ(T).
        """
        sigma = torch.as_tensor(sigma, dtype=torch.float64, device="cpu")
        top = self.noise_scale(self.T)
        if not ((sigma > 0) & (sigma <= top * (1 + 1e-12))).all():
            raise ValueError(
                f"σ must lie in (0, {float(top):g}], the noise scale at T: "
                f"got {float(sigma.min()):g} … {float(sigma.max()):g}."
            )
        target, low, high = (
            sigma.log(),
            torch.full_like(sigma, 1e-9 * self.T).log(),
            torch.full_like(sigma, self.T).log(),
        )
        log_t = 0.5 * (low + high)
        for _ in range(100):  # Newton in log t, kept inside a bracket: log σ increases
            t = log_t.exp().clamp(max=self.T)
            kernel = self.marginal(t)
            weights, scale = statistic_weights(kernel)
            # d log σ / db = σ⁻² wᵀ D w, with w = Σ⁻¹Φ₀ / a
            pull = weights[..., None] * scale[..., None, None] ** -2
            slope = t * scale**2 * (pull.mT @ self.diffusion_rate(t) @ pull)[..., 0, 0]
            excess = scale.log() - target
            low, high = torch.where(excess < 0, log_t, low), torch.where(excess < 0, high, log_t)
            newton = log_t - excess / slope
            step = torch.where((newton >= low) & (newton <= high), newton, 0.5 * (low + high)) - log_t
            log_t = log_t + step
            if step.abs().max() < 1e-9:  # converges quadratically: what is left is rounding
                break
        return torch.where(sigma >= top, self.T, log_t.exp().clamp(max=self.T))

    def statistic(self, z: Float[Tensor, "B k *data"], t: Times) -> tuple[Tensor, Tensor]:
        """The image y = x₀ + σ ξ that is sufficient for x₀ given z_t, and σ(t).

        Returns:
            y of shape (B, *data), σ of shape () or (B,). E[x₀ | z_t] = E[x₀ | y], for every linear process.
            Derivation: docs/derivations/statistic.md.
        """
        weights, sigma = statistic_weights(self.marginal(t))
        return mix(weights.unsqueeze(-2), z)[:, 0], sigma

    def from_statistic(
        self, y: Float[Tensor, "B *data"], t: Times, eps: Float[Tensor, "B k *data"]
    ) -> Float[Tensor, "B k *data"]:
        """A state z_t whose statistic is y: Φ₀ y plus the ancillary noise, which tells nothing about x₀.

        With ε standard normal, y = x₀ + σξ gives z_t its exact law given x₀.
        """
        return outer(self.signal(t), y) + mix(self.ancillary_factor(t), eps)

    def ancillary_factor(self, t: Times) -> Float[Tensor, "*B k k"]:
        """(I − Φ₀ wᵀ) L, w the weights of the statistic: times white noise, the noise of z_t that y does not see."""
        kernel = self.marginal(t)
        weights, _ = statistic_weights(kernel)
        seen = kernel.mean_map[..., :1] @ weights.unsqueeze(-2)
        return kernel.cholesky - seen @ kernel.cholesky

    # ------------------------------------------------------------------------------------------------------------

    def same_marginals(self, other: Process) -> bool:
        """Whether z_t given x₀ has the same law at every t, so that what was learned of the one holds for the other.

        Compared as numbers, at times all over [0, T]: two processes may be written differently and be the same.
        """
        if self.k != other.k or self.T != other.T:
            return False
        t = self.T * torch.linspace(0.0, 1.0, 33, dtype=torch.float64)[1:]
        one, two = self.marginal(t), other.marginal(t)
        pairs = ((one.mean_map[..., 0], two.mean_map[..., 0]), (one.covariance, two.covariance))
        return all(torch.allclose(a, b, rtol=1e-9, atol=1e-12) for a, b in pairs)

    def times(self, t: Times) -> Float[Tensor, "*B"]:
        """t as a float64 CPU tensor. Raises ValueError outside [0, T]."""
        t = torch.as_tensor(t, dtype=torch.float64, device="cpu")
        if not ((t >= 0) & (t <= self.T)).all():
            raise ValueError(f"times must lie in [0, {self.T:g}]: got {float(t.min()):g} … {float(t.max()):g}.")
        return t

    def __repr__(self) -> str:
        return f"Process({self.recipe!r}, {self.schedule!r})"


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


def statistic_weights(kernel: Kernel) -> tuple[Float[Tensor, "*B k"], Float[Tensor, "*B"]]:
    """Σ⁻¹Φ₀ / a and σ = a^(−1/2), a = Φ₀ᵀΣ⁻¹Φ₀: y = weights · z (docs/derivations/statistic.md)."""
    a = kernel.whitened_signal.square().sum(-1)
    return kernel.pull / a[..., None], a.rsqrt()


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


def _initial_covariance(auxiliary: float | Tensor | list[list[float]], k: int) -> Float[Tensor, "k k"]:
    block = torch.as_tensor(auxiliary, dtype=torch.float64)
    if block.ndim == 0:
        block = block * torch.eye(k - 1, dtype=torch.float64)
    if block.shape != (k - 1, k - 1):
        raise ValueError(f"auxiliary_covariance must be {k - 1}×{k - 1} (or a number): got shape {tuple(block.shape)}.")
    if k > 1 and not (block.isfinite().all() and torch.equal(block, block.T) and torch.linalg.eigvalsh(block)[0] >= 0):
        raise ValueError(f"auxiliary_covariance must be symmetric positive semi-definite: got {block.tolist()}.")
    covariance = torch.zeros(k, k, dtype=torch.float64)
    covariance[1:, 1:] = block
    return covariance
