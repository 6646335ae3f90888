"""All that is said of samples against data, from the statistics of both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psld.evaluation.metrics.frechet import frechet_from_moments
from psld.evaluation.metrics.kernel_distance import kernel_distance
from psld.evaluation.metrics.neighbours import neighbourhoods
from psld.evaluation.statistics import CONFIDENT, ImageStatistics

__all__ = ["Protocol", "compare", "frechet_between"]


@dataclass(frozen=True)
class Protocol:
    """What is fixed beforehand, so that two numbers mean the same.

    Attributes:
        keep: features kept of each set, for the kernel distance and for neighbourhoods.
        subsets: of the kernel distance.
        subset_size: of the kernel distance; smaller where a set is.
        k_precision: which neighbour, for precision and recall.
        k_density: which neighbour, for density and coverage.
    """

    keep: int = 10_000
    subsets: int = 100
    subset_size: int = 1000
    k_precision: int = 3
    k_density: int = 5


def frechet_between(samples: ImageStatistics, data: ImageStatistics) -> float:
    """The Fréchet distance of two sets, which is FID for features of Inception-2015.

    Raises ValueError where they were measured in different ways.
    """
    data.require_comparable(samples.measurement)
    a, b = samples.moments, data.moments
    return frechet_from_moments(a.mean, a.covariance, b.mean, b.covariance)


def compare(samples: ImageStatistics, data: ImageStatistics, distance: str, protocol: Protocol) -> dict[str, Any]:
    """Every figure by name, with what it was computed from; figures that need what is missing are left out.

    Args:
        samples: what is judged.
        data: what it is judged by.
        distance: "FID" or "Fréchet distance", as `FeatureExtractor.distance` says.
        protocol: numbers of subsets and neighbours.

    Raises:
        ValueError: the two were measured in different ways.
    """
    figures: dict[str, Any] = {distance: frechet_between(samples, data)}
    a, b = data.features, samples.features
    size = min(protocol.subset_size, len(a), len(b))
    if size >= 2:
        name = "KID" if distance == "FID" else "kernel distance"
        mean, spread = kernel_distance(a, b, protocol.subsets, size)
        figures[name] = {"mean": mean, "std": spread, "subsets": protocol.subsets, "subset_size": size}
    if min(len(a), len(b)) > max(protocol.k_precision, protocol.k_density):
        near, far = neighbourhoods(a, b, protocol.k_precision), neighbourhoods(a, b, protocol.k_density)
        figures |= {"precision": near.precision, "recall": near.recall}
        figures |= {"density": far.density, "coverage": far.coverage}
    for name, of in (("samples", samples), ("data", data)):
        if of.inception_score is not None:
            score = "Inception Score" if distance == "FID" else "classifier score"
            figures[f"{score} of {name}"] = dict(zip(("mean", "std"), of.inception_score, strict=True))
            figures[f"confident share of {name}"] = of.confident
    return {
        "figures": figures,
        "confident": f"largest class probability above {CONFIDENT}",
        "extractor": samples.measurement.extractor,
        "convention": samples.measurement.convention,
        "image_shape": list(samples.measurement.image_shape),
        "samples": {"images": samples.moments.count, "kept": len(b), "source": samples.source},
        "data": {"images": data.moments.count, "kept": len(a), "source": data.source},
        "neighbours": {"precision, recall": protocol.k_precision, "density, coverage": protocol.k_density},
    }
