"""Langevin steps in phase space after each step of another sampler.

    z ← z + δ Σ_s ∇log p_s(z) + √(2δ) L_s ξ,      Σ_s = L_s L_sᵀ

Leaves p_s where it is, to O(δ), and mends what the predictor got wrong (the corrector of Song et al., 2021). With the
covariance of the process as preconditioner, δ has no unit: one size fits position, momentum and every time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor

from psld.kernels import mix
from psld.samplers.base import Sampler, require_stepwise

__all__ = ["Langevin"]


class LangevinStep(NamedTuple):
    """The predictor's tables, the time s they lead to, and δΣ and √(2δ) L there."""

    predicted: Any
    stop: Tensor
    push: Tensor
    spread: Tensor


class Langevin(Sampler):
    """A predictor with Langevin corrections; of the predictor's order, up to a bias of O(δ) that no grid cures.

    Args:
        predictor: the sampler that takes the steps.
        size: δ in (0, 1), the size of a correction.
        corrections: how many after each step, one evaluation each.

    Raises:
        ValueError: an argument is out of its range, or a predictor without fixed steps of its own.
    """

    stochastic = True

    def __init__(self, predictor: Sampler, size: float = 0.05, corrections: int = 1):
        if not 0.0 < size < 1.0 or corrections < 1:
            raise ValueError(f"size must lie in (0, 1) and corrections be at least 1: got {size}, {corrections}.")
        self.predictor = require_stepwise(predictor, "Langevin")
        self.size, self.corrections = size, corrections
        self.order, self.evaluations = predictor.order, predictor.evaluations + corrections

    def coefficients(self, process, t, s):
        kernel, size = process.marginal(s), self.size
        predicted = self.predictor.coefficients(process, t, s)
        return LangevinStep(predicted, s, size * kernel.covariance, math.sqrt(2 * size) * kernel.cholesky)

    def begin(self):
        return partial(self.step, predict=self.predictor.begin())

    def step(self, z, c, model, t, noise, predict: Callable[..., Tensor] | None = None):
        z = (predict or self.predictor.step)(z, c.predicted, model, t, noise)
        for _ in range(self.corrections):
            z = z + mix(c.push, model(z, c.stop).score) + mix(c.spread, noise())
        return z

    def __repr__(self) -> str:
        return f"Langevin({self.predictor!r}, size={self.size:g}, corrections={self.corrections})"
