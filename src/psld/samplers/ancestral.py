"""Ancestral sampling for any linear process.

With x̂₀ = E[x₀ | z_t] held fixed, z_s given z_t is Gaussian (conditioning one Gaussian on another):

    z_s | z_t, x̂₀ ~ N( Φ₀(s) x̂₀ + K (z_t − Φ₀(t) x̂₀),  V ),      K = Σ_s Φᵀ Σ_t⁻¹

For the VP process this is DDPM's posterior (Ho et al., 2020, eq. 7). Derivation: docs/derivations/ancestral.md.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from psld.kernels import cholesky, mix, outer
from psld.model import Model
from psld.processes import LinearProcess
from psld.samplers.sampler import Noise, OneStepSampler, States, Times

__all__ = ["Ancestral"]


class AncestralStep(NamedTuple):
    """signal_t = Φ₀(t), signal_s = Φ₀(s), gain = K, noise = the Cholesky factor of V."""

    signal_t: Tensor
    signal_s: Tensor
    gain: Tensor
    noise: Tensor


class Ancestral(OneStepSampler[AncestralStep]):
    """Draws z_s from the exact Gaussian posterior, step by step.

    Weak order 1 in the step of log-SNR; exact in one step when x̂₀ does not depend on z_t.
    """

    order = 1
    stochastic = True
    long_steps = True

    def tables(self, process: LinearProcess, t: Times, s: Times) -> AncestralStep:
        at_t, at_s, move = process.marginal(t), process.marginal(s), process.transition(s, t)
        gain = at_s.covariance @ move.mean_map.mT @ at_t.whitener.mT @ at_t.whitener
        keep = torch.eye(process.k, dtype=torch.float64) - gain @ move.mean_map
        variance = keep @ at_s.covariance @ keep.mT + gain @ move.covariance @ gain.mT  # Joseph form: stays PSD
        return AncestralStep(at_t.mean_map[..., 0], at_s.mean_map[..., 0], gain, cholesky(variance))

    def step(
        self, z: States, state: None, row: AncestralStep, model: Model, t: Tensor, noise: Noise
    ) -> tuple[States, None]:
        x0 = model(z, t).x0
        z = outer(row.signal_s, x0) + mix(row.gain, z - outer(row.signal_t, x0)) + mix(row.noise, noise())
        return z, None
