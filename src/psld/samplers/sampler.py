"""The contract of a sampler: what reverses a process, and the loop that every fixed-step sampler shares.

A `Sampler` carries states from the first time of a grid to the last (`integrate`); drawing noise, placing states on a
device and making images of the last states is done here, once. A `FixedStepSampler` is tables and a step:

    class Ancestral(OneStepSampler[AncestralStep]):
        def tables(self, process, t, s) -> AncestralStep: ...        # float64, all steps t → s at once
        def step(self, z, state, row, model, t, noise): ...          # one step, with its row of the tables
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from psld.kernels import mix
from psld.model import Model
from psld.noise import SeededNoise
from psld.processes import LinearProcess
from psld.samplers.divergence import diverged, warn_of_diverged
from psld.samplers.grids import Grid, ends, named, quadratic, safe
from psld.specs import SpecifiedValue
from psld.specs.arguments import check_call, device_name, image_shape, seed_numbers, whole
from psld.spectrum import Spectrum

__all__ = [
    "FixedStepSampler",
    "Noise",
    "OneStepSampler",
    "Plan",
    "Sampler",
    "Samples",
    "States",
    "Times",
    "Watcher",
    "require_fixed_steps",
    "reverse_drift",
    "row",
]

Tables = TypeVar("Tables", bound=tuple)
"""A NamedTuple of tensors, or a tuple of such; in the tables of a grid each tensor has a leading dimension of steps."""

State = TypeVar("State")
"""What a sampler remembers from one step to the next."""

Times = Float[Tensor, " n"]
"""The starts, or the ends, of all steps of a grid."""

States = Float[Tensor, "B k *data"]
"""States of the process, one a sample."""

Noise = Callable[[], Tensor]
"""Each call returns fresh standard normal draws of the shape of the state, (B, k, *data)."""

Watcher = Callable[[Tensor, Tensor], object]
"""Called with (t, z) before each step and after the last: for progress bars and trajectories."""


@dataclass(frozen=True, eq=False)
class Plan(Generic[Tables]):
    """A grid with a sampler's float64 tables on it; reusable for every batch of the same process."""

    grid: Grid
    tables: Tables


@dataclass(frozen=True, eq=False, repr=False)
class Samples:
    """What sampling returns.

    Attributes:
        x: images, (B, *data).
        z: last states, (B, k, *data).
        nfe: network evaluations of each sample, (B,).
        seeds: of each sample.
        diverged: which samples are not finite, or far outside what the process allows (`psld.samplers.divergence`),
            (B,), on the CPU.
    """

    x: Float[Tensor, "B *data"]
    z: States
    nfe: Int64[Tensor, " B"]
    seeds: tuple[int, ...]
    diverged: Bool[Tensor, " B"]

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        few, many = int(self.nfe.min()), int(self.nfe.max())
        calls = f"{few}" if few == many else f"{few} … {many}"
        seeds = f"{self.seeds[0]}" if len(self) == 1 else f"{self.seeds[0]} … {self.seeds[-1]}"
        kind, count = f"{self.x.dtype}".removeprefix("torch."), int(self.diverged.sum())
        wrong = f", {count} diverged" if count else ""
        return f"Samples({len(self)} of shape {tuple(self.x.shape[1:])}, {kind}, nfe {calls}, seeds {seeds}{wrong})"

    @staticmethod
    def joined(parts: Sequence[Samples]) -> Samples:
        """Several batches as one."""
        return Samples(
            torch.cat([part.x for part in parts]),
            torch.cat([part.z for part in parts]),
            torch.cat([part.nfe for part in parts]),
            tuple(seed for part in parts for seed in part.seeds),
            torch.cat([part.diverged for part in parts]),
        )


MOST_SAMPLES, MOST_STEPS = 10**8, 10**6
"""Of one call, at most."""


