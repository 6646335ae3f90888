"""Linear processes: Gaussian kernels, a prior, and the image that is sufficient for the data.

    dz = A(t) z dt + √(2 D(t)) dw,      z of shape (B, k, *data), t ∈ [0, T]

the same in every data dimension. The first variable is the data ("position"), the others are auxiliary and start as
N(0, Σ₀), independent of the data. Times and coefficient tables are float64 on the CPU; states may live anywhere. Pairs
of times are (s, t) with s ≤ t.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from psld.kernels import Kernel, cholesky, linear_kernel, mix, outer, product, relax
from psld.processes.collocation import integral, time_dependent_kernel
from psld.processes.forward import ForwardProcess, Times
from psld.recipe import LinearRecipe, RecipeError, RecipeReport
from psld.schedules import Schedule, as_schedule
from psld.specs.arguments import LARGEST

__all__ = ["LinearProcess", "Matching", "Process", "ScheduledProcess", "statistic_weights"]

Matching = Literal["hsm", "dsm"]
"""What a marginal is conditioned on: x₀ alone (hybrid score matching) or all of z₀ (denoising score matching)."""


class LinearProcess(ForwardProcess):
    """A process whose drift is linear in z and whose noise does not depend on z: all its kernels are Gaussian.

    A subclass gives the two rates as functions of time. Everything else follows from them: the kernels numerically, to
    about 1e-12, unless the subclass has them in closed form (`_transition`).

    Args:
        k: number of phase-space variables.
        auxiliary_covariance: covariance of the k − 1 auxiliary variables at t = 0: a matrix, or a number for a multiple
            of the identity. The paper starts PSLD at κM (κ = 0.04).
        T: the horizon; 1 for every published process.

    Raises:
        ValueError: the auxiliary covariance has the wrong shape or is not positive semi-definite, or T is not positive.
    """

    def __init__(self, k: int, auxiliary_covariance: float | Tensor | list[list[float]] = 0.0, T: float = 1.0):
        super().__init__(k, T)
        self.initial_covariance = _initial_covariance(auxiliary_covariance, k)

    # -- what drives it ------------------------------------------------------------------------------------------

    @abstractmethod
    def drift_rate(self, t: Times) -> Float[Tensor, "*B k k"]:
        """A(t): the matrix of the drift, per unit of time."""

    @abstractmethod
    def diffusion_rate(self, t: Times) -> Float[Tensor, "*B k k"]:
        """D(t): half the variance added per unit of time."""

    def drift_increment(self, s: Times, t: Times) -> Float[Tensor, "*B k k"]:
        """∫ₛᵗ A(u) du."""
        return integral(self.drift_rate, *torch.broadcast_tensors(self.times(s), self.times(t)))

    def diffusion_increment(self, s: Times, t: Times) -> Float[Tensor, "*B k k"]:
        """∫ₛᵗ D(u) du."""
        return integral(self.diffusion_rate, *torch.broadcast_tensors(self.times(s), self.times(t)))

    def drift(self, z: Float[Tensor, "B k *data"], t: Times) -> Float[Tensor, "B k *data"]:
        """A(t) z."""
        return mix(self.drift_rate(t), z)

    def diffusion_factor(self, z: Float[Tensor, "B k *data"], t: Times) -> Float[Tensor, "..."]:
        """The Cholesky factor of 2D(t), (B or 1, k, k, 1, …)."""
        factor = cholesky(2.0 * self.diffusion_rate(t)).to(z.device, z.dtype)
        return factor.reshape(-1, self.k, self.k, *[1] * (z.ndim - 2))

    @property
    def noisy_rows(self) -> int:
        """r: noise enters the last r variables only, so that many rows of ε determine the reverse process (CLD: 1)."""
        return self.k - int(self.diffusion_increment(0.0, self.T).any(dim=1).nonzero()[0])

    def check(self) -> RecipeReport:
        """Whether one law is stationary at every time, and if not why, from the SDE frozen at several times."""
        laws = []
        for t in self.T * torch.tensor([0.1, 0.5, 1.0], dtype=torch.float64):
            try:
                laws.append(LinearRecipe.from_sde(self.drift_rate(t), cholesky(2.0 * self.diffusion_rate(t))))
            except RecipeError as error:
                reason = f"frozen at t = {float(t):g} there is no stationary law: {error}"
                return RecipeReport(variables=self.k, stationary=False, ergodic=False, reasons=(reason,))
        first, *others = laws
        if all(torch.allclose(law.covariance, first.covariance, rtol=1e-9, atol=1e-12) for law in others):
            return first.check()
        variances = ", ".join(f"{[round(v, 4) for v in law.covariance.diagonal().tolist()]}" for law in laws)
        reason = (
            f"frozen at t = {0.1 * self.T:g}, {0.5 * self.T:g} and {self.T:g} the stationary variances are "
            f"{variances}: H depends on time, so no one law is stationary."
        )
        return RecipeReport(variables=self.k, stationary=False, ergodic=first.check().ergodic, reasons=(reason,))

    # -- kernels -------------------------------------------------------------------------------------------------

    def transition(self, s: Times, t: Times) -> Kernel:
        """z_t given z_s, for 0 ≤ s ≤ t ≤ T. Matrices are float64 of shape (…, k, k)."""
        start, stop = torch.broadcast_tensors(self.times(s), self.times(t))
        if (start > stop).any():
            raise ValueError("transition(s, t) runs forward in time: every s must be ≤ t.")
        return self._transition(start, stop)

    def _transition(self, s: Float[Tensor, "*B"], t: Float[Tensor, "*B"]) -> Kernel:
        return time_dependent_kernel(self.drift_rate, self.diffusion_rate, s, t)

    def marginal(self, t: Times, matching: Matching = "hsm", jitter: float = 0.0) -> Kernel:
        """z_t given the data.

        Args:
            t: times in [0, T].
            matching: "hsm" given x₀, the auxiliary variables integrated out; "dsm" given z₀.
            jitter: added to the diagonal of the covariance; 0 is exact, published weights were trained with 1e-9.
        """
        if matching not in ("hsm", "dsm"):
            raise ValueError(f"matching must be 'hsm' or 'dsm': got {matching!r}.")
        t = self.times(t)
        kernel = self._transition(torch.zeros_like(t), t)
        covariance = kernel.covariance
        if matching == "hsm":
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
        matching: Matching = "hsm",
        auxiliary: Float[Tensor, "B a *data"] | None = None,
    ) -> Float[Tensor, "B k *data"]:
        """z_t = Φ(t) z₀ + L(t) ε. `auxiliary` is needed for (and only for) matching="dsm" with k > 1."""
        if matching == "dsm" and auxiliary is None and self.k > 1:
            raise ValueError("'dsm' conditions on the auxiliary variables too: give auxiliary, or use 'hsm'.")
        if matching == "hsm" and auxiliary is not None:
            raise ValueError("'hsm' integrates the auxiliary variables out: leave auxiliary out, or use 'dsm'.")
        return self.marginal(t, matching).sample(self.lift(x0, auxiliary), eps)

    def conditional_score(
        self, z: Float[Tensor, "B k *data"], x0: Float[Tensor, "B *data"], t: Times
    ) -> Float[Tensor, "B k *data"]:
        """−Σ⁻¹ (z − Φ₀ x₀)."""
        kernel = self.marginal(t)
        whitened = mix(kernel.whitener, z - outer(kernel.mean_map[..., 0], x0))
        return -mix(kernel.whitener.mT, whitened)

    # -- data, prior ---------------------------------------------------------------------------------------------

    def lift(
        self, x0: Float[Tensor, "B *data"], auxiliary: Float[Tensor, "B a *data"] | None = None
    ) -> Float[Tensor, "B k *data"]:
        """Data into phase space; the auxiliary variables are at their mean, 0, unless given."""
        if auxiliary is None:
            auxiliary = x0.new_zeros(len(x0), self.k - 1, *x0.shape[1:])
        return torch.cat([x0.unsqueeze(1), auxiliary], dim=1)

    def initial_auxiliary(self, eps: Float[Tensor, "B a *data"]) -> Float[Tensor, "B a *data"]:
        """Auxiliary variables at t = 0 from standard normal draws."""
        return mix(cholesky(self.initial_covariance[1:, 1:]), eps) if self.k > 1 else eps

    @property
    def prior_covariance(self) -> Float[Tensor, "k k"]:
        """Covariance of the law that sampling starts from: that of the noise at T, or a stationary S."""
        return self.marginal(self.T).covariance

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

    def same_marginals(self, other: LinearProcess) -> bool:
        """Whether z_t given x₀ has the same law at every t, so that what was learned of the one holds for the other.

        Compared as numbers, at times all over [0, T]: two processes may be written differently and be the same.
        """
        if self.k != other.k or self.T != other.T:
            return False
        t = self.T * torch.linspace(0.0, 1.0, 33, dtype=torch.float64)[1:]
        one, two = self.marginal(t), other.marginal(t)
        pairs = ((one.mean_map[..., 0], two.mean_map[..., 0]), (one.covariance, two.covariance))
        return all(torch.allclose(a, b, rtol=1e-9, atol=1e-12) for a, b in pairs)


class ScheduledProcess(LinearProcess):
    """A linear process whose drift is one fixed matrix run at a rate β(t): A(t) = β(t) A.

    Its mean map depends on time through ∫β alone. Of its noise that need not be so.

    Args:
        drift_matrix: A, k×k.
        schedule: β(t), or a number for a constant rate.
        auxiliary_covariance, T: as for `LinearProcess`.
    """

    def __init__(
        self,
        drift_matrix: Float[Tensor, "k k"],
        schedule: float | Schedule,
        auxiliary_covariance: float | Tensor | list[list[float]] = 0.0,
        T: float = 1.0,
    ):
        super().__init__(len(drift_matrix), auxiliary_covariance, T)
        self.drift_matrix, self.schedule = drift_matrix, as_schedule(schedule)

    def drift_rate(self, t: Times) -> Float[Tensor, "*B k k"]:
        """β(t) A: the matrix of the drift, per unit of time."""
        return self.schedule(self.times(t))[..., None, None] * self.drift_matrix

    def drift_increment(self, s: Times, t: Times) -> Float[Tensor, "*B k k"]:
        """∫ₛᵗ β · A."""
        return self.schedule.increment(self.times(s), self.times(t))[..., None, None] * self.drift_matrix


class Process(ScheduledProcess):
    """A linear recipe run at the rate β(t) from data at t = 0 to noise at t = T.

        dz = β(t) A z dt + √(2 β(t) D) dw,      A = −(D + Q) S⁻¹

    Args:
        recipe: D, Q and S.
        schedule: β(t), or a number for a constant rate.
        auxiliary_covariance: covariance of the k − 1 auxiliary variables at t = 0: a matrix, or a number for a multiple
            of the identity. The paper starts PSLD at κM (κ = 0.04).
        T: the horizon; 1 for every published process.

    Raises:
        ValueError: the auxiliary covariance has the wrong shape or is not positive semi-definite, or T is not positive.
    """

    def __init__(
        self,
        recipe: LinearRecipe,
        schedule: float | Schedule,
        auxiliary_covariance: float | Tensor | list[list[float]] = 0.0,
        T: float = 1.0,
    ):
        super().__init__(recipe.drift_matrix, schedule, auxiliary_covariance, T)
        self.recipe = recipe

    def diffusion_rate(self, t: Times) -> Float[Tensor, "*B k k"]:
        """β(t) D: half the variance added per unit of time."""
        return self.schedule(self.times(t))[..., None, None] * self.recipe.diffusion

    def diffusion_increment(self, s: Times, t: Times) -> Float[Tensor, "*B k k"]:
        """∫ₛᵗ β · D."""
        return self.schedule.increment(self.times(s), self.times(t))[..., None, None] * self.recipe.diffusion

    def check(self) -> RecipeReport:
        """The report of the recipe behind this process: stationary, ergodic, and why not."""
        return self.recipe.check()

    def _transition(self, s: Float[Tensor, "*B"], t: Float[Tensor, "*B"]) -> Kernel:
        kernel = linear_kernel(self.drift_matrix, self.recipe.diffusion, self.schedule.increment(s, t))
        return relax(kernel, self.recipe.covariance)

    @property
    def prior_covariance(self) -> Float[Tensor, "k k"]:
        """Covariance of the law that sampling starts from: the stationary S."""
        return self.recipe.covariance


def statistic_weights(kernel: Kernel) -> tuple[Float[Tensor, "*B k"], Float[Tensor, "*B"]]:
    """Σ⁻¹Φ₀ / a and σ = a^(−1/2), a = Φ₀ᵀΣ⁻¹Φ₀: y = weights · z (docs/derivations/statistic.md)."""
    a = kernel.whitened_signal.square().sum(-1)
    return kernel.pull / a[..., None], a.rsqrt()


def _initial_covariance(auxiliary: float | Tensor | list[list[float]], k: int) -> Float[Tensor, "k k"]:
    block = torch.as_tensor(auxiliary, dtype=torch.float64)
    if block.ndim == 0:
        block = block * torch.eye(k - 1, dtype=torch.float64)
    if block.shape != (k - 1, k - 1):
        raise ValueError(f"auxiliary_covariance must be {k - 1}×{k - 1} (or a number): got shape {tuple(block.shape)}.")
    if k > 1 and not (
        block.abs().max() <= LARGEST and torch.equal(block, block.T) and torch.linalg.eigvalsh(block)[0] >= 0
    ):
        raise ValueError(f"auxiliary_covariance must be symmetric positive semi-definite: got {block.tolist()}.")
    covariance = torch.zeros(k, k, dtype=torch.float64)
    covariance[1:, 1:] = block
    return covariance
