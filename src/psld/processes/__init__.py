"""Forward processes: the contract, linear recipes in time, and the processes that have a name."""

from psld.processes.named import CLD, EDM, PSLD, VESDE, VPSDE, HigherOrderLangevin, SubVPSDE
from psld.processes.process import Conditioning, Process, Times, statistic_weights

__all__ = [
    "CLD",
    "EDM",
    "PSLD",
    "VESDE",
    "VPSDE",
    "Conditioning",
    "HigherOrderLangevin",
    "Process",
    "SubVPSDE",
    "Times",
    "statistic_weights",
]
