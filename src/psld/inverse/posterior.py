"""Posterior guidance for linear inverse problems, y = A x₀ + s ξ: models that wrap a model.

With Cov[x₀ | z_t] = C and x₀ | z_t taken for Gaussian, the score of y given z_t moves x̂₀ by

    Δ = C Aᵀ (A C Aᵀ + s² I)⁻¹ (y − A x̂₀),            C = σ² (∂x̂₀/∂z) Φ₀

C is Tweedie's formula in phase space, exact for every linear process: z_t speaks of x₀ through one image at noise σ(t),
so a vector-Jacobian product of the model, contracted with Φ₀, applies it. Methods differ in the C inside the inverse:

    DPS    0                       Chung et al., ICLR 2023
    ΠGDM   r² I                    Song et al., ICLR 2023
    MMPS   C itself, by CG         Rozet et al., NeurIPS 2024

Derivation: docs/derivations/posterior.md.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from psld.inverse.operators import LinearOperator
from psld.kernels import mix, per_sample
from psld.model import Model, ModelWrapper, Prediction
from psld.processes import Times
from psld.specs.arguments import checked, non_negative, positive, whole

__all__ = ["DPS", "MMPS", "PiGDM", "PosteriorGuidance", "conjugate_gradients"]

Covariance = Callable[[Tensor], Tensor]
"""u ↦ C u, images to images (B, *data)."""


class PosteriorGuidance(ModelWrapper):
    """A model of x₀ given a measurement of it; subclasses say how the residual is weighted.

    Put `Clamped` around it, not inside: where x̂₀ is clamped it has no derivative.

    Args:
        model: any model, differentiable in the state.
        operator: A.
        observation: y, one for all samples (1, *measured), or one a sample.
        noise: s ≥ 0, standard deviation of the measurement.

    Raises:
        ValueError: noise is negative; at a call, another number of observations than samples, or of another shape
            than A's measurements.
    """

    @checked
    def __init__(self, model: Model, operator: LinearOperator, observation: Float[Tensor, "B *measured"], noise: float):
        non_negative("noise", noise)
        super().__init__(model)
        self.operator, self.observation, self.noise = operator, observation, noise

    def __call__(self, z: Float[Tensor, "B k *data"], t: Times, **condition: Any) -> Prediction:
        sigma = self.process.noise_scale(t).to(z.device, z.dtype).reshape(-1)
        signal = self.process.signal(t)
        with torch.enable_grad():
            state = z.detach().requires_grad_()
            prediction = self.model(state, t, **condition)
            x0 = prediction.x0

        def covariance(u: Tensor) -> Tensor:
            (pulled,) = torch.autograd.grad(x0, state, u, retain_graph=True)
            return per_sample(sigma.square(), u) * mix(signal.unsqueeze(-2), pulled)[:, 0]

        residual = self._residual(x0.detach())
        shift = covariance(self.operator.adjoint(self.weigh(residual, sigma, covariance)))
        with torch.no_grad():
            known = {prediction.given: getattr(prediction, prediction.given).detach()}
            return Prediction(z, prediction.kernel, **known).moved(shift)

    def _residual(self, x0: Float[Tensor, "B *data"]) -> Float[Tensor, "B *measured"]:
        measured = self.operator.forward(x0)
        if self.observation.shape[1:] != measured.shape[1:] or len(self.observation) not in (1, len(x0)):
            raise ValueError(
                f"{self.operator!r} measures {tuple(measured.shape)} and the observation is "
                f"{tuple(self.observation.shape)}: give one for all samples, or one a sample."
            )
        return self.observation.to(measured) - measured

    @abstractmethod
    def weigh(
        self, residual: Float[Tensor, "B *measured"], sigma: Float[Tensor, "*B"], covariance: Covariance
    ) -> Float[Tensor, "B *measured"]:
        """(A C' Aᵀ + s² I)⁻¹ residual, with the C' of the method."""


class DPS(PosteriorGuidance):
    """Diffusion posterior sampling: x₀ given z_t is taken to be x̂₀, with no spread (Chung et al., ICLR 2023).

    Args:
        model, operator, observation, noise: as for `PosteriorGuidance`; noise > 0 unless `step` is given.
        step: None weighs with 1 / s², Bayes' rule for that assumption. A number ζ is the paper's practical form,
            the gradient of ζ |y − A x̂₀|, here as a part of the score (theirs is a step of its own).

    Raises:
        ValueError: neither noise nor a positive step.
    """

    @checked
    def __init__(
        self,
        model: Model,
        operator: LinearOperator,
        observation: Float[Tensor, "B *measured"],
        noise: float,
        step: float | None = None,
    ):
        super().__init__(model, operator, observation, noise)
        if noise == 0 and step is None:
            raise ValueError(f"DPS needs noise > 0, or a positive step: got noise {noise}, step {step}.")
        self.step = None if step is None else positive("step", step)

    def weigh(
        self, residual: Float[Tensor, "B *measured"], sigma: Float[Tensor, "*B"], covariance: Covariance
    ) -> Float[Tensor, "B *measured"]:
        if self.step is None:
            return residual / self.noise**2
        length = residual.flatten(1).norm(dim=1).clamp(min=torch.finfo(residual.dtype).tiny)
        return self.step * residual / per_sample(length, residual)


class PiGDM(PosteriorGuidance):
    """Pseudoinverse guidance: C' = r² I with r² = σ² d² / (σ² + d²) (Song et al., ICLR 2023).

    Exact where the data are N(μ, d² I).

    Args:
        model, operator, observation, noise: as for `PosteriorGuidance`.
        data_std: d > 0, standard deviation of a pixel.

    Raises:
        ValueError: data_std is not positive.
    """

    @checked
    def __init__(
        self,
        model: Model,
        operator: LinearOperator,
        observation: Float[Tensor, "B *measured"],
        noise: float = 0.0,
        data_std: float = 1.0,
    ):
        super().__init__(model, operator, observation, noise)
        self.data_std = positive("data_std", data_std)

    def weigh(
        self, residual: Float[Tensor, "B *measured"], sigma: Float[Tensor, "*B"], covariance: Covariance
    ) -> Float[Tensor, "B *measured"]:
        variance = sigma.square() * self.data_std**2 / (sigma.square() + self.data_std**2)
        return self.operator.solve(residual, variance, torch.full_like(variance, self.noise**2))


class MMPS(PosteriorGuidance):
    """Moment matching: C' = C, the covariance the model itself implies (Rozet et al., NeurIPS 2024).

    Exact where the data are Gaussian, of any covariance, given enough iterations.

    Args:
        model, operator, observation, noise: as for `PosteriorGuidance`.
        iterations: of conjugate gradients, each one vector-Jacobian product; as many as the measurement has values are
            always enough.

    Raises:
        ValueError: no iteration.
    """

    @checked
    def __init__(
        self,
        model: Model,
        operator: LinearOperator,
        observation: Float[Tensor, "B *measured"],
        noise: float = 0.0,
        iterations: int = 5,
    ):
        super().__init__(model, operator, observation, noise)
        self.iterations = whole("iterations", iterations)

    def weigh(
        self, residual: Float[Tensor, "B *measured"], sigma: Float[Tensor, "*B"], covariance: Covariance
    ) -> Float[Tensor, "B *measured"]:
        def matrix(u: Tensor) -> Tensor:
            return self.operator.forward(covariance(self.operator.adjoint(u))) + self.noise**2 * u

        return conjugate_gradients(matrix, residual, self.iterations)


def conjugate_gradients(
    matrix: Callable[[Tensor], Tensor], b: Float[Tensor, "B *d"], iterations: int
) -> Float[Tensor, "B *d"]:
    """u with matrix(u) = b for a symmetric positive semi-definite matrix, each sample on its own, started from 0.

    A sample stops where its residual is down to rounding, and where it meets a direction along which the matrix is not
    positive: the Jacobian of a trained network is symmetric and positive only as far as it has learned to be.
    """

    def dot(u: Tensor, v: Tensor) -> Tensor:
        return per_sample((u * v).flatten(1).sum(1), u)

    u, residual, direction = torch.zeros_like(b), b, b
    square = dot(b, b)
    enough = square * torch.finfo(b.dtype).eps ** 2
    for _ in range(iterations):
        image = matrix(direction)
        curvature = dot(direction, image)
        active = (square > enough) & (curvature > 0)
        if not active.any():
            break
        length = torch.where(active, square / torch.where(active, curvature, 1.0), 0.0)
        u, residual = u + length * direction, residual - length * image
        latest = dot(residual, residual)
        turn = torch.where(active, latest / torch.where(active, square, 1.0), 0.0)
        square = torch.where(active, latest, 0.0)
        direction = residual + turn * direction
    return u
