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
from jaxtyping import Int64
from torch import Tensor

from psld.kernels import Kernel, mix, outer
from psld.model import Model, Prediction
from psld.processes import EDM, LinearProcess, Times
from psld.samplers.grids import Grid, best, optimised_projected
from psld.samplers.sampler import FixedStepSampler, Noise, Plan, Sampler, States, Watcher

__all__ = ["Ancillary", "Projected"]

Ancillary = Literal["once", "fresh", "mean"]
"""Where the ancillary noise comes from: one draw for the whole path, a new one for every call, or its mean, zero."""


class Level(NamedTuple):
    """One noise scale: the time of the process there, Φ₀, and the factor of its ancillary noise."""

    t: Tensor
    signal: Tensor
    ancillary: Tensor


class ProjectedTables(NamedTuple):
    """The solver's plan in σ, and the process at each of its noise scales."""

    inner: Plan[Any]
    levels: dict[float, Level]


class Projected(Sampler):
    """A sampler of σ-space for every linear process.

    Args:
        solver: any sampler; it sees one variable, y, and the process `EDM`.
        ancillary: "once", "fresh" or "mean".

    Raises:
        ValueError: another `ancillary`.
    """

    shown = ("ancillary",)

    def __init__(self, solver: Sampler, ancillary: Ancillary = "once"):
        if ancillary not in ("once", "fresh", "mean"):
            raise ValueError(f"ancillary must be 'once', 'fresh' or 'mean': got {ancillary!r}.")
        self.solver = solver
        self.ancillary: Ancillary = ancillary
        self.order, self.nfe_per_step = solver.order, solver.nfe_per_step
        self.stochastic = solver.stochastic or ancillary == "fresh"

    def prepare(self, process: LinearProcess, grid: Grid) -> Plan[ProjectedTables]:
        sigma = process.noise_scale(grid.times)
        levels = map(Level, grid.times, process.signal(grid.times), process.ancillary_factor(grid.times))
        inner = self.solver.prepare(EDM(float(sigma[0])), Grid(sigma, "none"))
        return Plan(grid, ProjectedTables(inner, dict(zip(sigma.tolist(), levels, strict=True))))

    def grid_nfe(self, nfe: int) -> int:
        return self.solver.grid_nfe(nfe)

    def grid(self, name: str, process: LinearProcess, nfe: int) -> Grid:
        if name == "optimised":
            return optimised_projected(process, self.grid_nfe(nfe))
        return super().grid(name, process, nfe)

    def best_grid(self, process: LinearProcess, nfe: int) -> Grid:
        if isinstance(self.solver, FixedStepSampler):
            return best(process, self.grid_nfe(nfe), projected=True)
        return super().best_grid(process, nfe)

    def integrate(
        self,
        model: Model,
        z: States,
        plan: Plan[ProjectedTables],
        noise: Noise,
        watch: Watcher | None = None,
    ) -> tuple[States, Int64[Tensor, " B"]]:
        inner = plan.tables.inner
        start, end = inner.grid.times[[0, -1]]
        once = noise() if self.ancillary == "once" else None
        ancillary = noise if self.ancillary == "fresh" else lambda: once
        denoiser = Denoiser(model, EDM(float(start)), plan.tables.levels, ancillary)
        y = model.process.statistic(z, plan.grid.times[0])[0].unsqueeze(1)
        y, nfe = self.solver.integrate(denoiser, y, inner, lambda: noise()[:, :1], denoiser.watcher(watch))
        denoiser.renew()
        return denoiser.state(y, denoiser.level(end)), nfe


class Denoiser(Model):
    """The model of a process as one of `EDM`, for a solver of σ-space.

    Its times are noise scales, so the model inside is tabulated by whoever knows the times of its process.
    """

    def __init__(self, model: Model, process: EDM, levels: dict[float, Level], ancillary: Callable[[], Tensor | None]):
        self.process, self.data_shape, self.classes = process, model.data_shape, model.classes
        self.model, self.levels, self.ancillary = model, levels, ancillary
        self.renew()

    def __call__(self, z: Tensor, t: Times, **condition: Any) -> Prediction:
        y, sigma = z, torch.as_tensor(t)
        self.renew()
        level = self.level(sigma)
        x0 = self.model(self.state(y, level), level.t, **condition).x0
        variance = sigma.square()[..., None, None]
        return Prediction(y, Kernel(torch.ones_like(variance), variance), x0=x0)

    def renew(self) -> None:
        """The ancillary noise of the next state; only "fresh" makes another. Watching must not, so states do not."""
        self._latest = self.ancillary()

    def level(self, sigma: Tensor) -> Level:
        """The process where it is as noisy as σ: from the table, or solved for where the solver leaves the grid."""
        known = self.levels.get(float(sigma)) if sigma.ndim == 0 else None
        if known is not None:
            return known
        process = self.model.process
        t = process.time_of(sigma)
        return Level(t, process.signal(t), process.ancillary_factor(t))

    def state(self, y: Tensor, level: Level) -> Tensor:
        """A state of the process whose statistic is y, with the latest ancillary noise."""
        eps = self._latest
        if eps is None:
            return outer(level.signal, y[:, 0])
        if len(eps) != len(y):
            raise ValueError(
                "the solver drops finished samples, and their ancillary noise cannot follow: "
                "use Projected(solver, 'mean'), or RK45 with control='batch'."
            )
        return outer(level.signal, y[:, 0]) + mix(level.ancillary, eps)

    def watcher(self, watch):
        """A watcher of states, from one that is shown y."""
        if watch is None:
            return None

        def shown(sigma, y):
            level = self.level(sigma)
            watch(level.t, self.state(y, level))

        return shown
