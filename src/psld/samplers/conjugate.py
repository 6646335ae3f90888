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
from psld.processes import LinearProcess, ScheduledProcess
from psld.samplers.base import Sampler
from psld.samplers.flows import quadrature

__all__ = ["Conjugate", "ConjugateStep", "Direction", "conjugate_step", "direction_matrix"]

Direction = Literal["identity", "ones"]
"""B: the identity, or the matrix of ones."""


class ConjugateStep(NamedTuple):
    """z_s = move z_t + push ε."""

    move: Tensor
    push: Tensor


class Conjugate(Sampler):
    """λ-DDIM for any linear process; λ = 0 is the exponential integrator in ε. Order 1.

    Args:
        lam: λ, per unit of ∫β. Which value is good depends on process and grid: `psld.samplers.tuning.best_parameter`.
        direction: B, "identity" (λ-DDIM I) or "ones" (II).

    Raises:
        ValueError: another direction.
    """

    order = 1
    stochastic = False

    def __init__(self, lam: float = 0.0, direction: Direction = "ones"):
        direction_matrix(direction, 1)
        self.lam: float = lam
        self.direction: Direction = direction

    def coefficients(self, process, t, s):
        b = self.lam * direction_matrix(self.direction, process.k)
        a = require_scheduled(process, "Conjugate").drift_matrix
        return conjugate_step(process, a, torch.eye(process.k, dtype=torch.float64), b, t, s)

    def step(self, z, c, model, t, noise):
        return mix(c.move, z) + mix(c.push, model(z, t).eps)

    def __repr__(self) -> str:
        return f"Conjugate(lam={self.lam:g}, direction={self.direction!r})"


def require_scheduled(process: LinearProcess, who: str) -> ScheduledProcess:
    """The process itself, if its drift is a fixed matrix times a rate; raises ValueError if not."""
    if not isinstance(process, ScheduledProcess):
        raise ValueError(f"{who} turns with a fixed drift matrix, and {process!r} has none: use Exponential or GDDIM.")
    return process


def direction_matrix(direction: Direction, k: int) -> Tensor:
    """B, k×k. Raises ValueError for another direction."""
    if direction not in ("identity", "ones"):
        raise ValueError(f"direction must be 'identity' or 'ones': got {direction!r}.")
    return torch.eye(k, dtype=torch.float64) if direction == "identity" else torch.ones(k, k, dtype=torch.float64)


def conjugate_step(process: LinearProcess, a: Tensor, part: Tensor, b: Tensor, t: Tensor, s: Tensor) -> ConjugateStep:
    """The conjugate Euler step of dz/dt = βA z + P βD L⁻ᵀ ε with the linear part λB = b; A, P may be some rows only."""
    clocked = require_scheduled(process, "a conjugate step")
    tau, width = quadrature(process, t, s)
    elapsed = clocked.schedule.increment(s, t)[:, None, None]
    left = clocked.schedule.increment(s[:, None].expand_as(tau), tau)[..., None, None]
    pushes = torch.matrix_exp((b - a) * left) @ part @ process.diffusion_rate(tau) @ process.marginal(tau).whitener.mT
    move = torch.matrix_exp((b - a) * elapsed) @ (torch.eye(len(a), dtype=torch.float64) - elapsed * b)
    return ConjugateStep(move, torch.einsum("nq,nqab->nab", tau * width, pushes))
