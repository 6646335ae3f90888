"""How the probability flow carries noise from t to s when x̂₀ is held constant.

With the score of a constant x̂₀ the flow is linear: z_s = Φ₀(s) x̂₀ + Ψ(s, t) (z_t − Φ₀(t) x̂₀), where Ψ solves
dΨ/dt = β (A + D Σ⁻¹) Ψ. Since Ψ Σ_t Ψᵀ = Σ_s, Ψ = L_s O L_t⁻¹ with O orthogonal; only the rotation is integrated, which
is smooth in log t and stays orthogonal under Gauss–Legendre collocation. Derivation: docs/derivations/exponential.md.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from psld.processes import Process, Times

__all__ = ["noise_flow"]


def _gauss_legendre(stages: int) -> tuple[Tensor, Tensor, Tensor]:
    """Nodes, stage matrix and weights of Gauss–Legendre collocation on [0, 1], of order 2·stages (Golub & Welsch)."""
    i = torch.arange(1, stages, dtype=torch.float64)
    off_diagonal = torch.diag(i / (4.0 * i**2 - 1.0).sqrt(), 1)
    nodes = 0.5 + 0.5 * torch.linalg.eigvalsh(off_diagonal + off_diagonal.T)
    powers = torch.arange(stages, dtype=torch.float64)
    coefficients = torch.linalg.inv(nodes[:, None] ** powers)  # of the Lagrange polynomials, a column each
    return nodes, (nodes[:, None] ** (powers + 1) / (powers + 1)) @ coefficients, (1.0 / (powers + 1)) @ coefficients


NODES, STAGES, WEIGHTS = _gauss_legendre(6)


def noise_flow(process: Process, t: Times, s: Times, density: int = 20) -> Float[Tensor, "*B k k"]:
    """Ψ(s, t), float64, for 0 < s ≤ t ≤ T.

    Args:
        process: the forward process.
        t: where the noise is.
        s: where it is carried to.
        density: collocation steps a unit of log t; 20 leave 1e-11 in one step over all of [1e-3, 1], order 3 included.

    Raises:
        ValueError: a time is zero, where the noise has no direction.
    """
    begin, end = torch.broadcast_tensors(process.times(t), process.times(s))
    if (end <= 0).any() or (end > begin).any():
        raise ValueError("noise_flow needs 0 < s ≤ t.")
    start, stop = process.marginal(begin), process.marginal(end)
    if process.k == 1:
        return stop.cholesky / start.cholesky
    return stop.cholesky @ _rotation(process, begin, end, density) @ start.whitener


def _rotation(process: Process, t: Float[Tensor, "*B"], s: Float[Tensor, "*B"], density: int) -> Tensor:
    """O(s, t): the solution of dO/du = Ω O in u = log t."""
    k, stages = process.k, len(NODES)
    substeps = max(1, math.ceil(density * float((t / s).log().max())))  # the same for all: the widest pair decides
    width = (s.log() - t.log()) / substeps  # negative: the flow runs back in time
    centres = torch.arange(substeps, dtype=torch.float64)[:, None] + NODES
    times = torch.exp(t.log()[..., None, None] + width[..., None, None] * centres)
    omega = width[..., None, None, None, None] * _angular_rate(process, times)
    # K_i = Ω_i (O + Σ_j a_ij K_j): one linear system of k·stages unknowns a substep, for O = I
    eye = torch.eye(k, dtype=torch.float64)
    coupling = torch.einsum("...iab,ij->...iajb", omega, STAGES).flatten(-4, -3).flatten(-2, -1)
    slopes = torch.linalg.solve(torch.eye(k * stages, dtype=torch.float64) - coupling, omega.flatten(-3, -2))
    turns = eye + torch.einsum("i,...iab->...ab", WEIGHTS, slopes.unflatten(-2, (stages, k)))
    rotation = turns[..., 0, :, :]
    for i in range(1, substeps):
        rotation = turns[..., i, :, :] @ rotation
    return rotation


def _angular_rate(process: Process, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B k k"]:
    """Ω per unit of log t: skew-symmetric, with B + C above the diagonal, B = L⁻¹AL and C = L⁻¹DL⁻ᵀ."""
    kernel = process.marginal(t)
    b = kernel.whitener @ process.drift_rate(t) @ kernel.cholesky
    c = kernel.whitener @ process.diffusion_rate(t) @ kernel.whitener.mT
    upper = (b + c).triu(1)
    return t[..., None, None] * (upper - upper.mT)
