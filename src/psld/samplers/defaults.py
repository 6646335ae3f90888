"""The sampler that is used where none is named."""

from __future__ import annotations

from psld.model import Clamped, Model, ModelWrapper
from psld.samplers.exponential import PredictorCorrector
from psld.samplers.grids import Grid
from psld.samplers.projected import Projected
from psld.samplers.sampler import Sampler

__all__ = ["default_sampler"]

FEW = 8
"""Evaluations from which on the network is asked at T: a call is then worth less than what the Gaussian misses."""


def default_sampler(model: Model, steps: int, grid: Grid | str | None = None) -> Sampler:
    """What came out best at 4 to 20 evaluations, for every process (benchmarks/README.md, Grids that know the data).

    σ-space with predictor and corrector. For fewer than eight evaluations it begins at the Gaussian of the data, where
    the model knows their spectrum and is asked for all of the data: not guided, to a class or otherwise, since then
    they have another mean.

    Args:
        model: as it will be sampled, guidance and clamping included.
        steps: network evaluations of a sample.
        grid: that was asked for. One of its own, by name or by its times, is walked by the network from T on.
    """
    bare = model
    while isinstance(bare, Clamped):
        bare = bare.model
    known = model.spectrum is not None and not isinstance(bare, ModelWrapper)
    begins = known and steps < FEW and grid in (None, "best")
    return Projected(PredictorCorrector(2), start="gaussian" if begins else "prior")
