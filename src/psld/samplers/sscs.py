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
from psld.model import Model
from psld.processes import LinearProcess
from psld.samplers.requirements import require_recipe
from psld.samplers.sampler import Noise, OneStepSampler, States, Times

__all__ = ["SSCS"]


class SplitStep(NamedTuple):
    """half_map = Φ and half_noise = L of the exact half step; score = 2DΔb and state = 2DΔb S⁻¹ of Euler's."""

    half_map: Tensor
    half_noise: Tensor
    score: Tensor
    state: Tensor


class SSCS(OneStepSampler[SplitStep]):
    """Symmetric splitting CLD sampler, carried over to every linear recipe. Weak order 1 in the step of t.

    Raises:
        ValueError: the process has no stationary law to split off (VE, sub-VP).
    """

    order = 1
    stochastic = True

    def tables(self, process: LinearProcess, t: Times, s: Times) -> SplitStep:
        known = require_recipe(process, "SSCS")
        back = known.recipe.reversed()
        db = known.schedule.increment(s, t)
        half = relax(linear_kernel(back.drift_matrix, back.diffusion, 0.5 * db), back.covariance)
        score = 2.0 * db[:, None, None] * back.diffusion
        return SplitStep(half.mean_map, half.cholesky, score, score @ torch.linalg.inv(back.covariance))

    def step(
        self, z: States, state: None, row: SplitStep, model: Model, t: Tensor, noise: Noise
    ) -> tuple[States, None]:
        z = mix(row.half_map, z) + mix(row.half_noise, noise())
        z = z + mix(row.score, model(z, t).score) + mix(row.state, z)
        return mix(row.half_map, z) + mix(row.half_noise, noise()), None
