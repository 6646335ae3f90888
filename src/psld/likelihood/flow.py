"""log p of a score model in phase space: the probability flow as a change of variables.

Along dz/dt = f(z, t) − βD ∇log p_t(z), forward in time, the log density falls by the divergence:

    log p_t(z_t) = log p_T(z_T) + ∫_t^T div dτ,      div = n tr(βA) − tr(βD ∇² log p_τ)

(Chen et al., 2018; Song et al., ICLR 2021). Derivation: docs/derivations/likelihood.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from psld.kernels import Kernel, mix, product
from psld.likelihood.traces import ExactTrace, Hutchinson, Trace
from psld.model import Model
from psld.noise import Generators
from psld.samplers.dormand_prince import DormandPrince
from psld.specs.arguments import checked, shown

__all__ = ["Carried", "LogProb", "ProbabilityFlow"]

SMALL = 64  # dimensions of the noisy variables up to which the trace is exact unless told otherwise


class Carried(NamedTuple):
    """States at the end (B, k, *data), ∫ div dt from start to end (B,), and evaluations of the network a sample (B,).

    log p_start(z_start) = log p_end(z_end) + divergence.
    """

    z: Tensor
    divergence: Tensor
    nfe: Tensor


class LogProb(NamedTuple):
    """log p_t(z) in nats (B,), the state at T that z flows to (B, k, *data), and evaluations a sample (B,)."""

    log_prob: Tensor
    z: Tensor
    nfe: Tensor


class ProbabilityFlow:
    """The probability flow with its divergence, by Dormand–Prince with error control a sample.

    Args:
        model: any; its process is integrated.
        trace: of the Jacobian; exact up to 64 dimensions, else `Hutchinson()`, when None.
        rtol, atol: tolerances of a step, on the root-mean-square error of the state and on the error of the log density
            in nats, each on its own.
        max_steps: attempted steps a sample before giving up.

    Raises:
        ValueError: a tolerance that is not positive.
    """

    @checked
    def __init__(
        self,
        model: Model,
        trace: Trace | None = None,
        rtol: float = 1e-6,
        atol: float = 1e-6,
        max_steps: int = 10_000,
    ):
        if trace is not None and not hasattr(trace, "begin"):
            raise ValueError(f"trace must be ExactTrace(), Hutchinson(…) or None: got {shown(trace)}.")
        self.model, self.trace = model, trace
        self.solver = DormandPrince(rtol, atol, max_steps, size=_larger_error)

    @torch.no_grad()
    def carry(self, z: Float[Tensor, "B k *data"], start: float, end: float, generators: Generators = None) -> Carried:
        """Along the flow from one time to another, either way; float64.

        Args:
            z: states at `start`.
            start: a time in (0, T].
            end: another, before or after it.
            generators: of the probes, one a sample; not needed for an exact trace.

        Raises:
            ValueError: a time outside (0, T], or states of the wrong shape.
            RuntimeError: too many steps, or a state that is no longer finite.
        """
        process = self.model.process
        if not (0.0 < min(start, end) and max(start, end) <= process.T):
            raise ValueError(f"the flow runs between times in (0, {process.T:g}]: got {start} and {end}.")
        if z.ndim < 3 or z.shape[1] != process.k:
            raise ValueError(f"states of {process!r} are (B, {process.k}, *data): got {tuple(z.shape)}.")
        shape = (process.noisy_rows, *z.shape[2:])
        trace = self._trace(math.prod(shape)).begin((len(z), *shape), generators, z.device)

        def rate(packed: Tensor, t: Tensor, rows: Tensor) -> Tensor:
            state = packed[:, :-1].unflatten(1, z.shape[1:])
            slope, divergence = _flow(self.model, state, t, lambda out, z, g: trace(out, z, g, rows))
            return torch.cat([slope.flatten(1), divergence[:, None]], 1)

        packed = torch.cat([z.double().flatten(1), z.new_zeros(len(z), 1, dtype=torch.float64)], 1)
        solved, nfe = self.solver.solve(rate, packed, start, end)
        return Carried(solved[:, :-1].unflatten(1, z.shape[1:]), solved[:, -1], nfe)

    def log_prob(self, z: Float[Tensor, "B k *data"], t: float, generators: Generators = None) -> LogProb:
        """log p_t(z) in phase space, of the law that the prior at T flows to.

        Args: as for `carry`, from t to T.
        """
        carried = self.carry(z, t, self.model.process.T, generators)
        return LogProb(self.model.process.prior_log_prob(carried.z) + carried.divergence, carried.z, carried.nfe)

    def _trace(self, dimensions: int) -> Trace:
        if self.trace is not None:
            return self.trace
        return ExactTrace() if dimensions <= SMALL else Hutchinson()

    def __repr__(self) -> str:
        return f"ProbabilityFlow({self.model.process!r}, {self.trace!r}, rtol={self.solver.rtol:g})"


def _flow(
    model: Model, z: Tensor, t: Tensor, trace: Callable[[Tensor, Tensor, Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """dz/dt and its divergence.

    With D = GGᵀ, tr(D ∂score) = tr(Gᵀ ∂score G), over the noisy variables only. What of the score is known, −Rz along
    the ancillary directions, is left out of the estimate; it is the same in every data dimension.
    """
    process, n = model.process, math.prod(z.shape[2:])
    drift, diffusion = process.drift_rate(t), process.diffusion_rate(t)
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        prediction = model(z, t)
        ancillary = _ancillary_precision(prediction.kernel)
        directions = _noise_directions(prediction.kernel, diffusion, process.noisy_rows)
        score = prediction.score
        unknown = trace(score + mix(ancillary, z), z, directions)
    z, score = z.detach(), score.detach()
    known = drift.diagonal(dim1=-2, dim2=-1).sum(-1) + (diffusion * ancillary).sum((-2, -1))
    return mix(drift, z) - mix(diffusion, score), n * known.to(z) - unknown.detach()


def _noise_directions(kernel: Kernel, diffusion: Float[Tensor, "*B k k"], r: int) -> Float[Tensor, "*B k r"]:
    """G with GGᵀ = βD, its first column along the direction in which x̂₀ enters the score.

    Of an exact score only that column has an unknown Jacobian, so that probes of the others add no variance.
    """
    root = torch.zeros(*diffusion.shape[:-1], r, dtype=diffusion.dtype)
    root[..., -r:, :] = torch.linalg.cholesky(diffusion[..., -r:, -r:])
    if r == 1:
        return root
    pull = (root.mT @ kernel.pull[..., None])[..., 0]
    axis = pull / pull.norm(dim=-1, keepdim=True)
    axis[..., 0] += torch.where(axis[..., 0] < 0, -1.0, 1.0)  # Householder: the first axis to ±pull
    mirror = (
        torch.eye(r, dtype=axis.dtype)
        - 2.0 * axis[..., :, None] * axis[..., None, :] / axis.square().sum(-1)[..., None, None]
    )
    return product(root, mirror)


def _ancillary_precision(kernel: Kernel) -> Float[Tensor, "*B k k"]:
    """R = Σ⁻¹ − Σ⁻¹Φ₀Φ₀ᵀΣ⁻¹ / a: the precision of what z holds beside the image, free of cancellation."""
    w = kernel.whitened_signal
    w = w / w.norm(dim=-1, keepdim=True)
    beside = torch.eye(w.shape[-1], dtype=w.dtype) - w[..., :, None] * w[..., None, :]
    left = product(beside, kernel.whitener)
    return product(left.mT, left)


def _larger_error(error: Float[Tensor, "B d"]) -> Float[Tensor, " B"]:
    """Root-mean-square of the state or error of the log density, whichever is larger, in units of the tolerance."""
    return torch.maximum(error[:, :-1].square().mean(1).sqrt(), error[:, -1].abs()).double().cpu()
