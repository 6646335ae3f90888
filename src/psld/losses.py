"""Training losses: one number a sample, unreduced.

The network sees z_t = Φ(t) z₀ + L(t) ε and is asked for ε (or what the model predicts). HSM conditions on x₀ and
integrates the auxiliary variables out (Dockhorn et al., 2022, §3.2), DSM conditions on all of z₀ (Vincent, 2011).
`Denoising` asks for x₀ at noise levels of its own choice, weighted as in EDM (Karras et al., 2022).
`ConditionalScoreMatching` needs no Gaussian kernel: it learns the score of any forward process.

A weighting is a metric M(t) for the error e = ε̂ − ε: the loss is eᵀ M e, averaged over data dimensions. A model of x₀
has e = −w (x̂₀ − x₀) with w = L⁻¹Φ₀, so its loss is wᵀMw (x̂₀ − x₀)², the same number; one of v has
x̂₀ − x₀ = −s (v̂ − v). Derivation: docs/derivations/weighting.md.

`CrossEntropy` trains what guides a score model: a classifier of z_t (Dhariwal & Nichol, 2021).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import cross_entropy

from psld.kernels import Kernel, mix, per_sample, product
from psld.model import ScoreModel, in_own_precision, vp_coefficients
from psld.noise import Generators, standard_normal
from psld.processes import ForwardProcess, LinearProcess, Matching, statistic_weights
from psld.specs import SpecifiedValue

__all__ = [
    "DSM",
    "HSM",
    "ConditionalScoreMatching",
    "CrossEntropy",
    "Denoising",
    "Likelihood",
    "MinSNR",
    "Objective",
    "ScoreMatching",
    "UniformNoise",
    "Weighting",
]


# -- weightings --------------------------------------------------------------------------------------------------------


class Weighting(SpecifiedValue, ABC):
    """How much an error counts, at each time."""

    @abstractmethod
    def metric(
        self, process: LinearProcess, kernel: Kernel, t: Float[Tensor, " B"], rows: int
    ) -> Float[Tensor, "B r r"]:
        """M for the last `rows` entries of the error of ε, in float64.

        Args:
            process: the forward process.
            kernel: its marginal at t that ε belongs to.
            t: times.
            rows: r, the number of predicted rows.
        """


class UniformNoise(Weighting):
    """M = I/r: the mean squared error of ε, the same at every time, whatever the model predicts."""

    def metric(self, process: LinearProcess, kernel: Kernel, t: Tensor, rows: int) -> Tensor:
        return torch.eye(rows, dtype=torch.float64).expand(len(t), rows, rows) / rows


class MinSNR(Weighting):
    """The squared error of x̂₀, times min(SNR, γ), with SNR = 1/σ(t)² of the sufficient statistic y = x₀ + σξ.

    For VP this is the published weighting (Hang et al., 2023): min(SNR, γ)/SNR for the squared error of ε. With k
    variables the r predicted rows see x₀ with an SNR of |w_R|², w = L⁻¹Φ₀, hence M = I · min(SNR, γ)/|w_R|².

    Args:
        gamma: γ > 0, where the weight stops to grow; published: 5.
    """

    def __init__(self, gamma: float = 5.0):
        if not 0 < gamma < float("inf"):
            raise ValueError(f"gamma must be positive and finite: got {gamma}.")
        self.gamma = gamma

    def metric(self, process: LinearProcess, kernel: Kernel, t: Tensor, rows: int) -> Tensor:
        snr = process.noise_scale(t) ** -2
        seen = kernel.whitened_signal[:, -rows:].square().sum(-1)
        weight = snr.clamp(max=self.gamma) / seen
        return weight[:, None, None] * torch.eye(rows, dtype=torch.float64)


class Likelihood(Weighting):
    """The squared error of the score in the metric of the noise, 2βD: M = L⁻¹ 2βD L⁻ᵀ.

    Half its integral over t bounds −log p, up to what does not depend on the model (Song et al., 2021, whose g² is the
    2βD of one variable). Rows where no noise enters do not count, predicted or not. M grows like 1/t for t → 0, so the
    mean over uniform t is noisy: raise t_min, or use stratified times.
    """

    def metric(self, process: LinearProcess, kernel: Kernel, t: Tensor, rows: int) -> Tensor:
        whitener = kernel.whitener[:, -rows:]
        return product(product(whitener, 2.0 * process.diffusion_rate(t)), whitener.mT)


# -- losses ------------------------------------------------------------------------------------------------------------


class Objective(SpecifiedValue, ABC):
    """What training minimises: one number a sample.

    Attributes:
        asks_for_labels: whether it cannot do without label=, whatever the network is told.
    """

    asks_for_labels: ClassVar[bool] = False

    @abstractmethod
    def __call__(
        self,
        model: ScoreModel,
        x0: Float[Tensor, "B *data"],
        t: Float[Tensor, " B"],
        generator: Generators = None,
        **condition: Any,
    ) -> Float[Tensor, " B"]:
        """The loss of each sample; noise comes from the generators: one for all, or one a sample.

        `condition` goes to the model: label=, (B,) int64, where the network is told labels.
        """


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


class CrossEntropy(Objective):
    """−log p(label | z_t) of a classifier, with z_t given x₀ as in HSM.

    Its gradient in z_t is what `psld.guidance.classifier_guidance.ClassifierGuidance` adds to a score, so it
    is trained on the states that a sampler meets: all k variables, at every time (Dhariwal & Nichol, 2021, §4; in phase
    space Pandey & Mandt, 2023).
    """

    asks_for_labels = True

    def __call__(
        self,
        model: ScoreModel,
        x0: Float[Tensor, "B *data"],
        t: Float[Tensor, " B"],
        generator: Generators = None,
        label: Int64[Tensor, " B"] | None = None,
        **condition: Any,
    ) -> Float[Tensor, " B"]:
        """The loss of each sample at its time t, in nats.

        Args:
            model: network(z, t) → logits (B, classes), with its process and jitter; what it `predicts` is not read.
            x0: data.
            t: a time in (0, T] for each.
            generator: where the noise comes from: one for all, or one a sample.
            label: the class of each sample.
            condition: what the classifier is told besides.

        Raises:
            ValueError: no labels, or the network returns something else than logits.
        """
        if label is None:
            raise ValueError("CrossEntropy needs the label of every sample: give label=.")
        kernel = model.process.marginal(t, "hsm", model.jitter)
        noise = standard_normal((len(x0), model.process.k, *x0.shape[1:]), generator, x0.dtype).to(x0.device)
        z_t = kernel.sample(model.process.lift(x0), noise)
        logits = in_own_precision(model.network, z_t, t, **condition)
        if logits.ndim != 2 or len(logits) != len(x0):
            raise ValueError(
                f"a classifier must return logits ({len(x0)}, classes) for {len(x0)} states: got "
                f"{tuple(logits.shape)}. psld.networks.NoiseClassifier does."
            )
        return cross_entropy(logits.to(x0.dtype), label, reduction="none")
