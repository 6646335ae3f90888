"""From images to states and back: SDEdit, and interpolation in the prior along the probability flow."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from psld.model import Model
from psld.noise import SeededNoise
from psld.samplers.divergence import warn_of_diverged
from psld.samplers.dormand_prince import DormandPrince
from psld.samplers.grids import Grid
from psld.samplers.runge_kutta import flow
from psld.samplers.sampler import Sampler, Samples
from psld.specs.arguments import checked, fraction, positive

__all__ = ["decode", "edit", "encode", "from_time", "slerp"]


@checked
def from_time(grid: Grid, start: float) -> Grid:
    """The part of a grid below `start`, which becomes its first time.

    Raises:
        ValueError: `start` is not above the last time of the grid, or above its first.
    """
    first, last = float(grid.times[0]), float(grid.times[-1])
    if not last < start <= first:
        raise ValueError(f"start must lie in ({last:g}, {first:g}], the times of the grid: got {start}.")
    below = grid.times[grid.times < start]
    return Grid(torch.cat([grid.times.new_tensor([start]), below]), grid.final)


@checked
@torch.no_grad()
def edit(
    sampler: Sampler,
    model: Model,
    images: Float[Tensor, "B *data"],
    grid: Grid,
    seeds: Iterable[int],
) -> Samples:
    """SDEdit (Meng et al., ICLR 2022): each image perturbed to the first time of the grid, and sampled from there.

    Position and momentum come from the exact kernel given the image; the later the time, the less of it is kept. Warns
    of samples that diverged, as `Sampler.sample`.

    Args:
        sampler: any.
        model: any, on the device of the images.
        images: (B, *data); their dtype is the state's.
        grid: from t₀ down; `from_time` cuts one.
        seeds: one integer an image.
    """
    process = model.process
    noise = SeededNoise(seeds, (process.k, *images.shape[1:]), images.dtype, images.device)
    samples = sampler.carry(model, process.perturb(images, grid.times[0], noise()), grid, noise)
    warn_of_diverged(samples.diverged, samples.seeds)
    return samples


@checked
@torch.no_grad()
def encode(
    model: Model,
    images: Float[Tensor, "B *data"],
    seeds: Iterable[int],
    start: float = 1e-3,
    tolerance: float = 1e-5,
) -> Float[Tensor, "B k *data"]:
    """The states at T that images flow to: at time `start` positions are the images, momenta draws beside them.

    Momenta are drawn from the kernel at `start` given x₀ and that the position is x₀ too, so that they are as large as
    a state has them there, and `decode` returns the images, to the tolerance.

    Args:
        model: any.
        images: (B, *data).
        seeds: one integer an image, for its momentum.
        start: a time in (0, T).
        tolerance: relative and absolute, of a step of the solver.
    """
    process = model.process
    if not 0.0 < start < process.T:
        raise ValueError(f"start must lie in (0, {process.T:g}): got {start}.")
    positive("tolerance", tolerance)
    noise = SeededNoise(seeds, (process.k, *images.shape[1:]), images.dtype, images.device)
    kernel, eps = process.marginal(start), noise()
    eps[:, 0] = images * ((1.0 - kernel.mean_map[0, 0]) / kernel.cholesky[0, 0]).to(images)
    z = kernel.sample(process.lift(images), eps)
    return _along_flow(model, z, start, process.T, tolerance)


@checked
@torch.no_grad()
def decode(
    model: Model, z: Float[Tensor, "B k *data"], end: float = 1e-3, tolerance: float = 1e-5
) -> Float[Tensor, "B *data"]:
    """The images that states at T flow to: positions at time `end`."""
    if not 0.0 < end < model.process.T:
        raise ValueError(f"end must lie in (0, {model.process.T:g}): got {end}.")
    positive("tolerance", tolerance)
    return model.process.project(_along_flow(model, z, model.process.T, end, tolerance))


@checked
def slerp(a: Float[Tensor, "B k *data"], b: Float[Tensor, "B k *data"], weight: float) -> Float[Tensor, "B k *data"]:
    """From a (weight 0) to b (weight 1) along the sphere, each phase-space variable on its own.

    Norms go linearly from one to the other, directions along the great circle, so that every variable stays as long as
    a draw of the prior is, and their different scales do not matter.
    """
    fraction("weight", weight)
    first, second = a.flatten(2), b.flatten(2)
    lengths = [v.norm(dim=2, keepdim=True) for v in (first, second)]
    tiny = torch.finfo(a.dtype).tiny
    start, stop = (v / length.clamp(min=tiny) for v, length in zip((first, second), lengths, strict=True))
    cosine = (start * stop).sum(2, keepdim=True).clamp(-1.0, 1.0)
    sine = (1.0 - cosine.square()).sqrt()
    angle = torch.atan2(sine, cosine)
    straight = sine < 1e-6  # one direction, or opposite ones between which no great circle is singled out
    safe = torch.where(straight, 1.0, sine)
    left = torch.where(straight, 1.0 - weight, torch.sin((1.0 - weight) * angle) / safe)
    right = torch.where(straight, weight, torch.sin(weight * angle) / safe)
    length = (1.0 - weight) * lengths[0] + weight * lengths[1]
    return (length * (left * start + right * stop)).reshape(a.shape)


def _along_flow(model: Model, z: Tensor, start: float, end: float, tolerance: float) -> Tensor:
    return DormandPrince(tolerance, tolerance).solve(lambda z, t, rows: flow(model, z, t), z, start, end).z
