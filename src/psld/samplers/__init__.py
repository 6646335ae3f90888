"""How a process is reversed. Every sampler takes any linear process and any `ScoreModel`."""

from psld.samplers.ancestral import Ancestral
from psld.samplers.base import Plan, Sampler, Samples
from psld.samplers.euler_maruyama import EulerMaruyama
from psld.samplers.exponential import Exponential
from psld.samplers.runge_kutta import RK45
from psld.samplers.sscs import SSCS

__all__ = ["RK45", "SSCS", "Ancestral", "EulerMaruyama", "Exponential", "Plan", "Sampler", "Samples"]
