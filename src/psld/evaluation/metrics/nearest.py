"""Whether samples are copies of training images.

A sample nearer to its nearest training image than data typically is may be memorised. What is typical is measured, not
chosen: the median over held-out images of the distance to their nearest training image. A model that draws from the law
of the data has half of its samples below it, as the held-out images do by definition; one that copies has all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from psld.specs.arguments import checked, whole

__all__ = ["MemorisedShare", "Nearest", "memorised_share", "nearest", "nearest_distance"]


@dataclass(frozen=True)
class Nearest:
    """For each point searched for: the position of its nearest point (int64), and how far that is (float64)."""

    index: Int64[Tensor, " n"]
    distance: Float[Tensor, " n"]


@dataclass(frozen=True)
class MemorisedShare:
    """Shares, in [0, 1], of images strictly nearer to a training image than the typical held-out image is.

    Attributes:
        samples: of the samples. About 0.5 is what fresh data gives, near 1 is copying, near 0 is samples off the data.
        heldout: of the held-out images themselves; 0.5 by definition of the median, less only by ties or an odd count.
        typical: that median distance, Euclidean, in units of the images.
    """

    samples: float
    heldout: float
    typical: float


def nearest(a: Float[Tensor, "n *data"], b: Float[Tensor, "m *data"], chunk: int = 512) -> Nearest:
    """The point of `b` nearest to each point of `a`.

    The neighbour is found by a matrix product, `chunk` rows of `a` at a time, and its distance is then taken from the
    difference, so a copy is at distance 0 exactly. Raises ValueError where `b` is empty.
    """
    whole("chunk", chunk)
    if len(b) == 0:
        raise ValueError("there is nothing to search for nearest points: b is empty.")
    a, b = a.flatten(1).double(), b.flatten(1).double()
    mode = "use_mm_for_euclid_dist"
    index = torch.cat([torch.cdist(rows, b, compute_mode=mode).argmin(1) for rows in a.split(chunk)])
    distances = [(rows - b[own]).norm(dim=1) for rows, own in zip(a.split(chunk), index.split(chunk), strict=True)]
    return Nearest(index, torch.cat(distances))


@checked
def nearest_distance(a: Float[Tensor, "n *data"], b: Float[Tensor, "m *data"], chunk: int = 512) -> Float[Tensor, " n"]:
    """The Euclidean distance from each point of `a` to the nearest point of `b`, float64; see `nearest`."""
    return nearest(a, b, chunk).distance


@checked
def memorised_share(
    samples: Float[Tensor, "n *data"], train: Float[Tensor, "m *data"], heldout: Float[Tensor, "h *data"]
) -> MemorisedShare:
    """The share of samples nearer to a training image than the median held-out image is, and the same of the latter.

    Raises ValueError where one of the three is empty.
    """
    if min(len(samples), len(train), len(heldout)) == 0:
        raise ValueError(
            f"memorised_share needs images of each kind, got {len(samples)} samples, {len(train)} training and "
            f"{len(heldout)} held-out images."
        )
    from_samples, from_heldout = nearest_distance(samples, train), nearest_distance(heldout, train)
    typical = from_heldout.quantile(0.5)  # the mean of the middle two, where Tensor.median takes the lower
    return MemorisedShare(
        samples=float((from_samples < typical).double().mean()),
        heldout=float((from_heldout < typical).double().mean()),
        typical=float(typical),
    )
