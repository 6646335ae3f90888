"""log p of a score model, and the noise that makes discrete data continuous."""

from psld.likelihood.flow import (
    Bound,
    Carried,
    ExactTrace,
    Hutchinson,
    LogProb,
    ProbabilityFlow,
    Start,
    Trace,
    bits_per_dimension,
    bound,
)

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
