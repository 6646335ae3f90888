"""Euler–Maruyama on the reverse SDE.

    z_s = z_t − h [ f(z_t, t) − 2βD ∇log p_t(z_t) ] + √(2βD h) ξ,      h = t − s

Source: Pandey & Mandt (2023), algorithm 1; Song et al. (2021).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from psld.kernels import cholesky, mix
from psld.samplers.base import Sampler

__all__ = ["EulerMaruyama"]


class EulerStep(NamedTuple):
    """z_s = move z_t + push score + spread ξ."""

    move: Tensor
    push: Tensor
    spread: Tensor


class EulerMaruyama(Sampler):
    """The plain discretisation of the reverse SDE. Weak order 1 in the step of t."""

    order = 1
    stochastic = True

    def coefficients(self, process, t, s):
        h = (t - s)[:, None, None]
        variance = 2.0 * h * process.diffusion_rate(t)
        move = torch.eye(process.k, dtype=torch.float64) - h * process.drift_rate(t)
        return EulerStep(move, variance, cholesky(variance))

    def step(self, z, c, model, t, noise):
        return mix(c.move, z) + mix(c.push, model(z, t).score) + mix(c.spread, noise())
