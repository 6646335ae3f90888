"""The loop that every fixed-step sampler shares; a sampler itself is its tables and its step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from psld.kernels import mix
from psld.model import ScoreModel
from psld.noise import SeededNoise
from psld.processes import LinearProcess
from psld.samplers.grids import Grid, named, optimised

__all__ = ["Noise", "Plan", "Sampler", "Samples", "Watcher", "require_stepwise", "reverse_drift"]

Noise = Callable[[], Tensor]
"""Each call returns fresh standard normal draws of the shape of the state, (B, k, *data)."""

Watcher = Callable[[Tensor, Tensor], object]
"""Called with (t, z) before each step and after the last: for progress bars and trajectories."""


class Plan(NamedTuple):
    """A grid with its float64 tables, one row a step; reusable for every batch."""

    grid: Grid
    tables: Any


class Samples(NamedTuple):
    """What sampling returns: images x (B, *data), last states z (B, k, *data), evaluations a sample nfe (B,)."""

    x: Tensor
    z: Tensor
    nfe: Tensor


class Sampler(ABC):
    """Reverses a process along a grid.

    A fixed-step sampler defines `coefficients` (float64 k×k tables for all steps t → s at once) and `step`.

    Attributes:
        order: order of convergence in the step of the grid; weak order where stochastic.
        stochastic: whether steps draw noise.
        evaluations: network calls a step.
        sigma_space: whether it walks in the statistic y instead of in the states of the process.
        stepwise: whether a sampler around it may call its `step`; not where it, or its solver, chooses the steps.
    """

    order: int
    stochastic: bool
    evaluations: int = 1
    sigma_space: bool = False
    stepwise: bool = True

    @abstractmethod
    def coefficients(self, process: LinearProcess, t: Float[Tensor, " n"], s: Float[Tensor, " n"]) -> Any:
        """Tables for the steps t → s (s < t), each field with a leading dimension over steps."""

    @abstractmethod
    def step(self, z: Tensor, c: Any, model: ScoreModel, t: Tensor, noise: Noise) -> Tensor:
        """One step from z at time t, with this step's row `c` of the tables, as a first step where it remembers any."""

    def begin(self) -> Callable[..., Tensor]:
        """`step`, ready for a first step; a sampler that remembers earlier steps gives it an empty memory here."""
        return self.step

    def prepare(self, process: LinearProcess, grid: Grid) -> Plan:
        """Tabulate a grid for a process."""
        return Plan(grid, self.coefficients(process, grid.times[:-1], grid.times[1:]))

    def grid(self, name: str, process: LinearProcess, nfe: int) -> Grid:
        """The grid of that name (`psld.samplers.grids.NAMES`) or JSON file, with the steps that `nfe` calls allow.

        Raises:
            ValueError: an unknown name, or a budget too small for one step.
        """
        if name.endswith(".json"):
            return Grid.load(name)
        if name == "optimised":
            return optimised(process, (nfe - 1) // self.evaluations + 1, self.sigma_space)
        return named(name, process, (nfe - 1) // self.evaluations + 1)

    def integrate(
        self, model: ScoreModel, z: Tensor, plan: Plan, noise: Noise, watch: Watcher | None = None
    ) -> tuple[Tensor, Tensor]:
        """Carry z from the first time of the grid to the last; returns the state and the evaluations a sample."""
        step = self.begin()
        for i, t in enumerate(plan.grid.times[:-1]):
            if watch is not None:
                watch(t, z)
            z = step(z, row(plan.tables, i), model, t, noise)
        if watch is not None:
            watch(plan.grid.times[-1], z)
        return z, torch.full((len(z),), self.evaluations * plan.grid.steps)

    @torch.no_grad()
    def sample(
        self,
        model: ScoreModel,
        shape: tuple[int, ...],
        grid: Grid,
        seeds: Iterable[int],
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
        plan: Plan | None = None,
        watch: Watcher | None = None,
    ) -> Samples:
        """One sample a seed.

        Args:
            model: score of the process, of any kind.
            shape: of one image, (C, H, W) or any other.
            grid: times, and what becomes of the last state.
            seeds: one integer a sample; a sample depends on its own seed only.
            dtype: of the state; the network runs in its own precision. float32 for devices without float64.
            device: of the state; the network must be there.
            plan: tables from an earlier `prepare` of the same process and grid.
            watch: called with (t, z) before each step and after the last (fixed-step samplers).
        """
        noise = SeededNoise(seeds, (model.process.k, *shape), dtype, device)
        return self.carry(model, model.process.prior_sample(noise()), grid, noise, plan, watch)

    def carry(
        self,
        model: ScoreModel,
        z: Float[Tensor, "B k *data"],
        grid: Grid,
        noise: Noise,
        plan: Plan | None = None,
        watch: Watcher | None = None,
    ) -> Samples:
        """States at the first time of the grid, of the prior or not, as images; arguments as for `sample`."""
        model = model.tabulate(grid.times)
        z, nfe = self.integrate(model, z, plan or self.prepare(model.process, grid), noise, watch)
        return finish(model, z, grid, nfe)

    def batches(
        self,
        model: ScoreModel,
        shape: tuple[int, ...],
        grid: Grid,
        seeds: Sequence[int],
        batch_size: int,
        device: torch.device | str = "cpu",
    ) -> Iterator[Samples]:
        """`sample` for many seeds, a batch at a time, from tables made once."""
        plan, model = self.prepare(model.process, grid), model.tabulate(grid.times)
        for start in range(0, len(seeds), batch_size):
            yield self.sample(model, shape, grid, seeds[start : start + batch_size], device=device, plan=plan)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def row(tables: Any, i: int) -> Any:
    """Step i of the tables, which may hold the tables of another sampler."""
    return type(tables)(*(row(table, i) if isinstance(table, tuple) else table[i] for table in tables))


def finish(model: ScoreModel, z: Tensor, grid: Grid, nfe: Tensor) -> Samples:
    """From the last state to an image, as the grid says."""
    end = grid.times[-1]
    if grid.final == "none":
        return Samples(model.process.project(z), z, nfe)
    prediction = model(z, end)
    if grid.final == "denoise":
        return Samples(prediction.x0, z, nfe + 1)
    z = z - end * reverse_drift(model.process, z, prediction.score, end)
    return Samples(model.process.project(z), z, nfe + 1)


def require_stepwise(sampler: Sampler, wrapper: str) -> Sampler:
    """The sampler itself, if one around it can take its steps.

    Raises:
        ValueError: it chooses its steps, or leaves them to a solver.
    """
    if sampler.sigma_space:
        raise ValueError(f"Projected leaves the steps to its solver: use Projected({wrapper}(solver, …)).")
    if not sampler.stepwise:
        raise ValueError(f"{sampler!r} chooses its own steps: {wrapper} needs a fixed-step sampler.")
    return sampler


def reverse_drift(process: LinearProcess, z: Tensor, score: Tensor, t: Tensor) -> Tensor:
    """f(z, t) − 2βD ∇log p_t: the drift of the reverse SDE, in forward time (Anderson, 1982)."""
    return mix(process.drift_rate(t), z) - mix(2.0 * process.diffusion_rate(t), score)
