"""Gauss–Legendre nodes, and the kernel of any linear SDE whose matrices depend on time.

    dz = A(t) z dt + √(2 D(t)) dw,      Φ' = A Φ,      Σ(s, t) = ∫ₛᵗ Φ(t, u) 2D(u) Φ(t, u)ᵀ du

Φ by collocation at the nodes (order 12 with 6 of them), Σ by quadrature over the same nodes, one short step after the
other. Of Σ only positive semi-definite terms are added up, so that it stays so.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from psld.kernels import Kernel, product

__all__ = ["NODES", "STAGES", "WEIGHTS", "gauss_legendre", "time_dependent_kernel"]

SUBSTEP = 0.25  # ‖A‖₁ times the length of a step
SMOOTH = 8  # steps at least, for what moves in t besides


def gauss_legendre(nodes: int) -> tuple[Float[Tensor, " q"], Float[Tensor, " q"]]:
    """Nodes and weights of Gauss–Legendre quadrature on [0, 1] (Golub & Welsch, 1969)."""
    i = torch.arange(1, nodes, dtype=torch.float64)
    off_diagonal = torch.diag(i / (4.0 * i**2 - 1.0).sqrt(), 1)
    values, vectors = torch.linalg.eigh(off_diagonal + off_diagonal.T)
    return 0.5 + 0.5 * values, vectors[0] ** 2


def _collocation(nodes: Tensor) -> Tensor:
    """Stage matrix a_ij = ∫₀^{c_i} ℓ_j of collocation at a few nodes."""
    powers = torch.arange(len(nodes), dtype=torch.float64)
    coefficients = torch.linalg.inv(nodes[:, None] ** powers)  # of the Lagrange polynomials, a column each
    return (nodes[:, None] ** (powers + 1) / (powers + 1)) @ coefficients


NODES, WEIGHTS = gauss_legendre(6)
STAGES = _collocation(NODES)


def integral(
    rate: Callable[[Tensor], Tensor], s: Float[Tensor, "*B"], t: Float[Tensor, "*B"], pieces: int = 8
) -> Float[Tensor, "*B k k"]:
    """∫ₛᵗ rate(u) du of a matrix that is smooth in u, by quadrature on several pieces."""
    width = ((t - s) / pieces)[..., None, None]
    u = s[..., None, None] + width * (torch.arange(pieces, dtype=torch.float64)[:, None] + NODES)
    return torch.einsum("...pqab,q->...ab", rate(u) * width[..., None, None], WEIGHTS)


def time_dependent_kernel(
    drift_rate: Callable[[Tensor], Tensor],
    diffusion_rate: Callable[[Tensor], Tensor],
    s: Float[Tensor, "*B"],
    t: Float[Tensor, "*B"],
) -> Kernel:
    """z_t given z_s, for matrices (…, k, k) that are smooth functions of time, to about 1e-12.

    Args:
        drift_rate: A(t), per unit of time.
        diffusion_rate: D(t), half the variance added per unit of time.
        s: where the kernel begins.
        t: where it ends, not before s.
    """
    norm = integral(lambda u: drift_rate(u).abs(), s, t).sum(-2).amax(-1)
    pieces = SMOOTH + math.ceil(float(norm.max()) / SUBSTEP) if norm.numel() else SMOOTH
    width = (t - s) / pieces
    eye = torch.eye(drift_rate(t).shape[-1], dtype=torch.float64)
    phi, covariance = eye.expand(*t.shape, *eye.shape), torch.zeros(*t.shape, *eye.shape, dtype=torch.float64)
    for piece in range(pieces):
        u = s[..., None] + width[..., None] * (piece + NODES)
        step, stages = _collocated(width[..., None, None, None] * drift_rate(u))
        left = step.unsqueeze(-3) @ torch.linalg.inv(stages)  # Φ from each node to the end of the piece
        joined = product(product(left, 2.0 * diffusion_rate(u)), left.mT)
        joined = torch.einsum("...qab,q->...ab", joined, WEIGHTS) * width[..., None, None]
        phi, covariance = product(step, phi), product(product(step, covariance), step.mT) + joined
    return Kernel(phi, 0.5 * (covariance + covariance.mT))


def _collocated(rate: Float[Tensor, "*B q k k"]) -> tuple[Float[Tensor, "*B k k"], Float[Tensor, "*B q k k"]]:
    """Φ over one step, and from its start to each node, for the rate times the step at the nodes."""
    stages, k = rate.shape[-3], rate.shape[-1]
    # K_i = R_i (I + Σ_j a_ij K_j): one linear system of k·stages unknowns
    coupling = torch.einsum("...iab,ij->...iajb", rate, STAGES).flatten(-4, -3).flatten(-2, -1)
    slopes = torch.linalg.solve(torch.eye(k * stages, dtype=torch.float64) - coupling, rate.flatten(-3, -2))
    slopes, eye = slopes.unflatten(-2, (stages, k)), torch.eye(k, dtype=torch.float64)
    return (
        eye + torch.einsum("i,...iab->...ab", WEIGHTS, slopes),
        eye + torch.einsum("ij,...jab->...iab", STAGES, slopes),
    )
