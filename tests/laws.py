"""Mean and covariance of one data dimension, carried exactly through steps that are affine.

With Gaussian data every score is linear, so a whole run is z ↦ M z + c + Σⱼ Nⱼ ξⱼ, whatever a sampler remembers from
one step to the next. M, c and Nⱼ are read off by running the sampler itself on basis states and basis noise: no
sampling, and nothing of the sampler is written a second time.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import TypeCheckError
from torch import Tensor

from psld import exact
from psld.model import Model
from psld.processes import LinearProcess
from psld.samplers import Plan, Sampler
from psld.samplers.grids import Grid

REFUSALS = (ValueError, TypeCheckError, BeartypeCallHintViolation)
"""What a bad argument raises: the annotations, checked in tests only, may see it before the code does."""


class Law(NamedTuple):
    """N(mean, covariance) over the k phase-space variables."""

    mean: Tensor
    covariance: Tensor


class BasisNoise:
    """Each row sees a unit vector in one component of one draw, or nothing at all."""

    def __init__(self, rows: int, k: int):
        self.rows, self.k, self.next = rows, k, 1 + k

    def __call__(self) -> Tensor:
        assert self.next + self.k <= self.rows, "the run draws more noise than is followed"
        draw = torch.zeros(self.rows, self.k, 1, dtype=torch.float64)
        draw[self.next : self.next + self.k, :, 0] = torch.eye(self.k, dtype=torch.float64)
        self.next += self.k
        return draw


def exact_law(process: LinearProcess, data: exact.Gaussian, t: float) -> Law:
    """The law of z_t, from the marginal kernel and the data."""
    kernel = process.marginal(t)
    signal = kernel.mean_map[:, 0]
    mean, std = data.means.flatten()[0], data.std[0]
    return Law(signal * mean, kernel.covariance + std**2 * torch.outer(signal, signal))


def carry(sampler: Sampler, model: Model, plan: Plan, law: Law, draws: int = 2) -> Law:
    """The law after all steps of a grid, for a sampler that draws noise at most `draws` times a step, and once more."""
    k, steps = len(law.mean), plan.grid.steps
    rows = 1 + k + (draws * steps + 1) * k * sampler.stochastic + k * (not sampler.stochastic)
    basis = torch.zeros(rows, k, 1, dtype=torch.float64)
    basis[1 : 1 + k, :, 0] = torch.eye(k, dtype=torch.float64)
    image = sampler.integrate(model.tabulate(plan.grid.times), basis, plan, BasisNoise(rows, k))[0][..., 0]
    columns = (image[1:] - image[0]).T
    move, spread = columns[:, :k], columns[:, k:]
    return Law(move @ law.mean + image[0], move @ law.covariance @ move.T + spread @ spread.T)


def distance(law: Law, target: Law) -> float:
    """Error of mean and covariance in units of the target's own spread, root of the sum of squares."""
    whitener = torch.linalg.inv(torch.linalg.cholesky(target.covariance))
    mean = whitener @ (law.mean - target.mean)
    covariance = whitener @ (law.covariance - target.covariance) @ whitener.T
    return float((mean.square().sum() + covariance.square().sum()).sqrt())


def law_error(sampler: Sampler, process: LinearProcess, data: exact.Gaussian, grid: Grid) -> float:
    """How far the law of a sampler is from the exact one at the end of a grid, started from the exact one."""
    start, stop = float(grid.times[0]), float(grid.times[-1])
    law = carry(sampler, data.model(process), sampler.prepare(process, grid), exact_law(process, data, start))
    return distance(law, exact_law(process, data, stop))


def fitted_order(errors: list[float], ratio: float = 2.0) -> float:
    """Slope of log error over log step, least squares, for steps that shrink by `ratio`."""
    steps = -np.log(ratio) * np.arange(len(errors))
    return float(np.polyfit(steps, np.log(errors), 1)[0])
