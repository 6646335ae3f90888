"""The sampler that is used where none is named."""

from __future__ import annotations

from psld.model import Clamped, Model, ModelWrapper
from psld.samplers.exponential import PredictorCorrector
from psld.samplers.grids import Grid
from psld.samplers.projected import Projected
from psld.samplers.sampler import Sampler

__all__ = ["default_sampler"]


def default_sampler(model: Model, grid: Grid | str | None = None) -> Sampler:
    """What came out best at 4 to 20 evaluations, for every process (benchmarks/README.md, Grids that know the data).

    σ-space with predictor and corrector; from the Gaussian of the data where the model knows their spectrum, and is
    asked for all of the data: not guided, to a class or otherwise, since then they have another mean.

    Args:
        model: as it will be sampled, guidance and clamping included.
        grid: that was asked for. One of its own, by name or by its times, is walked by the network from T on.
    """
    bare = model
    while isinstance(bare, Clamped):
        bare = bare.model
    whole = model.spectrum is not None and grid in (None, "best") and not isinstance(bare, ModelWrapper)
    return Projected(PredictorCorrector(2), start="gaussian" if whole else "prior")
