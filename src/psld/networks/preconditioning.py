"""Preconditioning: what a network sees, and is asked for, has unit variance at every noise level.

    D = c_skip · input + c_out F(c_in · input; c_noise)

For y = x₀ + σξ and data of scale s this is EDM (Karras et al., 2022, table 1). For a state z_t of k variables c_skip is
a vector and c_in a matrix, and of the many whitening matrices one leaves the network least to learn: its first row is
EDM's input, the others are noise that tells nothing. Derivation: docs/derivations/preconditioning.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from psld.kernels import mix, per_sample
from psld.networks.channels import Interface
from psld.networks.wrapping import Wrapping
from psld.processes import LinearProcess, Times, statistic_weights
from psld.specs.arguments import finite, positive

__all__ = ["Preconditioned", "PreconditionedState", "StateCoefficients"]


class Preconditioned(Wrapping):
    """D(y; σ) from any network, for predicts="denoiser".

        D(y; σ) = μ + s²/(s² + σ²) (y − μ) + sσ/√(s² + σ²) F( (y − μ)/√(s² + σ²); ¼ log σ )

    F is called as every network here: with a state of one variable, (B, 1, *data), and one number a sample.

    Args:
        network: F, e.g. a UNet with in_channels = out_channels = C. Its zero start makes D the best linear denoiser.
        sigma_data: s, the root mean square of the data about mean_data: 0.5 for CIFAR-10 in [−1, 1].
        sigma_min, sigma_max: F is told a σ within these; beyond them it is told the nearest, and c_skip, c_out and c_in
            go on exactly. So a process that starts at σ = 250 asks F nothing it was not trained on.
        log_embedding: F takes the logarithm of its second input itself, as a Fourier embedding does: it gets σ^¼.
        mean_data: μ, the mean of the data. With EDM's 0, F learns a mean like that of MNIST (−0.8 in [−1, 1]) at every
            σ before it learns anything else.

    Raises:
        ValueError: a scale is not positive, sigma_min is not below sigma_max, or the mean is not finite.
    """

    def __init__(
        self,
        network: nn.Module,
        sigma_data: float = 0.5,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        log_embedding: bool = False,
        mean_data: float = 0.0,
    ):
        super().__init__(network)
        _require_scales(sigma_data, sigma_min, sigma_max, mean_data)
        self.sigma_data, self.mean_data = sigma_data, mean_data
        self.sigma_min, self.sigma_max, self.log_embedding = sigma_min, sigma_max, log_embedding

    @classmethod
    def inner_interface(cls, arguments: Mapping[str, Any], interface: Interface) -> Interface:
        """One variable in, one out: F is called with y, whatever the process."""
        if (interface.variables, interface.outputs) != (1, 1):
            raise ValueError(
                f"Preconditioned is a denoiser D(y; σ): use it with predicts='denoiser'. {_asked(interface)}"
            )
        return interface

    def forward(self, y: Float[Tensor, "B *data"], sigma: Float[Tensor, " B"], **condition: Any) -> Tensor:
        """D(y; σ), (B, *data), for σ > 0."""
        square = sigma.square() + self.sigma_data**2
        skip, out, scale = self.sigma_data**2 / square, self.sigma_data * sigma * square.rsqrt(), square.rsqrt()
        told = _told(sigma, self.sigma_min, self.sigma_max, self.log_embedding)
        centred = y - self.mean_data
        output = self.network((per_sample(scale, y) * centred).unsqueeze(1), told, **condition)[:, 0]
        return self.mean_data + per_sample(skip, y) * centred + per_sample(out, y) * output


class StateCoefficients(NamedTuple):
    """Preconditioning of z_t, in float64: skip (…, k), out (…,), inputs (…, k, k), sigma (…,)."""

    skip: Tensor
    out: Tensor
    inputs: Tensor
    sigma: Tensor


class PreconditionedState(Wrapping):
    """E[x₀ | z_t] from any network of k variables, for predicts="x0".

        x̂₀ = μ + c_skip · (z − Φ₀μ) + c_out F(C_in (z − Φ₀μ); ¼ log σ),      σ = σ(t) of the sufficient statistic w · z

        c_skip = s²/(s² + σ²) w,      c_out = sσ/√(s² + σ²),      C_in (Σ + s² Φ₀Φ₀ᵀ) C_inᵀ = I

    The first variable that F sees is y/√(s² + σ²), the other k − 1 are the ancillary noise, whitened. With the process
    EDM this is `Preconditioned`.

    Args:
        network: F, called with (B, k, *data) and one number a sample; returns one variable, (B, 1, *data).
        process: of the states, the one the ScoreModel has. In a configuration it is filled in.
        sigma_data, sigma_min, sigma_max, log_embedding, mean_data: as for `Preconditioned`.

    Raises:
        ValueError: a scale is not positive, sigma_min is not below sigma_max, or the mean is not finite.
    """

    def __init__(
        self,
        network: nn.Module,
        process: LinearProcess,
        sigma_data: float = 0.5,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        log_embedding: bool = False,
        mean_data: float = 0.0,
    ):
        super().__init__(network)
        _require_scales(sigma_data, sigma_min, sigma_max, mean_data)
        self.process, self.sigma_data, self.mean_data = process, sigma_data, mean_data
        self.sigma_min, self.sigma_max, self.log_embedding = sigma_min, sigma_max, log_embedding

    @classmethod
    def inner_interface(cls, arguments: Mapping[str, Any], interface: Interface) -> Interface:
        """All variables in, one out."""
        if interface.outputs != 1:
            raise ValueError(f"PreconditionedState returns x̂₀: use it with predicts='x0'. {_asked(interface)}")
        return interface

    def coefficients(self, t: Times) -> StateCoefficients:
        """For times in (0, T]; those that rounding to the network's precision carried past T count as T."""
        times = torch.as_tensor(t, dtype=torch.float64, device="cpu").clamp(max=self.process.T)
        kernel = self.process.marginal(times)
        weights, sigma = statistic_weights(kernel)
        square = sigma.square() + self.sigma_data**2
        direction = kernel.whitened_signal * sigma[..., None]
        inputs = _turn(direction) @ kernel.whitener
        inputs[..., 0, :] = weights * square.rsqrt()[..., None]  # whitened given x₀ so far; this row has x₀ in it
        skip = (self.sigma_data**2 / square)[..., None] * weights
        return StateCoefficients(skip, self.sigma_data * sigma * square.rsqrt(), inputs, sigma)

    def forward(self, z: Float[Tensor, "B k *data"], t: Float[Tensor, " B"], **condition: Any) -> Tensor:
        """x̂₀ as one variable, (B, 1, *data)."""
        together = bool((t == t[0]).all())  # so it is when sampling: one set of coefficients for all
        skip, out, inputs, sigma = self.coefficients(t[:1] if together else t)
        # of Φ₀μ only the first input sees anything: w · Φ₀ = 1, and the others are noise alone
        square = sigma.square() + self.sigma_data**2
        shift, remaining = self.mean_data * square.rsqrt(), self.mean_data * sigma.square() / square
        sigma = sigma.to(z.device, z.dtype).expand(len(z))
        told = _told(sigma, self.sigma_min, self.sigma_max, self.log_embedding)
        whitened = mix(inputs, z)
        whitened[:, :1] -= per_sample(shift, whitened)
        output = self.network(whitened, told, **condition)
        return per_sample(remaining, z) + mix(skip.unsqueeze(-2), z) + per_sample(out, z) * output


