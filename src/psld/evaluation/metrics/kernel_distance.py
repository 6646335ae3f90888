"""The kernel distance of Bińkowski et al. (2018), with Inception features the KID: an unbiased estimate of MMD².

The kernel is (⟨a, b⟩ / d + 1)³. The estimate over all pairs of the kept features has the least variance, and comes with
its standard error. The mean over random subsets is the published protocol, computed by torchmetrics: its spread over
subsets is that of a subset, not of the mean, and subsets overlap.
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

__all__ = ["KernelDistance", "kernel_distance", "unbiased_kernel_distance"]


MOST_SUBSETS = 10**6


class KernelDistance(Metric):
    """Over all pairs, with its standard error, and over random subsets, as published; KID with Inception's features.

    Unbiased, so that values of few samples and of many agree on average: where images are few, read this one.

    Args:
        subsets: how many.
        subset_size: images of each set in a subset; all of a set that is smaller.
    """

    name = "kernel distance"
    needs = frozenset({"features"})
    least = 3
    with_inception = {"kernel distance": "KID", "kernel distance over subsets": "KID over subsets"}

    def __init__(self, subsets: int = 100, subset_size: int = 1000):
        self.subsets, self.subset_size = (
            whole("subsets", subsets, most=MOST_SUBSETS),
            whole("subset_size", subset_size, 2),
        )

    def __call__(self, samples: ImageStatistics, data: ImageStatistics) -> dict[str, Any]:
        size = min(self.subset_size, len(data.features), len(samples.features))
        mean, spread = kernel_distance(data.features, samples.features, self.subsets, size)
        value, error = unbiased_kernel_distance(data.features, samples.features)
        counts = {"samples": len(samples.features), "data": len(data.features)}
        return {
            self.name: {"mean": value, "std": error, **counts},
            f"{self.name} over subsets": {"mean": mean, "std": spread, "subsets": self.subsets, "subset_size": size},
        }


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


def unbiased_kernel_distance(
    data: Float[Tensor, "n d"], samples: Float[Tensor, "m d"], chunk: int = 1024
) -> tuple[float, float]:
    """MMD² over all pairs, and its standard error, in float64. It can be negative: it is unbiased.

    The error is that of the jackknife over images of both sets: leaving one out changes three sums by its own row, so
    all n + m values cost no more than the sums do. Where both sets are of one law it is on the large side.

    Args:
        data: features of images, n ≥ 3.
        samples: features of samples, m ≥ 3.
        chunk: rows compared at once.

    Raises:
        ValueError: a set has fewer than 3 features.
    """
    n, m = len(data), len(samples)
    if min(n, m) < 3:
        raise ValueError(f"a kernel distance with its standard error needs 3 features of each set: got {n} and {m}.")
    data, samples = data.double(), samples.double()
    own_data, own_samples = (
        _row_sums(x, x, chunk) - (x.square().sum(1) / x.shape[1] + 1) ** 3 for x in (data, samples)
    )
    data_rows, sample_rows = _row_sums(data, samples, chunk), _row_sums(samples, data, chunk)
    within_data, within_samples, across = own_data.sum(), own_samples.sum(), data_rows.sum()

    def estimate(data_pairs: Tensor, n: int, sample_pairs: Tensor, m: int, cross: Tensor) -> Tensor:
        return data_pairs / (n * (n - 1)) + sample_pairs / (m * (m - 1)) - 2 * cross / (n * m)

    value = estimate(within_data, n, within_samples, m, across)
    left_out = (
        estimate(within_data - 2 * own_data, n - 1, within_samples, m, across - data_rows),
        estimate(within_data, n, within_samples - 2 * own_samples, m - 1, across - sample_rows),
    )
    variance = sum((1 - 1 / len(part)) * (part - part.mean()).square().sum() for part in left_out)
    return float(value), float(variance) ** 0.5


def _row_sums(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"], chunk: int) -> Float[Tensor, " n"]:
    """Σ_j k(a_i, b_j)."""
    return torch.cat([((rows @ b.mT / a.shape[1] + 1) ** 3).sum(1) for rows in a.split(chunk)])
