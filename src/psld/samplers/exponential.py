"""The order-1 deterministic exponential step for any linear process.

With x̂₀ held fixed the probability-flow ODE is linear and solved exactly:

    z_s = Φ₀(s) x̂₀ + Ψ(s, t) (z_t − Φ₀(t) x̂₀)

For the VP process Ψ = σ_s / σ_t and this is DDIM (Song et al., 2021). Derivation: docs/derivations/exponential.md.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from psld.flows import noise_flow
from psld.kernels import mix, outer
from psld.samplers.base import Sampler

__all__ = ["Exponential"]


class ExponentialStep(NamedTuple):
    """signal_t = Φ₀(t), signal_s = Φ₀(s), flow = Ψ(s, t)."""

    signal_t: Tensor
    signal_s: Tensor
    flow: Tensor


class Exponential(Sampler):
    """Solves the probability flow exactly between evaluations, x̂₀ constant. Order 1 in the step of log-SNR."""

    order = 1
    stochastic = False

    def coefficients(self, process, t, s):
        return ExponentialStep(process.signal(t), process.signal(s), noise_flow(process, t, s))

    def step(self, z, c, model, t, noise):
        x0 = model(z, t).x0
        return outer(c.signal_s, x0) + mix(c.flow, z - outer(c.signal_t, x0))