def _turn(direction: Float[Tensor, "*B k"]) -> Float[Tensor, "*B k k"]:
    """An orthogonal matrix that takes a unit vector to ± the first axis, and changes smoothly with it.

    A Householder reflection; its mirror is changed only for vectors that point the other way, where it would degrade.
    """
    sign = torch.where(direction[..., :1] > -0.5, 1.0, -1.0)
    v = direction.clone()
    v[..., :1] += sign
    eye = torch.eye(direction.shape[-1], dtype=direction.dtype)
    return eye - 2.0 * v[..., :, None] * v[..., None, :] / v.square().sum(-1)[..., None, None]


def _told(sigma: Tensor, low: float, high: float, log_embedding: bool) -> Tensor:
    """c_noise: ¼ log σ, or σ^¼ for a network that takes the logarithm."""
    within = sigma.clamp(low, high)
    return within**0.25 if log_embedding else 0.25 * within.log()


def _require_scales(sigma_data: float, sigma_min: float, sigma_max: float, mean_data: float) -> None:
    positive("sigma_data", sigma_data)
    finite("mean_data", mean_data)
    if not positive("sigma_min", sigma_min) < positive("sigma_max", sigma_max):
        raise ValueError(f"needs 0 < sigma_min < sigma_max: got {sigma_min} and {sigma_max}.")


def _asked(interface: Interface) -> str:
    """What another `predicts` asked for, for a message."""
    return f"Asked for: {interface.variables} variables in, {interface.outputs} out."
