"""Exponential multistep samplers for any linear process, deterministic or stochastic.

The reverse process with noise η√(2βD) is linear in z but for x̂₀. Put the polynomial in λ = −log σ through the last
x̂₀ in its place, and it is solved exactly:

    z_s = Φ₀(s) x̂₀ + Ψ(s, t) (z_t − Φ₀(t) x̂₀) + Σ_j w_j (x̂₀ⱼ − x̂₀) + L_s √(I − M Mᵀ) ξ,       Ψ = L_s M L_t⁻¹

For the VP process this is, with η = 0, DDIM (order 1; Song et al., 2021) and DPM-Solver++(2M) in its exact form (order
2; Lu et al., 2022), with η = 1 DDPM's posterior and SDE-DPM-Solver++(2M). Derivation: docs/derivations/exponential.md.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from psld.kernels import cholesky, mix, outer
from psld.model import Model
from psld.processes import LinearProcess
from psld.samplers.flows import data_weights, noise_flow, whitened_flow
from psld.samplers.sampler import FixedStepSampler, Noise, States, Times

__all__ = ["DPMSolverPP", "Exponential", "PredictorCorrector"]

Weights = Callable[..., Tensor]
"""weights(process, t, s, clocks) of `psld.samplers.flows`."""

Past = tuple[Float[Tensor, "B *data"], ...]
"""x̂₀ of earlier steps, the latest first."""


class ExponentialStep(NamedTuple):
    """signal_t = Φ₀(t), signal_s = Φ₀(s), flow = Ψ(s, t), past = w_j for x̂₀ of one, two … steps ago.

    noise: L_s √(I − M Mᵀ), the factor of what joins.
    restart: in the row of the second step, the weight that x̂₀ at its start has in the first step; else 0.
    """

    signal_t: Tensor
    signal_s: Tensor
    flow: Tensor
    past: Tensor
    noise: Tensor
    restart: Tensor


class Exponential(FixedStepSampler[ExponentialStep, Past]):
    """Exact between evaluations but for x̂₀, which is a polynomial through the last `order` evaluations.

    The first steps use as many evaluations as there are; for order 3 the first one is mended when the second begins.

    Args:
        order: 1, 2 or 3, in the step of log-SNR; weak order where eta > 0.
        eta: noise that joins on the way, from 0 (probability flow) to 1 (reverse SDE).

    Raises:
        ValueError: an argument is out of its range; order 3 with noise: x̂₀ along a noisy path is no smooth curve.
    """

    shown = ("order",)
    long_steps = True

    def __init__(self, order: int = 2, eta: float = 0.0):
        if order not in (1, 2, 3):
            raise ValueError(f"order must be 1, 2 or 3: got {order}.")
        if not 0.0 <= eta <= 1.0:
            raise ValueError(f"eta must lie in [0, 1], from the probability flow to the reverse SDE: got {eta}.")
        if order == 3 and eta > 0.0:
            raise ValueError(
                "order 3 needs a smooth path of x̂₀, and eta > 0 adds noise to it: use order 2, or eta = 0."
            )
        self.order, self.eta, self.stochastic = order, eta, eta > 0.0

    def tables(self, process: LinearProcess, t: Times, s: Times) -> ExponentialStep:
        weights = partial(data_weights, eta=self.eta)
        return ExponentialStep(
            process.signal(t),
            process.signal(s),
            noise_flow(process, t, s, self.eta),
            past_weights(process, t, s, self.order, weights),
            joining_noise(process, t, s, self.eta),
            restart_weights(process, t, s, weights),
        )

    def init(self, z: States) -> Past:
        """No step was taken yet."""
        return ()

    def step(
        self, z: States, state: Past, row: ExponentialStep, model: Model, t: Tensor, noise: Noise
    ) -> tuple[States, Past]:
        x0 = model(z, t).x0
        if self.order > 2 and len(state) == 1:
            z = z + outer(row.restart, x0 - state[0])
        z = outer(row.signal_s, x0) + mix(row.flow, z - outer(row.signal_t, x0))
        for weight, earlier in zip(row.past.unbind(-2), state, strict=False):
            z = z + outer(weight, earlier - x0)
        z = z + mix(row.noise, noise()) if self.stochastic else z
        return z, (x0, *state)[: self.order]


class DPMSolverPP(Exponential):
    """DPM-Solver++(2M), or with eta = 1 SDE-DPM-Solver++(2M), for any linear process (Lu et al., 2022).

    As `Exponential` of order 2, but x̂₀ is constant within a step: the line through two evaluations at the middle of the
    step in λ, instead of the line itself.

    Args:
        eta: noise that joins on the way, from 0 (probability flow) to 1 (reverse SDE).

    Raises:
        ValueError: eta is out of its range.
    """

    shown = ()

    def __init__(self, eta: float = 0.0):
        super().__init__(2, eta)

    def tables(self, process: LinearProcess, t: Times, s: Times) -> ExponentialStep:
        held = Exponential(1, self.eta).tables(process, t, s)
        clock = -torch.cat([process.noise_scale(t), process.noise_scale(s[-1:])]).log()
        step = clock.diff()
        share = torch.cat([step.new_zeros(1), -0.5 * step[1:] / step[:-1]])  # the first step has no line yet
        change = held.signal_s - (held.flow @ held.signal_t[..., None])[..., 0]
        return held._replace(past=(share[:, None] * change)[:, None])


class CorrectedStep(NamedTuple):
    """As `ExponentialStep`, and correct = weights, for the step before, of x̂₀ at its end and of those before its start.

    The weights belong to the differences from x̂₀ at the start of that step.
    """

    signal_t: Tensor
    signal_s: Tensor
    flow: Tensor
    past: Tensor
    correct: Tensor


class Predicted(NamedTuple):
    """What a predictor–corrector remembers: the latest step with x̂₀ held constant, and earlier x̂₀, latest first.

    held is None before the first step.
    """

    held: States | None
    past: Past


class PredictorCorrector(FixedStepSampler[CorrectedStep, Predicted]):
    """An `Exponential` step whose result is improved, at no further cost, once x̂₀ at its end is known.

    The evaluation at the predicted state serves twice: in the polynomial that redoes the step, now of one order more,
    and in the prediction of the next (UniPC; Zhao et al., 2023). Deterministic.

    Args:
        predictor: 1 or 2, the order of the prediction; `order` is one more.

    Raises:
        ValueError: another order.
    """

    shown = ("predictor",)
    stochastic = False
    long_steps = True

    def __init__(self, predictor: int = 2):
        if predictor not in (1, 2):
            raise ValueError(f"the order of the predictor must be 1 or 2: got {predictor}.")
        self.predictor, self.order = predictor, predictor + 1

    def tables(self, process: LinearProcess, t: Times, s: Times) -> CorrectedStep:
        correct = past_weights(process, t, s, self.predictor, data_weights, ahead=True)
        return CorrectedStep(
            process.signal(t),
            process.signal(s),
            noise_flow(process, t, s),
            past_weights(process, t, s, self.predictor, data_weights),
            torch.cat([torch.zeros_like(correct[:1]), correct[:-1]]),  # a step is corrected one step later
        )

    def init(self, z: States) -> Predicted:
        """No step was taken yet."""
        return Predicted(None, ())

    def step(
        self, z: States, state: Predicted, row: CorrectedStep, model: Model, t: Tensor, noise: Noise
    ) -> tuple[States, Predicted]:
        x0 = model(z, t).x0
        if state.held is not None:
            start, *before = state.past
            z = state.held
            for weight, known in zip(row.correct.unbind(-2), [x0, *before], strict=False):
                z = z + outer(weight, known - start)
        held = outer(row.signal_s, x0) + mix(row.flow, z - outer(row.signal_t, x0))
        z = held
        for weight, earlier in zip(row.past.unbind(-2), state.past, strict=False):
            z = z + outer(weight, earlier - x0)
        return z, Predicted(held, (x0, *state.past)[: self.predictor])


def past_weights(
    process: LinearProcess, t: Times, s: Times, order: int, weights: Weights, ahead: bool = False
) -> Float[Tensor, "n p *k"]:
    """Weights of the differences to the evaluation at t: with `ahead` first of the one at s, then of those before t.

    Steps are consecutive. Those too early to have all `order` evaluations use the ones there are, and get zeros for the
    others.
    """
    clock, clock_s = -process.noise_scale(t).log(), -process.noise_scale(s).log()
    groups = []
    for count in range(1, order + 1):  # how many evaluations there are: 1, 2 … in the first steps, then `order`
        rows = torch.arange(count - 1, len(t))[: None if count == order else 1]
        if not len(rows):  # a grid of fewer steps
            break
        nodes = [clock[rows - j] for j in range(count)]
        if ahead:
            nodes.insert(1, clock_s[rows])
        known = weights(process, t[rows], s[rows], torch.stack(nodes, 1))[:, 1:]
        missing = known.new_zeros(len(rows), order - 1 + ahead - known.shape[1], *known.shape[2:])
        groups.append(torch.cat([known, missing], 1))
    return torch.cat(groups)


def restart_weights(process: LinearProcess, t: Times, s: Times, weights: Weights) -> Float[Tensor, "n *k"]:
    """For the second step: what the evaluation at its start should have weighed in the first. All other rows are 0."""
    known = past_weights(process, t[:1], s[:1], 1, weights, ahead=True)[:, 0]
    rows = known.new_zeros(len(t), *known.shape[1:])
    rows[1:2] = known
    return rows


def joining_noise(process: LinearProcess, t: Times, s: Times, eta: float) -> Float[Tensor, "n k k"]:
    """The factor of the noise that joins from t to s: L_s √(I − M Mᵀ)."""
    if eta == 0.0:
        return torch.zeros(len(t), process.k, process.k, dtype=torch.float64)
    kept = whitened_flow(process, t, s, eta)
    return process.marginal(s).cholesky @ cholesky(torch.eye(process.k, dtype=torch.float64) - kept @ kept.mT)
