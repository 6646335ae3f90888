"""What samples are held against: a law whose exact solutions are known, or the statistics of data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from psld.data import Digits
from psld.evaluation import classifier_accuracy, energy_distance, frechet_distance
from psld.evaluation.features import BundledClassifier, FeatureExtractor
from psld.evaluation.metrics.frechet import FrechetDistance, frechet_between
from psld.evaluation.metrics.inception_score import ClassifierScore
from psld.evaluation.metrics.metric import Metric
from psld.evaluation.metrics.quality import METRICS, compare
from psld.evaluation.statistics import ImageStatistics, measured
from psld.files import UnreadableFileError, atomic_file
from psld.files.arrays import read_array
from psld.model import Model
from psld.samplers import DivergedError, Projected, Sampler
from psld.samplers.tuning import Judge

if TYPE_CHECKING:
    from lightning.fabric import Fabric

__all__ = ["DataReference", "DigitsReference", "ExactReference", "Reference"]


class Reference(ABC):
    """What the samples of a cell are held against."""

    @property
    def judge(self) -> Judge | None:
        """Exact solutions, for cells that look for a parameter; None where there are none."""
        return None

    @abstractmethod
    def figures(self, sampler: Sampler, images: Iterable[Tensor], count: int) -> dict[str, float | None]:
        """Fields of a `SweepResult`, of images (b, *data) that arrive in batches, `count` in all, in order of seeds."""


@dataclass(frozen=True, eq=False)
class ExactReference(Reference):
    """A known law: the Fréchet distance and the energy distance to fresh draws, beside those between two sets of draws.

    For deterministic samplers also the RMS distance to the exact solution of the probability flow from the same noise,
    which has no Monte Carlo noise in it.

    Attributes:
        images: draws of the law.
        frechet_floor, energy_floor: means over pairs of sets of draws.
        flow: exact solutions of the flow of the process.
        projected_flow: of the flow in the statistic y, which `Projected` samplers follow.
    """

    images: Float[Tensor, "n *data"]
    frechet_floor: float
    energy_floor: float
    flow: Judge
    projected_flow: Judge

    @property
    def judge(self) -> Judge:
        return self.flow

    @classmethod
    def of(
        cls,
        model: Model,
        images: Float[Tensor, "n *data"],
        pairs: Sequence[tuple[Tensor, Tensor]],
        seeds: Sequence[int],
        tolerance: float,
        folder: Path,
    ) -> ExactReference:
        """Solves the flow from the noise of some seeds; solutions are kept in a folder, by the spec of the process.

        Args:
            model: exact score of the law, or a trained one taken as exact.
            images: draws of the law.
            pairs: sets of draws, for the floors.
            seeds: of the solutions.
            tolerance: of the solver.
            folder: of one law, one model, these seeds and this tolerance.
        """
        judges = [_kept_judge(model, seeds, tolerance, projected, folder) for projected in (False, True)]
        return cls(
            images,
            sum(frechet_distance(a.flatten(1), b.flatten(1)) for a, b in pairs) / len(pairs),
            sum(energy_distance(a, b) for a, b in pairs) / len(pairs),
            *judges,
        )

    def figures(self, sampler: Sampler, images: Iterable[Tensor], count: int) -> dict[str, float | None]:
        drawn = torch.cat([batch.cpu() for batch in images])
        exact = self.projected_flow if isinstance(sampler, Projected) else self.flow
        return {
            "frechet": frechet_distance(drawn.flatten(1), self.images.flatten(1)),
            "frechet_floor": self.frechet_floor,
            "energy_distance": energy_distance(drawn, self.images),
            "energy_floor": self.energy_floor,
            "rms_to_exact": None if sampler.stochastic else exact.compare(drawn[: len(exact.images)]).rms,
        }


def _kept_judge(model: Model, seeds: Sequence[int], tolerance: float, projected: bool, folder: Path) -> Judge:
    path = folder / f"{model.process.spec.digest[:16]}{'-projected' if projected else ''}.npy"
    shape = model.known_shape()
    known = _kept_solutions(path, (len(seeds), *shape)) if path.exists() else None
    judge = Judge(model, shape, seeds, tolerance=tolerance, projected=projected, images=known)
    if known is None:
        with atomic_file(path) as file:
            np.save(file, judge.images.numpy())
    return judge


def _kept_solutions(path: Path, shape: tuple[int, ...]) -> Tensor:
    known = read_array(path)
    if known.dtype.str not in ("<f4", "<f8") or known.shape != shape:
        raise UnreadableFileError(
            f"{path} holds {known.dtype} of shape {known.shape}, and exact solutions of shape {shape} are needed. "
            "Delete it, and they are solved again."
        )
    return torch.from_numpy(known)


@dataclass(frozen=True, eq=False)
class DataReference(Reference):
    """Data, known by their statistics.

    Attributes:
        extractor: of features, on `device`.
        data: statistics of what samples are judged by.
        floor: statistics of other data of the same law: samples at their best.
        metrics: what is computed.
        keep: features kept of samples.
        device: where images go for their features.
    """

    extractor: FeatureExtractor
    data: ImageStatistics
    floor: ImageStatistics | None = None
    metrics: Sequence[Metric] = METRICS
    keep: int = 10_000
    device: torch.device | str = "cpu"

    @cached_property
    def floor_distance(self) -> float | None:
        """From the data to other data of the same law."""
        return None if self.floor is None else frechet_between(self.floor, self.data)

    @property
    def floor_result(self) -> dict[str, Any]:
        """The floor with its source, as a result says it; {} where there is none."""
        return {} if self.floor is None else {"source": self.floor.source, self.extractor.distance: self.floor_distance}

    @property
    def identity(self) -> dict[str, Any]:
        """What a result depends on, of all this; rounded, since sums depend on threads in their last digits."""
        moments = self.data.moments
        digest = {"mean": f"{float(moments.mean.sum()):.6g}", "scatter": f"{float(moments.scatter.trace()):.6g}"}
        return {
            "data": digest | {"images": moments.count, "kept": len(self.data.features)},
            "extractor": self.extractor.identity,
            "metrics": [metric.spec.config() for metric in self.metrics],
        }

    def statistics(
        self,
        batches: Iterable[Float[Tensor, "b C H W"]],
        indices: Sequence[int],
        count: int,
        fabric: Fabric | None = None,
        source: str = "",
    ) -> ImageStatistics:
        """Of samples; arguments as for `psld.evaluation.statistics.measured`."""
        moved = (batch.float().to(self.device) for batch in batches)
        return measured(moved, indices, count, self.extractor, self.keep, fabric, source)

    def compared(self, samples: ImageStatistics) -> dict[str, Any]:
        """Every figure of samples, how it was made, and the floor; as JSON writes it."""
        name = self.extractor.distance
        result = {"distance": name} | compare(samples, self.data, name, self.metrics)
        return result | ({"floor": self.floor_result} if self.floor_result else {})

    def figures(self, sampler: Sampler, images: Iterable[Tensor], count: int) -> dict[str, float | None]:
        """Every figure of some images; the distance of images that are not finite is infinite."""
        try:
            return self.figures_of(self.compared(self.statistics(images, range(count), count)))
        except DivergedError:
            for _ in images:
                pass
            return {"frechet": float("inf"), "frechet_floor": self.floor_distance}

    def figures_of(self, compared: dict[str, Any]) -> dict[str, float | None]:
        """What `compared` said, as fields of a `SweepResult`."""
        found = compared["figures"]
        return {
            "frechet": found[self.extractor.distance],
            "frechet_floor": self.floor_distance,
            "precision": found.get("precision"),
            "recall": found.get("recall"),
            "confident": found.get("confident share of samples"),
            "confident_data": found.get("confident share of data"),
        }


class DigitsReference(DataReference):
    """The training digits in the features of the digit classifier of the package, and held-out digits as the floor.

    Fréchet distances (not FID) and confident shares; pixels are not rounded.

    Args:
        heldout: how many held-out digits make the floor, the first ones; all of them when None.
    """

    accuracy: float
    """Share of held-out digits that the classifier is right on."""

    def __init__(self, heldout: int | None = None):
        extractor = BundledClassifier("digits", rounded=False).eval()
        train, held = Digits("train"), Digits("heldout")
        sets = {"digits": train.images, "digits (heldout)": held.images[:heldout]}
        data, floor = (
            measured([images], range(len(images)), len(images), extractor, 0, source=name)
            for name, images in sets.items()
        )
        super().__init__(extractor, data, floor, (FrechetDistance(), ClassifierScore()), keep=0)
        accuracy = classifier_accuracy(extractor.network, held.images, held.labels)
        object.__setattr__(self, "accuracy", accuracy)  # frozen
