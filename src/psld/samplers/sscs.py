"""Symmetric splitting with the stationary reversal solved exactly (SSCS), for any linear recipe.

The reverse SDE is the reversal of the *stationary* process, an Ornstein–Uhlenbeck process with Q → −Q, plus what the
score differs from the stationary one:

    −f + 2D ∇log p_t  =  −(D − Q) S⁻¹ z   +   2D (∇log p_t + S⁻¹ z)

One step: half a step of the first part from its exact kernel, a full Euler step of the second, half a step of the
first. Source: Dockhorn et al. (2022), §3.3, for CLD; Pandey & Mandt (2023), appendix, for PSLD. Derivation:
docs/derivations/sscs.md.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from psld.kernels import linear_kernel, mix, relax
from psld.processes import Process
from psld.samplers.base import Sampler

__all__ = ["SSCS"]


class SplitStep(NamedTuple):
    """turn and spread: the exact half step; push: 2DΔb; pull: 2DΔb S⁻¹."""

    turn: Tensor
    spread: Tensor
    push: Tensor
    pull: Tensor


class SSCS(Sampler):
    """Symmetric splitting CLD sampler, carried over to every linear recipe. Weak order 1 in the step of t.

    Raises:
        ValueError: the process has no stationary law to split off (VE, sub-VP).
    """

    order = 1
    stochastic = True

    def coefficients(self, process, t, s):
        if not isinstance(process, Process):
            raise ValueError(
                f"SSCS splits off the stationary law, and {process!r} has none. Use EulerMaruyama or Ancestral."
            )
        back = process.recipe.reversed()
        db = process.schedule.increment(s, t)
        half = relax(linear_kernel(back.drift_matrix, back.diffusion, 0.5 * db), back.covariance)
        push = 2.0 * db[:, None, None] * back.diffusion
        return SplitStep(half.mean_map, half.cholesky, push, push @ torch.linalg.inv(back.covariance))

    def step(self, z, c, model, t, noise):
        z = mix(c.turn, z) + mix(c.spread, noise())
        z = z + mix(c.push, model(z, t).score) + mix(c.pull, z)
        return mix(c.turn, z) + mix(c.spread, noise())
