"""Euler–Maruyama on the reverse SDE.

    z_s = z_t − h [ f(z_t, t) − 2βD ∇log p_t(z_t) ] + √(2βD h) ξ,      h = t − s

Source: Pandey & Mandt (2023), algorithm 1; Song et al. (2021).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from psld.kernels import cholesky, mix
from psld.model import Model
from psld.processes import LinearProcess
from psld.samplers.sampler import Noise, OneStepSampler, States, Times

__all__ = ["EulerMaruyama"]


class EulerStep(NamedTuple):
    """What multiplies each: z_s = state z_t + score ∇log p + noise ξ."""

    state: Tensor
    score: Tensor
    noise: Tensor


class EulerMaruyama(OneStepSampler[EulerStep]):
    """The plain discretisation of the reverse SDE. Weak order 1 in the step of t."""

    order = 1
    stochastic = True

    def tables(self, process: LinearProcess, t: Times, s: Times) -> EulerStep:
        h = (t - s)[:, None, None]
        variance = 2.0 * h * process.diffusion_rate(t)
        linear = torch.eye(process.k, dtype=torch.float64) - h * process.drift_rate(t)
        return EulerStep(linear, variance, cholesky(variance))

    def step(
        self, z: States, state: None, row: EulerStep, model: Model, t: Tensor, noise: Noise
    ) -> tuple[States, None]:
        return mix(row.state, z) + mix(row.score, model(z, t).score) + mix(row.noise, noise()), None