class Sampler(SpecifiedValue, ABC):
    """Reverses a process along a grid.

    Attributes:
        order: order of convergence in the step of the grid; weak order where stochastic.
        stochastic: whether steps draw noise.
        nfe_per_step: network calls of one step.
    """

    order: int
    stochastic: bool
    nfe_per_step: int = 1

    @abstractmethod
    def prepare(self, process: LinearProcess, grid: Grid) -> Plan[Any]:
        """Tabulate a grid for a process.

        Raises:
            ValueError: the process lacks what the sampler needs.
        """

    @abstractmethod
    def integrate(
        self,
        model: Model,
        z: States,
        plan: Plan[Any],
        noise: Noise,
        watch: Watcher | None = None,
    ) -> tuple[States, Int64[Tensor, " B"]]:
        """Carry z from the first time of the grid to the last; returns the states and the evaluations of each."""

    def finish(self, model: Model, z: States, grid: Grid) -> tuple[Float[Tensor, "B *data"], States, int]:
        """From states at the last time to images, as the grid says: images, last states, evaluations spent."""
        end = grid.times[-1]
        if grid.final == "none":
            return model.process.project(z), z, 0
        prediction = model(z, end)
        if grid.final == "denoise":
            return prediction.x0, z, 1
        z = z - end * reverse_drift(model.process, z, prediction.score, end)
        return model.process.project(z), z, 1

    def grid(self, name: str, process: LinearProcess, nfe: int, spectrum: Spectrum | None = None) -> Grid:
        """The grid of that name (`psld.samplers.grids.NAMES`) or JSON file, with the steps that `nfe` calls allow.

        "best" is `best_grid`, which knows the spectrum of the data where it is given.

        Raises:
            ValueError: an unknown name, or a budget too small for one step.
        """
        if name == "best":
            return self.best_grid(process, nfe, spectrum)
        return Grid.load(name) if name.endswith(".json") else named(name, process, self.grid_nfe(nfe))

    def best_grid(self, process: LinearProcess, nfe: int, spectrum: Spectrum | None = None) -> Grid:
        """What `sample` uses unless told otherwise; here the ends alone, for samplers that choose their own steps.

        Args:
            process: of the model.
            nfe: network calls, the final one included.
            spectrum: of the data, where it is known.

        Raises:
            ValueError: a budget too small for one step.
        """
        return ends(process)

    def grid_nfe(self, nfe: int) -> int:
        """The `nfe` of a grid with as many steps as `nfe` calls allow this sampler: grids count one call a step."""
        return nfe

    @torch.no_grad()
    def sample(
        self,
        model: Model,
        n: int | None = None,
        grid: Grid | Plan[Any] | str | None = None,
        seeds: int | Sequence[int] = 0,
        *,
        steps: int = 20,
        shape: tuple[int, ...] | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        batch_size: int | None = None,
        progress: bool = False,
        watch: Watcher | None = None,
    ) -> Samples:
        """Images from noise. A sample depends on its own seed only, up to the rounding of the network.

        Warns of samples that diverged (`DivergedWarning`), and `Samples.diverged` says which.

        Args:
            model: score of the process, of any kind.
            n: how many; as many as there are seeds when None.
            grid: times, and what becomes of the last state: a `Grid`; a `Plan` of an earlier `prepare` with the same
                process; a name or JSON file, as for `Sampler.grid`; None for the best one known for the process, the
                number of steps and the data (`best_grid`).
            seeds: the first of n consecutive seeds, or one a sample.
            steps: network evaluations of a sample, the last denoising included; for a grid that is made here.
            shape: of one image, (C, H, W) or any other; the model's `data_shape` when None.
            dtype: of the states; the network runs in its own precision. When None float64 on a CPU, and float32 on
                devices whose float64 is slow or missing.
            device: of the states; the network must be there. When None that of the network's weights.
            batch_size: samples at a time; all at once when None.
            progress: show a progress bar.
            watch: called with (t, z) before each step and after the last; never by samplers that choose their steps.

        Raises:
            ValueError: n and seeds contradict each other or say nothing; the shape is unknown; the process lacks what
                the sampler needs; a grid that cannot be made.
        """
        check_call(Sampler.sample, locals())
        model, plan, noises = self._begun(model, n, grid, seeds, steps, shape, dtype, device, batch_size)
        parts: list[Samples] = []
        with _bar(self, plan.grid, len(noises)) if progress else nullcontext() as bar:
            watch = watch if bar is None else _counting(bar, watch)
            for noise_of_batch in noises:  # as in `batches`, whose own frames would lie above every call of the network
                noise = noise_of_batch()
                z, nfe = self.integrate(model, model.process.prior_sample(noise()), plan, noise, watch)
                parts.append(self._judged(model, z, nfe, plan.grid, noise.seeds))
            if bar is not None:
                bar.update(bar.total - bar.n)  # of those that choose their steps none was seen
        samples = Samples.joined(parts)
        warn_of_diverged(samples.diverged, samples.seeds)
        return samples

    def batches(
        self,
        model: Model,
        n: int | None = None,
        grid: Grid | Plan[Any] | str | None = None,
        seeds: int | Sequence[int] = 0,
        *,
        batch_size: int,
        steps: int = 20,
        shape: tuple[int, ...] | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        watch: Watcher | None = None,
    ) -> Iterator[Samples]:
        """`sample`, a batch at a time, for runs whose samples do not fit in memory together; arguments as there.

        Says nothing of samples that diverged but in `Samples.diverged`.
        """
        whole("batch_size", batch_size)
        model, plan, noises = self._begun(model, n, grid, seeds, steps, shape, dtype, device, batch_size)
        for noise_of_batch in noises:
            noise = noise_of_batch()
            with torch.no_grad():
                z, nfe = self.integrate(model, model.process.prior_sample(noise()), plan, noise, watch)
                samples = self._judged(model, z, nfe, plan.grid, noise.seeds)
            yield samples

    def carry(
        self,
        model: Model,
        z: States,
        grid: Grid | Plan[Any],
        noise: SeededNoise,
        watch: Watcher | None = None,
    ) -> Samples:
        """States at the first time of the grid, of the prior or not, as images; those that diverged are only marked."""
        plan = self._plan(grid, model.process, 0)
        model = model.tabulate(plan.grid.times)
        z, nfe = self.integrate(model, z, plan, noise, watch)
        return self._judged(model, z, nfe, plan.grid, noise.seeds)

    def _judged(self, model: Model, z: States, nfe: Int64[Tensor, " B"], grid: Grid, seeds: tuple[int, ...]) -> Samples:
        """The images of states at the last time of the grid, and which of them diverged."""
        x, z, last = self.finish(model, z, grid)
        return Samples(x, z, nfe + last, seeds, diverged(model.process, x, z, grid.times[-1], model.data_range))

    def _begun(
        self,
        model: Model,
        n: int | None,
        grid: Grid | Plan[Any] | str | None,
        seeds: int | Sequence[int],
        steps: int,
        shape: tuple[int, ...] | None,
        dtype: torch.dtype | None,
        device: torch.device | str | None,
        batch_size: int | None,
    ) -> tuple[Model, Plan[Any], list[Callable[[], SeededNoise]]]:
        """The model and the plan that arguments of `sample` stand for, and what makes the noise of each batch."""
        seeds, shape = _chosen_seeds(n, seeds), _chosen_shape(shape, model)
        whole("steps", steps, most=MOST_STEPS)
        size = len(seeds) if batch_size is None else whole("batch_size", batch_size)
        plan = self._plan(grid, model.process, steps, model.spectrum)
        model = model.tabulate(plan.grid.times)
        device = model.device if device is None else device_name("device", device)
        dtype = dtype or (torch.float64 if device.type == "cpu" else torch.float32)
        batches = [seeds[start : start + size] for start in range(0, len(seeds), size)]
        state = model.process.k, *shape
        return model, plan, [partial(SeededNoise, batch, state, dtype, device) for batch in batches]

    def _plan(
        self,
        grid: Grid | Plan[Any] | str | None,
        process: LinearProcess,
        steps: int,
        spectrum: Spectrum | None = None,
    ) -> Plan[Any]:
        if isinstance(grid, Plan):
            return grid
        if grid is None or isinstance(grid, str):
            grid = self.grid("best" if grid is None else grid, process, steps, spectrum)
        return self.prepare(process, grid)


