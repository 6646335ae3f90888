"""Grids and parameters found on exact scores: no network, no FID, no noise in the comparison.

The judge integrates the probability flow of known data to high accuracy from some starting noise. A deterministic
sampler starts from the same noise and should arrive at the same images; how far it is off is its own error alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from psld.evaluation import frechet_distance
from psld.model import Model
from psld.samplers import RK45, Exponential, Projected, Sampler
from psld.samplers.grids import Final, Grid, ends, log_snr, noise_scales

__all__ = ["Error", "Judge", "Tuned", "best_parameter", "optimise_grid"]


class Error(NamedTuple):
    """How far images are from the exact solutions that start from the same noise.

    frechet: Fréchet distance between the two sets; rms: root-mean-square difference, image by image, a pixel.
    """

    frechet: float
    rms: float

    @property
    def total(self) -> float:
        """What is minimised: both, since one is blind to small differences and the other to where images went."""
        return self.frechet + self.rms


class Judge:
    """The exact solutions of the probability flow, one a seed.

    Args:
        model: exact score of known data (`psld.exact`), or a trained one taken as exact.
        shape: of one image.
        seeds: one a sample, the same as the samplers will get.
        sigma: noise scale at which the solution ends and is denoised.
        tolerance: relative and absolute, of the adaptive solver.
        projected: whether the flow is that of a `Projected` sampler, in the statistic y, instead of the process's own.
        images: the exact solutions, where they are known from an earlier judge of the same model and seeds.
    """

    def __init__(
        self,
        model: Model,
        shape: tuple[int, ...],
        seeds: Sequence[int],
        sigma: float = 1e-3,
        tolerance: float = 1e-7,
        projected: bool = False,
        images: Float[Tensor, "n *data"] | None = None,
    ):
        self.model, self.shape, self.seeds = model, shape, seeds
        if images is not None:
            self.images = images
            return
        end = float(model.process.time_of(torch.tensor(sigma, dtype=torch.float64)))
        if projected:  # many small steps, whose tables are made at once, instead of a search for σ⁻¹ in every call
            solver, grid = Projected(Exponential(order=3), "mean"), log_snr(model.process, 400, end)
        else:
            solver, grid = RK45(tolerance, tolerance), ends(model.process, end)
        self.images = solver.sample(model, grid=grid, seeds=seeds, shape=shape).x

    def error(self, sampler: Sampler, grid: Grid) -> Error:
        """The error of a deterministic sampler on a grid."""
        drawn = sampler.batches(self.model, grid=grid, seeds=self.seeds, shape=self.shape, batch_size=len(self.seeds))
        return self.compare(next(drawn).x)

    def compare(self, images: Float[Tensor, "n *data"]) -> Error:
        """The error of images made from the same seeds."""
        exact = self.images[: len(images)]
        rms = (images - exact).square().mean().sqrt()
        return Error(frechet_distance(images.flatten(1), exact.flatten(1)), float(rms))


class Tuned(NamedTuple):
    """The best value of a parameter, and the error of each that was tried."""

    best: float
    tried: dict[float, Error]


def best_parameter(
    judge: Judge, sampler: Callable[[float], Sampler], grid: Grid, values: Sequence[float], refinements: int = 4
) -> Tuned:
    """The number, λ of a `Conjugate` say, whose sampler has the smallest RMS error.

    All `values` are tried, then the intervals beside the best one are halved, `refinements` times.

    Args:
        judge: holds model and exact solutions.
        sampler: makes a sampler from the number.
        grid: on which it is used: the best value is one of this grid.
        values: increasing.
        refinements: halvings; two more samplings each.
    """
    tried = {float(value): judge.error(sampler(float(value)), grid) for value in values}
    for _ in range(refinements):
        ordered = sorted(tried)
        i = ordered.index(_smallest(tried))
        for neighbour in ordered[max(i - 1, 0) : i] + ordered[i + 1 : i + 2]:
            middle = 0.5 * (ordered[i] + neighbour)
            tried[middle] = judge.error(sampler(middle), grid)
    return Tuned(_smallest(tried), dict(sorted(tried.items())))


def _smallest(tried: dict[float, Error]) -> float:
    return min(tried, key=lambda value: tried[value].rms if math.isfinite(tried[value].rms) else math.inf)


def optimise_grid(
    judge: Judge,
    sampler: Sampler,
    nfe: int,
    start: Float[Tensor, " m"] | None = None,
    evaluations: int = 120,
    final: Final = "denoise",
) -> tuple[Float[Tensor, " n"], Error]:
    """The noise scales of a grid for `nfe` evaluations with the smallest total error, and that error.

    A curve of log σ through five heights (fewer for the shortest grids), from the second time of the grid to the last,
    is searched by Nelder and Mead's simplex; the first time is T.

    Args:
        judge: holds model and exact solutions.
        sampler: deterministic, one evaluation a step.
        nfe: network calls, the final one included; at least 3 with a final one.
        start: noise scales to begin the search from, after the first: those of an earlier search, of any length.
        evaluations: samplings that may be spent.
        final: what becomes of the last state.

    Returns:
        σ of every time, the first that of T; `psld.samplers.grids.noise_scales` makes a grid of them.
    """
    from scipy.interpolate import PchipInterpolator
    from scipy.optimize import minimize

    steps = nfe - (final != "none")
    if steps < 2:
        raise ValueError(f"a grid needs at least two steps to be optimised: got nfe = {nfe} with final={final!r}.")
    controls = min(5, steps)
    process = judge.model.process
    top = float(process.noise_scale(process.T))
    places = np.linspace(0.0, 1.0, controls)
    if start is None:
        start = torch.tensor([6.0, 2.0, 0.8, 0.3, 0.08], dtype=torch.float64)
    known = np.log(start.numpy())
    heights = np.interp(places, np.linspace(0.0, 1.0, len(known)), known)

    def scales(point: np.ndarray) -> Tensor:
        levels = point[0] - np.concatenate([[0.0], np.cumsum(np.exp(point[1:]))])
        curve = PchipInterpolator(places, levels)(np.linspace(0.0, 1.0, steps))
        return torch.cat([torch.tensor([top]), torch.from_numpy(np.exp(curve))]).double()

    def total(point: np.ndarray) -> float:
        sigmas = scales(point)
        if not (sigmas[1] < 0.999 * top and sigmas[-1] > 2e-3):
            return math.inf
        return judge.error(sampler, noise_scales(process, sigmas, final)).total

    point = np.concatenate([heights[:1], np.log(-np.diff(heights))])
    simplex = np.stack([point, *(point + 0.3 * row for row in np.eye(len(point)))])
    found = minimize(
        total, point, method="Nelder-Mead", options={"maxfev": evaluations, "initial_simplex": simplex, "xatol": 5e-3}
    )
    sigmas = scales(found.x)
    return sigmas, judge.error(sampler, noise_scales(process, sigmas, final))
