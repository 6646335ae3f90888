"""Mean and covariance of one data dimension, carried exactly through steps that are affine.

With Gaussian data every score is linear, so a step is z ↦ M z + c + Σⱼ Nⱼ ξⱼ. M, c and Nⱼ are read off by applying the
step itself to basis states and basis noise: no sampling, and nothing of the step is written a second time.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import TypeCheckError
from torch import Tensor

from psld import exact
from psld.grids import Grid
from psld.predictions import ScoreModel
from psld.processes import Process
from psld.samplers import Plan, Sampler

REFUSALS = (ValueError, TypeCheckError, BeartypeCallHintViolation)
"""What a bad argument raises: the annotations, checked in tests only, may see it before the code does."""


class Law(NamedTuple):
    """N(mean, covariance) over the k phase-space variables."""

    mean: Tensor
    covariance: Tensor


class BasisNoise:
    """Row i of each step's basis sees a unit vector in one component of one draw, or nothing at all."""

    def __init__(self, steps: int, rows: int, k: int):
        self.steps, self.rows, self.k, self.next = steps, rows, k, 1 + k

    def __call__(self) -> Tensor:
        assert self.next + self.k <= self.rows, "the step draws more noise than is followed"
        draw = torch.zeros(self.rows, self.k, 1, dtype=torch.float64)
        draw[self.next : self.next + self.k, :, 0] = torch.eye(self.k, dtype=torch.float64)
        self.next += self.k
        return draw.repeat(self.steps, 1, 1)


def exact_law(process: Process, data: exact.Gaussian, t: float) -> Law:
    """The law of z_t, from the marginal kernel and the data."""
    kernel = process.marginal(t)
    signal = kernel.mean_map[:, 0]
    mean, std = data.means.flatten()[0], data.std[0]
    return Law(signal * mean, kernel.covariance + std**2 * torch.outer(signal, signal))


def carry(sampler: Sampler, model: ScoreModel, plan: Plan, law: Law, draws: int = 2) -> Law:
    """The law after all steps of a grid, for a step that takes at most `draws` draws of noise."""
    k, steps = len(law.mean), plan.grid.steps
    rows = 1 + k + draws * k
    basis = torch.zeros(rows, k, 1, dtype=torch.float64)
    basis[1 : 1 + k, :, 0] = torch.eye(k, dtype=torch.float64)
    tables = type(plan.tables)(*(table.repeat_interleave(rows, 0) for table in plan.tables))
    times = plan.grid.times[:-1].repeat_interleave(rows)  # all steps in one batch: each on its own basis
    images = sampler.step(basis.repeat(steps, 1, 1), tables, model, times, BasisNoise(steps, rows, k))[..., 0]
    for image in images.unflatten(0, (steps, rows)):
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
