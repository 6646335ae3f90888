"""log p of a score model: the probability flow as a change of variables, and a bound for x without its momentum.

Along dz/dt = f(z, t) − βD ∇log p_t(z), forward in time, the log density falls by the divergence:

    log p_t(z_t) = log p_T(z_T) + ∫_t^T div dτ,      div = n tr(βA) − tr(βD ∇² log p_τ)

(Chen et al., 2018; Song et al., ICLR 2021). Data x have no auxiliary variables and no noise, states at t have both.
With z ~ q(z | x), the process at time t, and c(z) = ∫ q(z | x) dx,

    log p(x) ≥ E [ log p_t(z) − log c(z) ],      one number a draw; the log-mean-exp of several is tighter

where c is the density of what z holds beside the image: as t → 0, the law of the auxiliary variables.
Derivation: docs/derivations/likelihood.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from psld.kernels import Kernel, mix, product
from psld.likelihood.dequantisation import Dequantiser
from psld.model import ScoreModel
from psld.noise import Generators, standard_normal
from psld.processes import LinearProcess
from psld.samplers.dormand_prince import DormandPrince

__all__ = [
    "Bound",
    "Carried",
    "ExactTrace",
    "Hutchinson",
    "LogProb",
    "ProbabilityFlow",
    "Start",
    "Trace",
    "bits_per_dimension",
    "bound",
]

Start = Literal["perturbed", "data"]
"""Where a path begins: at z_t ~ q(z | x), which keeps the bound, or at (x, m) itself taken for a state at time t."""

SMALL = 64  # dimensions of the noisy variables up to which the trace is exact unless told otherwise
ROWS_AT_ONCE = 64

TraceOfPath = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""trace(output, input, G, rows) -> (b,): of Gᵀ (∂output/∂input) G of each sample, G (b, k, r) acting on the variables
of output and input (b, k, *data); rows (b,) are which of the batch they are."""


class Trace(Protocol):
    """How the trace of a Jacobian is found."""

    def begin(self, shape: tuple[int, ...], generators: Generators, device: torch.device | str = "cpu") -> TraceOfPath:
        """Ready for one path of a batch.

        Args:
            shape: (B, r, *data).
            generators: one a sample.
            device: of the field.
        """
        ...


class ExactTrace:
    """Every diagonal entry: one backward pass a dimension, many at once (`vmap` over the rows of the Jacobian)."""

    def begin(
        self, shape: tuple[int, ...], generators: Generators = None, device: torch.device | str = "cpu"
    ) -> TraceOfPath:
        basis = torch.eye(math.prod(shape[1:]), dtype=torch.float64, device=device).unflatten(1, (1, *shape[1:]))

        def trace(output: Tensor, input: Tensor, directions: Tensor, rows: Tensor) -> Tensor:
            parts = [
                quadratic_forms(
                    output, input, _along(directions, part.expand(-1, len(rows), *shape[1:])), more=True
                ).sum(0)
                for part in basis.split(ROWS_AT_ONCE)
            ]
            return torch.stack(parts).sum(0)

        return trace

    def __repr__(self) -> str:
        return "ExactTrace()"


class Hutchinson:
    """E[vᵀJv] over probes v of mean zero and covariance I, the same probes along the whole path (Hutchinson, 1989).

    Unbiased. With the symmetric part S of J, the variance of one probe is 2(‖S‖² − Σ Sᵢᵢ²) for Rademacher probes and
    2‖S‖² for Gaussian ones.

    Args:
        probes: how many are averaged, each one backward pass.
        law: "rademacher", ±1, or "gaussian".

    Raises:
        ValueError: no probe, or another law.
    """

    def __init__(self, probes: int = 1, law: Literal["rademacher", "gaussian"] = "rademacher"):
        if probes < 1:
            raise ValueError(f"at least one probe is needed: got {probes}.")
        if law not in ("rademacher", "gaussian"):
            raise ValueError(f"law must be 'rademacher' or 'gaussian': got {law!r}.")
        self.probes, self.law = probes, law

    def begin(
        self, shape: tuple[int, ...], generators: Generators = None, device: torch.device | str = "cpu"
    ) -> TraceOfPath:
        draws = standard_normal((shape[0], self.probes, *shape[1:]), generators, torch.float64)
        if self.law == "rademacher":
            draws = torch.where(draws < 0, -1.0, 1.0).to(draws)
        probes = draws.transpose(0, 1).to(device)

        def trace(output: Tensor, input: Tensor, directions: Tensor, rows: Tensor) -> Tensor:
            return quadratic_forms(output, input, _along(directions, probes[:, rows.to(device)])).mean(0)

        return trace

    def __repr__(self) -> str:
        return f"Hutchinson(probes={self.probes}, law={self.law!r})"


def _along(directions: Float[Tensor, "*#B k r"], probes: Float[Tensor, "p B r *data"]) -> Float[Tensor, "p B k *data"]:
    """Probes of r variables as directions in all k."""
    g = directions.to(probes).reshape(-1, *directions.shape[-2:], *[1] * (probes.ndim - 3))
    return (g * probes.unsqueeze(2)).sum(3)


