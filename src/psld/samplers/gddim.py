"""Exponential multistep in ε_R: gDDIM with a polynomial through earlier noise, for any linear process.

While x̂₀ is constant the noise n = z − Φ₀ x̂₀ only moves along Ψ, so ε_R = R⁻¹ n with R_s = Ψ(s, t) R_t is constant too.
Here ε_R, not x̂₀, is the polynomial in λ = −log σ:

    z_s = Φ₀(s) x̂₀ + Ψ(s, t) n + Σ_j U_j R (ε_R,j − ε_R)

For VP this is DEIS with polynomials in log ρ (Zhang & Chen, 2023), for CLD it is gDDIM (Zhang, Tao & Chen, 2023).
Derivation: docs/derivations/exponential.md.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from psld.kernels import mix, outer
from psld.model import Model
from psld.processes import LinearProcess
from psld.samplers.exponential import past_weights, restart_weights
from psld.samplers.flows import noise_flow, noise_weights
from psld.samplers.sampler import FixedStepSampler, Noise, States, Times

__all__ = ["GDDIM"]

Past = tuple[Float[Tensor, "B k *data"], ...]
"""ε_R of earlier steps, the latest first."""


class NoiseStep(NamedTuple):
    """signal_t = Φ₀(t), signal_s = Φ₀(s), flow = Ψ(s, t), whitener = R⁻¹ at t, past = U_j R for one, two … steps ago.

    restart: as for `Exponential`.
    """

    signal_t: Tensor
    signal_s: Tensor
    flow: Tensor
    whitener: Tensor
    past: Tensor
    restart: Tensor


class GDDIM(FixedStepSampler[NoiseStep, Past]):
    """Exact between evaluations but for ε_R, which is a polynomial through the last `order` evaluations. Deterministic.

    Args:
        order: 1, 2 or 3, in the step of log-SNR. Order 1 is `Exponential(order=1)`.

    Raises:
        ValueError: another order.
    """

    shown = ("order",)
    stochastic = False
    long_steps = True

    def __init__(self, order: int = 2):
        if order not in (1, 2, 3):
            raise ValueError(f"order must be 1, 2 or 3: got {order}.")
        self.order = order

    def tables(self, process: LinearProcess, t: Times, s: Times) -> NoiseStep:
        flow, kernel = noise_flow(process, t, s), process.marginal(t)
        factor = [kernel.cholesky[0]]
        for hop in flow[:-1]:
            factor.append(hop @ factor[-1])
        r = torch.stack(factor)
        whitener = r.mT @ kernel.whitener.mT @ kernel.whitener  # R⁻¹ = Rᵀ Σ⁻¹, since R Rᵀ = Σ
        past = past_weights(process, t, s, self.order, noise_weights) @ r[:, None]
        restart = restart_weights(process, t, s, noise_weights) @ r[0]
        return NoiseStep(process.signal(t), process.signal(s), flow, whitener, past, restart)

    def init(self, z: States) -> Past:
        """No step was taken yet."""
        return ()

    def step(
        self, z: States, state: Past, row: NoiseStep, model: Model, t: Tensor, noise: Noise
    ) -> tuple[States, Past]:
        x0 = model(z, t).x0
        n = z - outer(row.signal_t, x0)
        eps = mix(row.whitener, n)
        if self.order > 2 and len(state) == 1:
            n = n + mix(row.restart, eps - state[0])
        z = outer(row.signal_s, x0) + mix(row.flow, n)
        for weight, earlier in zip(row.past.unbind(-3), state, strict=False):
            z = z + mix(weight, earlier - eps)
        return z, (eps, *state)[: self.order]
