"""Time grids derived from the data's spectrum: no network, about a second.

The judge is a mixture in the data's principal components: of points drawn from the data's own Gaussian, or of images
where they are at hand. Its denoiser is in closed form, so the exact probability flow from some noise is known, and a
grid is as good as what a sampler makes of the same noise is near. A mixture and not the Gaussian itself, since on that
the flow is as good as straight at large σ: where images are decided, real ones ask for more steps. A grid of three
numbers (first σ below T, last σ, and the exponent between) minimises the mean distance. Derivation:
docs/derivations/grids.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from psld.exact import Empirical
from psld.processes import EDM, LinearProcess
from psld.samplers.exponential import Exponential, PredictorCorrector
from psld.samplers.grids import Grid, noise_scales, power
from psld.samplers.sampler import FixedStepSampler
from psld.spectrum import Spectrum

__all__ = ["Shape", "fitted"]

POINTS, PATHS = 256, 128
"""Of the mixture, and of noise whose flow is followed."""

SMOOTH = 0.03
"""Standard deviation of a point of the mixture, in leading standard deviations."""

SEED = 0
"""Of points and noise: the same for every grid that is compared."""

REFERENCE = 150
"""Steps of the flow that is taken for exact."""

LONGEST = 30
"""Evaluations of a search, at most: a longer grid has the three numbers of this one."""

SEARCHES = 60
"""Grids that a search tries, at most."""

DETAIL, DETAILED, BLUR = 0.4, 20, 6.0
"""The last σ of n lies between DETAIL (beyond DETAILED, DETAIL · DETAILED/n) and BLUR/n standard deviations of a pixel.

A mixture in the leading components is decided at some σ, and calls below it change nothing. A network has detail to add
there: x̂₀ is a blur where the last σ is large; and it errs, so that where σ is small its x̂₀ is better than another step.
(benchmarks/README.md, Grids that know the data; diffusers' own grids end at about BLUR/n for pixels of 0.6.)
"""


HIGHEST = 3.0
"""The first σ below T is at most this, in leading standard deviations: above it y is as good as Gaussian."""


class Shape(NamedTuple):
    """What a fitted grid is made of.

    first: the largest σ below that of T; last: the smallest; rho: equal steps are those of σ^(1/ρ).
    """

    first: float
    last: float
    rho: float

    def scales(self, count: int) -> Float[Tensor, " n"]:
        """`count` noise scales."""
        if count == 1:
            return torch.tensor([self.first], dtype=torch.float64)
        return power(self.first, self.last, count, self.rho)


def fitted(
    process: LinearProcess,
    nfe: int,
    spectrum: Spectrum,
    gaussian_start: bool = False,
    images: Float[Tensor, "n *data"] | None = None,
) -> Grid:
    """The grid on which order 2 in σ-space comes nearest to the exact flow of a mixture with the data's spectrum.

    Args:
        process: of the model. Only σ(T) matters.
        nfe: network calls, the final one included, at one call a step.
        spectrum: of the data.
        gaussian_start: for `Projected(start="gaussian")`, which makes no network call at T: of its grid, the second
            time is where the network is first asked, so it has one time more.
        images: data, of which 256 are the mixture's points in place of draws from the Gaussian.

    Raises:
        ValueError: nfe too small for one step, or images of another shape than the spectrum's.
    """
    count = nfe if gaussian_start else nfe - 1
    if count < 1:
        raise ValueError(f"nfe must be at least {1 if gaussian_start else 2}: got {nfe}.")
    top = float(f"{float(process.noise_scale(process.T)):.6g}")
    points = None
    if images is not None:
        if tuple(images.shape[1:]) != spectrum.data_shape:
            raise ValueError(f"images must be {spectrum.data_shape}, as the spectrum: got {tuple(images.shape[1:])}.")
        points = _Points(spectrum.coordinates(images[_some(len(images))]))
    shape = _search(spectrum, top, min(count, LONGEST), gaussian_start, points)
    scales = shape.scales(count)
    return noise_scales(process, torch.cat([scales.new_tensor([process.noise_scale(process.T)]), scales]))


def _some(count: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(SEED))[:POINTS]


class _Points:
    """Coordinates of images, told apart by identity: the search of one call is never taken for another's."""

    def __init__(self, values: Float[Tensor, "n r"]):
        self.values = values


@lru_cache(maxsize=256)
def _search(spectrum: Spectrum, top: float, count: int, gaussian_start: bool, points: _Points | None) -> Shape:
    """The best shape of `count` scales below σ(T), by Nelder and Mead's simplex."""
    from scipy.optimize import minimize

    generator = torch.Generator().manual_seed(SEED)
    deviations, scale = spectrum.variances.sqrt(), spectrum.scale
    noise = torch.randn(PATHS, len(deviations), generator=generator, dtype=torch.float64)
    drawn = torch.randn(POINTS, len(deviations), generator=generator, dtype=torch.float64) * deviations
    mixture = Empirical(drawn if points is None else points.values, std=SMOOTH * scale)
    # coordinates are about the mean of the data; sampling from T starts about 0, and from the Gaussian about the mean
    begun = top * noise if gaussian_start else top * noise - spectrum.mean_components
    exact = _walked(Exponential(2), power(top, 1e-3 * scale, REFERENCE, 1e6), begun, mixture)
    pixel = spectrum.pixel_scale
    low = math.log(max(DETAIL * pixel * min(1.0, DETAILED / count), 2e-3))
    high = max(math.log(BLUR * pixel / count), low + 0.2)
    ceiling = min(math.log(HIGHEST * scale), math.log(top) - 0.05)

    def shape_of(point: Sequence[float] | np.ndarray) -> Shape:
        first, last, rho = (math.exp(float(value)) for value in point)
        return Shape(first, last, rho)

    def error(point: Sequence[float] | np.ndarray) -> float:
        first, last, rho = (float(value) for value in point)
        if not (low <= last <= high and last < first - 0.05 * count and first <= ceiling and 0.0 <= rho <= 3.0):
            return math.inf
        scales = shape_of(point).scales(count)
        if gaussian_start:
            images = _walked(PredictorCorrector(2), scales, noise * (deviations**2 + scales[0] ** 2).sqrt(), mixture)
        else:
            images = _walked(PredictorCorrector(2), torch.cat([scales.new_tensor([top]), scales]), begun, mixture)
        return float((images - exact).square().sum(1).sqrt().mean())

    begin = [min(math.log(1.5 * scale), ceiling - 0.5), 0.5 * (low + high), math.log(3.0)]
    steps = (0.4, 0.3 * (high - low), 0.5)
    simplex = [begin, *([*begin[:i], begin[i] + by, *begin[i + 1 :]] for i, by in enumerate(steps))]
    options = {"maxfev": SEARCHES, "initial_simplex": np.array(simplex), "xatol": 1e-2, "fatol": 1e-6}
    return shape_of(minimize(error, begin, method="Nelder-Mead", options=options).x)


def _walked(
    solver: FixedStepSampler[Any, Any], scales: Float[Tensor, " n"], y: Float[Tensor, "B r"], mixture: Empirical
) -> Float[Tensor, "B r"]:
    """x̂₀ at the last of the scales, from y at the first."""
    process = EDM(float(scales[0]))
    model = mixture.model(process)
    if len(scales) > 1:
        plan = solver.prepare(process, Grid(scales, "none"))
        y = solver.integrate(model, y[:, None], plan, lambda: y)[0][:, 0]
    return mixture.denoiser(y, scales[-1].expand(len(y)))
