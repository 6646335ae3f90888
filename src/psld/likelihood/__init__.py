"""log p of a score model, and the noise that makes discrete data continuous."""

from psld.likelihood.bounds import Bound, Start, bits_per_dimension, bound
from psld.likelihood.flow import Carried, LogProb, ProbabilityFlow
from psld.likelihood.traces import ExactTrace, Hutchinson, Trace

__all__ = [
    "Bound",
    "Carried",
    "ExactTrace",
    "Hutchinson",
    "LogProb",
    "ProbabilityFlow",
    "Start",
    "Trace",
    "bits_per_dimension",
    "bound",
]