class FixedStepSampler(Sampler, Generic[Tables, State]):
    """A sampler that walks a given grid, one row of float64 tables a step.

    `step` is a function of its arguments: what a sampler remembers of earlier steps is in `state`, which `init` makes
    and `step` returns anew, never changed in place. So one sampler may serve any number of runs at once.

    Attributes:
        long_steps: whether a step of any length is exact where x̂₀ does not change, so that a grid may leave out the σ
            at which nothing is decided.
    """

    long_steps: bool = False

    @abstractmethod
    def tables(self, process: LinearProcess, t: Times, s: Times) -> Tables:
        """Coefficients of the steps t → s (s < t), consecutive ones: float64, with a leading dimension of steps.

        Raises:
            ValueError: the process lacks what the sampler needs.
        """

    @abstractmethod
    def init(self, z: States) -> State:
        """The memory before the first step, from z."""

    @abstractmethod
    def step(
        self,
        z: States,
        state: State,
        row: Tables,
        model: Model,
        t: Float[Tensor, ""],
        noise: Noise,
    ) -> tuple[States, State]:
        """One step from z at time t, with this step's row of the tables: the state of the process and the memory."""

    def prepare(self, process: LinearProcess, grid: Grid) -> Plan[Tables]:
        return Plan(grid, self.tables(process, grid.times[:-1], grid.times[1:]))

    def integrate(
        self,
        model: Model,
        z: States,
        plan: Plan[Tables],
        noise: Noise,
        watch: Watcher | None = None,
    ) -> tuple[States, Int64[Tensor, " B"]]:
        state, times = self.init(z), plan.grid.times
        for i, t in enumerate(times[:-1]):
            if watch is not None:
                watch(t, z)
            z, state = self.step(z, state, row(plan.tables, i), model, t, noise)
        if watch is not None:
            watch(times[-1], z)
        return z, torch.full((len(z),), self.nfe_per_step * plan.grid.steps)

    def grid_nfe(self, nfe: int) -> int:
        return (nfe - 1) // self.nfe_per_step + 1

    def best_grid(self, process: LinearProcess, nfe: int, spectrum: Spectrum | None = None) -> Grid:
        """From the data's spectrum where it is known, else `safe`; `quadratic` where long steps are not exact."""
        if not self.long_steps:
            return quadratic(process, self.grid_nfe(nfe))
        if spectrum is None:
            return safe(process, self.grid_nfe(nfe))
        from psld.samplers.fitting import fitted  # which samples mixtures, so it stands on samplers

        return fitted(process, self.grid_nfe(nfe), spectrum)


