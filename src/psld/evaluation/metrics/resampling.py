"""How sure a Fréchet distance is, and what it is between real images: at equal numbers of images, by resampling.

A Fréchet distance of n samples is biased upwards by O(1/n) (Bińkowski et al., 2018; Chong & Forsyth, 2020), and no
unbiased estimate of it exists. Two values are compared only at the same n, and so is a value with its floor.

*Interval.* A bootstrap draws images with replacement: a third of them are missing and the rest come twice, so its
distances are biased once more, by about as much as the estimate itself, and where there are fewer images than features
they spread two to three times too far. The interval here is that of the jackknife that leaves out one of 20 random
groups at a time: nothing comes twice, the bias is the same for all 20 and drops out of their spread,

    s² = 19/20 · Σ_j (d²_(−j) − mean)²,        d² ± 2.093 s     (Student's t with 19 degrees of freedom),

and it is an interval for the distance that n samples of this model have *on average* from these data.

*Floor.* The distance of m real images, which are not in the reference, from a reference of r real images, beside the
distance of m samples from that same reference: m and r are the same on both sides, and so is the bias.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from psld.evaluation.metrics.frechet import symmetric_root
from psld.evaluation.metrics.moments import Moments

__all__ = ["EqualSizes", "FrechetReference", "Interval", "equal_sizes", "frechet_interval"]

GROUPS = 20
STUDENT = 2.0930240544
"""97.5 % quantile of Student's t with GROUPS − 1 degrees of freedom."""

SPLITS = 5


class FrechetReference:
    """The Gaussian of a reference, of which the distances of many sets are taken: its root is computed once.

    Args:
        moments: of the features of the reference.
    """

    def __init__(self, moments: Moments):
        self.count, self.mean = moments.count, moments.mean
        covariance = moments.covariance
        self.root, self.trace = symmetric_root(covariance), covariance.trace()

    def distance(self, features: Float[Tensor, "n d"]) -> float:
        """d² ≥ 0 of a set of n ≥ 2 features."""
        features = features.double() - self.mean
        return self._distance(features.mean(0), features, features @ self.root)

    def without_each(self, features: Float[Tensor, "n d"], groups: Sequence[Tensor]) -> list[float]:
        """d² of the features without each group of rows in turn.

        The features are mapped by the root of the reference once; each distance then costs an eigendecomposition.
        """
        features = features.double() - self.mean
        mapped = features @ self.root
        if len(features) <= features.shape[1]:
            return [self._distance(features[rest].mean(0), features[rest], mapped[rest]) for rest in _rests(groups)]
        moments, own = Moments.of(mapped), Moments.of(features)
        distances = []
        for group in groups:
            left, mine = _without(moments, mapped[group]), _without(own, features[group])
            distances.append(self._of(mine.mean, mine.covariance.trace(), torch.linalg.eigvalsh(left.covariance)))
        return distances

    def _distance(self, mean: Tensor, features: Tensor, mapped: Tensor) -> float:
        """From features minus the reference's mean, and these times its root: by the smaller of two Gram matrices."""
        count = len(features)
        centred = mapped - mapped.mean(0)
        gram = centred @ centred.mT if count <= centred.shape[1] else centred.mT @ centred
        spread = (features - mean).square().sum() / (count - 1)
        return self._of(mean, spread, torch.linalg.eigvalsh(gram / (count - 1)))

    def _of(self, mean: Tensor, spread: Tensor, squares: Tensor) -> float:
        """squares: eigenvalues of Σ_d^½ Σ_s Σ_d^½, which those of Σ_s^½ Σ_d Σ_s^½ are."""
        overlap = squares.clamp(min=0).sqrt().sum()
        return max(float(mean.square().sum() + spread + self.trace - 2 * overlap), 0.0)


def _rests(groups: Sequence[Tensor]) -> list[Tensor]:
    return [torch.cat([other for j, other in enumerate(groups) if j != i]) for i in range(len(groups))]


def _without(moments: Moments, rows: Float[Tensor, "n d"]) -> Moments:
    """The moments of a set without some of its rows: `Moments.__add__` solved for one of its terms."""
    part = Moments.of(rows)
    count = moments.count - part.count
    mean = (moments.count * moments.mean - part.count * part.mean) / count
    apart = part.mean - mean
    scatter = moments.scatter - part.scatter - torch.outer(apart, apart) * (count * part.count / moments.count)
    return Moments(count, mean, scatter)


