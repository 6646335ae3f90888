"""What the report shows of a model: samples, how they come about, and paths through phase space."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from psld.comparison.drawing import draw
from psld.model import Model
from psld.noise import SeededNoise
from psld.processes import LinearProcess
from psld.samplers import EulerMaruyama, Sampler, Samples, grids
from psld.samplers.divergence import shown
from psld.samplers.grids import Grid

__all__ = ["Film", "Paths", "draw_film", "draw_samples", "forward_path", "phase_space_paths", "reverse_path"]

STEPS = 100  # of the paths


class Film(NamedTuple):
    """Samples on their way: noisy positions x_t and predictions x̂₀ at some diffusion times, the first the noisiest."""

    times: Float[Tensor, " frames"]
    x: Float[Tensor, "frames n C H W"]
    x0: Float[Tensor, "frames n C H W"]


class Paths(NamedTuple):
    """Some pixels of some images from data to noise, and of some samples from noise to data.

    States are (steps, paths, v) with v = 2, position and momentum, or v = 1 where the process has no momentum. The
    images are the positions of the first image and of the first sample, (steps, C, H, W).
    """

    times: Float[Tensor, " steps"]
    forward: Float[Tensor, "steps n v"]
    image: Float[Tensor, "steps C H W"]
    reverse_times: Float[Tensor, " back"]
    reverse: Float[Tensor, "back n v"]
    sample: Float[Tensor, "back C H W"]


def draw_samples(
    sampler: Sampler,
    model: Model,
    shape: tuple[int, ...],
    grid: Grid,
    seeds: Sequence[int],
    device: str = "cpu",
    batch_size: int = 250,
) -> tuple[Float[Tensor, "n C H W"], float, list[int]]:
    """Samples in [−1, 1], float32 on the CPU; the mean number of network evaluations; the seeds that diverged."""
    samples = Samples.joined(list(draw(sampler, model, shape, grid, seeds, batch_size, device)))
    wrong = [seed for seed, bad in zip(samples.seeds, samples.diverged.tolist(), strict=True) if bad]
    return shown(samples.x).cpu(), float(samples.nfe.double().mean()), wrong


def draw_film(
    sampler: Sampler,
    model: Model,
    shape: tuple[int, ...],
    grid: Grid,
    seeds: Sequence[int],
    frames: int = 8,
    device: str = "cpu",
) -> Film | None:
    """A film of at most `frames` frames, spread evenly over the steps of the grid; the predictions cost one more call.

    None where the sampler cannot be watched (RK45 chooses the steps of every sample by itself).
    """
    states: list[tuple[Tensor, Tensor]] = []
    sampler.sample(model, grid=grid, seeds=seeds, shape=shape, device=device, watch=lambda t, z: states.append((t, z)))
    if not states:
        return None
    chosen = torch.linspace(0, len(states) - 1, min(frames, len(states))).round().long().unique().tolist()
    times, x, x0 = [], [], []
    with torch.no_grad():
        for i in chosen:
            t, z = states[i]
            times.append(float(t))
            x.append(model.process.project(z).float().cpu())
            x0.append(model(z, torch.as_tensor(t).to(z)).x0.float().cpu())
    return Film(torch.tensor(times, dtype=torch.float64), torch.stack(x), torch.stack(x0))


def forward_path(
    process: LinearProcess,
    x0: Float[Tensor, "n *data"],
    times: Float[Tensor, " steps"],
    seeds: Sequence[int],
    see: Callable[[Tensor], object],
) -> None:
    """Carries images from data to noise by exact transitions, and shows `see` the state (n, k, *data) at every time."""
    noise = SeededNoise(seeds, (process.k, *x0.shape[1:]))
    z = process.lift(x0.double(), process.initial_auxiliary(noise()[:, 1:]))
    see(z)
    for s, t in zip(times[:-1], times[1:], strict=True):
        z = process.transition(s, t).sample(z, noise())
        see(z)


def reverse_path(
    model: Model,
    shape: tuple[int, ...],
    steps: int,
    seeds: Sequence[int],
    see: Callable[[Tensor], object],
    device: str = "cpu",
) -> Float[Tensor, " steps"]:
    """Euler–Maruyama on a quadratic grid; shows `see` every state and returns their times."""
    grid = grids.quadratic(model.process, steps)
    EulerMaruyama().sample(model, grid=grid, seeds=seeds, shape=shape, device=device, watch=lambda t, z: see(z))
    return grid.times


def phase_space_paths(model: Model, x0: Float[Tensor, "n C H W"], seeds: Sequence[int], device: str = "cpu") -> Paths:
    """Two pixels of every image, and the same of as many samples. One seed an image."""
    process, (_, height, width) = model.process, x0.shape[1:]
    pixels = [(0, height // 4, 3 * width // 8), (0, height // 2, width // 2)]

    def recorder() -> tuple[list[Tensor], list[Tensor], Callable[[Tensor], None]]:
        points: list[Tensor] = []
        pictures: list[Tensor] = []

        def see(z: Tensor) -> None:
            points.append(torch.cat([z[:, :2, c, i, j] for c, i, j in pixels]).double().cpu())
            pictures.append(process.project(z)[0].float().cpu())

        return points, pictures, see

    times = torch.linspace(0.0, process.T, STEPS + 1, dtype=torch.float64)
    forward, image, see = recorder()
    forward_path(process, x0, times, seeds, see)
    reverse, sample, see = recorder()
    reverse_times = reverse_path(model, tuple(x0.shape[1:]), STEPS, seeds, see, device)
    return Paths(
        times,
        torch.stack(forward),
        torch.stack(image),
        reverse_times,
        torch.stack(reverse),
        torch.stack(sample),
    )
