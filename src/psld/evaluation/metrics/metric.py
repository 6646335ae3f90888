"""The contract of a metric: what is said of samples against data, from the statistics of both.

A new metric is its module with a class like this one, a row in `psld.evaluation.metrics.quality.METRICS`, and a line in
docs/evaluation.md:

    class MeanShift(Metric):
        name = "mean shift"

        def __call__(self, samples, data):
            return {"mean shift": float((samples.moments.mean - data.moments.mean).norm())}
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from psld.specs import SpecifiedValue

if TYPE_CHECKING:
    from psld.evaluation.statistics import ImageStatistics

__all__ = ["Metric", "Need"]

Need = Literal["moments", "features", "logits"]
"""Moments of all features, which every set has; features of some images themselves; class probabilities."""


class Metric(SpecifiedValue):
    """Figures of samples against data.

    Attributes:
        name: what messages and tables call it.
        needs: what both sets must have; without it the figures are left out.
        least: features that both sets must keep, for a metric that needs features.
        with_inception: what figures are called where the features are those of Inception-2015, which alone give FID.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[Need]] = frozenset({"moments"})
    least: ClassVar[int] = 2
    with_inception: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def __call__(self, samples: ImageStatistics, data: ImageStatistics) -> Mapping[str, Any]:
        """Figures by name, each a number or {"mean": …, "std": …}.

        Args:
            samples: what is judged.
            data: what it is judged by, measured in the same way.
        """

    def applies(self, *sets: ImageStatistics) -> bool:
        """Whether all sets have what it needs."""
        return all(self._has(of) for of in sets)

    def _has(self, of: ImageStatistics) -> bool:
        return ("features" not in self.needs or len(of.features) >= self.least) and (
            "logits" not in self.needs or of.inception_score is not None
        )
