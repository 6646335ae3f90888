"""The contract of a forward process: what learning and sampling need of any, linear or not.

    dz = f(z, t) dt + G(z, t) dw,      z of shape (B, k, *data), t ∈ [0, T]

The first of the k variables is the data ("position"), the others are auxiliary. Time runs forward, from data at 0 to
the prior at T. Noise is an argument: standard normal draws ε of the shape of the state.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from psld.specs import SpecifiedValue
from psld.specs.arguments import positive, whole

__all__ = ["ForwardProcess", "Times"]

Times = float | Tensor
"""A time, or a batch of times of any shape."""


class ForwardProcess(SpecifiedValue):
    """Any Itô process from data to a known prior.

    A subclass states its SDE (`drift`, `diffusion_factor`), draws z_t given x₀ exactly (`perturb`), gives the score of
    that draw's law (`conditional_score`: its mean given z_t is the score of the process, which makes it the target of
    denoising score matching), and knows the law it ends in. `tests/contracts/test_process.py` holds the five against
    one another.

    Args:
        k: number of phase-space variables.
        T: the horizon.

    Raises:
        ValueError: T is not a positive, finite time.
    """

    def __init__(self, k: int, T: float = 1.0):
        self.k, self.T = whole("k", k), float(positive("T", T))

    @abstractmethod
    def drift(self, z: Float[Tensor, "B k *data"], t: Times) -> Float[Tensor, "B k *data"]:
        """f(z, t), per unit of time."""

    @abstractmethod
    def diffusion_factor(self, z: Float[Tensor, "B k *data"], t: Times) -> Float[Tensor, "..."]:
        """G(z, t): (B or 1, k, k, *data), or with 1 for a data dimension along which it is the same."""

    @abstractmethod
    def perturb(
        self, x0: Float[Tensor, "B *data"], t: Times, eps: Float[Tensor, "B k *data"]
    ) -> Float[Tensor, "B k *data"]:
        """A draw of z_t given x₀, from standard normal draws ε."""

    @abstractmethod
    def conditional_score(
        self, z: Float[Tensor, "B k *data"], x0: Float[Tensor, "B *data"], t: Times
    ) -> Float[Tensor, "B k *data"]:
        """∇_z log p(z_t | x₀), t > 0: the regression target of the score (Vincent, 2011)."""

    @abstractmethod
    def prior_sample(self, eps: Float[Tensor, "B k *data"]) -> Float[Tensor, "B k *data"]:
        """z_T from standard normal draws ε."""

    @abstractmethod
    def prior_log_prob(self, z: Float[Tensor, "B k *data"]) -> Float[Tensor, " B"]:
        """log density of the prior at z, in nats, summed over variables and data dimensions."""

    def project(self, z: Float[Tensor, "B k *data"]) -> Float[Tensor, "B *data"]:
        """The data variable of a state."""
        return z[:, 0]

    def diffuse(
        self, z: Float[Tensor, "B k *data"], t: Times, eps: Float[Tensor, "B k *data"]
    ) -> Float[Tensor, "B k *data"]:
        """G(z, t) ε."""
        return (self.diffusion_factor(z, t) * eps.unsqueeze(1)).sum(2)

    def times(self, t: Times) -> Float[Tensor, "*B"]:
        """t as a float64 CPU tensor. Raises ValueError outside [0, T]."""
        t = torch.as_tensor(t, dtype=torch.float64, device="cpu")
        if not ((t >= 0) & (t <= self.T)).all():
            raise ValueError(f"times must lie in [0, {self.T:g}]: got {float(t.min()):g} … {float(t.max()):g}.")
        return t
