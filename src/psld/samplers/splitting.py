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

from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from psld.kernels import cholesky, linear_kernel, mix
from psld.processes import LinearProcess, Process
from psld.samplers.base import Sampler
from psld.samplers.conjugate import ConjugateStep, Direction, conjugate_step, direction_matrix, require_scheduled

__all__ = ["OBA", "ROBA", "RVV", "ConjugateOBA", "ConjugateVerlet", "SymplecticEuler", "VelocityVerlet"]

AnyProcess = TypeVar("AnyProcess", bound=LinearProcess)


class Part(NamedTuple):
    """z ← z + move z + push ∇log p; only position rows, or only momentum rows, differ from zero."""

    move: Tensor
    push: Tensor


class DeterministicStep(NamedTuple):
    """The end s of the step, the position part of it, and the momentum part: of all of it, or of half."""

    stop: Tensor
    position: Any
    momentum: Any


class StochasticStep(NamedTuple):
    """turn and spread of O, then the position part and the momentum part."""

    turn: Tensor
    spread: Tensor
    position: Any
    momentum: Any


class SymplecticEuler(Sampler):
    """Momentum, then position, each with its own score evaluation. Order 1 in the step of t.

    Raises:
        ValueError: the process has no momentum.
    """

    order = 1
    stochastic = False
    evaluations = 2

    def coefficients(self, process, t, s):
        position, momentum = flow_parts(process, s, t)
        return DeterministicStep(s, euler(*position), euler(*momentum))

    def step(self, z, c, model, t, noise):
        z = apply(c.momentum, z, model(z, t).score)
        return apply(c.position, z, model(z, t).score)


class VelocityVerlet(Sampler):
    """Half a step of momentum, one of position, half of momentum, an evaluation each. Order 1 in the step of t.

    (Not 2: the force depends on the momentum, so the second half step is not the mirror image of the first.)
    """

    order = 1
    stochastic = False
    evaluations = 3

    def coefficients(self, process, t, s):
        position, momentum = flow_parts(process, s, t)
        return DeterministicStep(s, euler(*position), euler(*momentum, share=0.5))

    def step(self, z, c, model, t, noise):
        z = apply(c.momentum, z, model(z, t).score)
        z = apply(c.position, z, model(z, t).score)
        return apply(c.momentum, z, model(z, c.stop).score)


class RVV(VelocityVerlet):
    """Reduced velocity Verlet: the first evaluation serves momentum and position, the second is made at s."""

    evaluations = 2

    def step(self, z, c, model, t, noise):
        score = model(z, t).score
        z = apply(c.position, apply(c.momentum, z, score), score)
        return apply(c.momentum, z, model(z, c.stop).score)


class OBA(Sampler):
    """O, then momentum, then position, the last two with an evaluation each. Weak order 1 in the step of t.

    Args:
        position_noise: λ_s ≥ 0, a factor on the noise that O adds to the position. 1 is the reverse SDE; any other
            value leads to another law than the data's, however fine the grid, and may look better on coarse ones.

    Raises:
        ValueError: λ_s is negative, or the process has no momentum or no stationary law.
    """

    order = 1
    stochastic = True
    evaluations = 2

    def __init__(self, position_noise: float = 1.0):
        self.position_noise = _checked(position_noise)

    def coefficients(self, process, t, s):
        turn, spread = friction(process, s, t, self.position_noise)
        position, momentum = remainder_parts(process, s, t)
        return StochasticStep(turn, spread, euler(*position), euler(*momentum))

    def step(self, z, c, model, t, noise):
        z = mix(c.turn, z) + mix(c.spread, noise())
        z = apply(c.momentum, z, model(z, t).score)
        return apply(c.position, z, model(z, t).score)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(position_noise={self.position_noise:g})"


class ROBA(OBA):
    """Reduced OBA: one evaluation, after O, serves momentum and position."""

    evaluations = 1

    def step(self, z, c, model, t, noise):
        z = mix(c.turn, z) + mix(c.spread, noise())
        score = model(z, t).score
        return apply(c.position, apply(c.momentum, z, score), score)


class ConjugateVerlet(Sampler):
    """Reduced velocity Verlet whose parts are conjugate steps (`psld.samplers.conjugate`), with ε for the score.

    Args:
        lam, direction: λ and B.
    """

    order = 1
    stochastic = False
    evaluations = 2

    def __init__(self, lam: float = 0.0, direction: Direction = "ones"):
        direction_matrix(direction, 1)  # refuses any other
        self.lam: float = lam
        self.direction: Direction = direction

    def coefficients(self, process, t, s):
        b, eye = self.lam * direction_matrix(self.direction, process.k), torch.eye(process.k, dtype=torch.float64)
        middle, a = 0.5 * (t + s), require_momentum(require_scheduled(process, "ConjugateVerlet")).drift_matrix
        position, momentum = position_rows(a), momentum_rows(a)
        first = conjugate_step(process, momentum, momentum_rows(eye), momentum_rows(b), t, middle)
        last = conjugate_step(process, momentum, momentum_rows(eye), momentum_rows(b), middle, s)
        whole = conjugate_step(process, position, position_rows(eye), position_rows(b), t, s)
        return ConjugateVerletStep(s, first, whole, last)

    def step(self, z, c, model, t, noise):
        eps = model(z, t).eps
        z = apply_conjugate(c.position, apply_conjugate(c.first, z, eps), eps)
        return apply_conjugate(c.last, z, model(z, c.stop).eps)

    def __repr__(self) -> str:
        return f"ConjugateVerlet(lam={self.lam:g}, direction={self.direction!r})"


