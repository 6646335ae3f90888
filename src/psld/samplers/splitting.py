"""Splitting integrators: position and momentum take turns, each with an Euler step of its own part of the flow.

With the rows of the first variable (position) and of the others (momentum), A and D as functions of time,

    position   P:   dx/dt = [A z]_x − [D ∇log p]_x        momentum   K:   dm/dt = [A z]_m − [D ∇log p]_m

the deterministic ones solve the probability flow, and

    O:   dz = −D S⁻¹ z db + √(2D) dw̄                      exact, in the clock b = ∫β, position noise scaled by λ_s
    P, K: the two parts of   Q S⁻¹ z + 2D (∇log p + S⁻¹ z)

the stochastic ones the reverse SDE. The reduced ones reuse a score evaluation. Source: Pandey, Rudolph & Mandt,
"Efficient Integrators for Diffusion Generative Models" (2023). Derivation: docs/derivations/splitting.md.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from psld.kernels import cholesky, linear_kernel, mix
from psld.model import Model
from psld.processes import LinearProcess, Process
from psld.samplers.conjugate import ConjugateStep, Direction, conjugate_step, direction_matrix
from psld.samplers.requirements import require_momentum, require_recipe, require_scheduled
from psld.samplers.sampler import Noise, OneStepSampler, States, Times
from psld.specs.arguments import finite, non_negative

__all__ = ["OBA", "ROBA", "RVV", "ConjugateOBA", "ConjugateVerlet", "SymplecticEuler", "VelocityVerlet"]


class Part(NamedTuple):
    """What multiplies each: z ← z + state z + score ∇log p; only position rows, or only momentum rows, are not zero."""

    state: Tensor
    score: Tensor


class FlowStep(NamedTuple):
    """The end s of the step, its part P (position), and its part K (momentum): all of it, or half."""

    stop: Tensor
    position: Part
    momentum: Part


class Friction(NamedTuple):
    """O: its mean map Φ, and the Cholesky factor L of its covariance."""

    mean_map: Tensor
    noise: Tensor


class FrictionStep(NamedTuple):
    """O, P and K."""

    friction: Friction
    position: Part
    momentum: Part


class ConjugateFlowStep(NamedTuple):
    """The end s, half a step of momentum, one of position, half of momentum."""

    stop: Tensor
    first: ConjugateStep
    position: ConjugateStep
    last: ConjugateStep


class ConjugateFrictionStep(NamedTuple):
    """O, and P and K as conjugate steps."""

    friction: Friction
    position: ConjugateStep
    momentum: ConjugateStep


class SymplecticEuler(OneStepSampler[FlowStep]):
    """Momentum, then position, each with its own score evaluation. Order 1 in the step of t.

    Raises:
        ValueError: the process has no momentum.
    """

    order = 1
    stochastic = False
    nfe_per_step = 2

    def tables(self, process: LinearProcess, t: Times, s: Times) -> FlowStep:
        position, momentum = flow_parts(require_momentum(process, type(self).__name__), s, t)
        return FlowStep(s, euler(*position), euler(*momentum))

    def step(self, z: States, state: None, row: FlowStep, model: Model, t: Tensor, noise: Noise) -> tuple[States, None]:
        z = apply(row.momentum, z, model(z, t).score)
        return apply(row.position, z, model(z, t).score), None


class VelocityVerlet(OneStepSampler[FlowStep]):
    """Half a step of momentum, one of position, half of momentum, an evaluation each. Order 1 in the step of t.

    (Not 2: the force depends on the momentum, so the second half step is not the mirror image of the first.)
    """

    order = 1
    stochastic = False
    nfe_per_step = 3

    def tables(self, process: LinearProcess, t: Times, s: Times) -> FlowStep:
        position, momentum = flow_parts(require_momentum(process, type(self).__name__), s, t)
        return FlowStep(s, euler(*position), euler(*momentum, share=0.5))

    def step(self, z: States, state: None, row: FlowStep, model: Model, t: Tensor, noise: Noise) -> tuple[States, None]:
        z = apply(row.momentum, z, model(z, t).score)
        z = apply(row.position, z, model(z, t).score)
        return apply(row.momentum, z, model(z, row.stop).score), None


class RVV(VelocityVerlet):
    """Reduced velocity Verlet: the first evaluation serves momentum and position, the second is made at s."""

    nfe_per_step = 2

    def step(self, z: States, state: None, row: FlowStep, model: Model, t: Tensor, noise: Noise) -> tuple[States, None]:
        score = model(z, t).score
        z = apply(row.position, apply(row.momentum, z, score), score)
        return apply(row.momentum, z, model(z, row.stop).score), None


class OBA(OneStepSampler[FrictionStep]):
    """O, then momentum, then position, the last two with an evaluation each. Weak order 1 in the step of t.

    Args:
        position_noise: λ_s ≥ 0, a factor on the noise that O adds to the position. 1 is the reverse SDE; any other
            value leads to another law than the data's, however fine the grid, and may look better on coarse ones.

    Raises:
        ValueError: λ_s is negative, or the process has no momentum or no stationary law.
    """

    shown = ("position_noise",)
    order = 1
    stochastic = True
    nfe_per_step = 2

    def __init__(self, position_noise: float = 1.0):
        self.position_noise = non_negative("position_noise", position_noise)

    def tables(self, process: LinearProcess, t: Times, s: Times) -> FrictionStep:
        who = type(self).__name__
        known = require_momentum(require_recipe(process, who), who)
        position, momentum = remainder_parts(known, s, t)
        return FrictionStep(friction(known, s, t, self.position_noise), euler(*position), euler(*momentum))

    def step(
        self, z: States, state: None, row: FrictionStep, model: Model, t: Tensor, noise: Noise
    ) -> tuple[States, None]:
        z = mix(row.friction.mean_map, z) + mix(row.friction.noise, noise())
        z = apply(row.momentum, z, model(z, t).score)
        return apply(row.position, z, model(z, t).score), None


class ROBA(OBA):
    """Reduced OBA: one evaluation, after O, serves momentum and position."""

    nfe_per_step = 1

    def step(
        self, z: States, state: None, row: FrictionStep, model: Model, t: Tensor, noise: Noise
    ) -> tuple[States, None]:
        z = mix(row.friction.mean_map, z) + mix(row.friction.noise, noise())
        score = model(z, t).score
        return apply(row.position, apply(row.momentum, z, score), score), None


class ConjugateVerlet(OneStepSampler[ConjugateFlowStep]):
    """Reduced velocity Verlet whose parts are conjugate steps (`psld.samplers.conjugate`), with ε for the score.

    Args:
        lam, direction: λ and B.
    """

    shown = ("lam", "direction")
    order = 1
    stochastic = False
    nfe_per_step = 2

    def __init__(self, lam: float = 0.0, direction: Direction = "ones"):
        direction_matrix(direction, 1)  # refuses any other
        self.lam: float = finite("lam", lam)
        self.direction: Direction = direction

    def tables(self, process: LinearProcess, t: Times, s: Times) -> ConjugateFlowStep:
        b, eye = self.lam * direction_matrix(self.direction, process.k), torch.eye(process.k, dtype=torch.float64)
        known = require_momentum(require_scheduled(process, "ConjugateVerlet"), "ConjugateVerlet")
        middle, a = 0.5 * (t + s), known.drift_matrix
        position, momentum = position_rows(a), momentum_rows(a)
        first = conjugate_step(known, momentum, momentum_rows(eye), momentum_rows(b), t, middle)
        last = conjugate_step(known, momentum, momentum_rows(eye), momentum_rows(b), middle, s)
        whole = conjugate_step(known, position, position_rows(eye), position_rows(b), t, s)
        return ConjugateFlowStep(s, first, whole, last)

    def step(
        self, z: States, state: None, row: ConjugateFlowStep, model: Model, t: Tensor, noise: Noise
    ) -> tuple[States, None]:
        eps = model(z, t).eps
        z = apply_conjugate(row.position, apply_conjugate(row.first, z, eps), eps)
        return apply_conjugate(row.last, z, model(z, row.stop).eps), None


class ConjugateOBA(OneStepSampler[ConjugateFrictionStep]):
    """Reduced OBA whose momentum and position parts are conjugate steps. Weak order 1.

    Args:
        lam, direction: λ and B.
        position_noise: λ_s, as for `OBA`.
    """

    shown = ("lam", "direction", "position_noise")
    order = 1
    stochastic = True

    def __init__(self, lam: float = 0.0, direction: Direction = "ones", position_noise: float = 1.0):
        direction_matrix(direction, 1)  # refuses any other
        self.lam: float = finite("lam", lam)
        self.direction: Direction = direction
        self.position_noise = non_negative("position_noise", position_noise)

    def tables(self, process: LinearProcess, t: Times, s: Times) -> ConjugateFrictionStep:
        b, eye = self.lam * direction_matrix(self.direction, process.k), torch.eye(process.k, dtype=torch.float64)
        known = require_momentum(require_recipe(process, "ConjugateOBA"), "ConjugateOBA")
        a = remainder_matrix(known)
        position, momentum = position_rows(a), momentum_rows(a)
        return ConjugateFrictionStep(
            friction(known, s, t, self.position_noise),
            conjugate_step(known, position, position_rows(2.0 * eye), position_rows(b), t, s),
            conjugate_step(known, momentum, momentum_rows(2.0 * eye), momentum_rows(b), t, s),
        )

    def step(
        self, z: States, state: None, row: ConjugateFrictionStep, model: Model, t: Tensor, noise: Noise
    ) -> tuple[States, None]:
        z = mix(row.friction.mean_map, z) + mix(row.friction.noise, noise())
        eps = model(z, t).eps
        return apply_conjugate(row.position, apply_conjugate(row.momentum, z, eps), eps), None


Rows = tuple[Tensor, Tensor]
"""∫A dt and ∫D dt over each step, (n, k, k), with all rows zero but some."""


def flow_parts(process: LinearProcess, s: Times, t: Times) -> tuple[Rows, Rows]:
    """The two parts of the probability flow over each step: position rows, momentum rows."""
    return _split(process.drift_increment(s, t), process.diffusion_increment(s, t))


def remainder_parts(process: Process, s: Times, t: Times) -> tuple[Rows, Rows]:
    """As `flow_parts`, for what O leaves of the reverse SDE, in forward time: −(Q + 2D) S⁻¹ and 2D over each step."""
    db = process.schedule.increment(s, t)[:, None, None]
    return _split(db * remainder_matrix(process), db * (2.0 * process.recipe.diffusion))


def remainder_matrix(process: Process) -> Tensor:
    """−(Q + 2D) S⁻¹."""
    recipe = process.recipe
    return -(recipe.curl + 2.0 * recipe.diffusion) @ torch.linalg.inv(recipe.covariance)


def friction(process: Process, s: Times, t: Times, position_noise: float) -> Friction:
    """The exact step of O, λ_s on the position's noise."""
    recipe, db = process.recipe, process.schedule.increment(s, t)
    kernel = linear_kernel(-recipe.diffusion @ torch.linalg.inv(recipe.covariance), recipe.diffusion, db)
    scale = torch.ones(process.k, 1, dtype=torch.float64)
    scale[0] = position_noise
    return Friction(kernel.mean_map, scale * cholesky(kernel.covariance))


def _split(a: Tensor, d: Tensor) -> tuple[Rows, Rows]:
    return (position_rows(a), position_rows(d)), (momentum_rows(a), momentum_rows(d))


def position_rows(matrix: Tensor) -> Tensor:
    """The first row; the others zero."""
    return torch.cat([matrix[..., :1, :], torch.zeros_like(matrix[..., 1:, :])], -2)


def momentum_rows(matrix: Tensor) -> Tensor:
    """All but the first row; that one zero."""
    return torch.cat([torch.zeros_like(matrix[..., :1, :]), matrix[..., 1:, :]], -2)


def euler(a: Tensor, d: Tensor, share: float = 1.0) -> Part:
    """An Euler step, backwards, of dz/dt = A z − D ∇log p, or a share of it, from the two integrals over the step."""
    return Part(-share * a, share * d)


def apply(part: Part, z: States, score: States) -> States:
    """An Euler step of one part."""
    return z + mix(part.state, z) + mix(part.score, score)


def apply_conjugate(part: ConjugateStep, z: States, eps: States) -> States:
    """A conjugate step of one part."""
    return mix(part.state, z) + mix(part.eps, eps)
