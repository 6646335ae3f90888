"""Training losses: one number a sample, unreduced.

The network sees z_t = Φ(t) z₀ + L(t) ε and is asked for ε (or what the model predicts). HSM conditions on x₀ and
integrates the auxiliary variables out (Dockhorn et al., 2022, §3.2), DSM conditions on all of z₀ (Vincent, 2011).
`Denoising` asks for x₀ at noise levels of its own choice, weighted as in EDM (Karras et al., 2022).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from psld.kernels import Kernel, mix
from psld.predictions import ScoreModel
from psld.processes import Conditioning, Process

__all__ = ["DSM", "HSM", "Denoising", "Objective", "ScoreMatching"]


class Objective(ABC):
    """What training minimises: one number a sample."""

    @abstractmethod
    def __call__(
        self,
        model: ScoreModel,
        x0: Float[Tensor, "B *data"],
        t: Float[Tensor, " B"],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, " B"]:
        """The loss of each sample; noise comes from the generator."""


class ScoreMatching(Objective):
    """Mean squared error of the prediction: of ε (models of ε or of the score), or of x₀."""

    conditioning: Conditioning

    def __call__(
        self,
        model: ScoreModel,
        x0: Float[Tensor, "B *data"],
        t: Float[Tensor, " B"],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, " B"]:
        """The loss of each sample at its time t, averaged over predicted rows and data dimensions.

        Raises:
            ValueError: the model's ε belongs to the other conditioning.
        """
        if model.predicts == "eps" and model.conditioning != self.conditioning:
            raise ValueError(
                f"{type(self).__name__} trains ε conditioned by {self.conditioning!r}, the model says "
                f"{model.conditioning!r}: give the model conditioning={self.conditioning!r}."
            )
        process = model.process
        kernel = process.marginal(t, self.conditioning, model.jitter)
        noise = torch.randn(len(x0), process.k, *x0.shape[1:], dtype=x0.dtype, generator=generator).to(x0.device)
        z_t = kernel.sample(self.start(model, x0, generator), noise)
        return _error(model, kernel, x0, noise, z_t, t).flatten(1).mean(1)

    @abstractmethod
    def start(self, model: ScoreModel, x0: Tensor, generator: torch.Generator | None) -> Tensor:
        """What z_t is conditioned on, (B, k, *data)."""


class HSM(ScoreMatching):
    """Hybrid score matching: z_t given x₀."""

    conditioning: Conditioning = "hsm"

    def start(self, model: ScoreModel, x0: Tensor, generator: torch.Generator | None) -> Tensor:
        return model.process.lift(x0)


class DSM(ScoreMatching):
    """Denoising score matching: z_t given x₀ and a draw of the auxiliary variables."""

    conditioning: Conditioning = "dsm"

    def start(self, model: ScoreModel, x0: Tensor, generator: torch.Generator | None) -> Tensor:
        shape = (len(x0), model.process.k - 1, *x0.shape[1:])
        noise = torch.randn(shape, dtype=x0.dtype, generator=generator).to(x0.device)
        return model.process.lift(x0, model.process.initial_auxiliary(noise))


class Denoising(Objective):
    """EDM's loss: weighted error of x̂₀ at log-normal noise levels (Karras et al., 2022, table 1).

        log σ ~ N(P_mean, P_std²),      λ(σ) |x̂₀ − x₀|²,      λ = (σ² + s²) / (σs)²

    λ is 1/c_out² of `psld.networks.Preconditioned`, so that its network meets the same unit loss at every σ. A model of
    predicts="denoiser" is shown y = x₀ + σξ, and the process is not used. One of predicts="x0" is shown z_t at the time
    where the process has this σ: the same noise levels and weights, so the two differ in what the network sees alone.

    Args:
        sigma_data: s, as the preconditioned network has it.
        P_mean, P_std: of log σ. EDM's −1.2 and 1.2 belong to s = 0.5; for another s add log(s / 0.5) to P_mean.

    Raises:
        ValueError: sigma_data or P_std is not positive; at a call, a model that predicts neither x₀ nor D(y; σ).
    """

    def __init__(self, sigma_data: float = 0.5, P_mean: float = -1.2, P_std: float = 1.2):
        for name, value in {"sigma_data": sigma_data, "P_std": P_std}.items():
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be positive: got {value}.")
        self.sigma_data, self.P_mean, self.P_std = sigma_data, P_mean, P_std
        self._clock: _Clock | None = None

    def __call__(
        self,
        model: ScoreModel,
        x0: Float[Tensor, "B *data"],
        t: Float[Tensor, " B"],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, " B"]:
        """The loss of each sample, averaged over data dimensions. t is not used: the noise levels are drawn here."""
        if model.predicts not in ("denoiser", "x0"):
            raise ValueError(f"Denoising trains predicts='denoiser' or 'x0', not {model.predicts!r}: use HSM or DSM.")
        normal = torch.randn(len(x0), dtype=torch.float64, generator=generator)
        sigma = (self.P_mean + self.P_std * normal).exp()
        variables = 1 if model.predicts == "denoiser" else model.process.k
        noise = torch.randn(len(x0), variables, *x0.shape[1:], dtype=x0.dtype, generator=generator).to(x0.device)
        if model.predicts == "denoiser":
            output = model.denoise(x0 + _each(sigma, x0) * noise[:, 0], sigma)
        else:
            if self._clock is None or self._clock.process is not model.process:
                self._clock = _Clock(model.process)
            t, sigma = self._clock.near(sigma)
            output = model.output(model.process.perturb(x0, t, noise), t)[:, 0]
        weight = (sigma.square() + self.sigma_data**2) / (sigma * self.sigma_data).square()
        return weight.to(x0.device, x0.dtype) * (output - x0).square().flatten(1).mean(1)


class _Clock:
    """Times of a process by noise scale, from a table: quicker than `time_of`, and near enough to draw noise levels."""

    def __init__(self, process: Process, rows: int = 1000):
        self.process = process
        self.times = torch.logspace(-5, 0, rows, dtype=torch.float64) * process.T
        self.sigmas = process.noise_scale(self.times)

    def near(self, sigma: Float[Tensor, " B"]) -> tuple[Tensor, Tensor]:
        """A time for each σ, and the noise scale that it has exactly. σ outside the table counts as its end."""
        wanted = sigma.clamp(float(self.sigmas[0]), float(self.sigmas[-1])).log()
        known, log_times = self.sigmas.log(), self.times.log()
        right = torch.searchsorted(known, wanted).clamp(1, len(known) - 1)
        share = (wanted - known[right - 1]) / (known[right] - known[right - 1])
        t = torch.lerp(log_times[right - 1], log_times[right], share).exp().clamp(max=self.process.T)
        return t, self.process.noise_scale(t)


def _each(numbers: Tensor, like: Tensor) -> Tensor:
    """One number a sample, ready to multiply with data."""
    return numbers.to(like.device, like.dtype).reshape(-1, *[1] * (like.ndim - 1))


def _error(model: ScoreModel, kernel: Kernel, x0: Tensor, noise: Tensor, z_t: Tensor, t: Tensor) -> Tensor:
    output = model.output(z_t, t)
    if model.predicts in ("x0", "denoiser"):
        return (output.reshape(x0.shape) - x0).square()
    if model.predicts == "score":
        output = -mix(kernel.cholesky.mT, output)
    return (output - noise[:, -output.shape[1] :]).square()
