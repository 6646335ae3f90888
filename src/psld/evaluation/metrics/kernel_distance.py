"""The kernel distance of Bińkowski et al. (2018), with Inception features the KID: an unbiased estimate of MMD².

The kernel is (⟨a, b⟩ / d + 1)³. The mean over random subsets is the published protocol; one subset that is everything
gives the estimate over the full sets. Computed by torchmetrics.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from psld.evaluation.metrics.metric import Metric
from psld.specs.arguments import checked, seed_number, whole

if TYPE_CHECKING:
    from psld.evaluation.statistics import ImageStatistics

__all__ = ["KernelDistance", "kernel_distance"]


MOST_SUBSETS = 10**6


class KernelDistance(Metric):
    """Over random subsets, as published; KID where the features are Inception's.

    Args:
        subsets: how many.
        subset_size: images of each set in a subset; all of a set that is smaller.
    """

    name = "kernel distance"
    needs = frozenset({"features"})
    with_inception = {"kernel distance": "KID"}

    def __init__(self, subsets: int = 100, subset_size: int = 1000):
        self.subsets, self.subset_size = (
            whole("subsets", subsets, most=MOST_SUBSETS),
            whole("subset_size", subset_size, 2),
        )

    def __call__(self, samples: ImageStatistics, data: ImageStatistics) -> dict[str, Any]:
        size = min(self.subset_size, len(data.features), len(samples.features))
        mean, spread = kernel_distance(data.features, samples.features, self.subsets, size)
        return {self.name: {"mean": mean, "std": spread, "subsets": self.subsets, "subset_size": size}}


@checked
def kernel_distance(
    data: Float[Tensor, "n d"],
    samples: Float[Tensor, "m d"],
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Mean and standard deviation of MMD² over random subsets, in float64. It can be negative: it is unbiased.

    Args:
        data: features of images.
        samples: features of samples.
        subsets: how many; 1 where the subsets are the whole sets.
        subset_size: images of each set in a subset.
        seed: of the choice. The global generator is neither read nor moved.

    Raises:
        ValueError: subset_size is below 2, or above the size of a set.
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    whole("subsets", subsets, most=MOST_SUBSETS)
    seed_number("seed", seed)
    if not 2 <= subset_size <= min(len(data), len(samples)):
        raise ValueError(
            f"subset_size must be between 2 and the size of both sets: {subset_size} of {len(data)} and {len(samples)}."
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Metric `Kernel Inception Distance` will save all")
        metric = KernelInceptionDistance(
            feature=nn.Identity(),
            subsets=subsets,
            subset_size=subset_size,
            sync_on_compute=False,  # every process has all features already: gathered again, each would count twice
        )
    metric.update(data.double().cpu(), real=True)
    metric.update(samples.double().cpu(), real=False)
    with torch.random.fork_rng(devices=[]):  # torchmetrics chooses subsets with the global generator
        torch.manual_seed(seed)
        mean, spread = metric.compute()
    return float(mean), float(spread)
