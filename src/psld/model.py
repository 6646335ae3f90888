"""The contract of a model, and what a network predicts: exact conversions between ε, the score, x̂₀ and v.

A `Model` is a score with a process. `ScoreModel` is a network with a meaning, a `ModelWrapper` a model around a model.
Whatever a network returns, samplers read `.score`, `.eps` or `.x0`:

    score = −L⁻ᵀ ε = −Σ⁻¹ (z − Φ₀ x̂₀),      x̂₀ = wᵀ (L⁻¹ z − ε) / |w|²  with  w = L⁻¹ Φ₀

L and Σ are those of the marginal given x₀ (HSM). Derivation: docs/derivations/statistic.md. v is the velocity of the
sufficient statistic y = x₀ + σξ, scaled to unit variance: for VP that of Salimans & Ho (ICLR 2022), for any process

    v = α ξ − s x₀,      x̂₀ = α² y − s v,      α = 1/√(1 + σ²),  s = σ/√(1 + σ²)
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from psld.kernels import Kernel, mix, outer, per_sample
from psld.processes import LinearProcess, Matching, Times, statistic_weights
from psld.specs.arguments import checked, image_shape, non_negative, shown

if TYPE_CHECKING:
    from psld.samplers import Sampler, Samples
    from psld.samplers.grids import Grid
    from psld.spectrum import Spectrum

__all__ = [
    "Clamped",
    "Model",
    "ModelWrapper",
    "Prediction",
    "Predicts",
    "ScoreModel",
    "in_own_precision",
    "vp_coefficients",
]

Predicts = Literal["eps", "score", "x0", "v", "denoiser"]
"""What a network can return."""


class Prediction:
    """One prediction at (z, t), readable in every form. Give exactly one of `x0` and `score`.

    Attributes:
        x0: E[x₀ | z_t], (B, *data).
        score: ∇ log p_t(z), (B, k, *data).
        eps: −Lᵀ score, (B, k, *data): the noise in units of the marginal given x₀.
        given: which of x0 and score it was made from.
    """

    def __init__(
        self,
        z: Float[Tensor, "B k *data"],
        kernel: Kernel,
        x0: Float[Tensor, "B *data"] | None = None,
        score: Float[Tensor, "B k *data"] | None = None,
    ):
        if (x0 is None) == (score is None):
            raise ValueError("a Prediction is made from exactly one of x0 and score.")
        self.z, self.kernel = z, kernel
        self.given: Literal["x0", "score"] = "score" if x0 is None else "x0"
        if x0 is not None:
            self.x0 = x0
        if score is not None:
            self.score = score

    @cached_property
    def score(self) -> Float[Tensor, "B k *data"]:
        return -mix(self.kernel.whitener.mT, self.eps)

    @cached_property
    def eps(self) -> Float[Tensor, "B k *data"]:
        if "score" in self.__dict__:
            return -mix(self.kernel.cholesky.mT, self.score)
        return mix(self.kernel.whitener, self.z - outer(self.kernel.mean_map[..., 0], self.x0))

    @cached_property
    def x0(self) -> Float[Tensor, "B *data"]:
        return _posterior_mean(self.kernel, self.z, self.eps)

    def moved(self, shift: Float[Tensor, "B *data"]) -> Prediction:
        """The prediction whose x̂₀ is that much further, and whose score is by Σ⁻¹Φ₀ times as much."""
        if self.given == "x0":
            return Prediction(self.z, self.kernel, x0=self.x0 + shift)
        return Prediction(self.z, self.kernel, score=self.score + outer(self.kernel.pull, shift))


class Model(ABC):
    """The contract of a model: what samplers, guidance, likelihood and editing need of a learned score.

    A subclass sets `process`, the other two where it knows them, and writes `__call__`; everything else follows.

    Attributes:
        process: the forward process whose states it is asked about.
        data_shape: shape of one image, (C, H, W) or any other; None where it is not known.
        classes: number of labels that it can be told, as label= of a call; None where it takes none.
        data_range: the range of the data's values, (−1, 1) for images; None where it is not known. `sample` holds x̂₀
            within it.
        spectrum: mean and principal components of the data; None where they are not known. Grids are derived from it.
    """

    process: LinearProcess
    data_shape: tuple[int, ...] | None = None
    data_range: tuple[float, float] | None = None
    spectrum: Spectrum | None = None
    classes: int | None = None

    @abstractmethod
    def __call__(self, z: Float[Tensor, "B k *data"], t: Times, **condition: Any) -> Prediction:
        """The prediction at state z and time t (a number, or one time a sample)."""

    @property
    def device(self) -> torch.device:
        """Where its states should be: with the weights of its network; the CPU where it has none."""
        return torch.device("cpu")

    @checked
    def sample(
        self,
        n: int | None = None,
        steps: int = 20,
        sampler: Sampler | None = None,
        grid: Grid | str | None = None,
        seeds: int | Sequence[int] = 0,
        batch_size: int | None = None,
        progress: bool = False,
    ) -> Samples:
        """Images from noise, by a good sampler unless another is named; x̂₀ is held within `data_range`.

        Args:
            n: how many; as many as there are seeds when None.
            steps: network evaluations of each, the last denoising included.
            sampler: any of `psld.samplers`; `psld.samplers.defaults.default_sampler` when None. Its own `sample` takes
                more arguments.
            grid: times, or the name of a grid; the best one known for process, sampler, steps and data when None.
            seeds: the first of n consecutive seeds, or one a sample. A sample depends on its own seed only.
            batch_size: samples at a time; all at once when None.
            progress: show a progress bar.

        Raises:
            ValueError: the shape of the data is not known, or as `Sampler.sample`.
        """
        from psld.samplers.defaults import default_sampler  # samplers stand above models; this one method reaches up
        from psld.samplers.sampler import Sampler

        model = self if self.data_range is None else Clamped(self, *self.data_range)
        chosen = default_sampler(model, steps, grid) if sampler is None else sampler
        if not isinstance(chosen, Sampler):
            raise ValueError(f"sampler must be one of psld.samplers, or None: got {shown(sampler)}.")
        return chosen.sample(model, n, grid, seeds, steps=steps, batch_size=batch_size, progress=progress)

    def known_shape(self) -> tuple[int, ...]:
        """The shape of one image; raises ValueError where it is not known."""
        if self.data_shape is None:
            raise ValueError("the model does not know the shape of one image: make it with data_shape=(C, H, W).")
        return self.data_shape

    def tabulate(self, times: Float[Tensor, " n"]) -> Model:
        """The same model with what it needs at these times computed beforehand; itself where there is nothing to do."""
        return self

    def denoise(self, y: Float[Tensor, "B *data"], sigma: Times, **condition: Any) -> Float[Tensor, "B *data"]:
        """D(y; σ) = E[x₀ | y = x₀ + σξ]: x̂₀ at the state Φ₀ y, at the time where the process has this noise scale.

        That state holds y and no ancillary noise, which would tell nothing about x₀.

        Args:
            y: images with noise of standard deviation σ.
            sigma: σ, a number or one a sample.
            condition: what the model is told besides.

        Raises:
            ValueError: σ is not positive, or above the noise scale of the process at T.
        """
        t = self.process.time_of(torch.as_tensor(sigma, dtype=torch.float64))
        return self(outer(self.process.signal(t), y), t, **condition).x0


class _Tables(NamedTuple):
    """What one call needs: the marginal given x₀, that which ε belongs to, and the statistic where it is used."""

    kernel: Kernel
    trained: Kernel
    weights: Tensor | None = None
    sigma: Tensor | None = None

    def row(self, i: int) -> _Tables:
        """One time of many."""
        weights, sigma = (None if table is None else table[i] for table in (self.weights, self.sigma))
        return _Tables(self.kernel[i], self.trained[i], weights, sigma)


class ScoreModel(Model):
    """A network with a process and a meaning.

    Args:
        network: called as network(z, t) with z (B, k, *data) and t (B,), and returns (B, r, *data); as
            network(y, sigma) with an image y (B, *data) and returns x̂₀ when predicts="denoiser".
        process: the forward process.
        predicts: "eps" (all k rows, or the last r where noise enters: one for CLD), "score" (k rows), "x0" (one row),
            "v" (one row), or "denoiser", D(y; σ) of the sufficient statistic.
        matching: which marginal's Cholesky factor ε belongs to; matters for predicts="eps" only.
        jitter: what the network was trained with, on the diagonal of that marginal's covariance.
        data_shape: shape of one image, where it is known.

    Raises:
        ValueError: unknown `predicts`; at a call, a state or a network output of the wrong shape.
    """

    @checked
    def __init__(
        self,
        network: nn.Module | Callable[..., Tensor],
        process: LinearProcess,
        predicts: Predicts = "eps",
        matching: Matching = "hsm",
        jitter: float = 0.0,
        data_shape: tuple[int, ...] | None = None,
    ):
        self.network, self.process, self.jitter = network, process, non_negative("jitter", jitter)
        self.predicts: Predicts = predicts
        self.matching: Matching = matching
        self.data_shape = None if data_shape is None else image_shape("data_shape", data_shape)
        self.classes = getattr(network, "classes", None)
        self._tabulated: dict[float, _Tables] = {}

    @property
    def device(self) -> torch.device:
        weights = self.network.parameters() if isinstance(self.network, nn.Module) else iter(())
        return next((weight.device for weight in weights), torch.device("cpu"))

    @checked
    def save(self, folder: str | Path) -> Path:
        """Writes a folder that `psld.load` and every command take; as `psld.runs.save`."""
        from psld.runs import save  # as in `sample`

        return save(self, folder)

    def around(self, network: nn.Module | Callable[..., Tensor]) -> ScoreModel:
        """The same model with another network in place of its own: the same one set up on a device, say."""
        model = copy.copy(self)
        model.network = network
        return model

    def tabulate(self, times: Float[Tensor, " n"]) -> ScoreModel:
        """The same model with its k×k tables at these times computed beforehand, all at once; itself if they are."""
        if all(float(t) in self._tabulated for t in times):
            return self
        model = copy.copy(self)
        tables = self._tables(times)
        for kernel in (tables.kernel, tables.trained):
            _ = kernel.whitener
        model._tabulated = {float(t): tables.row(i) for i, t in enumerate(times)}
        return model

    def _tables(self, t: Times) -> _Tables:
        """The k×k coefficients of a call."""
        if self._tabulated and not (isinstance(t, Tensor) and t.ndim) and float(t) in self._tabulated:
            return self._tabulated[float(t)]
        kernel = self.process.marginal(t)
        if self.predicts in ("denoiser", "v"):
            return _Tables(kernel, kernel, *statistic_weights(kernel))
        if self.predicts != "eps" or (self.matching == "hsm" and not self.jitter):
            return _Tables(kernel, kernel)
        return _Tables(kernel, self.process.marginal(t, self.matching, self.jitter))

    def __call__(self, z: Float[Tensor, "B k *data"], t: Times, **condition: Any) -> Prediction:
        kernel, trained, weights, sigma = tables = self._tables(t)
        shown, told = self._question(z, t, tables)
        output = in_own_precision(self.network, shown, told, **condition).to(z.dtype)
        self._require(output, shown)
        if self.predicts == "score":
            return Prediction(z, kernel, score=output)
        if self.predicts == "denoiser":
            return Prediction(z, kernel, x0=output)
        if self.predicts == "x0":
            return Prediction(z, kernel, x0=output[:, 0])
        if self.predicts == "v":
            assert weights is not None and sigma is not None
            alpha, s = vp_coefficients(sigma)
            y = mix(weights.unsqueeze(-2), z)[:, 0]
            return Prediction(z, kernel, x0=per_sample(alpha.square(), y) * y - per_sample(s, y) * output[:, 0])
        if output.shape[1] == self.process.k:
            return Prediction(z, kernel, score=-mix(trained.whitener.mT, output))
        rows = output.shape[1]
        known = -mix(trained.whitener.mT[..., -rows:, -rows:], output)  # L⁻ᵀ is upper triangular: the last rows close
        eps = -mix(kernel.cholesky.mT[..., -rows:, -rows:], known)
        return Prediction(z, kernel, x0=_posterior_mean(kernel, z, eps))

    def output(self, z: Float[Tensor, "B k *data"], t: Times, **condition: Any) -> Float[Tensor, "B ..."]:
        """What the network itself returns, in the dtype of z. The network runs in its own precision."""
        shown, told = self._question(z, t, self._tables(t))
        output = in_own_precision(self.network, shown, told, **condition).to(z.dtype)
        self._require(output, shown)
        return output

    def denoise(self, y: Float[Tensor, "B *data"], sigma: Times, **condition: Any) -> Float[Tensor, "B *data"]:
        """D(y; σ), in the dtype of y. A network that predicts it is asked directly, at any σ > 0.

        Args: as for `Model`.

        Raises:
            ValueError: the network returns another shape; and as `Model`, where the network predicts something else.
        """
        if self.predicts != "denoiser":
            return super().denoise(y, sigma, **condition)
        output = in_own_precision(self.network, y, torch.as_tensor(sigma), **condition).to(y.dtype)
        self._require(output, y)
        return output

    def _question(self, z: Tensor, t: Times, tables: _Tables) -> tuple[Tensor, Tensor]:
        """What the network is shown and told: a state and its time, or a denoiser the statistic and its σ."""
        k = self.process.k
        if z.ndim < 2 or z.shape[1] != k:
            raise ValueError(
                f"{self.process!r} has {k} variables: the state must be (B, {k}, *data), got {tuple(z.shape)}."
            )
        if self.predicts != "denoiser":
            return z, self.process.times(t)
        assert tables.weights is not None and tables.sigma is not None
        return mix(tables.weights.unsqueeze(-2), z)[:, 0], tables.sigma

    def _require(self, output: Tensor, shown: Tensor) -> None:
        """Refuses an output of another shape than what was shown to the network allows."""
        if self.predicts not in ("x0", "v") and output.shape == shown.shape:
            return
        if self.predicts == "denoiser":
            shapes = [tuple(shown.shape)]
        else:
            rows = {"score": {self.process.k}, "eps": {self.process.k, self.process.noisy_rows}}
            shapes = [(len(shown), r, *shown.shape[2:]) for r in sorted(rows.get(self.predicts, {1}))]
        if tuple(output.shape) not in shapes:
            raise ValueError(
                f"a network that predicts {self.predicts} under {self.process!r} must return shape "
                f"{' or '.join(map(str, shapes))}: got {tuple(output.shape)}."
            )


class ModelWrapper(Model):
    """A model around a model: the base of guidance and of clamping. A subclass writes `__call__`, and nothing else.

    Process, data shape and classes are those of the model inside, which is tabulated with the wrapper. There is no way
    past `__call__`: `denoise` goes through it, and the raw network is an affair of `ScoreModel`.

    Args:
        model: any model, wrapped or not.
    """

    @checked
    def __init__(self, model: Model):
        self.model = model
        self.process, self.data_shape, self.classes = model.process, model.data_shape, model.classes
        self.data_range, self.spectrum = model.data_range, model.spectrum

    @property
    def device(self) -> torch.device:
        return self.model.device

    def tabulate(self, times: Float[Tensor, " n"]) -> ModelWrapper:
        inner = self.model.tabulate(times)
        if inner is self.model:
            return self
        wrapper = copy.copy(self)
        wrapper.model = inner
        return wrapper


class Clamped(ModelWrapper):
    """A model whose x̂₀ is held within the range of the data; score and ε follow it.

    An error of ε is σ(t) times as large in x̂₀, and phase-space processes begin at σ(T) in the hundreds: what a trained
    network says there is often far outside the data, and a sampler of few steps does not recover from it.

    Args:
        model: any model.
        low, high: the range; [−1, 1] for images.

    Raises:
        ValueError: low is not below high.
    """

    @checked
    def __init__(self, model: Model, low: float = -1.0, high: float = 1.0):
        if not low < high:
            raise ValueError(f"low must be below high: got low = {low} and high = {high}.")
        super().__init__(model)
        self.low, self.high = low, high

    def __call__(self, z: Float[Tensor, "B k *data"], t: Times, **condition: Any) -> Prediction:
        prediction = self.model(z, t, **condition)
        return Prediction(z, prediction.kernel, x0=prediction.x0.clamp(self.low, self.high))


def vp_coefficients(sigma: Float[Tensor, "*B"]) -> tuple[Float[Tensor, "*B"], Float[Tensor, "*B"]]:
    """α = 1/√(1 + σ²) and s = σ/√(1 + σ²): y scaled to unit variance is α x₀ + s ξ, and v = α ξ − s x₀."""
    alpha = (1.0 + sigma.square()).rsqrt()
    return alpha, sigma * alpha


def _posterior_mean(kernel: Kernel, z: Tensor, eps: Tensor) -> Tensor:
    """x̂₀ from the last rows of ε, by least squares in units of the noise (exact for one row, and for all)."""
    rows = eps.shape[1]
    whitener = kernel.whitener[..., -rows:, :]
    w = (whitener @ kernel.mean_map[..., :1])[..., 0]
    weights = (w / w.square().sum(-1, keepdim=True)).unsqueeze(-2)
    return (mix(weights @ whitener, z) - mix(weights, eps))[:, 0]


def in_own_precision(
    network: nn.Module | Callable[..., Tensor], z: Tensor, t: Float[Tensor, "*B"], **condition: Any
) -> Tensor:
    """network(z, t) with both in the precision of its weights (that of z where it has none), one t a sample."""
    parameters = network.parameters() if isinstance(network, nn.Module) else iter(())
    dtype = next((p.dtype for p in parameters if p.is_floating_point()), z.dtype)
    return network(z.to(dtype), t.to(z.device, dtype).expand(len(z)), **condition)
