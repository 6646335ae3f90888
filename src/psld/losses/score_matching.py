"""Score matching: the squared error of a prediction, given x₀ (HSM), given all of z₀ (DSM), or of any process."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from jaxtyping import Float
from torch import Tensor

from psld.kernels import mix, per_sample
from psld.losses.objective import Objective
from psld.losses.weightings import Weighting
from psld.model import ScoreModel, in_own_precision, vp_coefficients
from psld.noise import Generators, standard_normal
from psld.processes import ForwardProcess, LinearProcess, Matching, statistic_weights
from psld.specs import SpecifiedValue

__all__ = ["DSM", "HSM", "ConditionalScoreMatching", "ScoreMatching"]


class ScoreMatching(Objective):
    """Squared error of the prediction: of ε (models of ε or of the score), of x₀, or of v.

    Args:
        weighting: None for the mean squared error of what the model predicts, the same at every time (for models of ε
            and of the score that is UniformNoise); or a Weighting: under HSM its loss is the same number whatever
            the model predicts.
    """

    matching: Matching

    def __init__(self, weighting: Weighting | None = None):
        self.weighting = weighting

    def __call__(
        self,
        model: ScoreModel,
        x0: Float[Tensor, "B *data"],
        t: Float[Tensor, " B"],
        generator: Generators = None,
        **condition: Any,
    ) -> Float[Tensor, " B"]:
        """The loss of each sample at its time t, averaged over data dimensions (and, unweighted, predicted rows).

        Args:
            model: what is trained.
            x0: data.
            t: a time in (0, T] for each.
            generator: where the noise comes from: one for all, or one a sample.
            condition: what the network is told besides, label= for one with classes.

        Raises:
            ValueError: the model's ε belongs to the other matching.
        """
        if model.predicts == "eps" and model.matching != self.matching:
            raise ValueError(
                f"{type(self).__name__} trains ε conditioned by {self.matching!r}, the model says "
                f"{model.matching!r}: give the model matching={self.matching!r}."
            )
        process = model.process
        kernel = process.marginal(t, self.matching, model.jitter)
        noise = standard_normal((len(x0), process.k, *x0.shape[1:]), generator, x0.dtype).to(x0.device)
        start = self.start(model, x0, generator)
        output = model.output(kernel.sample(start, noise), t, **condition)
        if model.predicts == "v":
            velocity, s = _velocity(process, t, x0, kernel.sample(start - process.lift(x0), noise))
            squared = (output[:, 0] - velocity).square().flatten(1).mean(1)
            if self.weighting is None:
                return squared
            return squared * (s.square() * self._image_weight(model, t)).to(squared)
        if model.predicts in ("x0", "denoiser"):
            squared = (output.reshape(x0.shape) - x0).square().flatten(1).mean(1)
            return squared if self.weighting is None else squared * self._image_weight(model, t).to(squared)
        if model.predicts == "score":
            output = -mix(kernel.cholesky.mT, output)
        error = output - noise[:, -output.shape[1] :]
        if self.weighting is None:
            return error.square().flatten(1).mean(1)
        metric = self.weighting.metric(process, kernel, t, error.shape[1])
        return (error * mix(metric, error)).sum(1).flatten(1).mean(1)

    @abstractmethod
    def start(self, model: ScoreModel, x0: Tensor, generator: Generators) -> Tensor:
        """What z_t is conditioned on, (B, k, *data)."""

    def _image_weight(self, model: ScoreModel, t: Tensor) -> Float[Tensor, " B"]:
        """wᵀMw, from the marginal given x₀: what a squared error of x̂₀ counts."""
        assert self.weighting is not None
        process = model.process
        kernel = process.marginal(t, "hsm", model.jitter)
        signal = kernel.whitened_signal
        metric = self.weighting.metric(process, kernel, t, process.k)
        return (signal[:, None] @ metric @ signal[..., None])[:, 0, 0]


def _velocity(
    process: LinearProcess, t: Float[Tensor, " B"], x0: Float[Tensor, "B *data"], noise: Float[Tensor, "B k *data"]
) -> tuple[Float[Tensor, "B *data"], Float[Tensor, " B"]]:
    """v = α ξ − s x₀ of the statistic of z_t, from the noise in it, z_t − Φ₀ x₀; and s."""
    weights, sigma = statistic_weights(process.marginal(t))
    alpha, s = vp_coefficients(sigma)
    seen = mix(((alpha / sigma)[:, None] * weights).unsqueeze(-2), noise)[:, 0]
    return seen - per_sample(s, x0) * x0, s


class HSM(ScoreMatching):
    """Hybrid score matching: z_t given x₀.

    Args: as for `ScoreMatching`.
    """

    matching: Matching = "hsm"

    def start(self, model: ScoreModel, x0: Tensor, generator: Generators) -> Tensor:
        return model.process.lift(x0)


class DSM(ScoreMatching):
    """Denoising score matching: z_t given x₀ and a draw of the auxiliary variables.

    Args: as for `ScoreMatching`.
    """

    matching: Matching = "dsm"

    def start(self, model: ScoreModel, x0: Tensor, generator: Generators) -> Tensor:
        shape = (len(x0), model.process.k - 1, *x0.shape[1:])
        noise = standard_normal(shape, generator, x0.dtype).to(x0.device)
        return model.process.lift(x0, model.process.initial_auxiliary(noise))


class ConditionalScoreMatching(SpecifiedValue):
    """Squared error of the score of any forward process, in the metric of its noise: |Gᵀ(s(z_t) − ∇log p(z_t | x₀))|².

    Its minimiser is ∇log p_t(z) (Vincent, 2011), and half its integral over t bounds −log p (Song et al., 2021). Where
    no noise enters the score is not needed, and not learned. For a linear process this is
    HSM(Likelihood()) of a model with predicts="score".

    Args:
        process: linear or not.
    """

    def __init__(self, process: ForwardProcess):
        self.process = process

    def __call__(
        self,
        network: Callable[..., Tensor],
        x0: Float[Tensor, "B *data"],
        t: Float[Tensor, " B"],
        generator: Generators = None,
        **condition: Any,
    ) -> Float[Tensor, " B"]:
        """The loss of each sample at its time t, averaged over data dimensions.

        Args:
            network: network(z, t) → score, (B, k, *data) both; a module runs in the precision of its weights.
            x0: data.
            t: a time in (0, T] for each.
            generator: where the noise comes from: one for all, or one a sample.
            condition: what the network is told besides.

        Raises:
            ValueError: the network returns another shape than the state's.
        """
        noise = standard_normal((len(x0), self.process.k, *x0.shape[1:]), generator, x0.dtype).to(x0.device)
        z_t = self.process.perturb(x0, t, noise)
        score = in_own_precision(network, z_t, self.process.times(t), **condition)
        if score.shape != z_t.shape:
            raise ValueError(f"a score has the shape of its state, {tuple(z_t.shape)}: got {tuple(score.shape)}.")
        error = score.to(z_t.dtype) - self.process.conditional_score(z_t, x0, t)
        along_noise = (self.process.diffusion_factor(z_t, t) * error.unsqueeze(2)).sum(1)
        return along_noise.square().sum(1).flatten(1).mean(1)
