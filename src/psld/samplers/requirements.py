"""What some samplers need of a process beyond its being linear, each asked once and by type."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from psld.processes import LinearProcess, Process, ScheduledProcess

__all__ = ["FIXED_DRIFT", "MOMENTUM", "RECIPE", "Need", "require_momentum", "require_recipe", "require_scheduled"]

AnyProcess = TypeVar("AnyProcess", bound=LinearProcess)

ANY = "Exponential, PredictorCorrector, Ancestral and EulerMaruyama take any linear process"


@dataclass(frozen=True)
class Need:
    """Something a process may have.

    Attributes:
        name: as tables print it.
        met: whether a process has it.
    """

    name: str
    met: Callable[[LinearProcess], bool]


RECIPE = Need("a recipe", lambda process: isinstance(process, Process))
FIXED_DRIFT = Need("a fixed drift matrix", lambda process: isinstance(process, ScheduledProcess))
MOMENTUM = Need("a momentum (k ≥ 2)", lambda process: process.k > 1)


def require_recipe(process: LinearProcess, who: str) -> Process:
    """The process itself, if it is a linear recipe run in time; raises ValueError if not."""
    if not isinstance(process, Process):
        raise ValueError(
            f"{who} splits off the stationary law of a recipe, and {process!r}, no psld.Process, has none: {ANY}."
        )
    return process


def require_scheduled(process: LinearProcess, who: str) -> ScheduledProcess:
    """The process itself, if its drift is a fixed matrix times a rate; raises ValueError if not."""
    if not isinstance(process, ScheduledProcess):
        raise ValueError(
            f"{who} turns with a fixed drift matrix, and {process!r}, no ScheduledProcess, has none: {ANY}."
        )
    return process


def require_momentum(process: AnyProcess, who: str) -> AnyProcess:
    """The process itself, if it has more than one variable; raises ValueError if not."""
    if process.k < 2:
        raise ValueError(f"{who} splits position from momentum, and {process!r} has one variable (k = 1): {ANY}.")
    return process
