"""Langevin steps in phase space after each step of another sampler.

    z ← z + δ Σ_s ∇log p_s(z) + √(2δ) L_s ξ,      Σ_s = L_s L_sᵀ

Leaves p_s where it is, to O(δ), and mends what the predictor got wrong (the corrector of Song et al., 2021). With the
covariance of the process as preconditioner, δ has no unit: one size fits position, momentum and every time.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from psld.kernels import mix
from psld.model import Model
from psld.processes import LinearProcess
from psld.samplers.sampler import FixedStepSampler, Noise, State, States, Tables, Times, require_fixed_steps
from psld.specs.arguments import shown, whole

__all__ = ["Langevin"]


class LangevinStep(NamedTuple):
    """The time s that the step leads to, and there score = δΣ and noise = √(2δ) L."""

    stop: Tensor
    score: Tensor
    noise: Tensor


class Langevin(FixedStepSampler[tuple[Tables, LangevinStep], State]):
    """A predictor with Langevin corrections; of the predictor's order, up to a bias of O(δ) that no grid cures.

    Args:
        predictor: the sampler that takes the steps.
        size: δ in (0, 1), the size of a correction.
        corrections: how many after each step, one evaluation each.

    Raises:
        ValueError: an argument is out of its range, or a predictor without fixed steps of its own.
    """

    shown = ("size", "corrections")
    stochastic = True

    def __init__(self, predictor: FixedStepSampler, size: float = 0.05, corrections: int = 1):
        if not 0.0 < size < 1.0:
            raise ValueError(f"size must lie in (0, 1): got {shown(size)}.")
        corrections = whole("corrections", corrections)
        require_fixed_steps(predictor, "Langevin")
        self.predictor: FixedStepSampler[Tables, State] = predictor
        self.size, self.corrections = size, corrections
        self.order, self.nfe_per_step = predictor.order, predictor.nfe_per_step + corrections
        self.long_steps = predictor.long_steps

    def tables(self, process: LinearProcess, t: Times, s: Times) -> tuple[Tables, LangevinStep]:
        kernel, size = process.marginal(s), self.size
        correction = LangevinStep(s, size * kernel.covariance, math.sqrt(2 * size) * kernel.cholesky)
        return self.predictor.tables(process, t, s), correction

    def init(self, z: States) -> State:
        """The predictor's; corrections remember nothing."""
        return self.predictor.init(z)

    def step(
        self,
        z: States,
        state: State,
        row: tuple[Tables, LangevinStep],
        model: Model,
        t: Tensor,
        noise: Noise,
    ) -> tuple[States, State]:
        predicted, correct = row
        z, state = self.predictor.step(z, state, predicted, model, t, noise)
        for _ in range(self.corrections):
            z = z + mix(correct.score, model(z, correct.stop).score) + mix(correct.noise, noise())
        return z, state
