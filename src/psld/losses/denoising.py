"""EDM's loss: the weighted error of x̂₀ at noise levels of its own choice."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from psld.kernels import per_sample
from psld.losses.objective import Objective
from psld.model import ScoreModel
from psld.noise import Generators, standard_normal
from psld.processes import LinearProcess
from psld.specs.arguments import finite, positive

__all__ = ["Denoising"]


WIDEST = math.log(1e18)


class Denoising(Objective):
    """EDM's loss: weighted error of x̂₀ at log-normal noise levels (Karras et al., 2022, table 1).

        log σ ~ N(P_mean, P_std²),      λ(σ) |x̂₀ − x₀|²,      λ = (σ² + s²) / (σs)²

    λ is 1/c_out² of `psld.networks.Preconditioned`, so that its network meets the same unit loss at every σ. A model of
    predicts="denoiser" is shown y = x₀ + σξ, and the process is not used. One of predicts="x0" or "v" is shown z_t at
    the time where the process has this σ: the same noise levels and weights, so they differ in what the network sees
    and says alone. With s = 1 the weighted error is that of v, unweighted.

    Args:
        sigma_data: s, as the preconditioned network has it.
        P_mean, P_std: of log σ. EDM's −1.2 and 1.2 belong to s = 0.5; for another s add log(s / 0.5) to P_mean.

    Raises:
        ValueError: sigma_data or P_std is not positive; at a call, a model that predicts ε or the score.
    """

    def __init__(self, sigma_data: float = 0.5, P_mean: float = -1.2, P_std: float = 1.2):
        self.sigma_data = positive("sigma_data", sigma_data)
        self.P_mean, self.P_std = finite("P_mean", P_mean), positive("P_std", P_std)
        if abs(P_mean) + 4 * P_std > WIDEST:
            raise ValueError(
                f"P_mean and P_std must leave exp(P_mean ± 4 P_std) between 1e-18 and 1e18: got {P_mean} and {P_std}."
            )
        self._clock: _Clock | None = None

    def __call__(
        self,
        model: ScoreModel,
        x0: Float[Tensor, "B *data"],
        t: Float[Tensor, " B"],
        generator: Generators = None,
        **condition: Any,
    ) -> Float[Tensor, " B"]:
        """The loss of each sample, averaged over data dimensions. t is not used: the noise levels are drawn here."""
        if model.predicts not in ("denoiser", "x0", "v"):
            raise ValueError(
                f"Denoising trains predicts='denoiser', 'x0' or 'v', not {model.predicts!r}: use HSM or DSM."
            )
        normal = standard_normal((len(x0),), generator, torch.float64)
        sigma = (self.P_mean + self.P_std * normal).exp()
        variables = 1 if model.predicts == "denoiser" else model.process.k
        noise = standard_normal((len(x0), variables, *x0.shape[1:]), generator, x0.dtype).to(x0.device)
        if model.predicts == "denoiser":
            output = model.denoise(x0 + per_sample(sigma, x0) * noise[:, 0], sigma, **condition)
        else:
            if self._clock is None or self._clock.process is not model.process:
                self._clock = _Clock(model.process)
            t, sigma = self._clock.near(sigma)
            output = model(model.process.perturb(x0, t, noise), t, **condition).x0
        weight = (sigma.square() + self.sigma_data**2) / (sigma * self.sigma_data).square()
        return weight.to(x0.device, x0.dtype) * (output - x0).square().flatten(1).mean(1)


class _Clock:
    """Times of a process by noise scale, from a table: quicker than `time_of`, and near enough to draw noise levels."""

    def __init__(self, process: LinearProcess, rows: int = 1000):
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
