"""What a network predicts, and the exact conversions between ε, the score and x̂₀.

A `ScoreModel` is a network with a meaning. Whatever the network returns, samplers read `.score`, `.eps` or `.x0`:

    score = −L⁻ᵀ ε = −Σ⁻¹ (z − Φ₀ x̂₀),      x̂₀ = wᵀ (L⁻¹ z − ε) / |w|²  with  w = L⁻¹ Φ₀

L and Σ are those of the marginal given x₀ (HSM). Derivation: docs/derivations/statistic.md.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cached_property
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from psld.kernels import Kernel, mix, outer
from psld.processes import LinearProcess, Matching, Times, statistic_weights

__all__ = ["Clamped", "Prediction", "Predicts", "ScoreModel", "in_own_precision"]

Predicts = Literal["eps", "score", "x0", "denoiser"]


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


class _Tables(NamedTuple):
    """What one call needs: the marginal given x₀, the marginal that ε belongs to, and for a denoiser the statistic."""

    kernel: Kernel
    trained: Kernel
    weights: Tensor | None = None
    sigma: Tensor | None = None

    def row(self, i: int) -> _Tables:
        """One time of many."""
        weights, sigma = (None if table is None else table[i] for table in (self.weights, self.sigma))
        return _Tables(self.kernel[i], self.trained[i], weights, sigma)


class ScoreModel:
    """A network with a process and a meaning.

    Args:
        network: called as network(z, t) with z (B, k, *data) and t (B,), and returns (B, r, *data); as
            network(y, sigma) with an image y (B, *data) and returns x̂₀ when predicts="denoiser".
        process: the forward process.
        predicts: "eps" (all k rows, or the last r where noise enters: one for CLD), "score" (k rows), "x0" (one row),
            or "denoiser", D(y; σ) of the sufficient statistic.
        matching: which marginal's Cholesky factor ε belongs to; matters for predicts="eps" only.
        jitter: what the network was trained with, on the diagonal of that marginal's covariance.

    Raises:
        ValueError: unknown `predicts`; at a call, a state or a network output of the wrong shape.
    """

    def __init__(
        self,
        network: nn.Module | Callable[..., Tensor],
        process: LinearProcess,
        predicts: Predicts = "eps",
        matching: Matching = "hsm",
        jitter: float = 0.0,
    ):
        if predicts not in ("eps", "score", "x0", "denoiser"):
            raise ValueError(f"predicts must be 'eps', 'score', 'x0' or 'denoiser': got {predicts!r}.")
        self.network, self.process, self.jitter = network, process, jitter
        self.predicts: Predicts = predicts
        self.matching: Matching = matching
        self._tabulated: dict[float, _Tables] = {}

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
        if self.predicts == "denoiser":
            return _Tables(kernel, kernel, *statistic_weights(kernel))
        if self.predicts != "eps" or (self.matching == "hsm" and not self.jitter):
            return _Tables(kernel, kernel)
        return _Tables(kernel, self.process.marginal(t, self.matching, self.jitter))

    def __call__(self, z: Float[Tensor, "B k *data"], t: Times, **condition: Any) -> Prediction:
        """The prediction at state z and time t (a number, or one time a sample)."""
        tables = self._tables(t)
        kernel, trained = tables.kernel, tables.trained
        output = self._output(z, t, tables, **condition)
        if self.predicts == "score":
            return Prediction(z, kernel, score=output)
        if self.predicts in ("x0", "denoiser"):
            return Prediction(z, kernel, x0=output[:, 0] if self.predicts == "x0" else output)
        if output.shape[1] == self.process.k:
            return Prediction(z, kernel, score=-mix(trained.whitener.mT, output))
        rows = output.shape[1]
        known = -mix(trained.whitener.mT[..., -rows:, -rows:], output)  # L⁻ᵀ is upper triangular: the last rows close
        eps = -mix(kernel.cholesky.mT[..., -rows:, -rows:], known)
        return Prediction(z, kernel, x0=_posterior_mean(kernel, z, eps))

    def output(self, z: Float[Tensor, "B k *data"], t: Times, **condition: Any) -> Float[Tensor, "B ..."]:
        """What the network itself returns, in the dtype of z. The network runs in its own precision."""
        return self._output(z, t, self._tables(t), **condition)

    def _output(self, z: Tensor, t: Times, tables: _Tables, **condition: Any) -> Tensor:
        if z.ndim < 2 or z.shape[1] != self.process.k:
            raise ValueError(
                f"{self.process!r} has {self.process.k} variables: the state must be (B, {self.process.k}, *data), "
                f"got {tuple(z.shape)}."
            )
        if tables.sigma is not None and tables.weights is not None:
            return self.denoise(mix(tables.weights.unsqueeze(-2), z)[:, 0], tables.sigma, **condition)
        out = in_own_precision(self.network, z, self.process.times(t), **condition)
        rows = {"x0": {1}, "score": {self.process.k}, "eps": {self.process.k, self.process.noisy_rows}}[self.predicts]
        self._require(out, [(len(z), r, *z.shape[2:]) for r in sorted(rows)])
        return out.to(z.dtype)

    def denoise(self, y: Float[Tensor, "B *data"], sigma: Times, **condition: Any) -> Float[Tensor, "B *data"]:
        """D(y; σ), of a model that predicts it, in the dtype of y. No process is involved.

        Raises:
            ValueError: the model predicts something else, or the network returns another shape.
        """
        if self.predicts != "denoiser":
            raise ValueError(f"denoise is for models of predicts='denoiser': this one predicts {self.predicts!r}.")
        out = in_own_precision(self.network, y, torch.as_tensor(sigma), **condition)
        self._require(out, [tuple(y.shape)])
        return out.to(y.dtype)

    def _require(self, out: Tensor, shapes: list[tuple[int, ...]]) -> None:
        if tuple(out.shape) not in shapes:
            raise ValueError(
                f"a network that predicts {self.predicts} under {self.process!r} must return shape "
                f"{' or '.join(map(str, shapes))}: got {tuple(out.shape)}."
            )


class Clamped(ScoreModel):
    """A model whose x̂₀ is held within the range of the data; score and ε follow it.

    An error of ε is σ(t) times as large in x̂₀, and phase-space processes begin at σ(T) in the hundreds: what a trained
    network says there is often far outside the data, and a sampler of few steps does not recover from it.

    Args:
        model: any model.
        low, high: the range; [−1, 1] for images.

    Raises:
        ValueError: low is not below high.
    """

    def __init__(self, model: ScoreModel, low: float = -1.0, high: float = 1.0):
        if not low < high:
            raise ValueError(f"low must be below high: got [{low}, {high}].")
        super().__init__(model.network, model.process, model.predicts, model.matching, model.jitter)
        self.model, self.low, self.high = model, low, high

    def tabulate(self, times: Float[Tensor, " n"]) -> Clamped:
        return Clamped(self.model.tabulate(times), self.low, self.high)

    def __call__(self, z: Float[Tensor, "B k *data"], t: Times, **condition: Any) -> Prediction:
        prediction = self.model(z, t, **condition)
        return Prediction(z, prediction.kernel, x0=prediction.x0.clamp(self.low, self.high))


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
