"""How a reverse process carries noise from t to s when x̂₀ is held constant.

For each η ∈ [0, 1] the SDE with drift f − (1 + η²) βD ∇log p and noise η√(2βD), run backwards, has the marginals of the
forward process: η = 0 is the probability flow, η = 1 the reversal of Anderson (1982). With the score of a constant x̂₀
it is linear: z_s = Φ₀(s) x̂₀ + Ψ(s, t) (z_t − Φ₀(t) x̂₀) + noise, where Ψ solves dΨ/dt = β (A + (1 + η²) D Σ⁻¹) Ψ.

In units of the marginals' own noise, Ψ = L_s M L_t⁻¹ with dM/db = (Ω + η² C) M, Ω skew-symmetric and C = L⁻¹DL⁻ᵀ; only
M is integrated, which is smooth in log t, and for η = 0 is a rotation and stays one under Gauss–Legendre collocation.
Derivation: docs/derivations/exponential.md.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from psld.processes import LinearProcess, Times
from psld.processes.collocation import NODES, STAGES, WEIGHTS, gauss_legendre

__all__ = ["data_weights", "noise_flow", "noise_weights", "quadrature", "whitened_flow"]


def noise_flow(
    process: LinearProcess, t: Times, s: Times, eta: float = 0.0, density: int = 20
) -> Float[Tensor, "*B k k"]:
    """Ψ(s, t), float64, for 0 < s ≤ t ≤ T.

    Args:
        process: the forward process.
        t: where the noise is.
        s: where it is carried to.
        eta: 0 for the probability flow, 1 for the reverse SDE.
        density: collocation steps a unit of log t; 20 leave 1e-11 in one step over all of [1e-3, 1], order 3 included.

    Raises:
        ValueError: a time is zero, where the noise has no direction.
    """
    begin, end = _reverse_pair(process, t, s)
    start, stop = process.marginal(begin), process.marginal(end)
    if process.k == 1 and eta == 0.0:
        return stop.cholesky / start.cholesky
    return stop.cholesky @ whitened_flow(process, begin, end, eta, density) @ start.whitener


def whitened_flow(
    process: LinearProcess, t: Times, s: Times, eta: float = 0.0, density: int = 20
) -> Float[Tensor, "*B k k"]:
    """M(s, t) = L_s⁻¹ Ψ(s, t) L_t; the noise that joins on the way has covariance L_s (I − M Mᵀ) L_sᵀ."""
    begin, end = _reverse_pair(process, t, s)
    k, stages = process.k, len(NODES)
    substeps = max(1, math.ceil(density * float((begin / end).log().max())))  # for all: the widest pair decides
    width = (end.log() - begin.log()) / substeps  # negative: the flow runs back in time
    centres = torch.arange(substeps, dtype=torch.float64)[:, None] + NODES
    times = torch.exp(begin.log()[..., None, None] + width[..., None, None] * centres)
    rate = width[..., None, None, None, None] * _whitened_rate(process, times, eta)
    # K_i = R_i (M + Σ_j a_ij K_j): one linear system of k·stages unknowns a substep, for M = I
    eye = torch.eye(k, dtype=torch.float64)
    coupling = torch.einsum("...iab,ij->...iajb", rate, STAGES).flatten(-4, -3).flatten(-2, -1)
    slopes = torch.linalg.solve(torch.eye(k * stages, dtype=torch.float64) - coupling, rate.flatten(-3, -2))
    turns = eye + torch.einsum("i,...iab->...ab", WEIGHTS, slopes.unflatten(-2, (stages, k)))
    flow = turns[..., 0, :, :]
    for i in range(1, substeps):
        flow = turns[..., i, :, :] @ flow
    return flow


def _whitened_rate(process: LinearProcess, t: Float[Tensor, "*B"], eta: float) -> Float[Tensor, "*B k k"]:
    """Ω + η² C per unit of log t. Ω has B + C above the diagonal, B = L⁻¹AL and C = L⁻¹DL⁻ᵀ, and mirrors it below."""
    kernel = process.marginal(t)
    b = kernel.whitener @ process.drift_rate(t) @ kernel.cholesky
    c = kernel.whitener @ process.diffusion_rate(t) @ kernel.whitener.mT
    upper = (b + c).triu(1)
    return t[..., None, None] * (upper - upper.mT + eta**2 * c)


def data_weights(
    process: LinearProcess,
    t: Float[Tensor, " n"],
    s: Float[Tensor, " n"],
    clocks: Float[Tensor, "n p"],
    eta: float = 0.0,
) -> Float[Tensor, "n p k"]:
    """w_j of z_s = Ψ z_t + Σ_j w_j x̂₀ⱼ + noise, x̂₀ being the polynomial in λ = −log σ through x̂₀ⱼ at λ = clocks[:, j].

        w_j = −∫ Ψ(s, τ) (1 + η²) D Σ_τ⁻¹ Φ₀(τ) ℓ_j(λ_τ) db_τ,       b from b_t to b_s

    Gauss–Legendre quadrature in log τ.
    """
    tau, width, flow = _along(process, t, s, eta)
    kernel = process.marginal(tau)
    pulled = (flow @ process.diffusion_rate(tau) @ kernel.pull[..., None])[..., 0]
    forcing = -(1.0 + eta**2) * pulled * tau[..., None]
    basis = _lagrange(clocks, -process.noise_scale(tau).log())
    return torch.einsum("nq,npq,nqk->npk", width, basis, forcing)


def noise_weights(
    process: LinearProcess, t: Float[Tensor, " n"], s: Float[Tensor, " n"], clocks: Float[Tensor, "n p"]
) -> Float[Tensor, "n p k k"]:
    """U_j of z_s = Φ(s, t) z_t + Σ_j U_j nⱼ, where the noise, carried to t by Ψ, is the polynomial in λ through nⱼ.

    U_j = ∫ Φ(s, τ) D Σ_τ⁻¹ Ψ(τ, t) ℓ_j(λ_τ) db_τ,       b from b_t to b_s
    """
    tau, width, flow = _along(process, t, s, 0.0)
    kernel = process.marginal(tau)
    to_tau = torch.linalg.solve(flow, noise_flow(process, t, s)[:, None])  # Ψ(τ, t) = Ψ(s, τ)⁻¹ Ψ(s, t)
    back = torch.linalg.inv(process.transition(s[:, None], tau).mean_map)  # Φ(s, τ), against the forward direction
    rate = back @ process.diffusion_rate(tau) @ kernel.whitener.mT @ kernel.whitener @ to_tau * tau[..., None, None]
    basis = _lagrange(clocks, -process.noise_scale(tau).log())
    return torch.einsum("nq,npq,nqab->npab", width, basis, rate)


def quadrature(
    process: LinearProcess, t: Float[Tensor, " n"], s: Float[Tensor, " n"]
) -> tuple[Float[Tensor, "n q"], Float[Tensor, "n q"]]:
    """Gauss–Legendre nodes τ from t to s and their weights in log τ, negative; more of them the wider the steps are.

    All that is integrated here behaves like a power of τ where τ is small (order 3: up to the seventh), and like an
    exponential of ‖A‖ b where it is large; the nodes follow whichever moves more over a step.
    """
    width = (s.log() - t.log())[:, None]
    growth = 0.5 * process.drift_increment(s, t).abs().sum(-2).max()
    reach = max(float(width.abs().max()), float(growth))
    nodes, weights = gauss_legendre(min(6 + math.ceil(5.0 * reach), 64))
    return torch.exp(t.log()[:, None] + width * nodes), width * weights


def _along(process: LinearProcess, t: Tensor, s: Tensor, eta: float) -> tuple[Tensor, Tensor, Tensor]:
    """Quadrature times τ (n, q) in each step, their weights in log τ (negative), and Ψ(s, τ) from each to the end."""
    tau, width = quadrature(process, t, s)
    hops = noise_flow(process, tau, torch.cat([tau[:, 1:], s[:, None]], 1), eta)
    flow = [hops[:, -1]]
    for hop in hops[:, :-1].flip(1).unbind(1):
        flow.append(flow[-1] @ hop)
    return tau, width, torch.stack(flow[::-1], 1)


def _lagrange(nodes: Float[Tensor, "n p"], x: Float[Tensor, "n q"]) -> Float[Tensor, "n p q"]:
    """The polynomials that are 1 at one node and 0 at the others, at each x."""
    basis = []
    for j in range(nodes.shape[1]):
        others = torch.cat([nodes[:, :j], nodes[:, j + 1 :]], 1)
        ratios = (x[:, None] - others[..., None]) / (nodes[:, j, None] - others)[..., None]
        basis.append(ratios.prod(1))
    return torch.stack(basis, 1)


def _reverse_pair(process: LinearProcess, t: Times, s: Times) -> tuple[Tensor, Tensor]:
    begin, end = torch.broadcast_tensors(process.times(t), process.times(s))
    if (end <= 0).any() or (end > begin).any():
        raise ValueError("noise flows from t to s with 0 < s ≤ t.")
    return begin, end
