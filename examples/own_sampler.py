"""A sampler of one's own: Adams–Bashforth steps of the probability flow, and the order that it really has.

    python examples/own_sampler.py

Scores of Gaussian data are linear, so a run is a matrix. It is read off by running the sampler on unit vectors, and the
covariance that follows is compared with the exact one.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from psld import PSLD, Grid, LinearProcess, Model, exact
from psld.kernels import mix
from psld.samplers import FixedStepSampler
from psld.samplers.sampler import Noise, States, Times


class Weights(NamedTuple):
    drift: Tensor
    diffusion: Tensor
    now: Tensor  # of the slope at the start of the step
    before: Tensor  # of the slope before that


class AdamsBashforth(FixedStepSampler[Weights, States]):
    """dz/dt = A z − D ∇log p, extrapolated from two slopes. Its state is the last slope; the first step is Euler's."""

    order = 2
    stochastic = False

    def tables(self, process: LinearProcess, t: Times, s: Times) -> Weights:
        h = s - t
        before = torch.cat([torch.zeros_like(h[:1]), -0.5 * h[1:] ** 2 / h[:-1]])
        return Weights(process.drift_rate(t), process.diffusion_rate(t), h - before, before)

    def init(self, z: States) -> States:
        return torch.zeros_like(z)

    def step(
        self, z: States, state: States, row: Weights, model: Model, t: Tensor, noise: Noise
    ) -> tuple[States, States]:
        slope = mix(row.drift, z) - mix(row.diffusion, model(z, t).score)
        return z + row.now * slope + row.before * state, slope


def error(process: LinearProcess, steps: int) -> float:
    grid = Grid(torch.linspace(0.6, 0.2, steps + 1, dtype=torch.float64))
    sampler, model = AdamsBashforth(), exact.Gaussian(std=0.7).model(process)
    basis = torch.eye(process.k, dtype=torch.float64)[..., None]
    matrix = sampler.integrate(model, basis, sampler.prepare(process, grid), noise=torch.empty)[0][..., 0].T
    signal, noise = process.signal(grid.times[[0, -1]]), process.marginal(grid.times[[0, -1]]).covariance
    start, stop = noise + 0.49 * signal[:, :, None] * signal[:, None]  # exact covariances of z
    return float((matrix @ start @ matrix.T - stop).norm())


if __name__ == "__main__":
    coarse, fine = (error(PSLD(gamma=0.01), steps) for steps in (128, 256))
    print(f"error in 128 steps {coarse:.2e}, in 256 steps {fine:.2e}")
    print(f"order {math.log2(coarse / fine):.2f}, declared: {AdamsBashforth.order}")
