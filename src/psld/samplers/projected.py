"""Projected sampling: any process, any model of it, under a sampler of the σ-space.

Of z_t only the image y = x₀ + σξ tells anything about x₀. So walk in y, as a denoiser of the EDM kind would, and make a
state for the network whenever it is asked:

    z = Φ₀(t) y + ancillary noise,    σ(t) = σ,        D(y; σ) = x̂₀(z, t)

Whatever the solver is (`Exponential`, `PredictorCorrector`, `Heun` …) it runs on the one-variable process `EDM`, whose
time is σ. Derivation: docs/derivations/statistic.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from psld.grids import Grid
from psld.kernels import Kernel
from psld.predictions import Prediction, ScoreModel
from psld.processes import EDM, Times
from psld.samplers.base import Plan, Sampler

__all__ = ["Ancillary", "Projected"]

Ancillary = Literal["once", "fresh", "mean"]
"""Where the ancillary noise comes from: one draw for the whole path, a new one for every call, or its mean, zero."""


class ProjectedPlan(NamedTuple):
    """The solver's plan in σ, and the time of the process at each of its noise scales."""

    inner: Plan
    times: dict[float, Tensor]


class Projected(Sampler):
    """A sampler of σ-space for every linear process.

    Args:
        solver: any sampler; it sees one variable, y, and the process `EDM`.
        ancillary: "once", "fresh" or "mean".

    Raises:
        ValueError: another `ancillary`.
    """

    sigma_space = True

    def __init__(self, solver: Sampler, ancillary: Ancillary = "once"):
        if ancillary not in ("once", "fresh", "mean"):
            raise ValueError(f"ancillary must be 'once', 'fresh' or 'mean': got {ancillary!r}.")
        self.solver, self.ancillary = solver, ancillary
        self.order, self.evaluations = solver.order, solver.evaluations
        self.stochastic = solver.stochastic or ancillary == "fresh"

    def coefficients(self, process, t, s):
        sigma = process.noise_scale(torch.cat([t, s[-1:]]))
        grid = Grid(sigma, "none")
        times = dict(zip(sigma.tolist(), torch.cat([t, s[-1:]]), strict=True))
        return ProjectedPlan(self.solver.prepare(EDM(float(sigma[0])), grid), times)

    def step(self, z, c, model, t, noise):
        raise TypeError("Projected leaves the steps to its solver: call sample or integrate.")

    def integrate(self, model, z, plan, noise, watch=None):
        start, end = plan.grid.times[0], plan.grid.times[-1]
        once = noise() if self.ancillary == "once" else None
        ancillary = noise if self.ancillary == "fresh" else lambda: once
        denoiser = Denoiser(model, EDM(float(plan.tables.inner.grid.times[0])), plan.tables.times, ancillary)
        y = model.process.statistic(z, start)[0].unsqueeze(1)
        y, nfe = self.solver.integrate(denoiser, y, plan.tables.inner, lambda: noise()[:, :1], denoiser.watcher(watch))
        denoiser.renew()
        return denoiser.state(y, end), nfe

    def __repr__(self) -> str:
        return f"Projected({self.solver!r}, {self.ancillary!r})"


class Denoiser(ScoreModel):
    """The model of a process as one of `EDM`, for a solver of σ-space."""

    def __init__(
        self, model: ScoreModel, process: EDM, times: dict[float, Tensor], ancillary: Callable[[], Tensor | None]
    ):
        super().__init__(model.network, process, "x0")
        self.model, self.times, self.ancillary = model, times, ancillary
        self.renew()

    def __call__(self, z: Tensor, t: Times, **condition: Any) -> Prediction:
        y, sigma = z, torch.as_tensor(t)
        self.renew()
        x0 = self.model(self.state(y, self.time(sigma)), self.time(sigma), **condition).x0
        variance = sigma.square()[..., None, None]
        return Prediction(y, Kernel(torch.ones_like(variance), variance), x0=x0)

    def renew(self) -> None:
        """The ancillary noise of the next state; only "fresh" makes another. Watching must not, so states do not."""
        self._latest = self.ancillary()

    def time(self, sigma: Tensor) -> Tensor:
        """When the process is as noisy as σ."""
        if sigma.ndim == 0 and float(sigma) in self.times:
            return self.times[float(sigma)]
        return self.model.process.time_of(sigma)

    def state(self, y: Tensor, t: Tensor) -> Tensor:
        """A state of the process whose statistic is y, with the latest ancillary noise."""
        eps = self._latest
        if eps is None:
            eps = y.new_zeros(len(y), self.model.process.k, *y.shape[2:])
        if len(eps) != len(y):
            raise ValueError(
                "the solver drops finished samples, and their ancillary noise cannot follow: "
                "use Projected(solver, 'mean'), or RK45 with control='batch'."
            )
        return self.model.process.from_statistic(y[:, 0], t, eps)

    def watcher(self, watch):
        """A watcher of states, from one that is shown y."""
        return None if watch is None else lambda sigma, y: watch(self.time(sigma), self.state(y, self.time(sigma)))
