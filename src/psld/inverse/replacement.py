"""Inpainting by replacement in phase space: known pixels follow the forward process, unknown ones are sampled.

Position and momentum of a known pixel are drawn from the exact kernel at the same t as the unknown ones, jointly over
the grid: given x₀ the reversed path is Gaussian, and its step is `Ancestral`'s with x̂₀ = x₀ (for VP, drawn at each t
anew: Song et al., ICLR 2021). RePaint's resampling (Lugmayr et al., CVPR 2022) goes back from s to t by the forward
kernel and steps again, which lets unknown pixels come to agree with the known ones.
"""

from __future__ import annotations

from typing import Generic, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from psld.inverse.operators import require_mask
from psld.kernels import mix, outer
from psld.model import Model
from psld.processes import LinearProcess
from psld.samplers.ancestral import Ancestral, AncestralStep
from psld.samplers.grids import Grid
from psld.samplers.sampler import (
    FixedStepSampler,
    Noise,
    Plan,
    Sampler,
    State,
    States,
    Tables,
    Watcher,
    require_fixed_steps,
    row,
)
from psld.specs.arguments import whole
from psld.spectrum import Spectrum

__all__ = ["Replacement"]


class ReplacementTables(NamedTuple):
    """known: the step of known pixels; forward_map = Φ and forward_noise = L of the kernel from s to t."""

    known: AncestralStep
    forward_map: Tensor
    forward_noise: Tensor


class Replacement(Sampler, Generic[Tables, State]):
    """Any fixed-step sampler, with the known pixels put in place before every step and in the result.

    For a sampler of σ-space wrap the solver, `Projected(Replacement(solver, …))`, and place known pixels in the images.

    Args:
        sampler: takes the steps, and does not know.
        images: one for all samples (1, *data), or one a sample.
        known: True where a pixel is known, of the shape of one image.
        resamplings: how often each step is taken; each time but the last is undone by the forward kernel.

    Raises:
        ValueError: a sampler that chooses its own steps; a mask of another size, or one that knows nothing or all; no
            resampling; at a call, another number of images than samples.
    """

    shown = ("resamplings",)

    def __init__(
        self,
        sampler: FixedStepSampler[Tables, State],
        images: Float[Tensor, "B *data"],
        known: Bool[Tensor, "*data"],
        resamplings: int = 1,
    ):
        whole("resamplings", resamplings)
        self.known = require_mask(known, tuple(images.shape[1:]))
        require_fixed_steps(sampler, "Replacement")
        self.sampler, self.images, self.resamplings = sampler, images, resamplings
        self.order = sampler.order
        self.stochastic, self.nfe_per_step = True, sampler.nfe_per_step * resamplings

    def grid_nfe(self, nfe: int) -> int:
        return (nfe - 1) // self.nfe_per_step + 1

    def best_grid(self, process: LinearProcess, nfe: int, spectrum: Spectrum | None = None) -> Grid:
        """That of its sampler, for as many steps as the resamplings leave."""
        return self.sampler.best_grid(process, (nfe - 1) // self.resamplings + 1, spectrum)

    def prepare(self, process: LinearProcess, grid: Grid) -> Plan[tuple[Tables, ReplacementTables]]:
        t, s = grid.times[:-1], grid.times[1:]
        forward = process.transition(s, t)
        known = Ancestral().tables(process, t, s)
        return Plan(
            grid,
            (self.sampler.tables(process, t, s), ReplacementTables(known, forward.mean_map, forward.cholesky)),
        )

    def integrate(
        self,
        model: Model,
        z: States,
        plan: Plan[tuple[Tables, ReplacementTables]],
        noise: Noise,
        watch: Watcher | None = None,
    ) -> tuple[States, Int64[Tensor, " B"]]:
        times, images = plan.grid.times, self._images(z)
        z = self.place(z, model.process.marginal(times[0]).sample(model.process.lift(images), noise()))
        state = self.sampler.init(z)
        for i, t in enumerate(times[:-1]):
            inner, own = row(plan.tables, i)
            if watch is not None:
                watch(t, z)
            for left in reversed(range(self.resamplings)):
                beside = outer(own.known.signal_s, images) + mix(own.known.gain, z - outer(own.known.signal_t, images))
                z, state = self.sampler.step(z, state, inner, model, t, noise)
                z = self.place(z, beside + mix(own.known.noise, noise()))
                if left:
                    z = mix(own.forward_map, z) + mix(own.forward_noise, noise())
                    state = self.sampler.init(z)  # what was remembered belongs to a path that is undone
        if watch is not None:
            watch(times[-1], z)
        return z, torch.full((len(z),), self.nfe_per_step * plan.grid.steps)

    def finish(
        self, model: Model, z: States, grid: Grid
    ) -> tuple[Float[Tensor, "B *data"], Float[Tensor, "B k *data"], int]:
        """As of any sampler; known pixels of the images are exactly those given."""
        x, z, nfe = super().finish(model, z, grid)
        return torch.where(self.known.to(x.device), self.images.to(x).expand_as(x), x), z, nfe

    def place(self, z: Float[Tensor, "B k *data"], known: Float[Tensor, "B k *data"]) -> Float[Tensor, "B k *data"]:
        """z with the variables of known pixels from another state."""
        return torch.where(self.known.to(z.device), known, z)

    def _images(self, z: Tensor) -> Float[Tensor, "B *data"]:
        if len(self.images) not in (1, len(z)):
            raise ValueError(f"{len(self.images)} images for {len(z)} samples: give one for all, or one a sample.")
        return self.images.to(z).expand(len(z), *self.images.shape[1:])
