"""All that is said of samples against data, from the statistics of both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psld.evaluation.metrics.frechet import FrechetDistance, frechet_between
from psld.evaluation.metrics.inception_score import ClassifierScore
from psld.evaluation.metrics.kernel_distance import KernelDistance
from psld.evaluation.metrics.metric import Metric
from psld.evaluation.metrics.neighbours import Neighbours
from psld.evaluation.statistics import CONFIDENT, ImageStatistics

__all__ = ["METRICS", "compare", "frechet_between"]

METRICS: tuple[Metric, ...] = (FrechetDistance(), KernelDistance(), Neighbours(), ClassifierScore())
"""What `psld evaluate` computes, in this order."""


def compare(
    samples: ImageStatistics, data: ImageStatistics, distance: str, metrics: Sequence[Metric] = METRICS
) -> dict[str, Any]:
    """Every figure by name, with what it was computed from; metrics that need what is missing are left out.

    Args:
        samples: what is judged.
        data: what it is judged by.
        distance: "FID", "Fréchet distance" or that in features of a named network, as `FeatureExtractor.distance` says.
        metrics: what is computed.

    Raises:
        ValueError: the two were measured in different ways.
    """
    data.require_comparable(samples.measurement)
    figures: dict[str, Any] = {}
    for metric in metrics:
        if metric.applies(samples, data):
            found = metric(samples, data)
            figures |= {_called(name, distance, metric): figure for name, figure in found.items()}
    return {
        "figures": figures,
        "metrics": [metric.spec.config() for metric in metrics],
        "confident": f"largest class probability above {CONFIDENT}",
        "extractor": samples.measurement.extractor,
        "convention": samples.measurement.convention,
        "image_shape": list(samples.measurement.image_shape),
        "samples": {"images": samples.moments.count, "kept": len(samples.features), "source": samples.source},
        "data": {"images": data.moments.count, "kept": len(data.features), "source": data.source},
    }


def _called(name: str, distance: str, metric: Metric) -> str:
    """A figure's name: its own with Inception's features, and of features of a named network with that name."""
    if distance == "FID":
        return metric.with_inception.get(name, name)
    return name + distance.removeprefix(FrechetDistance.name) if name in metric.with_inception else name
