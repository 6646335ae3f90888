"""Processes in phase space: PSLD, CLD, and Langevin dynamics of higher order."""

from __future__ import annotations

import math

import torch

from psld.processes.linear import Process
from psld.recipe import LinearRecipe
from psld.schedules import Schedule
from psld.specs.arguments import non_negative, positive, whole

__all__ = ["CLD", "PSLD", "HigherOrderLangevin"]

LONGEST = 64
"""Variables of a chain, at most."""


class PSLD(Process):
    """Phase Space Langevin Diffusion: noise in position and momentum (Pandey & Mandt, ICCV 2023, eq. 11).

        D = ½ diag(Γ, Mν),   Q = ½ [[0, −1], [1, 0]],   S = diag(1, M),   critical when (Γ − ν)² = 4 / M

    Args:
        gamma: Γ ≥ 0, noise in the position; the paper's best are 0.01 (CIFAR-10) and 0.005 (CelebA-64).
        nu: ν > 0, noise in the momentum; Γ + 4 when None, as published.
        kappa: initial momentum variance is κM.
        beta: β, a number or a schedule.
        mass: M; the critical value 4 / (Γ − ν)² when None. Larger is under-damped, smaller over-damped.

    Raises:
        ValueError: an argument is out of its range, or no critical mass exists (Γ = ν).
    """

    shown = ("gamma",)

    def __init__(
        self,
        gamma: float = 0.01,
        nu: float | None = None,
        kappa: float = 0.04,
        beta: float | Schedule = 8.0,
        mass: float | None = None,
    ):
        nu = non_negative("gamma", gamma) + 4.0 if nu is None else nu
        gamma, nu, kappa = non_negative("gamma", gamma), positive("nu", nu), non_negative("kappa", kappa)
        if mass is None:
            if gamma == nu:
                raise ValueError(f"no mass is critical when gamma = nu = {gamma}: give mass, or another nu.")
            mass = 4.0 / (gamma - nu) ** 2
        mass = positive("mass", mass)
        self.gamma, self.nu, self.kappa, self.mass = gamma, nu, kappa, mass
        recipe = LinearRecipe(
            diffusion=[[0.5 * gamma, 0.0], [0.0, 0.5 * mass * nu]],
            curl=[[0.0, -0.5], [0.5, 0.0]],
            covariance=[[1.0, 0.0], [0.0, mass]],
        )
        super().__init__(recipe, beta, auxiliary_covariance=kappa * mass)


class CLD(PSLD):
    """Critically-damped Langevin diffusion (Dockhorn et al., ICLR 2022): PSLD with Γ = 0, noise in the momentum only.

    Args: as for `PSLD`.
    """

    shown = ()

    def __init__(self, nu: float = 4.0, kappa: float = 0.04, beta: float | Schedule = 8.0, mass: float | None = None):
        super().__init__(gamma=0.0, nu=nu, kappa=kappa, beta=beta, mass=mass)


class HigherOrderLangevin(Process):
    """Critically damped Langevin dynamics with n variables in a chain, noise on the last one only.

        S = I,   D = diag(0, …, 0, ξ),   Q tridiagonal with entries γ₁ … γₙ₋₁

    All eigenvalues of A are −√(2n − 3) for γₙ₋ᵢ = √(2n − 3) √((n² − i²) / (4i² − 1)) and ξ = n √(2n − 3)
    (order 3: γ = (1, 2√2), ξ = 3√3; Shi & Liu, 2024).

    Args:
        order: n, in 2 … 64; order 1 is VPSDE.
        beta: β, a number or a schedule.
        kappa: initial variance of the auxiliary variables.
    """

    shown = ("order",)

    def __init__(self, order: int = 3, beta: float | Schedule = 8.0, kappa: float = 0.04):
        order, kappa = whole("order", order, least=2, most=LONGEST), non_negative("kappa", kappa)
        self.order = order
        rate = math.sqrt(2 * order - 3)
        diffusion, curl = torch.zeros(2, order, order, dtype=torch.float64)
        diffusion[-1, -1] = order * rate
        for i in range(1, order):
            coupling = rate * math.sqrt((order**2 - i**2) / (4 * i**2 - 1))
            row = order - i - 1
            curl[row, row + 1], curl[row + 1, row] = -coupling, coupling
        super().__init__(LinearRecipe(diffusion, curl, torch.eye(order)), beta, auxiliary_covariance=kappa)
