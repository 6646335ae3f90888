"""Precision, recall, density and coverage: how much of the samples lies in the data, and of the data in the samples.

B_k(x) is the ball around x that reaches its k-th nearest neighbour of its own set.

    precision   share of samples in the ball of some data point            (Kynkäänniemi et al., 2019)
    recall      share of data points in the ball of some sample
    density     mean number of data balls that a sample is in, over k      (Naeem et al., 2020; can exceed 1)
    coverage    share of data balls with a sample in them
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from psld.evaluation.metrics.metric import Metric
from psld.specs.arguments import checked, whole

if TYPE_CHECKING:
    from psld.evaluation.statistics import ImageStatistics

__all__ = ["Neighbourhoods", "Neighbours", "kth_neighbour_distance", "neighbourhoods"]


class Neighbours(Metric):
    """Precision and recall with the third neighbour, density and coverage with the fifth, as they are published."""

    name = "neighbours"
    needs = frozenset({"features"})
    least = 6

    def __call__(self, samples: ImageStatistics, data: ImageStatistics) -> dict[str, float]:
        near, far = (neighbourhoods(data.features, samples.features, k) for k in (3, 5))
        return {"precision": near.precision, "recall": near.recall, "density": far.density, "coverage": far.coverage}


class Neighbourhoods(NamedTuple):
    """Precision, recall and coverage in [0, 1], density ≥ 0."""

    precision: float
    recall: float
    density: float
    coverage: float


@checked
def neighbourhoods(
    data: Float[Tensor, "n d"], samples: Float[Tensor, "m d"], k: int = 5, chunk: int = 1024
) -> Neighbourhoods:
    """The four of two sets of features, with Euclidean distances in float64.

    Args:
        data: features of images.
        samples: features of samples.
        k: which neighbour; published values use 3 for precision and recall, 5 for density and coverage.
        chunk: rows compared at once; memory is chunk × max(n, m) numbers.

    Raises:
        ValueError: k < 1, or a set has no more than k points.
    """
    whole("chunk", chunk)
    if k < 1 or min(len(data), len(samples)) <= k:
        raise ValueError(f"k must be ≥ 1 and below the number of points: k = {k}, {len(data)} and {len(samples)}.")
    data, samples = data.double(), samples.double()
    reach_data, reach_samples = (kth_neighbour_distance(points, k, chunk) for points in (data, samples))
    counts = torch.zeros(len(samples), dtype=torch.float64, device=data.device)  # data balls that each sample is in
    recalled: list[Bool[Tensor, " rows"]] = []
    covered: list[Bool[Tensor, " rows"]] = []
    for rows, reach in zip(data.split(chunk), reach_data.split(chunk), strict=True):
        distance = torch.cdist(rows, samples)
        inside = distance <= reach[:, None]
        counts += inside.sum(0)
        covered.append(inside.any(1))
        recalled.append((distance <= reach_samples).any(1))
    return Neighbourhoods(
        precision=float((counts > 0).double().mean()),
        recall=float(torch.cat(recalled).double().mean()),
        density=float(counts.mean()) / k,
        coverage=float(torch.cat(covered).double().mean()),
    )


def kth_neighbour_distance(points: Float[Tensor, "n d"], k: int, chunk: int = 1024) -> Float[Tensor, " n"]:
    """From each point to its k-th nearest other point."""
    return torch.cat([torch.cdist(rows, points).kthvalue(k + 1, dim=1).values for rows in points.split(chunk)])
