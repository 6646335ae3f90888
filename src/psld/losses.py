"""Training losses: one number a sample, unreduced.

The network sees z_t = Φ(t) z₀ + L(t) ε and is asked for ε (or what the model predicts). HSM conditions on x₀ and
integrates the auxiliary variables out (Dockhorn et al., 2022, §3.2), DSM conditions on all of z₀ (Vincent, 2011).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from psld.kernels import Kernel, mix
from psld.predictions import ScoreModel
from psld.processes import Conditioning

__all__ = ["DSM", "HSM", "ScoreMatching"]


class ScoreMatching(ABC):
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


def _error(model: ScoreModel, kernel: Kernel, x0: Tensor, noise: Tensor, z_t: Tensor, t: Tensor) -> Tensor:
    output = model.output(z_t, t)
    if model.predicts in ("x0", "denoiser"):
        return (output.reshape(x0.shape) - x0).square()
    if model.predicts == "score":
        output = -mix(kernel.cholesky.mT, output)
    return (output - noise[:, -output.shape[1] :]).square()
