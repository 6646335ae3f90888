"""Forward processes: the contract, linear ones, recipes in time, and those that have a name."""

from psld.processes.forward import ForwardProcess, Times
from psld.processes.linear import LinearProcess, Matching, Process, ScheduledProcess, statistic_weights
from psld.processes.phase_space import CLD, PSLD, HigherOrderLangevin
from psld.processes.scalar import EDM, VESDE, VPSDE, SubVPSDE

__all__ = [
    "CLD",
    "EDM",
    "PSLD",
    "VESDE",
    "VPSDE",
    "ForwardProcess",
    "HigherOrderLangevin",
    "LinearProcess",
    "Matching",
    "Process",
    "ScheduledProcess",
    "SubVPSDE",
    "Times",
    "statistic_weights",
]
