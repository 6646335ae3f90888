"""A sampler of one's own: Adams–Bashforth steps of the probability flow, and the order that it really has.

python examples/own_sampler.py
"""

from typing import NamedTuple

import torch
from torch import Tensor

from psld import PSLD, Grid, LinearProcess, Model, exact
from psld.kernels import mix
from psld.samplers import FixedStepSampler
from psld.samplers.sampler import Noise, States, Times


class Row(NamedTuple):
    """A, D, and what the slope at the start of a step and the slope before it count."""

    drift: Tensor
    diffusion: Tensor
    now: Tensor
    before: Tensor


class AdamsBashforth(FixedStepSampler[Row, States]):
    """dz/dt = A z − D ∇log p, extrapolated from two slopes. Its state is the last slope; the first step is Euler's."""

    order = 2
    stochastic = False

    def tables(self, process: LinearProcess, t: Times, s: Times) -> Row:
        h = s - t
        before = torch.cat([torch.zeros_like(h[:1]), -0.5 * h[1:] ** 2 / h[:-1]])
        return Row(process.drift_rate(t), process.diffusion_rate(t), h - before, before)

    def init(self, z: States) -> States:
        return torch.zeros_like(z)

    def step(self, z: States, state: States, row: Row, model: Model, t: Tensor, noise: Noise) -> tuple[States, States]:
        slope = mix(row.drift, z) - mix(row.diffusion, model(z, t).score)
        return z + row.now * slope + row.before * state, slope


def error(process: LinearProcess, steps: int) -> float:
    """Of the covariance at t = 0.2, from the exact one at t = 0.6, for data N(0, 0.7²)."""
    grid = Grid(torch.linspace(0.6, 0.2, steps + 1, dtype=torch.float64))
    sampler, model = AdamsBashforth(), exact.Gaussian(std=0.7).model(process)
    # the score is linear, so a run is a matrix: what becomes of unit vectors
    basis = torch.eye(process.k, dtype=torch.float64)[..., None]
    matrix = sampler.integrate(model, basis, sampler.prepare(process, grid), lambda: basis)[0][..., 0].T
    signal = process.signal(grid.times[[0, -1]])
    start, stop = process.marginal(grid.times[[0, -1]]).covariance + 0.49 * signal[:, :, None] * signal[:, None]
    return float((matrix @ start @ matrix.T - stop).norm())


if __name__ == "__main__":
    coarse, fine = (error(PSLD(gamma=0.01), steps) for steps in (128, 256))
    print(f"order {torch.tensor(coarse / fine).log2():.2f}, declared: {AdamsBashforth.order}")
