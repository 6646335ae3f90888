"""Mean and covariance of features that arrive in batches and are not kept."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Moments"]


@dataclass(frozen=True)
class Moments:
    """Count, mean and scatter Σ (f − mean)(f − mean)ᵀ, float64. Two of them add up to those of both sets together.

    The sum is that of Chan, Golub & LeVeque (1979), which loses no digits where the mean is large against the spread,
    as Σ f fᵀ − n mean meanᵀ would.
    """

    count: int
    mean: Float[Tensor, " d"]
    scatter: Float[Tensor, "d d"]

    @classmethod
    def of(cls, features: Float[Tensor, "n d"]) -> Moments:
        """The moments of one batch, n ≥ 1."""
        features = features.double()
        mean = features.mean(0)
        centred = features - mean
        return cls(len(features), mean, centred.mT @ centred)

    @classmethod
    def none(cls, dimension: int) -> Moments:
        """The moments of no features of that dimension; adding them changes nothing."""
        zeros = torch.zeros(dimension, dimension, dtype=torch.float64)
        return cls(0, zeros[:, 0].clone(), zeros)

    def __add__(self, other: Moments) -> Moments:
        count = self.count + other.count
        if count == 0:
            return self
        apart = other.mean - self.mean
        between = torch.outer(apart, apart) * (self.count * other.count / count)
        mean = self.mean + apart * (other.count / count)
        return Moments(count, mean, self.scatter + other.scatter + between)

    @property
    def covariance(self) -> Float[Tensor, "d d"]:
        """Unbiased. Raises ValueError where there are fewer than two features."""
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 images: there are {self.count}.")
        return self.scatter / (self.count - 1)
