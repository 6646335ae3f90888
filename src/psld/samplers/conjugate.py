"""Conjugate integrators: an Euler step in coordinates that turn with a chosen linear part of the flow.

With frozen ε the probability flow in the clock b is dz/db = A z + D L⁻ᵀ ε. In ẑ = exp((λB − A) b) z it reads
dẑ/db = exp(…) (λB z + D L⁻ᵀ ε); an Euler step for the first term and an exact integral of the second give

    z_s = exp(−(A − λB) Δb) (I − Δb λB) z_t + [ ∫ exp((A − λB)(b_s − b_τ)) D L_τ⁻ᵀ db_τ ] ε,     Δb = b_t − b_s

B = 0 is the exponential integrator in ε; B = I and B = 1 (all ones) are λ-DDIM I and II of Pandey, Rudolph & Mandt
(2023). Derivation: docs/derivations/conjugate.md.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from psld.kernels import mix
from psld.model import Model
from psld.processes import LinearProcess, ScheduledProcess
from psld.samplers.flows import quadrature
from psld.samplers.requirements import require_scheduled
from psld.samplers.sampler import Noise, OneStepSampler, States, Times
from psld.specs.arguments import finite

__all__ = ["Conjugate", "ConjugateStep", "Direction", "conjugate_step", "direction_matrix"]

Direction = Literal["identity", "ones"]
"""B: the identity, or the matrix of ones."""


class ConjugateStep(NamedTuple):
    """What multiplies each: z_s = state z_t + eps ε."""

    state: Tensor
    eps: Tensor


class Conjugate(OneStepSampler[ConjugateStep]):
    """λ-DDIM for any linear process; λ = 0 is the exponential integrator in ε. Order 1.

    Args:
        lam: λ, per unit of ∫β. Which value is good depends on process and grid: `psld.samplers.tuning.best_parameter`.
        direction: B, "identity" (λ-DDIM I) or "ones" (II).

    Raises:
        ValueError: another direction; of a process, that its drift is not a fixed matrix times a rate.
    """

    shown = ("lam", "direction")
    order = 1
    stochastic = False

    def __init__(self, lam: float = 0.0, direction: Direction = "ones"):
        direction_matrix(direction, 1)
        self.lam: float = finite("lam", lam)
        self.direction: Direction = direction

    def tables(self, process: LinearProcess, t: Times, s: Times) -> ConjugateStep:
        b = self.lam * direction_matrix(self.direction, process.k)
        known = require_scheduled(process, "Conjugate")
        return conjugate_step(known, known.drift_matrix, torch.eye(process.k, dtype=torch.float64), b, t, s)

    def step(
        self, z: States, state: None, row: ConjugateStep, model: Model, t: Tensor, noise: Noise
    ) -> tuple[States, None]:
        return mix(row.state, z) + mix(row.eps, model(z, t).eps), None


def direction_matrix(direction: Direction, k: int) -> Tensor:
    """B, k×k. Raises ValueError for another direction."""
    if direction not in ("identity", "ones"):
        raise ValueError(f"direction must be 'identity' or 'ones': got {direction!r}.")
    return torch.eye(k, dtype=torch.float64) if direction == "identity" else torch.ones(k, k, dtype=torch.float64)


def conjugate_step(process: ScheduledProcess, a: Tensor, part: Tensor, b: Tensor, t: Times, s: Times) -> ConjugateStep:
    """The conjugate Euler step of dz/dt = βA z + P βD L⁻ᵀ ε with the linear part λB = b; A, P may be some rows only."""
    tau, width = quadrature(process, t, s)
    elapsed = process.schedule.increment(s, t)[:, None, None]
    left = process.schedule.increment(s[:, None].expand_as(tau), tau)[..., None, None]
    pushes = torch.matrix_exp((b - a) * left) @ part @ process.diffusion_rate(tau) @ process.marginal(tau).whitener.mT
    linear = torch.matrix_exp((b - a) * elapsed) @ (torch.eye(len(a), dtype=torch.float64) - elapsed * b)
    return ConjugateStep(linear, torch.einsum("nq,nqab->nab", tau * width, pushes))
