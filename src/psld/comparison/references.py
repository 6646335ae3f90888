"""What samples are held against: a law whose exact solutions are known, or the statistics of data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
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
from psld.evaluation.metrics.frechet import FrechetDistance
from psld.evaluation.metrics.inception_score import ClassifierScore
from psld.evaluation.metrics.metric import Metric
from psld.evaluation.metrics.quality import METRICS, compare
from psld.evaluation.metrics.resampling import EqualSizes, FrechetReference, equal_sizes, frechet_interval
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
    _equal: dict[int, EqualSizes] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def _gaussian(self) -> FrechetReference:
        return FrechetReference(self.data.moments)

    def equal_sizes(self, samples: int) -> EqualSizes:
        """The floor for so many features of samples, or for as many of them as there are real images for.

        The real images are those of `floor`, held against the data; without, random ones of the data, held against the
        rest of it.

        Raises:
            ValueError: too few features were kept; the message says of what.
        """
        if samples not in self._equal:
            held = self.floor
            source = f"{self.data.source or 'the data'}, images at random against the rest"
            self._equal[samples] = equal_sizes(
                samples,
                self.data.features,
                self.data.moments,
                None if held is None else held.features,
                source=source if held is None else held.source,
            )
        return self._equal[samples]

    def floor_at(self, samples: int) -> float | None:
        """The floor for so many samples; None where none can be had at that size, but for fewer only, or not at all."""
        try:
            equal = self.equal_sizes(samples)
        except ValueError:
            return None
        return equal.floor if equal.images == samples else None

    def _certainty(self, samples: ImageStatistics, value: float) -> dict[str, Any]:
        """The interval of a distance, and its floor beside the distance of as many samples; or why there is none."""
        name, kept = self.extractor.distance, len(samples.features)
        interval = frechet_interval(value, samples.features, samples.moments.count, self._gaussian)
        made: dict[str, Any] = {"interval": {"unavailable": "fewer than 40 features of samples were kept (--keep)"}}
        if interval is not None:
            made["interval"] = {name: [interval.low, interval.high], "standard_error": interval.standard_error}
        try:
            equal = self.equal_sizes(kept)
        except ValueError as error:
            return made | {"floor": {"unavailable": str(error)}}
        own = equal.of(samples.features)
        return made | {
            "floor": {
                name: equal.floor,
                "std": equal.floor_std,
                "samples": own,
                "ratio": own / equal.floor if equal.floor > 0 else None,
                "images": equal.images,
                "against": equal.against,
                "choices": len(equal.floors),
                "source": equal.source,
            }
        }

    @property
    def identity(self) -> dict[str, Any]:
        """What a result depends on, of all this; rounded, since sums depend on threads in their last digits."""
        return {
            "data": _digest(self.data),
            "floor": None if self.floor is None else _digest(self.floor),
            "extractor": self.extractor.identity,
            "metrics": [metric.spec.config() for metric in self.metrics],
        }

    def statistics(
        self,
        batches: Iterable[Float[Tensor, "_ C H W"]],
        indices: Sequence[int],
        count: int,
        fabric: Fabric | None = None,
        source: str = "",
    ) -> ImageStatistics:
        """Of samples; arguments as for `psld.evaluation.statistics.measured`."""
        moved = (batch.float().to(self.device) for batch in batches)
        return measured(moved, indices, count, self.extractor, self.keep, fabric, source)

    def compared(self, samples: ImageStatistics) -> dict[str, Any]:
        """Every figure of samples, how sure the distance is, how it was made, and its floor; as JSON writes it."""
        name = self.extractor.distance
        result: dict[str, Any] = {"distance": name} | compare(samples, self.data, name, self.metrics)
        value = result["figures"].get(name)
        return result if value is None else result | self._certainty(samples, value)

    def figures(self, sampler: Sampler, images: Iterable[Tensor], count: int) -> dict[str, float | None]:
        """Every figure of some images; the distance of images that are not finite is infinite."""
        try:
            return self.figures_of(self.compared(self.statistics(images, range(count), count)))
        except DivergedError:
            for _ in images:
                pass
            return {"frechet": float("inf"), "frechet_floor": self.floor_at(count)}

    def figures_of(self, compared: dict[str, Any]) -> dict[str, float | None]:
        """What `compared` said, as fields of a `SweepResult`."""
        name = self.extractor.distance
        found, floor = compared["figures"], compared["floor"]
        low, high = compared["interval"].get(name, (None, None))
        return {
            "frechet": found[name],
            "frechet_low": low,
            "frechet_high": high,
            "frechet_floor": floor.get(name),
            "floor_images": floor.get("images"),
            "frechet_at_floor": floor.get("samples"),
            "precision": found.get("precision"),
            "recall": found.get("recall"),
            "confident": found.get("confident share of samples"),
            "confident_data": found.get("confident share of data"),
        }


def _digest(of: ImageStatistics) -> dict[str, Any]:
    moments = of.moments
    sums = {"mean": f"{float(moments.mean.sum()):.6g}", "scatter": f"{float(moments.scatter.trace()):.6g}"}
    return sums | {"images": moments.count, "kept": len(of.features)}


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
            measured([images], range(len(images)), len(images), extractor, source=name) for name, images in sets.items()
        )
        super().__init__(extractor, data, floor, (FrechetDistance(), ClassifierScore()))
        accuracy = classifier_accuracy(extractor.network, held.images, held.labels)
        object.__setattr__(self, "accuracy", accuracy)  # frozen
