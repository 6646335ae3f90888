"""Inpainting by replacement in phase space: known pixels follow the forward process, unknown ones are sampled.

Position and momentum of a known pixel are drawn from the exact kernel at the same t as the unknown ones, jointly over
the grid: given x₀ the reversed path is Gaussian, and its step is `Ancestral`'s with x̂₀ = x₀ (for VP, drawn at each t
anew: Song et al., ICLR 2021). RePaint's resampling (Lugmayr et al., CVPR 2022) goes back from s to t by the forward
kernel and steps again, which lets unknown pixels come to agree with the known ones.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from psld.inverse.operators import require_mask
from psld.kernels import mix, outer
from psld.samplers.ancestral import Ancestral, AncestralStep
from psld.samplers.base import Plan, Sampler, require_stepwise, row

__all__ = ["Replacement"]


class ReplacementTables(NamedTuple):
    """inner: the sampler's; known: the step of known pixels; back = Φ and spread = L of the kernel from s to t."""

    inner: Any
    known: AncestralStep
    back: Tensor
    spread: Tensor


class Replacement(Sampler):
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

    stepwise = False

    def __init__(
        self,
        sampler: Sampler,
        images: Float[Tensor, "B *data"],
        known: Bool[Tensor, "*data"],
        resamplings: int = 1,
    ):
        if resamplings < 1:
            raise ValueError(f"every step is taken at least once: got resamplings = {resamplings}.")
        self.known = require_mask(known, tuple(images.shape[1:]))
        self.sampler, self.images, self.resamplings = require_stepwise(sampler, "Replacement"), images, resamplings
        self.order = sampler.order
        self.stochastic, self.evaluations = True, sampler.evaluations * resamplings

    def coefficients(self, process, t, s):
        raise TypeError("the tables of Replacement are made by prepare, from those of its sampler.")

    def step(self, z, c, model, t, noise):
        raise TypeError("Replacement takes its sampler's steps: call sample or integrate.")

    def prepare(self, process, grid):
        t, s = grid.times[:-1], grid.times[1:]
        forward = process.transition(s, t)
        inner = self.sampler.prepare(process, grid).tables
        known = Ancestral().coefficients(process, t, s)
        return Plan(grid, ReplacementTables(inner, known, forward.mean_map, forward.cholesky))

    def integrate(self, model, z, plan, noise, watch=None):
        times, images = plan.grid.times, self._images(z)
        z = self.place(z, model.process.marginal(times[0]).sample(model.process.lift(images), noise()))
        step = self.sampler.begin()
        for i, t in enumerate(times[:-1]):
            c = row(plan.tables, i)
            if watch is not None:
                watch(t, z)
            for left in reversed(range(self.resamplings)):
                beside = outer(c.known.signal_s, images) + mix(c.known.gain, z - outer(c.known.signal_t, images))
                z = self.place(step(z, c.inner, model, t, noise), beside + mix(c.known.spread, noise()))
                if left:
                    z = mix(c.back, z) + mix(c.spread, noise())
                    step = self.sampler.begin()  # what was remembered belongs to a path that is undone
        if watch is not None:
            watch(times[-1], z)
        return z, torch.full((len(z),), self.evaluations * plan.grid.steps)

    def sample(self, *args: Any, **options: Any):
        """As of any sampler; known pixels of the images returned are exactly those given."""
        samples = super().sample(*args, **options)
        images = self.images.to(samples.x).expand_as(samples.x)
        return samples._replace(x=torch.where(self.known.to(samples.x.device), images, samples.x))

    def place(self, z: Float[Tensor, "B k *data"], known: Float[Tensor, "B k *data"]) -> Float[Tensor, "B k *data"]:
        """z with the variables of known pixels from another state."""
        return torch.where(self.known.to(z.device), known, z)

    def _images(self, z: Tensor) -> Float[Tensor, "B *data"]:
        if len(self.images) not in (1, len(z)):
            raise ValueError(f"{len(self.images)} images for {len(z)} samples: give one for all, or one a sample.")
        return self.images.to(z).expand(len(z), *self.images.shape[1:])

    def __repr__(self) -> str:
        return f"Replacement({self.sampler!r}, resamplings={self.resamplings})"
