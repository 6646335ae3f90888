"""Every sampler in one list. A new sampler is its module, a row here, and a section of docs/samplers.md.

The package exports these names, the comparison takes its families from here, the commands list them in their help, the
tests of the contract go through them, and the table in the documentation is `markdown()`.
"""

from __future__ import annotations

import inspect
from typing import NamedTuple

from psld.processes import LinearProcess
from psld.samplers.ancestral import Ancestral as Ancestral
from psld.samplers.conjugate import Conjugate as Conjugate
from psld.samplers.euler_maruyama import EulerMaruyama as EulerMaruyama
from psld.samplers.exponential import DPMSolverPP as DPMSolverPP
from psld.samplers.exponential import Exponential as Exponential
from psld.samplers.exponential import PredictorCorrector as PredictorCorrector
from psld.samplers.gddim import GDDIM as GDDIM
from psld.samplers.heun import Heun as Heun
from psld.samplers.langevin import Langevin as Langevin
from psld.samplers.projected import Projected as Projected
from psld.samplers.requirements import FIXED_DRIFT, MOMENTUM, RECIPE, Need
from psld.samplers.runge_kutta import RK45 as RK45
from psld.samplers.sampler import Sampler
from psld.samplers.splitting import OBA as OBA
from psld.samplers.splitting import ROBA as ROBA
from psld.samplers.splitting import RVV as RVV
from psld.samplers.splitting import ConjugateOBA as ConjugateOBA
from psld.samplers.splitting import ConjugateVerlet as ConjugateVerlet
from psld.samplers.splitting import SymplecticEuler as SymplecticEuler
from psld.samplers.splitting import VelocityVerlet as VelocityVerlet
from psld.samplers.sscs import SSCS as SSCS


class Entry(NamedTuple):
    """A sampler of the catalogue.

    Attributes:
        sampler: with its default arguments, or the plainest there are.
        family: of the comparison; see `family_of`.
        purpose: what it is for, in one line.
        needs: what it needs of a process beyond its being linear.
    """

    sampler: Sampler
    family: str
    purpose: str
    needs: tuple[Need, ...] = ()

    @property
    def name(self) -> str:
        """Name of the class."""
        return type(self.sampler).__name__

    @property
    def call(self) -> str:
        """The class with its arguments, as documentation writes it."""
        return f"{self.name}({', '.join(inspect.signature(type(self.sampler)).parameters)})"

    def takes(self, process: LinearProcess) -> bool:
        """Whether the process has what the sampler needs."""
        return all(need.met(process) for need in self.needs)


CATALOGUE: tuple[Entry, ...] = (
    Entry(EulerMaruyama(), "paper", "published numbers: the plain discretisation of the reverse SDE"),
    Entry(SSCS(), "paper", "published numbers: the stationary reversal exact, the rest of the score frozen", (RECIPE,)),
    Entry(RK45(), "paper", "the probability flow to a tolerance: the reference of every deterministic sampler"),
    Entry(Exponential(), "exponential", "few steps: exact for x̂₀ a polynomial in log σ; with eta, noise joins"),
    Entry(DPMSolverPP(), "exponential", "the same as published, x̂₀ constant at the middle of a step"),
    Entry(GDDIM(), "exponential", "few steps: exact for the noise ε_R a polynomial in log σ"),
    Entry(PredictorCorrector(), "exponential", "fewest steps: an exponential step, corrected at no further call"),
    Entry(Ancestral(), "exponential", "DDPM for any linear process: exact given x̂₀"),
    Entry(Projected(Exponential()), "projected", "any process under a sampler of σ-space"),
    Entry(Heun(), "Runge–Kutta", "calls to spare: EDM's sampler; with churn, noise mends earlier steps"),
    Entry(Langevin(PredictorCorrector()), "corrected", "calls to spare: another sampler, corrected after each step"),
    Entry(Conjugate(), "conjugate", "λ-DDIM: the linear part but λB exact, and the integral over ε", (FIXED_DRIFT,)),
    Entry(SymplecticEuler(), "splitting", "momentum, then position, an Euler step each", (MOMENTUM,)),
    Entry(VelocityVerlet(), "splitting", "half of momentum, position, half of momentum", (MOMENTUM,)),
    Entry(RVV(), "splitting", "velocity Verlet with a call fewer", (MOMENTUM,)),
    Entry(ConjugateVerlet(), "splitting", "the same of conjugate steps", (MOMENTUM, FIXED_DRIFT)),
    Entry(OBA(), "splitting", "friction and noise exact, then momentum, then position", (MOMENTUM, RECIPE)),
    Entry(ROBA(), "splitting", "OBA with a call fewer", (MOMENTUM, RECIPE)),
    Entry(ConjugateOBA(), "splitting", "the same of conjugate steps", (MOMENTUM, RECIPE)),
)

__all__ = [entry.name for entry in CATALOGUE]  # pyright: ignore[reportUnsupportedDunderAll]


def entry_of(sampler: Sampler) -> Entry:
    """The row of a sampler's class, or of the class that it derives from.

    Raises:
        ValueError: it has none.
    """
    for kind in type(sampler).__mro__:
        for entry in CATALOGUE:
            if type(entry.sampler) is kind:
                return entry
    raise ValueError(f"{sampler!r} is not in the catalogue of samplers: add a row to psld.samplers.catalogue.")


def family_of(sampler: Sampler) -> str:
    """What the comparison draws together: the family of the catalogue, those with noise apart from those without.

    "paper" is what the paper compares, each drawn on its own.
    """
    family = entry_of(sampler).family
    return f"{family}, stochastic" if sampler.stochastic and family != "paper" else family


def markdown() -> str:
    """The table of docs/samplers.md; noise, order and calls are those of default arguments."""
    lines = ["| sampler | noise | order | calls a step | needs | for |", "| --- | --- | --- | --- | --- | --- |"]
    for entry in CATALOGUE:
        needs, sampler = ", ".join(need.name for need in entry.needs) or "–", entry.sampler
        noise = "yes" if sampler.stochastic else "no"
        lines.append(
            f"| `{entry.call}` | {noise} | {sampler.order} | {sampler.nfe_per_step} | {needs} | {entry.purpose} |"
        )
    return "\n".join(lines)