class OneStepSampler(FixedStepSampler[Tables, None]):
    """A fixed-step sampler that remembers nothing."""

    def init(self, z: States) -> None:
        """Nothing."""


def row(tables: Tables, i: int) -> Tables:
    """Step i of the tables, which may hold the tables of another sampler."""
    own = [row(table, i) if isinstance(table, tuple) else table[i] for table in tables]
    return type(tables)._make(own) if hasattr(tables, "_make") else type(tables)(own)  # pyright: ignore[reportAttributeAccessIssue]


def require_fixed_steps(sampler: Sampler, who: str) -> FixedStepSampler[Any, Any]:
    """The sampler itself, if one around it can take its steps.

    Raises:
        ValueError: it chooses its steps, or leaves them to a solver.
    """
    if not isinstance(sampler, FixedStepSampler):
        raise ValueError(
            f"{who} needs a fixed-step sampler, such as Exponential or EulerMaruyama, and {sampler!r} chooses its own "
            f"steps; in σ-space use Projected({who}(solver, …))."
        )
    return sampler


def reverse_drift(process: LinearProcess, z: States, score: States, t: Tensor) -> States:
    """f(z, t) − 2βD ∇log p_t: the drift of the reverse SDE, in forward time (Anderson, 1982)."""
    return mix(process.drift_rate(t), z) - mix(2.0 * process.diffusion_rate(t), score)


def _chosen_shape(shape: Sequence[int] | None, model: Model) -> tuple[int, ...]:
    return model.known_shape() if shape is None else image_shape("shape", shape)


def _chosen_seeds(n: int | None, seeds: int | Sequence[int]) -> tuple[int, ...]:
    if n is not None:
        whole("n", n, most=MOST_SAMPLES)
    if not isinstance(seeds, Sequence | np.ndarray | Tensor):
        if n is None:
            raise ValueError("n must be how many samples to draw, or seeds a sequence, one a sample: got None.")
        return tuple(range(*seed_numbers("seeds", (seeds, seeds + n))))
    chosen = seed_numbers("seeds", seeds)
    if n is not None and n != len(chosen):
        raise ValueError(f"{len(chosen)} seeds for n = {n} samples: give one seed a sample, or leave n out.")
    return chosen


def _bar(sampler: Sampler, grid: Grid, batches: int):
    from tqdm import tqdm

    return tqdm(total=batches * len(grid.times), unit="step", desc=type(sampler).__name__)


def _counting(bar: Any, watch: Watcher | None) -> Watcher:
    """A watcher that moves the bar on, and passes on what it is shown."""

    def seen(t: Tensor, z: Tensor) -> None:
        bar.update()
        if watch is not None:
            watch(t, z)

    return seen