def quadratic_forms(
    output: Float[Tensor, "B *d"], input: Float[Tensor, "B *d"], probes: Float[Tensor, "p B *d"], more: bool = False
) -> Float[Tensor, "p B"]:
    """vᵀ (∂output/∂input) v of each sample, for each of p probes; `more` keeps the graph for other probes."""
    probes = probes.to(output)
    if len(probes) == 1:  # without vmap, which is one demand less on the network
        (pulled,) = torch.autograd.grad(output, input, probes[0], retain_graph=more)
        return (pulled * probes[0]).flatten(1).sum(1)[None]
    (pulled,) = torch.autograd.grad(output, input, probes, retain_graph=more, is_grads_batched=True)
    return (pulled * probes).flatten(2).sum(2)


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
        model: any score model; its process is integrated.
        trace: of the Jacobian; exact up to 64 dimensions, else `Hutchinson()`, when None.
        rtol, atol: tolerances of a step, on the root-mean-square error of the state and on the error of the log density
            in nats, each on its own.
        max_steps: attempted steps a sample before giving up.

    Raises:
        ValueError: a tolerance that is not positive.
    """

    def __init__(
        self,
        model: ScoreModel,
        trace: Trace | None = None,
        rtol: float = 1e-6,
        atol: float = 1e-6,
        max_steps: int = 10_000,
    ):
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
    model: ScoreModel, z: Tensor, t: Tensor, trace: Callable[[Tensor, Tensor, Tensor], Tensor]
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


class Bound(NamedTuple):
    """Log weights of the draws (draws, B) in nats, and evaluations of the network a sample over all draws (B,)."""

    log_weights: Tensor
    nfe: Tensor

    @property
    def evidence(self) -> Float[Tensor, " B"]:
        """The mean of the log weights: E[·] ≤ log p(x)."""
        return self.log_weights.mean(0)

    @property
    def importance(self) -> Float[Tensor, " B"]:
        """Log-mean-exp of the weights, tighter (Burda et al., 2016). A bound with an exact trace: the noise of an
        estimated one raises it.
        """
        return torch.logsumexp(self.log_weights, 0) - math.log(len(self.log_weights))


def bound(
    flow: ProbabilityFlow,
    x: Float[Tensor, "B *data"],
    t: float,
    seeds: Iterable[int],
    draws: int = 1,
    dequantiser: Dequantiser | None = None,
    start: Start = "perturbed",
) -> Bound:
    """Lower bounds on log p(x) through the auxiliary variables, one a draw.

    Args:
        flow: gives log p_t(z).
        x: data; on the levels of the dequantiser, if there is one.
        t: first time of the flow.
        seeds: one integer a sample: of its dequantisation, its state and its probes. A value depends on nothing else.
        draws: independent draws of all of these.
        dequantiser: makes the bound one on log P of discrete data; None for the density of x as given.
        start: "perturbed", z ~ q(z | x) at time t; or "data", (x, m) itself with m from its initial law, as if it were
            a state at time t: a convention of the literature, and no bound.

    Raises:
        ValueError: no draw, another start, not one seed a sample, or start "data" with auxiliary variables that are
            not random.
    """
    if draws < 1:
        raise ValueError(f"at least one draw is needed: got {draws}.")
    if start not in ("perturbed", "data"):
        raise ValueError(f"start must be 'perturbed' or 'data': got {start!r}.")
    generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
    begin = perturbed_start if start == "perturbed" else data_start
    process, weights, nfe = flow.model.process, [], torch.zeros(len(x), dtype=torch.int64)
    for _ in range(draws):
        image, log_density = x.double(), torch.zeros(len(x), dtype=torch.float64, device=x.device)
        if dequantiser is not None:
            noise = standard_normal(tuple(x.shape), generators, torch.float64).to(x.device)
            image, log_density = dequantiser(x, noise)
        eps = standard_normal((len(x), process.k, *x.shape[1:]), generators, torch.float64).to(x.device)
        z, log_beside = begin(process, image, t, eps)
        found = flow.log_prob(z, t, generators)
        weights.append(found.log_prob - log_beside - log_density)
        nfe += found.nfe
    return Bound(torch.stack(weights), nfe)


def perturbed_start(
    process: LinearProcess, x: Float[Tensor, "B *data"], t: float, eps: Float[Tensor, "B k *data"]
) -> tuple[Float[Tensor, "B k *data"], Float[Tensor, " B"]]:
    """z ~ q(z_t | x), and log c(z) with c(z) = ∫ q(z | x) dx."""
    kernel, n = process.marginal(t), x[0].numel()
    z = kernel.sample(process.lift(x), eps)
    signal = kernel.whitened_signal
    seen = mix((signal / signal.norm()).unsqueeze(0), eps)  # the noise of the statistic y, in units of σ
    log_scale = kernel.cholesky.diagonal().log().sum() + signal.norm().log()
    beside = eps.square().flatten(1).sum(1) - seen.square().flatten(1).sum(1)
    return z, -0.5 * beside - n * float(log_scale) - 0.5 * (process.k - 1) * n * math.log(2.0 * math.pi)


def data_start(
    process: LinearProcess, x: Float[Tensor, "B *data"], t: float, eps: Float[Tensor, "B k *data"]
) -> tuple[Float[Tensor, "B k *data"], Float[Tensor, " B"]]:
    """(x, m) with m from its law at t = 0, and log p(m)."""
    if process.k == 1:
        return process.lift(x), torch.zeros(len(x), dtype=torch.float64, device=x.device)
    m = process.initial_auxiliary(eps[:, 1:])
    law = Kernel(torch.eye(process.k - 1, dtype=torch.float64), process.initial_covariance[1:, 1:])
    return process.lift(x, m), law.log_prob(m, torch.zeros_like(m))


def bits_per_dimension(log_prob: Float[Tensor, "*B"], dimensions: int) -> Float[Tensor, "*B"]:
    """−log₂ p a data dimension, from nats."""
    return -log_prob / (dimensions * math.log(2.0))
