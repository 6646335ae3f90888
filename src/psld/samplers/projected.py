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
from psld.samplers.grids import Grid, optimised_projected, safe
from psld.samplers.sampler import FixedStepSampler, Noise, Plan, Sampler, States, Watcher
from psld.spectrum import Spectrum

__all__ = ["Ancillary", "Projected", "Start"]

Ancillary = Literal["once", "fresh", "mean"]
"""Where the ancillary noise comes from: one draw for the whole path, a new one for every call, or its mean, zero."""

Start = Literal["prior", "gaussian"]
"""Where the first network call is made: at T, or at the second time of the grid, on the Gaussian of the data."""


class Level(NamedTuple):
    """One noise scale: the time of the process there, Φ₀, and the factor of its ancillary noise."""

    t: Tensor
    signal: Tensor
    ancillary: Tensor


class ProjectedTables(NamedTuple):
    """The solver's plan in σ, and the process at each of its noise scales.

    inner is None where the solver has no step to take: from the Gaussian to the image in one call.
    """

    inner: Plan[Any] | None
    start: float
    levels: dict[float, Level]


class Projected(Sampler):
    """A sampler of σ-space for every linear process.

    Args:
        solver: any sampler; it sees one variable, y, and the process `EDM`.
        ancillary: "once", "fresh" or "mean".
        start: "prior" makes the first network call at T; "gaussian" makes none there: the noise is taken to the second
            time of the grid by the flow of a Gaussian with the mean and the covariance of the data (`Model.spectrum`),
            which is what y looks like where σ is above the leading standard deviation.

    Raises:
        ValueError: another `ancillary` or `start`; at sampling, "gaussian" with a model that knows no spectrum.
    """

    shown = ("ancillary",)

    def __init__(self, solver: Sampler, ancillary: Ancillary = "once", start: Start = "prior"):
        if start not in ("prior", "gaussian"):
            raise ValueError(f"start must be 'prior' or 'gaussian': got {start!r}.")
        if ancillary not in ("once", "fresh", "mean"):
            raise ValueError(f"ancillary must be 'once', 'fresh' or 'mean': got {ancillary!r}.")
        self.solver = solver
        self.ancillary: Ancillary = ancillary
        self.start: Start = start
        self.order, self.nfe_per_step = solver.order, solver.nfe_per_step
        self.stochastic = solver.stochastic or ancillary == "fresh"

    def prepare(self, process: LinearProcess, grid: Grid) -> Plan[ProjectedTables]:
        sigma = process.noise_scale(grid.times)
        levels = map(Level, grid.times, process.signal(grid.times), process.ancillary_factor(grid.times))
        walked = sigma[1:] if self.start == "gaussian" else sigma
        inner = self.solver.prepare(EDM(float(walked[0])), Grid(walked, "none")) if len(walked) > 1 else None
        known = dict(zip(sigma.tolist(), levels, strict=True))
        return Plan(grid, ProjectedTables(inner, float(walked[0]), known))

    def grid_nfe(self, nfe: int) -> int:
        return self.solver.grid_nfe(nfe) + (self.start == "gaussian")

    def grid(self, name: str, process: LinearProcess, nfe: int, spectrum: Spectrum | None = None) -> Grid:
        if name == "optimised":
            return optimised_projected(process, self.grid_nfe(nfe))
        return super().grid(name, process, nfe, spectrum)

    def best_grid(self, process: LinearProcess, nfe: int, spectrum: Spectrum | None = None) -> Grid:
        """As that of the solver, whose steps in σ are all exact where x̂₀ does not change."""
        if not isinstance(self.solver, FixedStepSampler):
            return super().best_grid(process, nfe, spectrum)
        if spectrum is None:
            return safe(process, self.grid_nfe(nfe))
        from psld.samplers.fitting import fitted  # which samples mixtures, so it stands on samplers

        return fitted(process, self.solver.grid_nfe(nfe), spectrum, self.start == "gaussian")

    def integrate(
        self,
        model: Model,
        z: States,
        plan: Plan[ProjectedTables],
        noise: Noise,
        watch: Watcher | None = None,
    ) -> tuple[States, Int64[Tensor, " B"]]:
        inner, start, levels = plan.tables
        once = noise() if self.ancillary == "once" else None
        ancillary = noise if self.ancillary == "fresh" else lambda: once
        denoiser = Denoiser(model, EDM(start), levels, ancillary)
        y, sigma = model.process.statistic(z, plan.grid.times[0])
        if self.start == "gaussian":
            y = known_spectrum(model).noisy(y / sigma.to(y), start)
        y, nfe = y.unsqueeze(1), torch.zeros(len(y), dtype=torch.int64)
        if inner is not None:
            y, nfe = self.solver.integrate(denoiser, y, inner, lambda: noise()[:, :1], denoiser.watcher(watch))
        denoiser.renew()
        return denoiser.state(y, denoiser.level(plan.grid.times.new_tensor(list(levels)[-1]))), nfe


def known_spectrum(model: Model) -> Spectrum:
    """The spectrum of the data that a model knows; raises ValueError where it knows none."""
    if model.spectrum is None:
        raise ValueError(
            "start='gaussian' begins with the data's mean and covariance, and the model knows none: set model.spectrum "
            "(psld.spectrum.Spectrum.measure, or psld tune for a folder), or use start='prior'."
        )
    return model.spectrum


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

    def watcher(self, watch: Watcher | None) -> Watcher | None:
        """A watcher of states, from one that is shown y."""
        if watch is None:
            return None

        def shown(sigma: Tensor, y: Tensor) -> None:
            level = self.level(sigma)
            watch(level.t, self.state(y, level))

        return shown
