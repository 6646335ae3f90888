"""Heun's method on the probability flow, with the noise churn of EDM for any linear process.

    ẑ ~ p(z_t̂ | z_t)                        t̂ ≥ t with σ(t̂) = (1 + γ) σ(t);   γ = 0: ẑ = z_t
    z' = ẑ − h f(ẑ, t̂)                      h = t̂ − s
    z_s = ẑ − ½ h [ f(ẑ, t̂) + f(z', s) ]    f = βA z − βD ∇log p

On the process `EDM`, whose time is σ, this is algorithm 2 of Karras et al. (2022).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from psld.kernels import mix
from psld.samplers.base import Sampler

__all__ = ["Heun"]


class HeunStep(NamedTuple):
    """raised = t̂ and stop = s; lift and spread of the kernel from t to t̂; h βA and h βD at both ends."""

    raised: Tensor
    stop: Tensor
    lift: Tensor
    spread: Tensor
    move: Tensor
    push: Tensor
    move_s: Tensor
    push_s: Tensor


class Heun(Sampler):
    """Two evaluations a step, of order 2 in the step of t.

    Args:
        churn: S_churn ≥ 0; γ = min(churn / N, √2 − 1) is the share of noise that is added before each step, with N the
            steps of the grid and the last one, to σ = 0, that the final denoising is.
        churn_range: σ between which noise is added.

    Raises:
        ValueError: churn is negative.
    """

    order = 2
    evaluations = 2

    def __init__(self, churn: float = 0.0, churn_range: tuple[float, float] = (0.0, math.inf)):
        if churn < 0:
            raise ValueError(f"churn must be ≥ 0: got {churn}.")
        self.churn, self.churn_range, self.stochastic = churn, churn_range, churn > 0

    def coefficients(self, process, t, s):
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

    def step(self, z, c, model, t, noise):
        if self.stochastic:
            z = mix(c.lift, z) + mix(c.spread, noise())
        slope = mix(c.move, z) - mix(c.push, model(z, c.raised).score)
        ahead = z - slope
        return z - 0.5 * (slope + mix(c.move_s, ahead) - mix(c.push_s, model(ahead, c.stop).score))

    def __repr__(self) -> str:
        return f"Heun(churn={self.churn:g})" if self.stochastic else "Heun()"