class Interval(NamedTuple):
    """95 % confidence interval of a distance, and the standard error that it is made of."""

    low: float
    high: float
    standard_error: float


def frechet_interval(
    value: float, features: Float[Tensor, "kept d"], count: int, reference: FrechetReference, seed: int = 0
) -> Interval | None:
    """Of the distance that so many samples have on average from a reference; None for fewer than 40 features.

    Args:
        value: the distance of all samples, the middle of the interval.
        features: of samples; where not all were kept, the error is scaled to their full number, by the root of it.
        count: the number of all samples.
        reference: what the distance is from, taken as it is: another set of data would be another reference.
        seed: of the groups.
    """
    if len(features) < 2 * GROUPS:
        return None
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(seed))
    left_out = torch.tensor(reference.without_each(features, order.tensor_split(GROUPS)), dtype=torch.float64)
    squared = (GROUPS - 1) / GROUPS * (left_out - left_out.mean()).square().sum()
    error = float(squared.sqrt()) * (len(features) / count) ** 0.5
    return Interval(max(value - STUDENT * error, 0.0), value + STUDENT * error, error)


@dataclass(frozen=True)
class EqualSizes:
    """Real images at one size, and what samples of that size are held against.

    Attributes:
        images: m, of real images and of samples alike.
        references: one for each split of the data; one in all where there are held-out images.
        floors: the distance of m real images from each reference, or of several choices of them from the one.
        source: of the real images.
    """

    images: int
    references: Sequence[FrechetReference]
    floors: Sequence[float]
    source: str

    @property
    def against(self) -> int:
        """r, the images of each reference."""
        return self.references[0].count

    @property
    def floor(self) -> float:
        """The mean of the floors."""
        return sum(self.floors) / len(self.floors)

    @property
    def floor_std(self) -> float | None:
        """The standard deviation over the choices of images; None where there was one choice only."""
        return None if len(self.floors) < 2 else float(torch.tensor(self.floors, dtype=torch.float64).std())

    def of(self, features: Float[Tensor, "n d"], splits: int = SPLITS, seed: int = 0) -> float:
        """The distance of m of the samples, n ≥ m, from the same references: the mean over random choices of them."""
        generator = torch.Generator().manual_seed(seed)
        if len(features) == self.images and len(self.references) == 1:
            splits = 1  # there is nothing to choose
        found = [
            self.references[i % len(self.references)].distance(_some(features, self.images, generator))
            for i in range(splits)
        ]
        return sum(found) / len(found)


def _some(features: Tensor, count: int, generator: torch.Generator) -> Tensor:
    return features[torch.randperm(len(features), generator=generator)[:count]]


def equal_sizes(
    samples: int,
    data: Float[Tensor, "kept d"],
    moments: Moments,
    heldout: Float[Tensor, "h d"] | None = None,
    splits: int = SPLITS,
    seed: int = 0,
    source: str = "",
) -> EqualSizes:
    """The floor for so many samples, or for as many of them as the data allow.

    Args:
        samples: how many features of samples there are.
        data: features of the data. Without held-out images they are split at random: m real images, m at most half of
            them, and the rest, which is the reference.
        moments: of all data; the reference where there are held-out images.
        heldout: features of images of the same law that are not in the data; m of them, chosen at random, are the real
            images.
        splits: how many random choices.
        seed: of the choices.
        source: of the real images, for people.

    Raises:
        ValueError: there are too few features for two sets of two; the message says of what.
    """
    generator = torch.Generator().manual_seed(seed)
    if heldout is not None:
        m = min(samples, len(heldout))
        _require_two(m, f"{samples} features of samples and {len(heldout)} of held-out images were kept")
        reference = FrechetReference(moments)
        choices = splits if m < len(heldout) else 1
        floors = [reference.distance(_some(heldout, m, generator)) for _ in range(choices)]
        return EqualSizes(m, [reference], floors, source)
    m = min(samples, len(data) // 2)
    _require_two(m, f"{samples} features of samples and {len(data)} of the data were kept")
    references, floors = [], []
    for _ in range(splits):
        order = torch.randperm(len(data), generator=generator)
        references.append(FrechetReference(Moments.of(data[order[m:]])))
        floors.append(references[-1].distance(data[order[:m]]))
    return EqualSizes(m, references, floors, source)


def _require_two(m: int, kept: str) -> None:
    if m < 2:
        raise ValueError(f"no floor at equal size: {kept}, and two disjoint sets of at least 2 are needed (--keep).")
