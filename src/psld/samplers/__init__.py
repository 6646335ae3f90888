"""How a process is reversed. Every sampler takes a linear process and any `Model` of it.

The samplers themselves are those of `psld.samplers.catalogue`.
"""

from psld.samplers.catalogue import *  # noqa: F403
from psld.samplers.catalogue import __all__ as _samplers
from psld.samplers.divergence import DivergedError, DivergedWarning
from psld.samplers.sampler import FixedStepSampler, OneStepSampler, Plan, Sampler, Samples

__all__ = ["DivergedError", "DivergedWarning", "FixedStepSampler", "OneStepSampler", "Plan", "Sampler", "Samples"]
__all__ += _samplers  # pyright: ignore[reportUnsupportedDunderAll]
