"""Mean and covariance of one data dimension, carried exactly through steps that are affine.

With Gaussian data every score is linear, so a step is z ↦ M z + c + Σⱼ Nⱼ ξⱼ. M, c and Nⱼ are read off by applying the step
itself to basis states and basis noise: no sampling, and nothing of the step is written a second time.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from psld import exact
from psld.grids import Grid
from psld.predictions import ScoreModel
from psld.processes import Process
from psld.samplers import Plan, Sampler


class Law(NamedTuple):
    """N(mean, covariance) over the k phase-space variables."""

    mean: Tensor
    covariance: Tensor


class BasisNoise:
    """Row i of the batch sees a unit vector in one component of one draw, or nothing at all."""

    def __init__(self, rows: int, k: int, first: int):
        self.rows, self.k, self.next = rows, k, first

    def __call__(self) -> Tensor:
        draw = torch.zeros(self.rows, self.k, 1, dtype=torch.float64)
        for j in range(self.k):
            if self.next + j < self.rows:
                draw[self.next + j, j] = 1.0
        self.next += self.k
        return draw


def exact_law(process: Process, data: exact.Gaussian, t: float) -> Law:
    """The law of z_t, from the marginal kernel and the data."""
    kernel = process.marginal(t)
    signal = kernel.mean_map[:, 0]
    mean, std = data.means.flatten()[0], data.std[0]
    return Law(signal * mean, kernel.covariance + std**2 * torch.outer(signal, signal))


def carry(sampler: Sampler, model: ScoreModel, plan: Plan, law: Law, draws: int = 2) -> Law:
    """The law after all steps of a grid, for a step that takes at most `draws` draws of noise."""
    k = len(law.mean)
    rows = 1 + k + draws * k
    basis = torch.zeros(rows, k, 1, dtype=torch.float64)
    basis[1 : 1 + k, :, 0] = torch.eye(k, dtype=torch.float64)
    for i in range(plan.grid.steps):
        noise = BasisNoise(rows, k, 1 + k)
        single = Plan(Grid(plan.grid.times[i : i + 2]), type(plan.tables)(*(table[i : i + 1] for table in plan.tables)))
        image = sampler.integrate(model, basis, single, noise)[0][..., 0]
        assert noise.next <= rows, "the step draws more noise than was followed"
        columns = (image[1:] - image[0]).T
        move, spread = columns[:, :k], columns[:, k:]
        law = Law(move @ law.mean + image[0], move @ law.covariance @ move.T + spread @ spread.T)
    return law


def distance(law: Law, target: Law) -> float:
    """Largest error of mean and covariance in units of the target's own spread."""
    whitener = torch.linalg.inv(torch.linalg.cholesky(target.covariance))
    mean = whitener @ (law.mean - target.mean)
    covariance = whitener @ (law.covariance - target.covariance) @ whitener.T
    return float(torch.maximum(mean.abs().max(), covariance.abs().max()))


def law_error(sampler: Sampler, process: Process, data: exact.Gaussian, grid: Grid) -> float:
    """How far the law of a sampler is from the exact one at the end of a grid, started from the exact one."""
    start, stop = float(grid.times[0]), float(grid.times[-1])
    law = carry(sampler, data.model(process), sampler.prepare(process, grid), exact_law(process, data, start))
    return distance(law, exact_law(process, data, stop))


def fitted_order(errors: list[float], ratio: float = 2.0) -> float:
    """Slope of log error over log step, least squares, for steps that shrink by `ratio`."""
    steps = -np.log(ratio) * np.arange(len(errors))
    return float(np.polyfit(steps, np.log(errors), 1)[0])
