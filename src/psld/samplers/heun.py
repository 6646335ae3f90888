"""Heun's method on the probability flow, with the noise churn of EDM for any linear process.

    ẑ ~ p(z_t̂ | z_t)                        t̂ ≥ t with σ(t̂) = (1 + γ) σ(t);   γ = 0: ẑ = z_t
    z' = ẑ − h f(ẑ, t̂)                      h = t̂ − s
    z_s = ẑ − ½ h [ f(ẑ, t̂) + f(z', s) ]    f = βA z − βD ∇log p

On the process `EDM`, whose time is σ, this is algorithm 2 of Karras et al. (2022).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from psld.kernels import mix
from psld.model import Model
from psld.processes import LinearProcess
from psld.samplers.sampler import Noise, OneStepSampler, States, Times
from psld.specs.arguments import non_negative, shown

__all__ = ["Heun"]


class HeunStep(NamedTuple):
    """raised = t̂ and stop = s; Φ and L of the kernel from t to t̂; h A and h D, A and D at t̂ and at s."""

    raised: Tensor
    stop: Tensor
    churn_map: Tensor
    churn_noise: Tensor
    drift: Tensor
    diffusion: Tensor
    drift_s: Tensor
    diffusion_s: Tensor


class Heun(OneStepSampler[HeunStep]):
    """Two evaluations a step, of order 2 in the step of t.

    Args:
        churn: S_churn ≥ 0; γ = min(churn / N, √2 − 1) is the share of noise that is added before each step, with N the
            steps of the grid and the last one, to σ = 0, that the final denoising is.
        churn_range: σ between which noise is added.

    Raises:
        ValueError: churn is negative, or churn_range is not two numbers.
    """

    order = 2
    nfe_per_step = 2

    def __init__(self, churn: float = 0.0, churn_range: Sequence[float] = (0.0, math.inf)):
        if len(churn_range) != 2 or not 0 <= churn_range[0] <= churn_range[1]:
            raise ValueError(f"churn_range must be two noise scales, the lower one first: got {shown(churn_range)}.")
        self.churn, self.churn_range, self.stochastic = non_negative("churn", churn), tuple(churn_range), churn > 0

    def tables(self, process: LinearProcess, t: Times, s: Times) -> HeunStep:
        raised = t
        if self.churn:
            low, high = self.churn_range
            sigma = process.noise_scale(t)
            gamma = ((sigma >= low) & (sigma <= high)).double() * min(self.churn / (len(t) + 1), math.sqrt(2) - 1)
            top = process.noise_scale(process.T)
            raised = torch.where(gamma > 0, process.time_of((sigma * (1 + gamma)).clamp(max=top)), t).clamp(min=t)
        up, h = process.transition(t, raised), (raised - s)[:, None, None]
        rates = [rate(time) for time in (raised, s) for rate in (process.drift_rate, process.diffusion_rate)]
        return HeunStep(raised, s, up.mean_map, up.cholesky, *(h * rate for rate in rates))

    def step(self, z: States, state: None, row: HeunStep, model: Model, t: Tensor, noise: Noise) -> tuple[States, None]:
        if self.stochastic:
            z = mix(row.churn_map, z) + mix(row.churn_noise, noise())
        slope = mix(row.drift, z) - mix(row.diffusion, model(z, row.raised).score)
        ahead = z - slope
        twice = slope + mix(row.drift_s, ahead) - mix(row.diffusion_s, model(ahead, row.stop).score)
        return z - 0.5 * twice, None
