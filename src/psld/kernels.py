"""Gaussian kernels over phase space, float64 and free of cancellation.

For dz = A z db + √(2D) dw the transition over Δb = b(t) − b(s) has

    mean map  Φ = exp(A Δb),      covariance  Σ = ∫₀^Δb e^{Au} 2D e^{Aᵀu} du.

Both are Taylor series on a short step, then doubled: Σ ← Σ + ΦΣΦᵀ, E ← 2E + E² with E = Φ − I. Nothing is subtracted,
so every entry keeps its relative precision down to t → 0. Derivation and measured alternatives:
docs/derivations/kernel.md.

State is z of shape (B, k, *data); matrices are (k, k) or (B, k, k), kept on the CPU and moved where the state is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Kernel", "cholesky", "linear_kernel", "mix", "outer", "product", "relax"]

TAYLOR_ORDER = 12
TAYLOR_RADIUS = 0.125  # ‖A‖₁ h: the first omitted term is then below 1e-17 of the sum
EXCESS_DOUBLINGS = 3  # up to ‖A‖₁ Δb = 1
FORGOTTEN = 0.1  # share of the stationary variance that is still remembered


@dataclass(frozen=True)
class Kernel:
    """N(mean_map · z₀, covariance), the same in every data dimension.

    Attributes:
        mean_map: (…, k, k).
        covariance: (…, k, k), symmetric positive semi-definite.
    """

    mean_map: Float[Tensor, "*B k k"]
    covariance: Float[Tensor, "*B k k"]

    @cached_property
    def cholesky(self) -> Float[Tensor, "*B k k"]:
        """L, lower triangular, L Lᵀ = covariance."""
        return cholesky(self.covariance)

    @cached_property
    def whitener(self) -> Float[Tensor, "*B k k"]:
        """L⁻¹. Raises ValueError where the covariance is singular: at t = 0, and to rounding near it."""
        factor = self.cholesky
        if not (factor.diagonal(dim1=-2, dim2=-1) > 0).all():
            raise ValueError("the kernel's covariance is singular in float64, it has no score: use a larger t.")
        eye = torch.eye(factor.shape[-1], dtype=factor.dtype)
        return torch.linalg.solve_triangular(factor, eye.expand_as(factor), upper=False)

    @property
    def whitened_signal(self) -> Float[Tensor, "*B k"]:
        """w = L⁻¹Φ₀: what one unit of x₀ adds to the state, in units of the noise."""
        return (self.whitener @ self.mean_map[..., :1])[..., 0]

    @property
    def pull(self) -> Float[Tensor, "*B k"]:
        """Σ⁻¹Φ₀: what one unit of x̂₀ adds to the score."""
        return (self.whitener.mT @ self.whitened_signal[..., None])[..., 0]

    def __getitem__(self, i: int) -> Kernel:
        """The kernel at one place of the batch; factors that are known already come along."""
        row = Kernel(self.mean_map[i], self.covariance[i])
        for name in ("cholesky", "whitener"):
            if name in self.__dict__:
                row.__dict__[name] = self.__dict__[name][i]
        return row

    def mean(self, z0: Float[Tensor, "B k *data"]) -> Float[Tensor, "B k *data"]:
        """The conditional mean, mean_map · z₀."""
        return mix(self.mean_map, z0)

    def sample(self, z0: Float[Tensor, "B k *data"], eps: Float[Tensor, "B k *data"]) -> Float[Tensor, "B k *data"]:
        """mean + L ε, with ε standard normal."""
        return self.mean(z0) + mix(self.cholesky, eps)

    def score(self, eps: Float[Tensor, "B k *data"]) -> Float[Tensor, "B k *data"]:
        """∇ log p at mean + L ε, which is −L⁻ᵀ ε."""
        return -mix(self.whitener.mT, eps)

    def log_prob(self, z: Float[Tensor, "B k *data"], z0: Float[Tensor, "B k *data"]) -> Float[Tensor, " B"]:
        """log N(z; mean_map · z₀, covariance) in nats, summed over variables and data dimensions."""
        eps = mix(self.whitener, z - self.mean(z0)).flatten(1)
        log_scale = self.cholesky.diagonal(dim1=-2, dim2=-1).log().sum(-1).to(z)
        dimensions = z[0, 0].numel()
        return -0.5 * eps.square().sum(1) - dimensions * log_scale - 0.5 * eps.shape[1] * math.log(2 * math.pi)


def linear_kernel(a: Float[Tensor, "k k"], d: Float[Tensor, "k k"], db: Float[Tensor, "*B"]) -> Kernel:
    """The transition kernel of dz = A z db + √(2D) dw over each Δb ≥ 0."""
    k = len(a)
    growth = TAYLOR_RADIUS / max(float(a.abs().sum(0).max()), 1e-300)
    doublings = torch.log2(db / growth).ceil().clamp(min=0.0).nan_to_num(nan=0.0)
    h = db * torch.exp2(-doublings)
    powers = h[..., None, None] ** torch.arange(1, TAYLOR_ORDER + 1, dtype=h.dtype)
    excess, covariance = product(powers, _taylor(a, d)).reshape(*h.shape, 2, k, k).unbind(-3)
    eye = torch.eye(k, dtype=a.dtype)
    phi = eye + excess
    for i in range(int(doublings.max()) if doublings.numel() else 0):
        active = (i < doublings)[..., None, None]
        covariance = torch.where(active, covariance + product(product(phi, covariance), phi.mT), covariance)
        if i < EXCESS_DOUBLINGS:  # while Φ is near I it is I + E; once it decays, I + E would cancel and Φ² does not
            excess = torch.where(active, 2.0 * excess + product(excess, excess), excess)
            phi = torch.where(active, eye + excess, phi)
        else:
            phi = torch.where(active, product(phi, phi), phi)
    return Kernel(phi, 0.5 * (covariance + covariance.mT))


def relax(kernel: Kernel, stationary: Float[Tensor, "k k"]) -> Kernel:
    """Σ = S − ΦSΦᵀ where most has been forgotten: there it is the more precise form.

    While ΦSΦᵀ is a large part of S the difference cancels on the diagonal; once it is small the doubling sum cancels
    off the diagonal instead, where Σ returns to S.
    """
    remembered = product(product(kernel.mean_map, stationary), kernel.mean_map.mT)
    diagonal = remembered.diagonal(dim1=-2, dim2=-1) / stationary.diagonal()
    forgotten = (diagonal.amax(-1) < FORGOTTEN)[..., None, None]
    return Kernel(kernel.mean_map, torch.where(forgotten, stationary - remembered, kernel.covariance))


def _taylor(a: Tensor, d: Tensor) -> Tensor:
    """Coefficients of h, h², … in Φ(h) − I and in Σ(h), (order, 2k²)."""
    power, moment = torch.eye(len(a), dtype=a.dtype), 2.0 * d
    map_terms, covariance_terms = [], []
    for n in range(1, TAYLOR_ORDER + 1):
        power = a @ power / n
        map_terms.append(power)
        covariance_terms.append(moment / n)
        moment = (a @ moment + moment @ a.T) / n
    return torch.stack([torch.stack(map_terms), torch.stack(covariance_terms)], dim=1).flatten(1)


def product(a: Float[Tensor, "*#B i j"], b: Float[Tensor, "*#B j l"]) -> Float[Tensor, "*#B i l"]:
    """A batch of small matrix products, written element-wise: batched 2×2 matmul is slow on a CPU.

    And the last bit of a BLAS product may depend on the size of the batch.
    """
    return (a.unsqueeze(-1) * b.unsqueeze(-3)).sum(-2)


def cholesky(covariance: Float[Tensor, "*B k k"]) -> Float[Tensor, "*B k k"]:
    """Lower Cholesky factor of positive *semi*-definite k×k matrices; a zero pivot gives a zero column."""
    k = covariance.shape[-1]
    factor = torch.zeros_like(covariance)
    for j in range(k):
        pivot = covariance[..., j, j] - factor[..., j, :j].square().sum(-1)
        factor[..., j, j] = pivot.clamp(min=0.0).sqrt()
        for i in range(j + 1, k):
            rest = covariance[..., i, j] - (factor[..., i, :j] * factor[..., j, :j]).sum(-1)
            factor[..., i, j] = torch.where(pivot > 0, rest / factor[..., j, j], 0.0)
    return factor


def mix(matrix: Float[Tensor, "*B r k"], z: Float[Tensor, "B k *data"]) -> Float[Tensor, "B r *data"]:
    """Apply a k×k (or r×k) matrix to the phase-space variables of every data dimension.

    Element-wise, so that a sample's result does not depend on the size of its batch.
    """
    m = matrix.to(device=z.device, dtype=z.dtype)
    m = m.reshape((-1, *m.shape[-2:]) + (1,) * (z.ndim - 2))
    return (m * z.unsqueeze(1)).sum(2) if z.shape[1] > 1 else m[:, :, 0] * z


def outer(vector: Float[Tensor, "*B k"], x: Float[Tensor, "B *data"]) -> Float[Tensor, "B k *data"]:
    """vector ⊗ x: one image, placed in each phase-space variable with its own weight."""
    return mix(vector.unsqueeze(-1), x.unsqueeze(1))


def per_sample(numbers: Float[Tensor, "*B"], like: Float[Tensor, "B ..."]) -> Tensor:
    """One number a sample (or one for all), ready to multiply with `like`, on its device and in its dtype."""
    numbers = numbers.to(like.device, like.dtype)
    return numbers.reshape(-1, *[1] * (like.ndim - 1)) if numbers.ndim else numbers
