"""How a process is reversed. Every sampler takes any linear process and any `ScoreModel`."""

from psld.samplers.ancestral import Ancestral
from psld.samplers.base import Plan, Sampler, Samples
from psld.samplers.conjugate import Conjugate
from psld.samplers.euler_maruyama import EulerMaruyama
from psld.samplers.exponential import DPMSolverPP, Exponential, PredictorCorrector
from psld.samplers.gddim import GDDIM
from psld.samplers.heun import Heun
from psld.samplers.langevin import Langevin
from psld.samplers.projected import Projected
from psld.samplers.runge_kutta import RK45
from psld.samplers.splitting import (
    OBA,
    ROBA,
    RVV,
    ConjugateOBA,
    ConjugateVerlet,
    SymplecticEuler,
    VelocityVerlet,
)
from psld.samplers.sscs import SSCS

__all__ = [
    "GDDIM",
    "OBA",
    "RK45",
    "ROBA",
    "RVV",
    "SSCS",
    "Ancestral",
    "Conjugate",
    "ConjugateOBA",
    "ConjugateVerlet",
    "DPMSolverPP",
    "EulerMaruyama",
    "Exponential",
    "Heun",
    "Langevin",
    "Plan",
    "PredictorCorrector",
    "Projected",
    "Sampler",
    "Samples",
    "SymplecticEuler",
    "VelocityVerlet",
]
