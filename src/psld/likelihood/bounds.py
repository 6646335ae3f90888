"""A bound on log p of data, which have no auxiliary variables and no noise, from log p of states at t, which have both.

With z ~ q(z | x), the process at time t, and c(z) = ∫ q(z | x) dx,

    log p(x) ≥ E [ log p_t(z) − log c(z) ],      one number a draw; the log-mean-exp of several is tighter

where c is the density of what z holds beside the image: as t → 0, the law of the auxiliary variables.
Derivation: docs/derivations/likelihood.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from psld.kernels import Kernel, mix
from psld.likelihood.dequantisation import Dequantiser
from psld.likelihood.flow import ProbabilityFlow
from psld.noise import standard_normal
from psld.processes import LinearProcess
from psld.specs.arguments import checked, seed_numbers, whole

__all__ = ["Bound", "Start", "bits_per_dimension", "bound"]

Start = Literal["perturbed", "data"]
"""Where a path begins: at z_t ~ q(z | x), which keeps the bound, or at (x, m) itself taken for a state at time t."""


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


@checked
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
    whole("draws", draws)
    if not 0.0 < t <= flow.model.process.T:
        raise ValueError(f"t must lie in (0, {flow.model.process.T:g}]: got {t}.")
    generators = [torch.Generator().manual_seed(seed) for seed in seed_numbers("seeds", seeds)]
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


@checked
def bits_per_dimension(log_prob: Float[Tensor, "*B"], dimensions: int) -> Float[Tensor, "*B"]:
    """−log₂ p a data dimension, from nats."""
    return -log_prob / (whole("dimensions", dimensions, most=2**32) * math.log(2.0))