class ConjugateVerletStep(NamedTuple):
    """The end s, half a step of momentum, one of position, half of momentum."""

    stop: Tensor
    first: Any
    position: Any
    last: Any


class ConjugateOBA(Sampler):
    """Reduced OBA whose momentum and position parts are conjugate steps. Weak order 1.

    Args:
        lam, direction: λ and B.
        position_noise: λ_s, as for `OBA`.
    """

    order = 1
    stochastic = True

    def __init__(self, lam: float = 0.0, direction: Direction = "ones", position_noise: float = 1.0):
        direction_matrix(direction, 1)  # refuses any other
        self.lam: float = lam
        self.direction: Direction = direction
        self.position_noise = _checked(position_noise)

    def coefficients(self, process, t, s):
        b, eye = self.lam * direction_matrix(self.direction, process.k), torch.eye(process.k, dtype=torch.float64)
        a = remainder_matrix(require_momentum(require_recipe(process)))
        position, momentum = position_rows(a), momentum_rows(a)
        return StochasticStep(
            *friction(process, s, t, self.position_noise),
            conjugate_step(process, position, position_rows(2.0 * eye), position_rows(b), t, s),
            conjugate_step(process, momentum, momentum_rows(2.0 * eye), momentum_rows(b), t, s),
        )

    def step(self, z, c, model, t, noise):
        z = mix(c.turn, z) + mix(c.spread, noise())
        eps = model(z, t).eps
        return apply_conjugate(c.position, apply_conjugate(c.momentum, z, eps), eps)

    def __repr__(self) -> str:
        return f"ConjugateOBA(lam={self.lam:g}, direction={self.direction!r}, position_noise={self.position_noise:g})"


def _checked(position_noise: float) -> float:
    if not position_noise >= 0:
        raise ValueError(f"position_noise (λ_s) must be ≥ 0: got {position_noise}.")
    return position_noise


Rows = tuple[Tensor, Tensor]
"""∫A dt and ∫D dt over each step, (n, k, k), with all rows zero but some."""


def flow_parts(process: LinearProcess, s: Tensor, t: Tensor) -> tuple[Rows, Rows]:
    """Of the probability flow over each step: position rows, momentum rows."""
    require_momentum(process)
    return _split(process.drift_increment(s, t), process.diffusion_increment(s, t))


def remainder_parts(process: LinearProcess, s: Tensor, t: Tensor) -> tuple[Rows, Rows]:
    """Of what O leaves of the reverse SDE, in forward time: −(Q + 2D) S⁻¹ and 2D over each step; as `flow_parts`."""
    known = require_momentum(require_recipe(process))
    db = known.schedule.increment(s, t)[:, None, None]
    return _split(db * remainder_matrix(known), db * (2.0 * known.recipe.diffusion))


def remainder_matrix(process: Process) -> Tensor:
    """−(Q + 2D) S⁻¹."""
    recipe = process.recipe
    return -(recipe.curl + 2.0 * recipe.diffusion) @ torch.linalg.inv(recipe.covariance)


def friction(process: LinearProcess, s: Tensor, t: Tensor, position_noise: float) -> tuple[Tensor, Tensor]:
    """The exact step of O, λ_s on the position's noise."""
    known = require_recipe(process)
    recipe, db = known.recipe, known.schedule.increment(s, t)
    kernel = linear_kernel(-recipe.diffusion @ torch.linalg.inv(recipe.covariance), recipe.diffusion, db)
    spread = cholesky(kernel.covariance)
    scale = torch.ones(process.k, 1, dtype=torch.float64)
    scale[0] = position_noise
    return kernel.mean_map, scale * spread


def require_recipe(process: LinearProcess) -> Process:
    """The process itself, if it is a recipe in time; raises ValueError if not."""
    if not isinstance(process, Process):
        raise ValueError(f"OBA splits off friction towards the stationary law, and {process!r} has none.")
    return process


def require_momentum(process: AnyProcess) -> AnyProcess:
    """The process itself, if it has more than one variable; raises ValueError if not."""
    if process.k < 2:
        raise ValueError(f"a splitting integrator needs position and momentum, and {process!r} has one variable.")
    return process


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


def apply(part: Part, z: Tensor, score: Tensor) -> Tensor:
    """An Euler step of one part."""
    return z + mix(part.move, z) + mix(part.push, score)


def apply_conjugate(part: ConjugateStep, z: Tensor, eps: Tensor) -> Tensor:
    """A conjugate step of one part."""
    return mix(part.move, z) + mix(part.push, eps)
