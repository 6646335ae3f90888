"""The energy distance, which sees every difference between two laws and needs no features, fit or bandwidth.

    D² = 2 E|A − B| − E|A − A'| − E|B − B'|

with |·| Euclidean; D² ≥ 0, and 0 only where the laws are equal (Székely & Rizzo, J. Stat. Plan. Inference 143, 2013).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from psld.specs.arguments import checked, whole

__all__ = ["energy_distance"]


@checked
def energy_distance(
    a: Float[Tensor, "n *data"], b: Float[Tensor, "m *data"], unbiased: bool = False, chunk: int = 256
) -> float:
    """D² between two samples, in float64.

    Args:
        a: the one sample; everything after the first axis is one point.
        b: the other.
        unbiased: False is the V-statistic: means over all pairs, a point with itself included; it is ≥ 0, 0 for
            identical samples, and biased upwards by E|A − A'| / n + E|B − B'| / m. True is the U-statistic, which
            leaves a point with itself out; its expectation is D², so near 0 it can be negative.
        chunk: rows compared at once; memory is chunk × max(n, m) numbers.

    Raises:
        ValueError: where a sample is empty, or has one point only and `unbiased` is set.
    """
    whole("chunk", chunk)
    smallest = 2 if unbiased else 1
    if min(len(a), len(b)) < smallest:
        raise ValueError(f"energy_distance needs at least {smallest} points a sample, got {len(a)} and {len(b)}.")
    a, b = a.flatten(1).double(), b.flatten(1).double()
    pairs_a, pairs_b = (len(x) * (len(x) - 1 if unbiased else len(x)) for x in (a, b))
    within = _total_distance(a, a, chunk) / pairs_a + _total_distance(b, b, chunk) / pairs_b
    return 2 * _total_distance(a, b, chunk) / (len(a) * len(b)) - within


def _total_distance(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"], chunk: int) -> float:
    """Σ_ij |a_i − b_j|; from differences, since |a|² + |b|² − 2ab would leave 1e-8 between a point and itself."""
    mode = "donot_use_mm_for_euclid_dist"
    return sum(float(torch.cdist(rows, b, compute_mode=mode).sum()) for rows in a.split(chunk))
